//go:build linux

package proxy

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// inherits returns a fixture whose server takes over the sockets of f.
func (f *fixture) inherits(engine func(*core) (engine, error)) *fixture {
	f.t.Helper()
	sockets := make(map[string][]int)
	f.server.Sockets(func(network, address string, fd int) {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			f.t.Fatal(err)
		}
		sockets[network+address] = append(sockets[network+address], own)
	})
	next := newFixture(f.t, engine)
	next.registry = prometheus.NewPedanticRegistry()
	next.options.Registerer = next.registry
	next.options.Inherited = func(network, address string) []int {
		fds := sockets[network+address]
		delete(sockets, network+address)
		return fds
	}
	next.server = newServer(next.options, engine)
	return next
}

// One server takes over from another, whatever engines the two have and with more
// or fewer loops: the port stays, nobody is refused or reset, and who is
// connected to the old one stays there.
func TestSocketsAreInherited(t *testing.T) {
	one := func(c *core) (engine, error) { return newEpollEngine(c, 1) }
	for _, c := range []struct {
		name     string
		old, new func(*core) (engine, error)
	}{
		{"net to net", newNetEngine, newNetEngine},
		{"net to 3 loops", newNetEngine, engines["epoll with 3 loops"]},
		{"3 loops to net", engines["epoll with 3 loops"], newNetEngine},
		{"3 loops to 1", engines["epoll with 3 loops"], one},
		{"1 loop to 3", one, engines["epoll with 3 loops"]},
		{"3 loops to 3", engines["epoll with 3 loops"], engines["epoll with 3 loops"]},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, c.old)
			backend := up(web(backendServer(t, greeter("hello"))))
			f.serve(backend)
			address := f.address("web")
			stays := f.connect()
			expect(t, stays, "hello")

			next := f.inherits(c.new)
			next.serve(backend)
			if got := next.address("web"); got != address {
				t.Fatalf("it listens on %s, the old one on %s", got, address)
			}
			f.server.Leave(patience)
			f.await("the old one to stop accepting", func() bool {
				none := true
				f.server.Sockets(func(string, string, int) { none = false })
				return none
			})
			// The kernel spreads these over all sockets: none may be an orphan.
			for range 50 {
				conn := next.connectTo(address)
				expect(t, conn, "hello")
				conn.Close()
			}
			if n := f.server.Connections(); n != 1 {
				t.Errorf("the old one has %d connections", n)
			}
			exchange(t, stays, "still there")
			stays.Close()
			if err := <-f.returned; err != nil {
				t.Error(err)
			}
			f.cancel = nil
		})
	}
}

// Connections that the kernel has made and nobody has accepted yet are taken
// over with the socket.
func TestQueuedConnectionsAreInherited(t *testing.T) {
	f := newFixture(t, engines["epoll with 3 loops"])
	backend := up(web(backendServer(t, greeter("hello"))))
	f.serve(backend)
	f.server.core.pausedUntil.Store(f.server.core.moment(time.Now().Add(time.Hour)))
	var waiting []net.Conn
	for range 30 {
		waiting = append(waiting, f.connect())
	}
	next := f.inherits(engines["epoll with 3 loops"])
	f.server.Leave(0)
	if err := <-f.returned; err != nil {
		t.Error(err)
	}
	f.cancel = nil
	next.serve(backend)
	for _, conn := range waiting {
		expect(t, conn, "hello")
	}
}

// A leave that is over and the end of the context both cut what is left.
func TestLeaveHasAnEnd(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		f.serve(up(web(backendServer(t, greeter("hello")))))
		conn := f.connect()
		expect(t, conn, "hello")
		f.server.Leave(30 * time.Millisecond)
		if _, err := io.Copy(io.Discard, conn); err == nil || !strings.Contains(err.Error(), "reset") {
			t.Errorf("the connection ended with %v", err)
		}
		if err := <-f.returned; err != nil {
			t.Error(err)
		}
		f.cancel = nil
	})
	onEachEngine(t, func(t *testing.T, f *fixture) {
		f.serve(up(web(backendServer(t, greeter("hello")))))
		expect(t, f.connect(), "hello")
		f.server.Leave(time.Hour)
		f.stop() // fails if it takes long
	})
}
