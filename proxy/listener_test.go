package proxy

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

func expectRefusedConnect(t *testing.T, address netip.AddrPort) {
	t.Helper()
	if conn, err := net.Dial("tcp", address.String()); err == nil {
		conn.Close()
		t.Errorf("%s still accepts", address)
	}
}

func TestListenersFollowTheTable(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		first, second := web(backendServer(t, greeter("first"))), web(backendServer(t, greeter("second")))
		second.Name, second.Listen = "second", []netip.AddrPort{netip.MustParseAddrPort("127.0.0.2:0")}
		f.serve(up(first))
		stays := f.address("web")
		client := f.connect()
		expect(t, client, "first")

		f.publish(up(second), up(first))
		f.awaitServing()
		if got := f.address("web"); got != stays {
			t.Errorf("the listener that stays was opened anew: %s, before %s", got, stays)
		}
		expect(t, f.connectTo(f.address("second")), "second")
		if got := f.metric("elbow_proxy_listener_up", "127.0.0.2:0"); got != 1 {
			t.Errorf("listener_up is %.0f", got)
		}

		gone := f.address("second")
		f.publish(up(first))
		f.await("the listener to close", func() bool { return len(f.server.Listeners()) == 1 })
		expectRefusedConnect(t, gone)
		if _, there := f.findMetric("elbow_proxy_listener_up", "127.0.0.2:0"); there {
			t.Error("its series is still there")
		}
		exchange(t, client, "still there")
		if status := f.server.Listeners()[0]; status.Connections != 1 || status.Configured != anyPort || status.Service != "web" {
			t.Errorf("status %+v", status)
		}
	})
}

// A listener that moves to another service leads there from one connection to
// the next, and is open all the time.
func TestListenerMoves(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		before, after := web(backendServer(t, greeter("before"))), web(backendServer(t, greeter("after")))
		after.Name = "other"
		f.serve(up(before))
		address := f.address("web")
		old := f.connectTo(address)
		expect(t, old, "before")
		before.Listen = nil
		f.publish(up(after), up(before))
		expect(t, f.connectTo(address), "after") // at once: the Table is asked for each connection
		exchange(t, old, "goes on")
		f.await("the status names the other service", func() bool {
			return slices.ContainsFunc(f.server.Listeners(), func(l ListenerStatus) bool { return l.Service == "other" })
		})
		if f.address("other") != address {
			t.Error("the listener was opened anew")
		}
	})
}

func TestBindFailure(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		// Not 127.0.0.1: from there go the connections of other tests, and one
		// of them may get the port when it is free.
		squatter, err := net.Listen("tcp4", "127.0.0.9:0")
		if err != nil {
			t.Fatal(err)
		}
		taken := squatter.Addr().(*net.TCPAddr).AddrPort()
		service := web(backendServer(t, greeter("served")))
		service.Listen = []netip.AddrPort{taken}
		f.publish(up(service))
		if err := f.server.Serving(); err == nil || !strings.Contains(err.Error(), "not opened yet") {
			t.Errorf("before Run: Serving says %v", err)
		}
		f.start()
		f.await("the failure", func() bool {
			err := f.server.Serving()
			return err != nil && strings.Contains(err.Error(), taken.String()) && strings.Contains(err.Error(), "address already in use")
		})
		if status := f.server.Listeners(); len(status) != 1 || status[0].Err == nil || status[0].Address != taken {
			t.Errorf("status %+v", status)
		}
		if got := f.metric("elbow_proxy_listener_up", taken.String()); got != 0 {
			t.Errorf("listener_up is %.0f", got)
		}
		squatter.Close()
		f.awaitServing()
		expect(t, f.connectTo(taken), "served")
		if n := strings.Count(f.log.String(), "listener cannot be opened"); n != 1 {
			t.Errorf("the failure was logged %d times", n)
		}
	})
}

// A Table that changes all the time costs no connection.
func TestReloadUnderLoad(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		service := web(backendServer(t, echo), backendServer(t, echo))
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
					f.publish(up(service, func(b []pool.Backend) { b[i%2].State = pool.Down }))
				}
			}
		}()
		for range 200 {
			client := f.connect()
			exchange(t, client, "hello")
			client.CloseWrite()
			expectEnd(t, client)
		}
		close(stop)
		<-stopped
		for _, line := range f.awaitLines(200) {
			if line.Reason != "client-closed" || line.Generation == 0 {
				t.Errorf("logged %+v", line)
			}
		}
	})
}

func TestIPv6(t *testing.T) {
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here: ", err)
	} else {
		l.Close()
	}
	onEachEngine(t, func(t *testing.T, f *fixture) {
		service := web(backendServer(t, tell))
		service.Listen = []netip.AddrPort{netip.MustParseAddrPort("[::1]:0")}
		service.ProxyProtocol.Send = pool.ProxyV1
		f.serve(up(service))
		client := f.connect()
		expect(t, client, client.LocalAddr().String()+" to "+client.RemoteAddr().String()+"\n")
		exchange(t, client, "hello")
	})
}
