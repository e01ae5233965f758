package proxy

import (
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

// The client sends before any backend is reached; nothing of that is lost
// when two backends refuse first.
func TestRetryLosesNoByte(t *testing.T) {
	const size = 1 << 20
	onEachEngine(t, func(t *testing.T, f *fixture) {
		sums := make(chan [32]byte, 3)
		digest := func(conn *net.TCPConn) {
			all, _ := io.ReadAll(conn)
			sums <- sha256.Sum256(all)
		}
		service := web(backendServer(t, digest), backendServer(t, digest), backendServer(t, digest))
		var tried []netip.AddrPort // by the one connection there is
		f.server.core.faults.dial = func(b netip.AddrPort) error {
			if tried = append(tried, b); len(tried) < 3 {
				return syscall.ECONNREFUSED
			}
			return nil
		}
		f.serve(up(service))

		client := f.connect()
		bytes := make([]byte, size)
		rand.NewChaCha8([32]byte{2}).Read(bytes)
		client.Write(bytes)
		client.CloseWrite()
		if got := <-sums; got != sha256.Sum256(bytes) {
			t.Error("the backend got other bytes than were sent")
		}
		expectEnd(t, client)
		line := f.awaitReason("client-closed")
		if line.Backend != tried[2].String() || line.Retries != 2 {
			t.Errorf("tried %s, logged %+v", tried, line)
		}
		if slices.Contains(tried[:2], tried[2]) || tried[0] == tried[1] {
			t.Errorf("a backend was tried twice: %s", tried)
		}
		if got := f.metric("elbow_proxy_retries_total", "web"); got != 2 {
			t.Errorf("counted %.0f retries", got)
		}
		if got := f.metric("elbow_proxy_connect_failures_total", tried[0].String(), "refused"); got != 1 {
			t.Errorf("counted %.0f failures of the first", got)
		}
		want := []string{
			"web " + tried[0].String() + ": connection refused",
			"web " + tried[1].String() + ": connection refused",
		}
		if got := f.heard.failures(); !slices.Equal(got, want) {
			t.Errorf("the observer heard %q, want %q", got, want)
		}
	})
}

func TestNobodyCanBeReached(t *testing.T) {
	for _, c := range []struct {
		name     string
		attempts int
		backends int
		tried    int
	}{
		{"fewer attempts than backends", 2, 3, 2},
		{"more attempts than backends", 5, 2, 2},
		{"one attempt", 1, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, f *fixture) {
				service := web()
				for range c.backends {
					service.Endpoints = append(service.Endpoints, pool.Endpoint{Address: refusing(t), Weight: 1})
				}
				service.Connect.Attempts = c.attempts
				f.serve(up(service))
				f.expectRefused()
				line := f.awaitReason("connect-failed")
				if line.Retries != c.tried-1 {
					t.Errorf("%d retries, want %d", line.Retries, c.tried-1)
				}
				if got := f.heard.failures(); len(got) != c.tried {
					t.Errorf("the observer heard %q, want %d failures", got, c.tried)
				}
				if got := f.metric("elbow_proxy_refused_total", "web", "connect-failed"); got != 1 {
					t.Errorf("counted %.0f refused", got)
				}
			})
		})
	}
}

// A backend that answers no SYN at all: its accept queue is full.
func TestConnectTimeout(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		good := backendServer(t, greeter("good"))
		silent := deaf(t)
		service := web(silent, good)
		service.Connect.Timeout = 200 * time.Millisecond
		f.serve(up(service))
		for range 2 { // by turns, one of two meets the silent one first
			client := f.connect()
			expect(t, client, "good")
			client.CloseWrite()
			expectEnd(t, client)
		}
		want := []string{"web " + silent.String() + ": no connection within 200ms"}
		if got := f.heard.failures(); !slices.Equal(got, want) {
			t.Errorf("the observer heard %q, want %q", got, want)
		}
		if got := f.metric("elbow_proxy_connect_failures_total", silent.String(), "timeout"); got != 1 {
			t.Errorf("counted %.0f timeouts", got)
		}
	})
}

// deaf is an address where no connect gets an answer: a listener of backlog 0
// whose queue is full.
func deaf(t *testing.T) netip.AddrPort {
	t.Helper()
	address, fd := bind(t)
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		conn, err := net.DialTimeout("tcp", address.String(), 100*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Skip("this system answers connects beyond the backlog")
	return address
}

// A client that has reset the connection while its first backend failed costs
// no second attempt.
func TestClientGoneBeforeRetry(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		var dials atomic.Int32
		dialled, gone := make(chan bool), make(chan bool)
		f.server.core.faults.dial = func(netip.AddrPort) error {
			if dials.Add(1) == 1 {
				dialled <- true
				<-gone
			}
			return syscall.ECONNREFUSED
		}
		f.serve(up(web(refusing(t), refusing(t))))
		client := f.connect()
		<-dialled
		client.SetLinger(0)
		client.Close()
		close(gone)
		f.awaitReason("client-reset")
		if n := dials.Load(); n != 1 {
			t.Errorf("%d connects were tried", n)
		}
	})
}

// Connections are spread by what each backend has, over generations.
func TestLeastConn(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		a, b := backendServer(t, greeter("a")), backendServer(t, greeter("b"))
		service := web(a, b)
		service.Balance = pool.LeastConn
		f.serve(up(service))
		for i := range 20 {
			if i%5 == 0 {
				f.publish(up(service))
			}
			client := f.connect()
			client.Read(make([]byte, 1))
		}
		if na, nb := f.server.Active("web", a), f.server.Active("web", b); na != 10 || nb != 10 {
			t.Errorf("%d and %d connections, want 10 and 10", na, nb)
		}
		if got := f.metric("elbow_proxy_connections_active", "web"); got != 20 {
			t.Errorf("counted %.0f active connections", got)
		}
	})
}
