package health

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/pool"
)

// The addresses of the tests.
var (
	one   = netip.MustParseAddrPort("10.0.0.1:80")
	two   = netip.MustParseAddrPort("10.0.0.2:80")
	three = netip.MustParseAddrPort("10.0.0.3:80")
)

var testProbe = pool.Probe{
	Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3,
	FastInterval: 500 * time.Millisecond, DownInterval: 5 * time.Second,
}

// A world is where the probes of a test go.
type world struct {
	mu      sync.Mutex
	failing map[netip.AddrPort]error
	hanging map[netip.AddrPort]bool // until the timeout
	took    time.Duration           // by each probe
	log     map[netip.AddrPort][]time.Time
	running int
	most    int
}

func newWorld() *world {
	return &world{
		failing: make(map[netip.AddrPort]error),
		hanging: make(map[netip.AddrPort]bool),
		log:     make(map[netip.AddrPort][]time.Time),
	}
}

func (w *world) prober(a netip.AddrPort, p pool.Probe) probeFunc {
	return func(ctx context.Context) (string, error) {
		w.mu.Lock()
		w.log[a] = append(w.log[a], time.Now())
		w.running++
		w.most = max(w.most, w.running)
		err, hanging, took := w.failing[a], w.hanging[a], w.took
		w.mu.Unlock()
		defer func() {
			w.mu.Lock()
			w.running--
			w.mu.Unlock()
		}()
		if hanging {
			<-ctx.Done()
			return "", errors.New("connect timed out after " + timeoutOf(p).String())
		}
		time.Sleep(took)
		if err != nil {
			return "", err
		}
		return "tcp connect ok", nil
	}
}

var errRefused = errors.New("connect refused")

func (w *world) kill(a netip.AddrPort)   { w.fail(a, errRefused) }
func (w *world) revive(a netip.AddrPort) { w.fail(a, nil) }

func (w *world) fail(a netip.AddrPort, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failing[a] = err
	w.hanging[a] = false
}

func (w *world) hang(a netip.AddrPort) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hanging[a] = true
}

func (w *world) probes(a netip.AddrPort) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Time(nil), w.log[a]...)
}

// A memory is a Store that a test can look into and break.
type memory struct {
	mu     sync.Mutex
	values map[string][]byte
	broken error
}

func (m *memory) Load(name string, v any) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, ok := m.values[name]
	if !ok {
		return false, nil
	}
	err := json.Unmarshal(text, v)
	return err == nil, err
}

func (m *memory) Save(name string, v any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return m.broken
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if m.values == nil {
		m.values = make(map[string][]byte)
	}
	m.values[name] = text
	return nil
}

func (m *memory) breakWith(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.broken = err
}

type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.b.String()) {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}

// A house is a running Checker and all it works with. It is used inside a
// synctest bubble.
type house struct {
	*testing.T
	*Checker
	*world
	table    *pool.Publisher
	registry *prometheus.Registry
	out      *lines
	stop     func() // ends Run and waits for it
}

func build(t *testing.T, w *world, o Options) *house {
	h := &house{T: t, world: w, table: new(pool.Publisher), registry: prometheus.NewPedanticRegistry(), out: new(lines)}
	o.Publisher, o.Registerer = h.table, h.registry
	o.Log = slog.New(slog.NewTextHandler(h.out, nil))
	h.Checker = New(o)
	h.Checker.prober = w.prober
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Checker.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	return h
}

// start builds a house, serves the set and waits for the first table.
func start(t *testing.T, w *world, o Options, s *pool.Set) *house {
	h := build(t, w, o)
	h.Update(s)
	<-h.Ready()
	synctest.Wait()
	return h
}

func (h *house) backend(service string, a netip.AddrPort) pool.Backend {
	h.Helper()
	if p := h.table.Load().Service(service); p != nil {
		for _, b := range p.Backends {
			if b.Address == a {
				return b
			}
		}
	}
	h.Fatalf("generation %d has no backend %s of %s", h.table.Load().Generation, a, service)
	return pool.Backend{}
}

func (h *house) wantState(a netip.AddrPort, want pool.State) pool.Backend {
	h.Helper()
	synctest.Wait()
	b := h.backend("web", a)
	if b.State != want {
		h.Fatalf("%s is %s (%s), want %s", a, b.State, b.Reason, want)
	}
	return b
}

// eventually lets time pass until ok, and returns how long that took.
func (h *house) eventually(what string, within time.Duration, ok func() bool) time.Duration {
	h.Helper()
	began := time.Now()
	for {
		synctest.Wait()
		if ok() {
			return time.Since(began)
		}
		if time.Since(began) > within {
			h.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (h *house) becomes(a netip.AddrPort, want pool.State, within time.Duration) time.Duration {
	h.Helper()
	return h.eventually(a.String()+" "+want.String(), within, func() bool { return h.backend("web", a).State == want })
}

// metric returns the value of a series, by its labels' values in the order of
// their names; ok is false if there is none.
func (h *house) metric(name string, values ...string) (float64, bool) {
	h.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		h.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var got []string
			for _, l := range m.GetLabel() {
				got = append(got, l.GetValue())
			}
			if strings.Join(got, " ") == strings.Join(values, " ") {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue(), true
			}
		}
	}
	return 0, false
}

func (h *house) wantMetric(want float64, name string, values ...string) {
	h.Helper()
	if got, ok := h.metric(name, values...); !ok || got != want {
		h.Errorf("%s%q = %v (there: %v), want %v", name, values, got, ok, want)
	}
}

func serviceOf(name string, addresses ...netip.AddrPort) *pool.Service {
	s := &pool.Service{Name: name, Probe: testProbe, DrainTimeout: 5 * time.Minute}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, pool.Endpoint{Address: a, Node: "node" + a.Addr().String()[7:], Weight: 1})
	}
	return s
}

func setOf(services ...*pool.Service) *pool.Set {
	return &pool.Set{
		Services: services,
		DNS:      pool.DNS{Zones: []*pool.Zone{{Name: "public.example", TTL: pool.ZoneTTL{Normal: 30 * time.Second}}}},
	}
}

var errLocal = &localFault{syscall.EMFILE}
