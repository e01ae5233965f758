package proxy

import (
	"net/netip"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

func draining(stage pool.DrainStage) func([]pool.Backend) {
	return func(b []pool.Backend) {
		b[0].State, b[0].Drain, b[0].Since = pool.Draining, stage, time.Now()
	}
}

func TestDrainStages(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		leaving, staying := backendServer(t, greeter("leaving")), backendServer(t, greeter("staying"))
		service := web(leaving, staying)
		service.DrainTimeout = 700 * time.Millisecond
		f.serve(up(service, func(b []pool.Backend) { b[1].State = pool.Down }))
		client := f.connect()
		expect(t, client, "leaving")

		f.publish(up(service, draining(pool.LeavingDNS), func(b []pool.Backend) { b[1].State = pool.Down }))
		expect(t, f.connect(), "leaving") // cached answers may still lead here

		finishing := time.Now()
		f.publish(up(service, draining(pool.Finishing)))
		expect(t, f.connect(), "staying")
		exchange(t, client, "goes on")
		expectReset(t, client)
		if took := time.Since(finishing); took < service.DrainTimeout*9/10 {
			t.Errorf("reset after %s, want %s", took, service.DrainTimeout)
		}
		f.await("the end of all connections to it", func() bool { return f.server.Active("web", leaving) == 0 })
		for _, line := range f.awaitLines(2) {
			if line.Reason != "drain-timeout" || line.Backend != leaving.String() {
				t.Errorf("logged %+v", line)
			}
		}
		if f.server.Active("web", staying) != 1 {
			t.Error("the connection to the other backend has ended too")
		}
	})
}

// The time to finish does not begin with the drain: leaving the DNS took its part.
func TestDrainCountsFromFinishing(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		service := web(backendServer(t, echo))
		f.serve(up(service))
		client := f.connect()
		exchange(t, client, "before")
		f.publish(up(service, func(b []pool.Backend) {
			b[0].State, b[0].Drain, b[0].Since = pool.Draining, pool.Finishing, time.Now().Add(-time.Hour)
		}))
		f.await("the new table", func() bool { return f.server.core.current.Load().table.Generation == 2 })
		exchange(t, client, "after")
	})
}

// A drain that is called off leaves the connections alone.
func TestUndrain(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		service := web(backendServer(t, echo))
		service.DrainTimeout = 300 * time.Millisecond
		f.serve(up(service))
		client := f.connect()
		exchange(t, client, "before")
		f.publish(up(service, draining(pool.Finishing)))
		f.await("the drain", func() bool { return f.server.core.current.Load().table.Generation == 2 })
		f.publish(up(service))
		for end := time.Now().Add(2 * service.DrainTimeout); time.Now().Before(end); {
			exchange(t, client, "x")
		}
	})
}

func TestWhatVanishesMayFinish(t *testing.T) {
	const timeout = 500 * time.Millisecond
	for _, c := range []struct {
		name string
		then func(before *pool.Service) []*pool.Pool
	}{
		{"backend", func(before *pool.Service) []*pool.Pool {
			after := *before
			after.Endpoints = nil
			return []*pool.Pool{up(&after)}
		}},
		{"listener", func(before *pool.Service) []*pool.Pool {
			after := *before
			after.Listen = nil
			return []*pool.Pool{up(&after)}
		}},
		{"service", func(*pool.Service) []*pool.Pool { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, f *fixture) {
				backend := backendServer(t, echo)
				service := web(backend)
				service.DrainTimeout = timeout
				f.serve(up(service))
				client := f.connect()
				exchange(t, client, "before")
				gone := time.Now()
				f.publish(c.then(service)...)
				f.await("the new table", func() bool { return f.server.core.current.Load().table.Generation == 2 })
				exchange(t, client, "after")
				expectReset(t, client)
				if took := time.Since(gone); took < timeout*9/10 {
					t.Errorf("reset after %s, want %s", took, timeout)
				}
				f.awaitReason("drain-timeout")
				if c.name != "listener" {
					f.await("its series to go", func() bool {
						_, there := f.findMetric("elbow_proxy_connections_total", backend.String())
						return !there
					})
				}
				f.await("the listener to be forgotten", func() bool {
					f.server.mu.Lock()
					defer f.server.mu.Unlock()
					return (len(f.server.listeners) == 0) == (c.name != "backend")
				})
			})
		})
	}
}

func TestShutdown(t *testing.T) {
	t.Run("ends with the last connection", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			f.server.patience = time.Minute
			f.serve(up(web(backendServer(t, echo))))
			address := f.address("web")
			client := f.connect()
			exchange(t, client, "before")
			f.cancel()
			f.await("the listener to close", func() bool { return f.server.Serving() != nil })
			expectRefusedConnect(t, address)
			exchange(t, client, "after")
			client.CloseWrite()
			expectEnd(t, client)
			f.stop() // waits for Run, less than the minute
			f.awaitReason("client-closed")
		})
	})
	t.Run("resets the rest when the time is over", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			f.server.patience = 100 * time.Millisecond
			f.serve(up(web(backendServer(t, echo))))
			client := f.connect()
			exchange(t, client, "before")
			f.stop()
			expectReset(t, client)
			f.awaitReason("shutdown")
		})
	})
	t.Run("ends at once without connections", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			f.server.patience = time.Hour
			f.serve(up(web(backendServer(t, echo))))
			f.stop()
		})
	})
	t.Run("interrupts connects and queues", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			connecting, waiting := web(deaf(t)), queued(t, 1, time.Hour)
			connecting.Name, connecting.Listen = "connecting", []netip.AddrPort{netip.MustParseAddrPort("127.0.0.2:0")}
			connecting.Connect.Timeout = time.Hour
			f.serve(up(connecting), up(waiting))
			holder := f.connect()
			exchange(t, holder, "holder")
			queuing := f.connect()
			f.awaitQueue(1)
			dialling := f.connectTo(f.address("connecting"))
			f.await("the connect", func() bool { return f.server.core.sessions.Load() == 3 })
			f.stop()
			expectReset(t, queuing)
			expectReset(t, dialling)
			for _, line := range f.awaitLines(3) {
				if line.Reason != "shutdown" {
					t.Errorf("logged %+v", line)
				}
			}
			if got := f.heard.failures(); len(got) != 0 {
				t.Errorf("the observer heard %q", got)
			}
		})
	})
}
