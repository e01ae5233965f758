//go:build chaos && linux

package chaos

import (
	"slices"
	"testing"
	"time"

	"haslohas.com/elbow/internal/elbowtest"
)

func TestUpgradesUnderLoad(t *testing.T) {
	const upgrades = 5
	withEachEngine(t, func(t *testing.T, engine string) {
		w := newWorld(t, setting{engine: engine, backends: 2})
		// What a process holds that was handed everything is what the next one holds.
		old := []process{w.process}
		w.elbow.Upgrade()
		w.process.pid = w.elbow.PID()
		elbowtest.Eventually(t, 10*time.Second, "the first process ends", func() bool { return old[0].isOver() })
		w.remember()

		l := w.startLoad(100)
		defer l.stop()
		var lasting []*session
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for range upgrades {
			// Each process begins some that outlive it, and goes on with them.
			begun, done := w.pings(4)
			for range begun {
				if err := <-done; err != nil {
					t.Fatal(err)
				}
			}
			lasting = append(lasting, begun...)
			<-tick.C
			old = append(old, w.process)
			t.Logf("upgraded within %s", w.elbow.Upgrade())
			w.process.pid = w.elbow.PID()
			for _, s := range lasting {
				if s.err = s.ping(1000); s.err != nil {
					t.Fatalf("a lasting session: %v", s.err)
				}
			}
		}
		sessions := l.stop()
		for _, s := range sessions {
			if s.err != nil {
				t.Errorf("a session failed: %v", s.err)
			}
		}
		for _, s := range lasting {
			if s.err = s.close(); s.err != nil {
				t.Errorf("a lasting session: %v", s.err)
			}
		}
		elbowtest.Eventually(t, 10*time.Second, "the old processes end with their last session", func() bool {
			return !slices.ContainsFunc(old, func(p process) bool { return !p.isOver() })
		})
		t.Logf("%d sessions", len(sessions))
		w.settle()
	})
}
