//go:build chaos && linux

package chaos

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestReloadsUnderLoad(t *testing.T) {
	withEachEngine(t, func(t *testing.T, engine string) {
		w := newWorld(t, setting{engine: engine, backends: 3})
		l := w.startLoad(100)
		defer l.stop()
		lasting, done := w.pings(9)
		for range lasting {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for i := range 30 {
			<-tick.C
			// A backend goes and comes, and something that the proxy carries changes.
			config := w.config("    idleTimeout: 340s")
			if i%2 == 0 {
				config = strings.Replace(w.config("    balance: leastconn"), `, "`+w.backends[2].address+`"`, "", 1)
			}
			w.elbow.Configure(config)
			w.elbow.Signal(syscall.SIGHUP)
			if i%10 == 0 {
				for _, s := range lasting {
					if s.err = s.ping(1000); s.err != nil {
						t.Fatalf("a lasting session: %v", s.err)
					}
				}
			}
		}
		if w.elbow.Metric("elbow_config_last_reload_successful") != 1 {
			t.Error("the last reload failed")
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
		t.Logf("%d sessions, generation %v", len(sessions), w.elbow.Metric("elbow_table_generation"))
		w.settle()
	})
}
