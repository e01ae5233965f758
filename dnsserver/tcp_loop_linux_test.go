package dnsserver

import (
	"net"
	"testing"
)

// TestLoops: TCP goes through loops here, and an exchange on a connection that
// stays leaves nothing to the garbage collector.
func TestLoops(t *testing.T) {
	r := start(t, example(t), "127.0.0.53:0")
	for _, state := range r.listeners {
		if b, ok := state.listener.tcp.(*loopSocket); !ok || len(b.loops) != r.sockets {
			t.Fatalf("TCP goes through %T", state.listener.tcp)
		}
	}
	c := dialTCP(t, r, "127.0.0.1")
	askOn(t, c)
	packet, err := question(t, "web.example.com A").Pack()
	if err != nil {
		t.Fatal(err)
	}
	ask, answer := framed(packet), make([]byte, 512)
	n := testing.AllocsPerRun(100, func() {
		if _, err := c.Write(ask); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(answer); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations for an exchange", n)
	}
}

// TestLoopPlaces: a place is used again, and what is meant for the connection
// that had it does not reach the next.
func TestLoopPlaces(t *testing.T) {
	r := startWith(t, example(t), func(s *Server) { s.loops = 1 }, "127.0.0.53:0")
	var l *tcpLoop
	for _, state := range r.listeners {
		l = state.listener.tcp.(*loopSocket).loops[0]
	}
	before := loopHandle{0, -1}
	for range 20 {
		c := dialTCP(t, r, "127.0.0.1")
		askOn(t, c)
		l.mu.Lock()
		l.evicted = append(l.evicted, before) // long ended
		l.mu.Unlock()
		l.wakeUp()
		askOn(t, c)
		before = loopHandle{0, before.generation + 1}
		hangUp(t, r, c)
	}
	r.stop() // the loop has ended: its places can be looked at
	if len(l.places) != 1 || l.places[0].handle.generation != 20 || l.open != 0 {
		t.Errorf("%d places, the first has served %d, and %d are open", len(l.places), l.places[0].handle.generation, l.open)
	}
}

// hangUp closes a connection and waits until the server has.
func hangUp(t *testing.T, r *running, c net.Conn) {
	t.Helper()
	c.Close()
	eventually(t, func() error {
		if r.connections.count() != 0 {
			return net.ErrClosed
		}
		return nil
	})
}
