package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

// onEachUDPEngine runs a test of behaviour.
func onEachUDPEngine(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Parallel() // most of their time is waiting
	for name, make := range udpEngines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, newNetEngine)
			f.server.newUDP = make
			test(t, f)
		})
	}
}

// names is a service on one UDP listener.
func names(backends ...netip.AddrPort) *pool.Service {
	s := web(backends...)
	s.Name, s.Listen, s.ListenUDP = "names", nil, []netip.AddrPort{anyPort}
	s.UDP = pool.UDP{IdleTimeout: patience}
	return s
}

// udpServer answers each datagram with what answer makes of it, nil: nothing,
// until the test or the function it returns ends it.
func udpServer(t *testing.T, answer func([]byte) []byte) (at netip.AddrPort, kill func()) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1<<16)
		for {
			n, client, err := conn.ReadFromUDPAddrPort(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if out := answer(buffer[:n]); out != nil && err == nil {
				conn.WriteToUDPAddrPort(out, client)
			}
		}
	}()
	kill = sync.OnceFunc(func() { conn.Close(); <-done })
	t.Cleanup(kill)
	return conn.LocalAddr().(*net.UDPAddr).AddrPort(), kill
}

func echoUDP(b []byte) []byte { return b }

func muteUDP([]byte) []byte { return nil }

// saying answers with a name and what was asked.
func saying(name string) func([]byte) []byte {
	return func(b []byte) []byte { return append([]byte(name+" "), b...) }
}

func udpClient(t *testing.T, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func (f *fixture) udpClient() *net.UDPConn {
	f.t.Helper()
	return udpClient(f.t, f.address("names"))
}

// askUDP sends one datagram and returns the answer.
func askUDP(t *testing.T, conn *net.UDPConn, question string) string {
	t.Helper()
	if _, err := conn.Write([]byte(question)); err != nil {
		t.Fatal(err)
	}
	return hearUDP(t, conn)
}

func hearUDP(t *testing.T, conn *net.UDPConn) string {
	t.Helper()
	buffer := make([]byte, 1<<16)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return string(buffer[:n])
}

func expectUDP(t *testing.T, conn *net.UDPConn, question, answer string) {
	t.Helper()
	if got := askUDP(t, conn, question); got != answer {
		t.Fatalf("%q is answered with %q, want %q", question, got, answer)
	}
}

// dropsUDP sends a datagram and waits until it is counted as dropped.
func (f *fixture) dropsUDP(conn *net.UDPConn, reason string) {
	f.t.Helper()
	before := f.metric("elbow_proxy_udp_dropped_total", "names", reason)
	if _, err := conn.Write([]byte("to be dropped")); err != nil {
		f.t.Fatal(err)
	}
	f.await("a datagram to be dropped: "+reason, func() bool {
		return f.metric("elbow_proxy_udp_dropped_total", "names", reason) == before+1
	})
}

// awaitFlows waits until there are so many flows.
func (f *fixture) awaitFlows(n int64) {
	f.t.Helper()
	f.await(fmt.Sprint(n, " flows"), func() bool { return f.server.core.flows.Load() == n })
}

func TestUDP(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		backend, _ := udpServer(t, saying("you said"))
		f.serve(up(names(backend)))
		client := f.udpClient()
		for i := range 10 {
			expectUDP(t, client, fmt.Sprint(i), fmt.Sprint("you said ", i))
		}
		if got := f.server.Active("names", backend); got != 1 {
			t.Errorf("%d flows lead to the backend, want 1", got)
		}
		if status := f.server.Listeners(); len(status) != 1 || !status[0].UDP || status[0].Connections != 1 || status[0].Configured != anyPort {
			t.Errorf("status %+v", status)
		}
		f.stop()
		line := f.awaitReason("shutdown")
		if line.Protocol != "udp" || line.PacketsIn != 10 || line.PacketsOut != 10 || line.BytesIn != 10 || line.BytesOut != 100 ||
			line.Client != client.LocalAddr().String() || line.Backend != backend.String() || line.Listener != "udp/127.0.0.1:0" ||
			line.Service != "names" || line.Generation != 1 {
			t.Errorf("logged %+v", line)
		}
		for name, want := range map[string]float64{
			"elbow_proxy_udp_flows_total": 1, "elbow_proxy_udp_flows_active": 0, "elbow_proxy_connections_active": 0, "elbow_proxy_connections_total": 1,
		} {
			if got := f.metric(name, "names"); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		for direction, bytes := range map[string]float64{"in": 10, "out": 100} {
			if got := f.metric("elbow_proxy_udp_datagrams_total", "names", direction); got != 10 {
				t.Errorf("%v datagrams %s", got, direction)
			}
			for _, name := range []string{"elbow_proxy_udp_bytes_total", "elbow_proxy_bytes_total"} {
				if got := f.metric(name, "names", direction); got != bytes {
					t.Errorf("%s is %v, want %v", name, got, bytes)
				}
			}
		}
	})
}

// A datagram arrives as it was sent, however long it is.
func TestUDPSizes(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		backend, _ := udpServer(t, echoUDP)
		f.serve(up(names(backend)))
		client := f.udpClient()
		random := rand.NewChaCha8([32]byte{1})
		for _, size := range []int{0, 1, 512, 1472, 1473, 9000, 65507} {
			data := make([]byte, size)
			random.Read(data)
			if got := askUDP(t, client, string(data)); got != string(data) {
				t.Errorf("of %d bytes %d came back, or others", size, len(got))
			}
		}
	})
}

// Many clients at once, each with datagrams of its own under way: everybody
// gets its own answers. What is lost in a full socket buffer is asked again.
func TestUDPManyClients(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		a, _ := udpServer(t, echoUDP)
		b, _ := udpServer(t, echoUDP)
		f.serve(up(names(a, b)))
		at := net.UDPAddrFromAddrPort(f.address("names"))
		const clients, rounds, burst = 50, 20, 8
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				conn, err := net.DialUDP("udp", nil, at)
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				buffer := make([]byte, 64)
				for round := range rounds {
					begin := fmt.Sprintf("%d/%d/", i, round)
					for k := range burst {
						conn.Write(fmt.Append(nil, begin, k))
					}
					for range burst {
						conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
						n, err := conn.Read(buffer)
						if err != nil {
							break // lost: the next round shows whether it goes on
						}
						if got := string(buffer[:n]); !strings.HasPrefix(got, fmt.Sprintf("%d/", i)) {
							t.Errorf("client %d got %q", i, got)
						}
					}
				}
			})
		}
		wg.Wait()
		in, out := f.metric("elbow_proxy_udp_datagrams_total", "names", "in"), f.metric("elbow_proxy_udp_datagrams_total", "names", "out")
		if all := float64(clients * rounds * burst); in < all*9/10 || out < all*9/10 {
			t.Errorf("of %v datagrams %v were received, and %v answers", all, in, out)
		}
		if a, b := f.server.Active("names", a), f.server.Active("names", b); a != clients/2 || b != clients/2 {
			t.Errorf("%d and %d flows, want %d each", a, b, clients/2)
		}
	})
}

// An answer leaves from the address that was asked, also where the listener is
// on all of them.
func TestUDPAnswersFromWhereItWasAsked(t *testing.T) {
	for _, all := range []string{"0.0.0.0:0", "[::]:0"} {
		t.Run(all, func(t *testing.T) {
			any := netip.MustParseAddrPort(all)
			hosts := []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"}
			if any.Addr().Is6() {
				needIPv6(t)
				hosts = []string{"::1"}
			}
			onEachUDPEngine(t, func(t *testing.T, f *fixture) {
				backend, _ := udpServer(t, echoUDP)
				service := names(backend)
				service.ListenUDP = []netip.AddrPort{any}
				f.serve(up(service))
				client, err := net.ListenUDP("udp", nil)
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				client.SetDeadline(time.Now().Add(patience))
				for _, host := range hosts {
					at := netip.AddrPortFrom(netip.MustParseAddr(host), f.address("names").Port())
					client.WriteToUDPAddrPort([]byte(host), at)
					buffer := make([]byte, 64)
					n, from, err := client.ReadFromUDPAddrPort(buffer)
					if from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); err != nil || from != at || string(buffer[:n]) != host {
						t.Errorf("who asks %s is answered %q from %s, %v", at, buffer[:n], from, err)
					}
				}
				f.awaitFlows(int64(len(hosts))) // one client, but each is another 4-tuple
			})
		})
	}
}

func needIPv6(t *testing.T) {
	t.Helper()
	l, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	l.Close()
}

// A backend without a server is found out by the ICMP message, which costs the
// datagram that has met it and no other.
func TestUDPBackendIsNotThere(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		here, _ := udpServer(t, saying("here"))
		gone, kill := udpServer(t, saying("gone"))
		kill()
		f.serve(up(names(gone, here)))
		served := 0
		for range 4 { // in turn
			client := f.udpClient()
			refused := len(f.heard.failures())
			answered := false
			client.Write([]byte("first"))
			f.await("an answer or a refusal", func() bool {
				client.SetReadDeadline(time.Now().Add(time.Millisecond))
				_, err := client.Read(make([]byte, 64))
				answered = err == nil
				return answered || len(f.heard.failures()) > refused
			})
			client.SetReadDeadline(time.Now().Add(patience))
			if answered {
				served++
				continue
			}
			for range 2 {
				client.Write([]byte("again")) // in turn, so one of two gets there
			}
			if got := hearUDP(t, client); !strings.HasPrefix(got, "here ") {
				t.Errorf("answered %q", got)
			}
		}
		if served == 0 || served == 4 {
			t.Errorf("%d clients of 4 were served at once", served)
		}
		f.await("the observer to hear", func() bool { return len(f.heard.failures()) > 0 })
		for _, got := range f.heard.failures() {
			if want := fmt.Sprintf("names %s: connection refused", gone); got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
		}
		if got := f.metric("elbow_proxy_connect_failures_total", "names", gone.String(), "refused"); got != float64(len(f.heard.failures())) {
			t.Errorf("counted %v failures, the observer heard %d", got, len(f.heard.failures()))
		}
		for _, line := range f.awaitLines(1) {
			if line.Backend != gone.String() || line.Reason != "connect-failed" || line.PacketsOut != 0 {
				t.Errorf("logged %+v", line)
			}
		}
	})
}

// A server that ends while its flows go on: what it refuses ends them, and the
// next datagram of each is led to another.
func TestUDPBackendIsKilled(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		a, kill := udpServer(t, saying("a"))
		b, _ := udpServer(t, saying("b"))
		service := names(a, b)
		f.serve(up(service, func(backends []pool.Backend) { backends[1].State = pool.Down }))
		client := f.udpClient()
		expectUDP(t, client, "1", "a 1")
		f.publish(up(service))
		expectUDP(t, client, "2", "a 2") // the flow stays where it is
		kill()
		client.Write([]byte("lost"))
		f.awaitReason("backend-reset")
		f.publish(up(service, func(backends []pool.Backend) { backends[0].Suspect = true }))
		expectUDP(t, client, "3", "b 3")
	})
}

// A backend that probes have found down loses its flows with their next
// datagram: nobody else would tell the clients.
func TestUDPBackendGoesDown(t *testing.T) {
	for _, c := range []struct {
		name  string
		state pool.State
		other pool.State
		want  string
	}{
		{"down", pool.Down, pool.Up, "b again"},
		{"forced down", pool.ForcedDown, pool.Up, "b again"},
		{"down, as all are", pool.Down, pool.Down, "a again"},
		{"draining", pool.Draining, pool.Up, "a again"},
		{"not known", pool.Unknown, pool.Up, "a again"},
	} {
		t.Run(c.name, func(t *testing.T) {
			onEachUDPEngine(t, func(t *testing.T, f *fixture) {
				a, _ := udpServer(t, saying("a"))
				b, _ := udpServer(t, saying("b"))
				service := names(a, b)
				f.serve(up(service, func(backends []pool.Backend) { backends[1].State = pool.Down }))
				client := f.udpClient()
				expectUDP(t, client, "first", "a first")
				f.publish(up(service, func(backends []pool.Backend) {
					backends[0].State, backends[1].State = c.state, c.other
					if c.state == pool.Draining {
						backends[0].Drain = pool.Finishing
					}
				}))
				expectUDP(t, client, "again", c.want)
				if strings.HasPrefix(c.want, "b") {
					f.awaitReason("moved")
				}
			})
		})
	}
}

// The flows of a drained backend are cut when its time is over; who sends then
// is led to another.
func TestUDPDrain(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		leaving, _ := udpServer(t, saying("leaving"))
		staying, _ := udpServer(t, saying("staying"))
		service := names(leaving, staying)
		service.DrainTimeout = 300 * time.Millisecond
		f.serve(up(service, func(b []pool.Backend) { b[1].State = pool.Down }))
		client := f.udpClient()
		expectUDP(t, client, "1", "leaving 1")
		f.publish(up(service, draining(pool.Finishing)))
		expectUDP(t, client, "2", "leaving 2")
		expectUDP(t, f.udpClient(), "new", "staying new")
		if line := f.awaitLines(1)[0]; line.Reason != "drain-timeout" || line.DurationMS < 270 {
			t.Errorf("logged %+v", line)
		}
		expectUDP(t, client, "3", "staying 3")
		f.await("the end of all flows to it", func() bool { return f.server.Active("names", leaving) == 0 })
	})
}

func TestUDPIdle(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		backend, _ := udpServer(t, echoUDP)
		service := names(backend)
		service.UDP.IdleTimeout = 200 * time.Millisecond
		f.serve(up(service))
		client := f.udpClient()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range 40 { // it is not idle
			expectUDP(t, client, "x", "x")
			<-tick.C
		}
		if line := f.awaitReason("idle-timeout"); line.DurationMS < 500 || line.DurationMS > 3000 {
			t.Errorf("ended after %v ms", line.DurationMS)
		}
		f.awaitFlows(0)
		expectUDP(t, client, "again", "again")
	})
}

// Who has sent one datagram only has to be somebody yet.
func TestUDPFreshFlowsEndSoon(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		f.server.core.fresh = moment(300 * time.Millisecond)
		backend, _ := udpServer(t, echoUDP)
		f.serve(up(names(backend)))
		known := f.udpClient()
		expectUDP(t, known, "1", "1")
		expectUDP(t, known, "2", "2")
		unknown := f.udpClient()
		expectUDP(t, unknown, "1", "1")
		line := f.awaitReason("idle-timeout")
		if line.Client != unknown.LocalAddr().String() || line.DurationMS < 300 {
			t.Errorf("logged %+v", line)
		}
		f.awaitFlows(1)
	})
}

// Where it is known how many answers there are, the last one ends the flow.
func TestUDPResponses(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		backend, _ := udpServer(t, echoUDP)
		service := names(backend)
		service.UDP.Responses = 1
		f.serve(up(service))
		client := f.udpClient()
		for i := range 3 {
			expectUDP(t, client, "x", "x")
			f.awaitFlows(0)
			if line := f.awaitLines(i + 1)[i]; line.Reason != "answered" || line.PacketsIn != line.PacketsOut {
				t.Errorf("logged %+v", line)
			}
		}
	})
}

func TestUDPLimits(t *testing.T) {
	t.Run("udp.maxFlows", func(t *testing.T) {
		testUDPLimit(t, "max-flows", func(s *pool.Service, n int) { s.UDP.MaxFlows = n })
	})
	t.Run("maxConnections", func(t *testing.T) {
		testUDPLimit(t, "limit", func(s *pool.Service, n int) { s.MaxConnections = n })
	})
	t.Run("maxConnectionsPerBackend", func(t *testing.T) {
		testUDPLimit(t, "backends-full", func(s *pool.Service, n int) { s.MaxConnectionsPerBackend = n })
	})
}

func testUDPLimit(t *testing.T, reason string, limit func(*pool.Service, int)) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		backend, _ := udpServer(t, echoUDP)
		service := names(backend)
		limit(service, 2)
		f.serve(up(service))
		first, second, third := f.udpClient(), f.udpClient(), f.udpClient()
		expectUDP(t, first, "1", "1")
		expectUDP(t, second, "2", "2")
		f.dropsUDP(third, reason)
		expectUDP(t, first, "goes on", "goes on")
		more := *service
		limit(&more, 3)
		f.publish(up(&more))
		expectUDP(t, third, "3", "3")
		f.dropsUDP(f.udpClient(), reason)
		f.stop()
		f.awaitLines(3)
		if n := f.server.core.sessions.Load(); n != 0 || f.server.Active("names", backend) != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

func TestUDPAllowList(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		backend, _ := udpServer(t, echoUDP)
		service := names(backend)
		service.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.8/29")}
		f.serve(up(service))
		f.dropsUDP(f.udpClient(), "not-allowed")
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}, net.UDPAddrFromAddrPort(f.address("names")))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		expectUDP(t, conn, "hello", "hello")
	})
}

func TestUDPNobodyIsUp(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		backend, _ := udpServer(t, echoUDP)
		service := names(backend)
		service.WhenAllDown = pool.Refuse
		f.serve(up(service, func(b []pool.Backend) { b[0].State = pool.Down }))
		client := f.udpClient()
		f.dropsUDP(client, "no-backend")
		f.publish(up(service))
		expectUDP(t, client, "now", "now")
		service.WhenAllDown = pool.ServeAll
		f.publish(up(service, func(b []pool.Backend) { b[0].State = pool.Down }))
		expectUDP(t, f.udpClient(), "fail-open", "fail-open")
	})
}

// What this host is short of costs the datagrams of new clients, no backend its
// name and no other client its flow.
func TestUDPLocalFault(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		var mu sync.Mutex
		var fault error
		f.server.core.faults.dial = func(netip.AddrPort) error {
			mu.Lock()
			defer mu.Unlock()
			return fault
		}
		backend, _ := udpServer(t, echoUDP)
		f.serve(up(names(backend)))
		before := f.udpClient()
		expectUDP(t, before, "before", "before")
		mu.Lock()
		fault = os.NewSyscallError("socket", syscall.EMFILE)
		mu.Unlock()
		for range 3 {
			f.dropsUDP(f.udpClient(), "local-fault")
		}
		expectUDP(t, before, "goes on", "goes on")
		mu.Lock()
		fault = nil
		mu.Unlock()
		expectUDP(t, f.udpClient(), "after", "after")
		if got := f.heard.failures(); len(got) != 0 {
			t.Errorf("the observer heard %q", got)
		}
		if n := strings.Count(f.log.String(), "out of resources"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		f.awaitFlows(2)
	})
}

// Flows take no more than their part of what the host has.
func TestUDPFlowsAreBounded(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		f.server.core.mostFlows = 2
		backend, _ := udpServer(t, echoUDP)
		f.serve(up(names(backend)))
		expectUDP(t, f.udpClient(), "1", "1")
		expectUDP(t, f.udpClient(), "2", "2")
		f.dropsUDP(f.udpClient(), "local-fault")
	})
	for _, c := range []struct {
		connections int64
		first, last uint16
		want        int
	}{
		{384, 32768, 60999, 192},
		{0, 32768, 60999, 21174},
		{260000, 32768, 60999, 21174},
		{1, 1, 0, 1},
	} {
		if got := mostFlows(c.connections, c.first, c.last); got != c.want {
			t.Errorf("mostFlows(%d, %d, %d) is %d, want %d", c.connections, c.first, c.last, got, c.want)
		}
	}
}

// UDP and TCP listen on the same port, in one service.
func TestUDPBesideTCP(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		tcp := backendServer(t, greeter("tcp"))
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(tcp))
		if err != nil {
			t.Skip("the port is taken for UDP: ", err)
		}
		defer conn.Close()
		service := names(tcp)
		service.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
		f.serve(up(service))
		if all := f.server.Listeners(); len(all) != 2 || all[0].UDP || !all[1].UDP {
			t.Fatalf("listeners %+v", all)
		}
		expect(t, f.connectTo(f.server.Listeners()[0].Address), "tcp")
		client := udpClient(t, f.server.Listeners()[1].Address)
		client.Write([]byte("hello"))
		conn.SetDeadline(time.Now().Add(patience))
		buffer := make([]byte, 64)
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil || string(buffer[:n]) != "hello" {
			t.Fatalf("read %q, %v", buffer[:n], err)
		}
		conn.WriteToUDPAddrPort([]byte("udp"), from)
		if got := hearUDP(t, client); got != "udp" {
			t.Errorf("answered %q", got)
		}
		if got := f.server.Active("names", tcp); got != 2 {
			t.Errorf("%d connections and flows, want 2", got)
		}
		for _, listener := range []string{"127.0.0.1:0", "udp/127.0.0.1:0"} {
			if got := f.metric("elbow_proxy_listener_up", listener); got != 1 {
				t.Errorf("listener_up of %s is %v", listener, got)
			}
		}
	})
}

func TestUDPListenersFollowTheTable(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		a, _ := udpServer(t, saying("a"))
		b, _ := udpServer(t, saying("b"))
		first, second := names(a), names(b)
		second.Name = "second"
		f.serve(up(first))
		at := f.address("names")
		client := f.udpClient()
		expectUDP(t, client, "1", "a 1")
		first.ListenUDP = nil
		f.publish(up(first), up(second)) // the listener moves, and the flows with it
		expectUDP(t, client, "2", "b 2")
		f.awaitReason("moved")
		f.await("the listener to belong to the other", func() bool { return f.server.Listeners()[0].Service == "second" })
		if got := f.address("second"); got != at {
			t.Errorf("the listener was opened anew: %s, before %s", got, at)
		}

		f.publish(up(first))
		f.await("the listener to go", func() bool { return len(f.server.Listeners()) == 0 })
		if line := f.awaitLines(2)[1]; line.Reason != "listener-closed" {
			t.Errorf("logged %+v", line)
		}
		f.await("the port to be free", func() bool {
			conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
			if err == nil {
				conn.Close()
			}
			return err == nil
		})
	})
}

func TestUDPBindFailure(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		squatter, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)})
		if err != nil {
			t.Fatal(err)
		}
		defer squatter.Close()
		taken := squatter.LocalAddr().(*net.UDPAddr).AddrPort()
		backend, _ := udpServer(t, echoUDP)
		service := names(backend)
		service.ListenUDP = []netip.AddrPort{taken}
		f.publish(up(service))
		f.start()
		f.await("the failure", func() bool {
			err := f.server.Serving()
			return err != nil && strings.Contains(err.Error(), "udp/"+taken.String()) && strings.Contains(err.Error(), "address already in use")
		})
		squatter.Close()
		f.awaitServing()
		expectUDP(t, udpClient(t, taken), "served", "served")
	})
}

// At the end whoever has asked may get the answer; the others are not waited
// for.
func TestUDPShutdown(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		f.server.patience = time.Hour
		f.server.core.lastWords = moment(200 * time.Millisecond)
		answer := make(chan bool)
		backend, _ := udpServer(t, func(b []byte) []byte {
			if string(b) == "slow" {
				<-answer
			}
			return b
		})
		mute, _ := udpServer(t, muteUDP)
		silent := names(mute)
		silent.Name, silent.ListenUDP = "silent", []netip.AddrPort{netip.MustParseAddrPort("127.0.0.2:0")}
		f.serve(up(names(backend)), up(silent))
		idle, asking, unheard := f.udpClient(), f.udpClient(), udpClient(t, f.address("silent"))
		expectUDP(t, idle, "1", "1")
		asking.Write([]byte("slow"))
		unheard.Write([]byte("anybody?"))
		f.awaitFlows(3)
		begin := time.Now()
		f.cancel()
		f.awaitFlows(2)
		close(answer)
		if got := hearUDP(t, asking); got != "slow" {
			t.Errorf("answered %q", got)
		}
		f.stop()
		if took := time.Since(begin); took < 200*time.Millisecond {
			t.Errorf("it ended after %s", took)
		}
		for _, line := range f.awaitLines(3) {
			if line.Reason != "shutdown" {
				t.Errorf("logged %+v", line)
			}
		}
	})
}

// A Table that changes all the time costs no datagram.
func TestUDPReloadUnderLoad(t *testing.T) {
	onEachUDPEngine(t, func(t *testing.T, f *fixture) {
		a, _ := udpServer(t, echoUDP)
		b, _ := udpServer(t, echoUDP)
		service := names(a, b)
		f.serve(up(service))
		stop, stopped := make(chan bool), make(chan bool)
		go func() {
			defer close(stopped)
			tick := time.NewTicker(200 * time.Microsecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-tick.C:
					f.publish(up(service, func(b []pool.Backend) { b[i%2].Weight = 0 }))
				}
			}
		}()
		client := f.udpClient()
		for i := range 300 {
			expectUDP(t, client, fmt.Sprint(i), fmt.Sprint(i))
			if i%10 == 0 {
				expectUDP(t, f.udpClient(), "new", "new")
			}
		}
		close(stop)
		<-stopped
		f.awaitFlows(31)
	})
}

func TestPktinfo(t *testing.T) {
	if pktinfoSize == 0 {
		t.Skip("not on this system")
	}
	for _, text := range []string{"192.0.2.1", "2001:db8::1", "::1"} {
		a := netip.MustParseAddr(text)
		message := appendSource(nil, a)
		if got := sentTo(message); got != a || len(message) > pktinfoSize {
			t.Errorf("%s became %s", a, got)
		}
		for n := range message { // cut short it says nothing or the same
			if got := sentTo(message[:n]); got.IsValid() && got != a {
				t.Errorf("of %d bytes: %s", n, got)
			}
		}
		if !bytes.Equal(appendSource(nil, sentTo(message)), message) {
			t.Errorf("%s does not come back", a)
		}
	}
}
