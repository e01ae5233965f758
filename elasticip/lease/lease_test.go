package lease_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/rest"

	"haslohas.com/elbow/elasticip/lease"
	"haslohas.com/elbow/internal/awstest"
	"haslohas.com/elbow/internal/leasetest"
)

// A world is an API server and hosts that compete for a Lease on it.
type world struct {
	t       *testing.T
	server  leasetest.Server
	network awstest.Network
	log     logBook
	hosts   map[string]*host
	stop    func()
}

type host struct {
	*lease.Lock
	end func()

	mu   sync.Mutex
	held int // goroutines in it; more than one is a mistake
	ever int
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, hosts: make(map[string]*host)}
	w.server.Namespace = "default"
	w.stop = w.network.Serve("cluster.test", &w.server)
	return w
}

func (w *world) end() {
	for _, h := range w.hosts {
		h.end()
	}
	w.stop()
}

func (w *world) add(id string, keep bool) *host {
	transport := w.network.Client(id + "/").Transport.(*http.Transport)
	h := &host{}
	h.Lock = lease.New(lease.Options{
		Config: func() (*rest.Config, error) {
			return &rest.Config{Host: "http://cluster.test", Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				return transport.DialContext(ctx, network, address)
			}, DisableCompression: true}, nil
		},
		Identity:  func(context.Context) (string, error) { return id, nil },
		Namespace: "default",
		Name:      "elbow-elastic-ip",
		Keep:      func() bool { return keep },
		Log:       slog.New(slog.NewTextHandler(&w.log, nil)).With("host", id),
	})
	w.hosts[id] = h
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := h.Run(ctx, func(ctx context.Context) {
			h.count(1)
			<-ctx.Done()
			h.count(-1)
		})
		if err != nil {
			w.t.Error(err)
		}
	}()
	h.end = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	return h
}

func (h *host) count(by int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held += by
	h.ever += max(by, 0)
}

// times is how often the host has had the Lease.
func (h *host) times() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ever
}

func (h *host) holds() bool { return time.Now().Before(h.Until()) }

// during watches for a time that never two hosts have the Lease.
func (w *world) during(d time.Duration, until func() bool) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for time.Since(begin) < d {
		n := 0
		for _, h := range w.hosts {
			if h.holds() {
				n++
			}
		}
		if n > 1 {
			w.t.Fatalf("%d hosts have the lease\n%s", n, &w.log)
		}
		if until != nil && until() {
			return time.Since(begin)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if until != nil {
		w.t.Fatalf("not within %s\n%s", d, &w.log)
	}
	return d
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		a := w.add("i-a", false)
		w.during(time.Second, a.holds)
		b := w.add("i-b", false)
		w.during(time.Minute, nil)
		if !a.holds() || b.holds() || w.server.Holder("elbow-elastic-ip") != "i-a" {
			t.Error("a has lost it for nothing")
		}
		if n := w.server.Requests(); n > 61*4 {
			t.Errorf("%d requests in a minute", n)
		}
		// Given back: the next one need not wait.
		a.end()
		if took := w.during(3*time.Second, b.holds); took > 2500*time.Millisecond {
			t.Errorf("b had to wait for %s", took)
		}
	})
}

// A host that is cut off stops before another one takes its place.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		a := w.add("i-a", false)
		w.during(time.Second, a.holds)
		b := w.add("i-b", false)
		w.during(5*time.Second, nil)
		var gaveUp time.Duration
		begin := time.Now()
		w.network.Cut("cluster.test", true)
		w.during(20*time.Second, func() bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			gaveUp = time.Since(begin)
			return a.held == 0
		})
		if gaveUp < 3*time.Second || gaveUp > 7*time.Second {
			t.Errorf("a gave up after %s", gaveUp)
		}
		w.during(20*time.Second, func() bool { return !a.holds() })
		if took := time.Since(begin); took < 6*time.Second || took > 8*time.Second {
			t.Errorf("a had it for %s", took)
		}
		w.network.Cut("cluster.test", false)
		w.during(10*time.Second, func() bool { return a.holds() || b.holds() })
		if !strings.Contains(w.log.String(), "cannot be renewed") {
			t.Errorf("the log says nothing:\n%s", &w.log)
		}
	})
}

// One host alone is cut off: the other one has it within ten seconds.
func TestOneIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		defer w.network.Serve("i-a/cluster.test", &w.server)() // a way of its own
		a := w.add("i-a", false)
		w.during(time.Second, a.holds)
		b := w.add("i-b", false)
		w.during(5*time.Second, nil)
		w.network.Cut("i-a/cluster.test", true)
		took := w.during(10*time.Second, b.holds)
		t.Logf("b has it after %s", took)
		w.network.Cut("i-a/cluster.test", false)
		w.during(30*time.Second, nil)
		if a.holds() || !b.holds() {
			t.Error("a has taken it back")
		}
	})
}

// A process that takes over from another one of the same host has it at once,
// and the other one does not give it away.
func TestUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		a := w.add("i-a", true)
		w.during(time.Second, a.holds)
		delete(w.hosts, "i-a")
		again := w.add("i-a", false)
		w.during(2*time.Second, again.holds)
		a.end()
		w.during(time.Minute, nil)
		if !again.holds() || again.times() != 1 {
			t.Errorf("held %d times", again.times())
		}
	})
}

// What other clients have written stays, and a Lease that nobody gave back is
// waited for as long as its holder said.
func TestOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		w.server.Set("elbow-elastic-ip", "somebody", 30)
		a := w.add("i-a", false)
		if took := w.during(time.Minute, a.holds); took < 30*time.Second {
			t.Errorf("taken after %s", took)
		}
		got := w.server.Lease("elbow-elastic-ip")
		labels, _ := got["metadata"].(map[string]any)["labels"].(map[string]any)
		spec := got["spec"].(map[string]any)
		if labels["app"] != "elbow" || spec["leaseTransitions"] != 4.0 || spec["leaseDurationSeconds"] != 8.0 {
			t.Errorf("got %v", got)
		}
	})
}

func TestNotAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.server.Fault = func(*http.Request) int { return http.StatusForbidden }
		defer w.end()
		a := w.add("i-a", false)
		w.during(time.Minute, nil)
		if a.holds() || a.times() != 0 {
			t.Error("a has it")
		}
		if said := w.log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "deploy/kubernetes") {
			t.Errorf("the log says:\n%s", said)
		}
	})
}

// A logBook keeps what was logged.
type logBook struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
