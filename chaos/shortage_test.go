//go:build chaos && linux

package chaos

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"haslohas.com/elbow/internal/elbowtest"
)

// pings begins n sessions at the same time; each sends what it receives on
// done when it was served, or the error that it met.
func (w *world) pings(n int, reasons ...string) (all []*session, done <-chan error) {
	w.t.Helper()
	results := make(chan error, n)
	for range n {
		s := w.open(script{Mode: mirror}).mayEnd(reasons...)
		all = append(all, s)
		go func() {
			if s.err == nil {
				s.err = s.ping(1000)
			}
			results <- s.err
		}()
	}
	return all, results
}

// unblamed checks that no backend was found guilty of what this host is short of.
func (w *world) unblamed() {
	w.t.Helper()
	for i := range w.backends {
		if n, state := w.failures(i), w.state(i); n != 0 || state != "up" {
			w.t.Errorf("backend %d is %s, %v connects failed; want up and none", i, state, n)
		}
	}
	if w.elbow.Metric("elbow_proxy_accept_pauses_total") == 0 {
		w.t.Error("accepting did not pause")
	}
}

// goesOn checks that established sessions are served and little is spent,
// while d goes by.
func (w *world) goesOn(d time.Duration, established []*session) {
	w.t.Helper()
	begin, cpu := time.Now(), w.process.cpu()
	for time.Since(begin) < d {
		for _, s := range established {
			if s.err = s.ping(100); s.err != nil {
				w.t.Fatalf("an established session: %v", s.err)
			}
		}
		<-time.After(100 * time.Millisecond)
	}
	cpu = w.process.cpu() - cpu
	w.t.Logf("%s of CPU time in %s", cpu, d)
	if cpu > d/4 {
		w.t.Errorf("%s of CPU time in %s of shortage", cpu, d)
	}
}

// The limit of open files is known at the start: elbow stops accepting before it is met.
func TestLowLimitOfDescriptors(t *testing.T) {
	const limit, most, more = 200, 75, 40 // connections of two descriptors each; a quarter is kept for the rest
	withEachEngine(t, func(t *testing.T, engine string) {
		w := newWorld(t, setting{engine: engine, backends: 2, wrap: func(c *exec.Cmd) *exec.Cmd {
			return exec.Command("sh", append([]string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, limit)}, c.Args...)...)
		}})
		first, done := w.pings(most)
		for range most {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		second, done := w.pings(more)
		w.goesOn(3*time.Second, first[:10])
		select {
		case err := <-done:
			t.Errorf("a session beyond the limit was answered: %v", err)
		default:
		}
		w.unblamed()
		for _, s := range first {
			if s.err = s.close(); s.err != nil {
				t.Error(s.err)
			}
		}
		for range more {
			if err := <-done; err != nil {
				t.Errorf("a session that waited for descriptors: %v", err)
			}
		}
		for _, s := range second {
			if s.err = s.close(); s.err != nil {
				t.Error(s.err)
			}
		}
		w.unblamed()
		w.settle()
	})
}

// The limit is lowered while elbow runs, so that it is met (EMFILE).
func TestNoDescriptors(t *testing.T) {
	withEachEngine(t, func(t *testing.T, engine string) {
		w := newWorld(t, setting{engine: engine, backends: 2})
		established, done := w.pings(10)
		for range established {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		open := 0
		for _, n := range w.process.descriptors() {
			open += n
		}
		w.process.limitDescriptors(uint64(open) + 11)
		more, done := w.pings(30, "client-closed", "local-fault")
		w.goesOn(3*time.Second, established)
		w.process.limitDescriptors(20_000)

		served, failed := 0, 0
		for range more {
			if err := <-done; err == nil {
				served++
			} else if failed++; !isReset(err) {
				t.Errorf("a session without descriptors ended with %v, want a reset", err)
			}
		}
		t.Logf("%d served, %d given up", served, failed)
		if served < 10 {
			t.Errorf("%d of %d sessions were served, want all that waited for the limit to rise", served, len(more))
		}
		w.unblamed()
		for _, s := range append(more, established...) {
			if s.err == nil {
				s.err = s.close()
			}
		}
		w.settle()
	})
}

func TestNoPorts(t *testing.T) {
	const ports, clients = 32, 80
	withEachEngine(t, func(t *testing.T, engine string) {
		// While one session waits for a port nobody else is accepted, so those
		// that find none give up one after the other, each after the time of a connect.
		w := newWorld(t, setting{engine: engine, backends: 2, service: "    connect: {timeout: 300ms}", host: func(n *namespace) {
			n.set("ipv4/ip_local_port_range", fmt.Sprintf("40000 %d", 40000+ports-1))
			n.set("ipv4/tcp_tw_reuse", "1")
		}})
		all, done := w.pings(clients, "client-closed", "local-fault")
		served, failed := 0, 0
		for range clients {
			if err := <-done; err == nil {
				served++
			} else if failed++; !isReset(err) {
				t.Errorf("a session without a port ended with %v, want a reset", err)
			}
		}
		t.Logf("%d served, %d given up", served, failed)
		if served < ports || served > 2*ports || failed == 0 {
			t.Errorf("%d of %d sessions were served; two backends can be reached from %d ports each", served, clients, ports)
		}
		var established []*session
		for _, s := range all {
			if s.err == nil {
				established = append(established, s)
			}
		}
		w.goesOn(time.Second, established)
		w.unblamed()
		for _, s := range established {
			if s.err = s.close(); s.err != nil {
				t.Error(s.err)
			}
		}
		elbowtest.Eventually(t, 5*time.Second, "there are ports again", func() bool {
			return w.open(script{Mode: exchange, Up: 1000, Down: 1000}).mayEnd("client-closed", "local-fault").run() == nil
		})
		w.unblamed()
		w.settle()
	})
}
