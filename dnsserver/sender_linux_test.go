package dnsserver

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// socketName is an IPv4 address as the kernel writes it.
func socketName(to netip.AddrPort) *unix.RawSockaddrInet6 {
	name := new(unix.RawSockaddrInet6)
	*(*unix.RawSockaddrInet4)(unsafe.Pointer(name)) = unix.RawSockaddrInet4{
		Family: unix.AF_INET, Port: to.Port()<<8 | to.Port()>>8, Addr: to.Addr().As4(),
	}
	return name
}

// listenLocal opens a socket of 127.0.0.1 and returns where it can be reached.
func listenLocal(t *testing.T) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestSenderJoins: responses to one client leave as one message where their
// lengths allow it, and arrive as they are, whether or not the system takes such a
// message.
func TestSenderJoins(t *testing.T) {
	tests := []struct {
		name      string
		responses string // of each: for which client, and its length
		messages  int
	}{
		{"one", "a40", 1},
		{"same client and length", "a40 a40 a40 a40", 1},
		{"a shorter one is the last", "a40 a40 a30 a30 a30", 2},
		{"a longer one begins the next", "a30 a40 a40", 2},
		{"shorter each time", "a40 a30 a20", 2},
		{"another client between", "a40 b40 a40", 2},
		{"clients in turn", "a40 b30 a40 b30 a40 b20 a30 b20 a40", 4},
		{"two clients, one after the other", "a40 a40 b40 b40", 2},
		{"a whole batch", strings.Repeat("a60 ", batchSize), 1},
		{"of the longest", strings.Repeat(fmt.Sprintf("b%d ", maxPayload), batchSize), 1},
	}
	for _, whole := range []bool{true, false} {
		for _, test := range tests {
			t.Run(fmt.Sprintf("%s, whole=%t", test.name, whole), func(t *testing.T) {
				a, toA := listenLocal(t)
				b, toB := listenLocal(t)
				for clientPlace(socketName(toB)) == clientPlace(socketName(toA)) { // it would be taken for another client each time
					b, toB = listenLocal(t)
				}
				from, _ := listenLocal(t)
				want := map[*net.UDPConn][]string{}
				visitSocket(from, func(fd int) {
					if !whole { // the system refuses to cut where it computes no checksums
						if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
							t.Fatal(err)
						}
					}
					s := new(sender)
					s.start(fd)
					if !s.cuts {
						t.Fatal("this system does not cut messages: Linux does since 4.18")
					}
					for i, r := range strings.Fields(test.responses) {
						var size int
						if _, err := fmt.Sscanf(r[1:], "%d", &size); err != nil {
							t.Fatal(err)
						}
						response := append(s.response(), slices.Repeat([]byte{byte('0' + i)}, size)...)
						c, to := a, toA
						if r[0] == 'b' {
							c, to = b, toB
						}
						want[c] = append(want[c], string(response))
						s.add(response, socketName(to), unix.SizeofSockaddrInet4, nil)
					}
					if s.count != test.messages {
						t.Errorf("%d messages, want %d", s.count, test.messages)
					}
					if failed := s.send(); failed > 0 || s.waiting != 0 || s.count != 0 {
						t.Errorf("%d failed, %d responses and %d messages are left", failed, s.waiting, s.count)
					}
				})
				buf := make([]byte, maxMessage)
				for c, responses := range want {
					_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
					for i, response := range responses {
						n, _, err := c.ReadFromUDPAddrPort(buf)
						if err != nil || string(buf[:n]) != response {
							t.Fatalf("datagram %d has %d octets, %v; want %d", i, n, err, len(response))
						}
					}
				}
			})
		}
	}
}

// TestSenderCounts: of a message that fails each response has.
func TestSenderCounts(t *testing.T) {
	receiver, to := listenLocal(t)
	from, _ := listenLocal(t)
	visitSocket(from, func(fd int) {
		s := new(sender)
		s.start(fd)
		for range 3 { // port 0: nobody can be reached there
			s.add(append(s.response(), "lost"...), socketName(netip.AddrPortFrom(to.Addr(), 0)), unix.SizeofSockaddrInet4, nil)
		}
		s.add(append(s.response(), "kept"...), socketName(to), unix.SizeofSockaddrInet4, nil)
		if failed := s.send(); failed != 3 {
			t.Errorf("%d failed, want 3", failed)
		}
	})
	_ = receiver.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 9)
	if n, err := receiver.Read(buf); err != nil || string(buf[:n]) != "kept" {
		t.Fatalf("got %q, %v", buf[:n], err)
	}
}

// TestBurstsToManyAddresses: of a socket for all addresses each answer leaves from
// the one that was asked, also where many go to one client.
func TestBurstsToManyAddresses(t *testing.T) {
	tests := []struct {
		network, listen string
		asked           []string
	}{
		{"udp4", "0.0.0.0", []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}},
		{"udp6", "::", []string{"::1"}},
	}
	for _, test := range tests {
		t.Run(test.network, func(t *testing.T) {
			h := newHouse(t, nil)
			h.publish(example(t))
			addr := netip.MustParseAddr(test.listen)
			config := net.ListenConfig{Control: controlUDP(addr)}
			c, err := config.ListenPacket(t.Context(), test.network, netip.AddrPortFrom(addr, 0).String())
			if err != nil {
				t.Fatal(err)
			}
			port := c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
			client, err := net.ListenPacket(test.network, netip.AddrPortFrom(netip.MustParseAddr(test.asked[0]), 0).String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_ = client.SetDeadline(time.Now().Add(10 * time.Second))
			const each = 10
			asked := map[uint16]netip.AddrPort{}
			for i := range each * len(test.asked) {
				m := question(t, "www.example.com A")
				m.Id = uint16(i + 1)
				to := netip.AddrPortFrom(netip.MustParseAddr(test.asked[i/5%len(test.asked)]), port)
				asked[m.Id] = to
				packet, err := m.Pack()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := client.WriteTo(packet, net.UDPAddrFromAddrPort(to)); err != nil {
					t.Fatal(err)
				}
			}
			// The server comes when all is there, so that it is a batch.
			serveSocket(t, h, c.(*net.UDPConn), true)
			buf := make([]byte, maxMessage)
			for len(asked) > 0 {
				n, from, err := client.ReadFrom(buf)
				if err != nil {
					t.Fatalf("%d answers are missing: %v", len(asked), err)
				}
				m := new(dns.Msg)
				if err := m.Unpack(buf[:n]); err != nil {
					t.Fatal(err)
				}
				to, ok := asked[m.Id]
				if got := from.(*net.UDPAddr).AddrPort(); !ok || got != to || len(m.Answer) != 2 {
					t.Fatalf("the answer %d of %s, asked %s: %v", m.Id, got, to, m)
				}
				delete(asked, m.Id)
			}
		})
	}
}
