//go:build chaos && linux

package chaos

import (
	"testing"
	"time"

	"haslohas.com/elbow/internal/elbowtest"
)

func TestBackendIsKilledUnderLoad(t *testing.T) {
	withEachEngine(t, func(t *testing.T, engine string) {
		w := newWorld(t, setting{engine: engine, backends: 3})
		// A process that is killed ends its connections with a reset or, where it
		// has read everything, with what looks like a proper end.
		broken := []string{"client-closed", "backend-reset", "backend-closed"}
		var lasting []*session
		for range w.backends {
			s := w.open(script{Mode: mirror}).mayEnd(broken...)
			if s.err = s.ping(1000); s.err != nil {
				t.Fatal(s.err)
			}
			lasting = append(lasting, s)
		}
		l := w.startLoad(100, broken...)
		defer l.stop()
		elbowtest.Eventually(t, 20*time.Second, "the load reaches the first", func() bool { return w.backends[0].sessions() > 50 })

		w.backends[0].kill()
		killed := time.Now()
		took := elbowtest.Eventually(t, 10*time.Second, "it is down", func() bool { return w.state(0) == "down" })
		t.Logf("down after %s, %v failed connects", took, w.failures(0))
		before := w.backends[1].sessions()
		elbowtest.Eventually(t, 20*time.Second, "the others serve", func() bool { return w.backends[1].sessions() > before+50 })
		w.backends[0].start()
		elbowtest.Eventually(t, 20*time.Second, "it is back", func() bool { return w.backends[0].sessions() > 100 })

		for _, s := range l.stop() {
			if s.err != nil && s.begin.After(killed) {
				t.Errorf("a session of %s after the kill failed: %v", s.begin.Sub(killed), s.err)
			}
		}
		failed := 0
		for _, s := range lasting {
			if s.err = s.ping(1000); s.err == nil {
				s.err = s.close()
			}
			if s.err != nil {
				failed++
			}
		}
		if failed != 1 {
			t.Errorf("%d of %d lasting sessions failed, want that of the backend that was killed", failed, len(lasting))
		}
		for s, l := range w.settle() {
			if (l.Reason != "client-closed" || s.err != nil) && l.Backend != w.backends[0].address {
				t.Errorf("session %d ended as %s at %s, client: %v", s.Seed, l.Reason, l.Backend, s.err)
			}
		}
	})
}

// A process that is stopped is worse than one that is dead: its kernel accepts
// connections and bytes as if nothing were wrong.
func TestBackendIsStopped(t *testing.T) {
	withEachEngine(t, func(t *testing.T, engine string) {
		w := newWorld(t, setting{engine: engine, backends: 2, service: "    idleTimeout: 15s"})
		hung := []string{"client-closed", "idle-timeout"}
		var lasting []*session
		for range w.backends {
			s := w.open(script{Mode: mirror}).mayEnd(hung...)
			if s.err = s.ping(1000); s.err != nil {
				t.Fatal(s.err)
			}
			lasting = append(lasting, s)
		}
		l := w.startLoad(50, hung...)
		defer l.stop()

		w.backends[0].stop()
		took := elbowtest.Eventually(t, 10*time.Second, "it is down", func() bool { return w.state(0) == "down" })
		t.Logf("down %s after it stopped", took)
		for range 20 {
			if err := w.open(script{Mode: exchange, Up: 1000, Down: 1000}).run(); err != nil {
				t.Errorf("a new session: %v", err)
			}
		}
		// What it has accepted waits for it.
		w.backends[0].goOn()
		elbowtest.Eventually(t, 10*time.Second, "it is up again", func() bool { return w.state(0) == "up" })
		for _, s := range l.stop() {
			if s.err != nil {
				t.Errorf("a session that the stop has delayed failed: %v", s.err)
			}
		}
		for _, s := range lasting {
			if s.err = s.ping(100_000); s.err != nil {
				t.Errorf("a lasting session: %v", s.err)
			}
		}

		// But not for ever.
		w.backends[0].stop()
		idle := 0
		for _, s := range lasting {
			if s.err = s.ping(1000); s.err == nil {
				s.err = s.close()
			} else if idle++; !isReset(s.err) {
				t.Errorf("the client of a backend that hangs sees %q, want a reset", s.err)
			}
		}
		if idle != 1 {
			t.Errorf("%d sessions were ended, want that of the backend that hangs", idle)
		}
		w.backends[0].goOn()
		for s, l := range w.settle() {
			if l.Reason == "idle-timeout" && l.Backend != w.backends[0].address {
				t.Errorf("session %d ended as %s at %s", s.Seed, l.Reason, l.Backend)
			}
		}
	})
}
