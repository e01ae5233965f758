package dnsserver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// serveOne serves a Server without sockets on one of a kind, and returns where.
func serveOne(t *testing.T, h *house, kind string) (addr string, l *listener) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 53)})
	if err != nil {
		t.Fatal(err)
	}
	addr = c.LocalAddr().String()
	if kind == "single" {
		l = &listener{addr: netip.MustParseAddrPort(addr), closed: make(chan struct{})}
		serveOn(t, h, singleSocket{c}, l)
		return addr, l
	}
	return addr, serveSocket(t, h, c, false)
}

// serveSocket serves a Server without sockets on one, in batches.
func serveSocket(t *testing.T, h *house, c *net.UDPConn, wildcard bool) *listener {
	t.Helper()
	l := &listener{addr: c.LocalAddr().(*net.UDPAddr).AddrPort(), closed: make(chan struct{})}
	socket, ok := detach(c, wildcard)
	if !ok {
		t.Fatal("this system has no batches")
	}
	serveOn(t, h, socket, l)
	return l
}

// serveOn serves on a socket until the test ends.
func serveOn(t *testing.T, h *house, socket udpSocket, l *listener) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		socket.serve(h.Server, l, 0)
	}()
	t.Cleanup(func() {
		l.closing.Store(true)
		close(l.closed)
		socket.stop()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Error("serving does not end")
		}
		socket.close()
	})
}

// TestSockets: whatever the packets come through, each gets its answer.
func TestSockets(t *testing.T) {
	for _, kind := range []string{"single", "batch"} {
		t.Run(kind, func(t *testing.T) {
			h := newHouse(t, nil)
			h.publish(example(t))
			addr, _ := serveOne(t, h, kind)
			var clients []*dns.Conn
			for range 5 {
				c, err := net.Dial("udp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				clients = append(clients, &dns.Conn{Conn: c})
			}
			const each = 20 // all together are more than a batch and fit in the queue
			for round := range 4 {
				for i := range each {
					for n, c := range clients {
						m := question(t, "www.example.com A")
						m.Id = uint16(n<<12 | round<<8 | i)
						if i%7 == 3 {
							if _, err := c.Conn.Write([]byte("nonsense")); err != nil {
								t.Fatal(err)
							}
						}
						if err := c.WriteMsg(m); err != nil {
							t.Fatal(err)
						}
					}
				}
				for n, c := range clients {
					for i := range each {
						a, err := c.ReadMsg()
						if err != nil {
							t.Fatal(err)
						}
						if a.Id != uint16(n<<12|round<<8|i) || len(a.Answer) != 2 {
							t.Fatalf("client %d: answer %d is %v", n, i, a)
						}
					}
				}
			}
		})
	}
}

// TestBatchSendSkips: a response that cannot be sent keeps no other back.
func TestBatchSendSkips(t *testing.T) {
	receiver, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	sender, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	to := receiver.LocalAddr().(*net.UDPAddr).AddrPort()
	visitSocket(sender, func(fd int) {
		b := newBatch(fd, false)
		for i := range 6 {
			name := (*unix.RawSockaddrInet4)(unsafe.Pointer(&b.from[i]))
			*name = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: to.Port()<<8 | to.Port()>>8, Addr: to.Addr().As4()}
			if i == 1 || i == 2 || i == 5 {
				name.Port = 0 // nobody can be reached there
			}
			b.in[i].Namelen = unix.SizeofSockaddrInet4
			b.answer(i, append(b.out.response(), byte(i)))
		}
		if failed := b.out.send(); failed != 3 || b.out.waiting != 0 {
			t.Errorf("%d failed and %d are left, want 3 and none", failed, b.out.waiting)
		}
	})
	_ = receiver.SetReadDeadline(time.Now().Add(5 * time.Second))
	for _, want := range []byte{0, 3, 4} {
		buf := make([]byte, 9)
		if n, err := receiver.Read(buf); err != nil || n != 1 || buf[0] != want {
			t.Fatalf("got % x, %v; want %d", buf[:n], err, want)
		}
	}
}

// TestBatchAllocates: a batch that was answered leaves nothing to the garbage collector.
func TestBatchAllocates(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := net.Dial("udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	packet, err := question(t, "www.example.com A").Pack()
	if err != nil {
		t.Fatal(err)
	}
	in := make([]byte, maxPayload)
	visitSocket(server, func(fd int) {
		b := newBatch(fd, false)
		var r responder
		if n := testing.AllocsPerRun(100, func() {
			for range 3 {
				if _, err := client.Write(packet); err != nil {
					t.Fatal(err)
				}
			}
			if errno := b.receive(); errno != 0 || b.received != 3 {
				t.Fatal(fmt.Errorf("%d were received: %w", b.received, errno))
			}
			h.answerBatch(&r, b, 0)
			for range 3 {
				if _, err := client.Read(in); err != nil {
					t.Fatal(err)
				}
			}
		}); n > 0 {
			t.Errorf("%v allocations", n)
		}
		if errno := b.receive(); !errors.Is(errno, unix.EAGAIN) {
			t.Errorf("nothing is there: %v", errno)
		}
	})
}

// TestBatchSingles: packets that come alone are received one by one after a while, and
// together again when more come; meanwhile none is another's and all are answered.
func TestBatchSingles(t *testing.T) {
	for _, listen := range []string{"127.0.0.1", "0.0.0.0"} {
		t.Run(listen, func(t *testing.T) {
			h := newHouse(t, nil)
			h.publish(example(t))
			addr := netip.MustParseAddr(listen)
			config := net.ListenConfig{Control: controlUDP(addr)}
			server, err := config.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(addr, 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			port := server.LocalAddr().(*net.UDPAddr).Port
			client, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
			id := uint16(0)
			visitSocket(server.(*net.UDPConn), func(fd int) {
				b := newBatch(fd, addr.IsUnspecified())
				var r responder
				// burst sends that many queries and returns how many came with each call.
				burst := func(queries int) (batches []int) {
					for range queries {
						m := question(t, "www.example.com A")
						id++
						m.Id = id
						if _, err := client.Write(must(m.Pack())); err != nil {
							t.Fatal(err)
						}
					}
					for left := queries; left > 0; left -= b.received {
						if errno := b.receive(); errno != 0 {
							t.Fatal(errno)
						}
						batches = append(batches, b.received)
						h.answerBatch(&r, b, 0)
					}
					for i := range queries {
						buf := make([]byte, maxMessage)
						n, err := client.Read(buf) // connected: from the address that was asked alone
						if err != nil {
							t.Fatal(err)
						}
						a := new(dns.Msg)
						if err := a.Unpack(buf[:n]); err != nil || a.Id != id-uint16(queries-1-i) || len(a.Answer) != 2 {
							t.Fatalf("%v, %v", a, err)
						}
					}
					return batches
				}
				if got := burst(3); !slices.Equal(got, []int{3}) {
					t.Errorf("before: batches of %v", got)
				}
				for range aloneInRow {
					burst(1)
				}
				want := append(slices.Repeat([]int{1}, singlesRun), 5)
				if got := burst(singlesRun + 5); !slices.Equal(got, want) {
					t.Errorf("after packets that came alone: batches of %v, want %v", got, want)
				}
				if got := burst(4); !slices.Equal(got, []int{4}) {
					t.Errorf("afterwards: batches of %v", got)
				}
				for range aloneInRow - 1 {
					burst(1)
				}
				if got := burst(4); !slices.Equal(got, []int{4}) {
					t.Errorf("after too few that came alone: batches of %v", got)
				}
				for range aloneInRow {
					burst(1)
				}
				if errno := b.receive(); !errors.Is(errno, unix.EAGAIN) {
					t.Errorf("nothing is there: %v", errno)
				}
			})
		})
	}
}
