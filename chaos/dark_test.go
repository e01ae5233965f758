//go:build chaos && linux

package chaos

import (
	"fmt"
	"net"
	"testing"
	"time"

	"haslohas.com/elbow/internal/elbowtest"
)

func TestBackendIsDarkBeforeTheConnect(t *testing.T) {
	withEachEngine(t, func(t *testing.T, engine string) {
		// The probes are slow, so that traffic finds it out.
		w := newWorld(t, setting{engine: engine, backends: 2, service: "    probe: {type: http, port: 8080, interval: 3s, timeout: 2s, fastInterval: 100ms, downInterval: 200ms}"})
		w.vanish(backendIP(1), w.cable(0))
		took := make(map[*session]time.Duration)
		for range 4 {
			s := w.open(script{Mode: exchange, Up: 100_000, Down: 100_000})
			if err := s.run(); err != nil {
				t.Error(err)
			}
			took[s] = time.Since(s.begin)
		}
		if n := w.elbow.Metric(fmt.Sprintf(`elbow_proxy_connect_failures_total{backend=%q,reason="timeout",service="web"}`, w.backends[0].address)); n != 1 {
			t.Errorf("%v connects timed out, want that of the first session that met it", n)
		}
		elbowtest.Eventually(t, 20*time.Second, "it is down", func() bool { return w.state(0) == "down" })
		if state := w.state(1); state != "up" {
			t.Errorf("the other one is %s", state)
		}
		w.comeBack(backendIP(1), w.cable(0))
		elbowtest.Eventually(t, 20*time.Second, "it is up again", func() bool { return w.state(0) == "up" })
		logged, retried := w.settle(), 0
		for s, took := range took {
			l := logged[s]
			if retried += l.Retries; l.Retries > 0 && (took < 950*time.Millisecond || took > 5*time.Second) {
				t.Errorf("a session took %s, want the second of a connect and little more", took)
			}
			if l.Backend != w.backends[1].address {
				t.Errorf("session %d was served by the backend that is dark", s.Seed)
			}
		}
		if retried != 1 {
			t.Errorf("%d connects were tried again, want 1", retried)
		}
	})
}

// Who vanishes after the connection was established is found out by what comes
// first: no byte has moved for too long, bytes stay unacknowledged for too
// long, or, where nothing is sent, nobody answers the keep-alive.
func TestFlowGoesDark(t *testing.T) {
	tests := []struct {
		what        string
		idleTimeout string
		bytes       int // that are sent into the dark
		reasons     map[string]string
		least, most time.Duration
	}{
		// Another idleTimeout is granted where some bytes had arrived before.
		{"idle timeout", "2s", 1000, map[string]string{"backend": "idle-timeout", "client": "idle-timeout"}, 1900 * time.Millisecond, 15 * time.Second},
		{"unacknowledged bytes", "30s", 1000, map[string]string{"backend": "backend-lost", "client": "client-lost"}, 29 * time.Second, 55 * time.Second},
		// 15 s of silence, then three probes of 15 s each; epoll begins to
		// count on the backend's side when the connection is ten seconds old.
		{"keep-alive", "0s", 0, map[string]string{"backend": "backend-lost", "client": "client-lost"}, 45 * time.Second, 90 * time.Second},
	}
	withEachEngine(t, func(t *testing.T, engine string) {
		for _, test := range tests {
			for who, reason := range test.reasons {
				t.Run(test.what+" of the "+who, func(t *testing.T) {
					t.Parallel()
					w := newWorld(t, setting{engine: engine, service: "    idleTimeout: " + test.idleTimeout})
					s := w.openFrom(clientB, script{Mode: mirror}).mayEnd(reason)
					if err := s.ping(1000); err != nil {
						t.Fatal(err)
					}
					ip, cable := clientB, "clients"
					if who == "backend" {
						ip, cable = backendIP(1), w.cable(0)
					}
					w.vanish(ip, cable)
					// What the client sends arrives; a backend that has not
					// vanished sends as much into the dark.
					if err := send(s.conn, s.up, uint64(test.bytes), &s.sent); err != nil {
						t.Fatal(err)
					}
					dark := time.Now()
					warm := len(w.sessions) - 1
					elbowtest.Eventually(t, test.most, "the session ends", func() bool { return len(w.log()) > warm })
					took := time.Since(dark)
					t.Logf("ended after %s", took)
					if took < test.least {
						t.Errorf("ended after %s, want at least %s", took, test.least)
					}
					// The other side hears of it at once, by a reset.
					if who == "backend" {
						if s.err = receive(s.conn, s.down, 1, &s.received); !isReset(s.err) {
							t.Errorf("the client sees %q, want a reset", end(s.err))
						}
					} else {
						s.err = net.ErrClosed // nobody can tell
						if r, _ := w.backends[0].awaitRecord(s.Seed, true); r.End != "reset" {
							t.Errorf("the backend sees %q, want a reset", r.End)
						}
					}
					w.comeBack(ip, cable) // else probes would always be under way
					w.settle()
				})
			}
		}
	})
}
