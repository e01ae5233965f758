package proxy

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

func TestAllowList(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		service := web(backendServer(t, echo))
		service.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.8/29")}
		f.serve(up(service))
		for from, welcome := range map[string]bool{"127.0.0.9": true, "127.0.0.15": true, "127.0.0.7": false, "127.0.0.16": false} {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			if !welcome {
				expectRefusedFrom(t, &d, f.address("web"))
				continue
			}
			conn, err := d.DialContext(t.Context(), "tcp", f.address("web").String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			exchange(t, conn, "hello")
		}
		for _, line := range f.awaitLines(2) {
			if line.Reason != "not-allowed" {
				t.Errorf("logged %+v", line)
			}
		}
		if got := f.metric("elbow_proxy_refused_total", "web", "not-allowed"); got != 2 {
			t.Errorf("counted %.0f", got)
		}
	})
}

func TestMaxConnections(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		service := web(backendServer(t, echo))
		service.MaxConnections = 2
		f.serve(up(service))
		first, second := f.connect(), f.connect()
		exchange(t, first, "1")
		exchange(t, second, "2")
		f.expectRefused()
		f.awaitReason("limit")
		if got := f.metric("elbow_proxy_refused_total", "web", "limit"); got != 1 {
			t.Errorf("counted %.0f", got)
		}
		first.Close()
		f.awaitLines(2)
		exchange(t, f.connect(), "3")
	})
}

// queued is a service with one place in its only backend and a queue.
func queued(t *testing.T, length int, timeout time.Duration) *pool.Service {
	service := web(backendServer(t, echo))
	service.MaxConnectionsPerBackend = 1
	service.Queue = pool.Queue{Length: length, Timeout: timeout}
	return service
}

func (f *fixture) awaitQueue(n int) {
	f.t.Helper()
	f.await("queue length", func() bool { return f.metric("elbow_proxy_queue_length", "web") == float64(n) })
}

func TestQueueIsFirstComeFirstServed(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		f.serve(up(queued(t, 10, patience)))
		holder := f.connect()
		exchange(t, holder, "holder")
		var waiting []*net.TCPConn
		for i := range 5 {
			client := f.connect()
			io.WriteString(client, string(rune('a'+i)))
			waiting = append(waiting, client)
			f.awaitQueue(i + 1)
		}
		for i, client := range waiting {
			holder.Close()
			expect(t, client, string(rune('a'+i))) // the others cannot have been served: there is one place
			f.awaitQueue(4 - i)
			holder = client
		}
	})
}

func TestQueueFull(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		f.serve(up(queued(t, 1, patience)))
		holder := f.connect()
		exchange(t, holder, "holder")
		waiting := f.connect()
		f.awaitQueue(1)
		f.expectRefused()
		f.awaitReason("queue-full")
		if got := f.metric("elbow_proxy_spillover_total", "web"); got != 1 {
			t.Errorf("counted %.0f spilled over", got)
		}
		holder.Close()
		exchange(t, waiting, "served")
	})
}

func TestQueueTimeout(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		f.serve(up(queued(t, 2, 100*time.Millisecond)))
		holder := f.connect()
		exchange(t, holder, "holder")
		f.expectRefused()
		f.awaitReason("queue-timeout")
		f.awaitQueue(0)
		exchange(t, holder, "goes on")
	})
}

// A new Table that brings a backend with room wakes everybody it has room for.
func TestQueueSeesTheNewTable(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		service := queued(t, 10, patience)
		f.serve(up(service))
		exchange(t, f.connect(), "holder")
		first, second := f.connect(), f.connect()
		f.awaitQueue(2)
		more := *service
		for range 2 {
			more.Endpoints = append(more.Endpoints, pool.Endpoint{Address: backendServer(t, echo), Weight: 1})
		}
		f.publish(up(&more))
		exchange(t, first, "first")
		exchange(t, second, "second")
	})
}

// When a service goes, who waits for it is turned away.
func TestQueueOfServiceThatGoes(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		f.serve(up(queued(t, 10, patience)))
		holder := f.connect()
		exchange(t, holder, "holder")
		waiting := []*net.TCPConn{f.connect(), f.connect(), f.connect()}
		f.awaitQueue(3)
		f.publish()
		for _, client := range waiting {
			expectReset(t, client)
		}
		exchange(t, holder, "goes on")
	})
}

// Many clients on few places: the limit holds at every moment, and everybody is
// served.
func TestQueueUnderLoad(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		const clients, places = 100, 3
		var now, most, served counter
		backend := backendServer(t, func(conn *net.TCPConn) {
			most.raise(now.add(1))
			conn.Read(make([]byte, 1))
			now.add(-1) // before the proxy can know that this one ends
			conn.Write([]byte{'y'})
		})
		service := web(backend)
		service.Balance = pool.LeastConn
		service.MaxConnectionsPerBackend = places
		service.Queue = pool.Queue{Length: clients, Timeout: patience}
		f.serve(up(service))
		done := make(chan error, clients)
		address := f.address("web").String()
		for range clients {
			go func() {
				conn, err := net.Dial("tcp", address)
				if err != nil {
					done <- err
					return
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(patience))
				io.WriteString(conn, "x")
				_, err = io.ReadFull(conn, make([]byte, 1))
				served.add(1)
				done <- err
			}()
		}
		for range clients {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := most.add(0); n > places {
			t.Errorf("%d connections at once, want at most %d", n, places)
		}
	})
}
