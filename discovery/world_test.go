package discovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/pool"
)

// A world is a Catalog that runs, and what it delivered. Everything happens
// in the bubble of one synctest.
type world struct {
	t       *testing.T
	begin   time.Time
	catalog *Catalog
	metrics *prometheus.Registry
	log     *logged

	mu   sync.Mutex
	sets []*pool.Set     // guarded by mu
	at   []time.Duration // since begin, guarded by mu
}

// logged is a log that may be read while it is written.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func inWorld(t *testing.T, store *memory, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, begin: time.Now(), metrics: prometheus.NewPedanticRegistry(), log: new(logged)}
		o := Options{
			Deliver:    w.deliver,
			Log:        slog.New(slog.NewTextHandler(w.log, nil)),
			Registerer: w.metrics,
		}
		if store != nil {
			o.Store = store
		}
		w.catalog = New(o)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := w.catalog.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		test(w)
		cancel()
		running.Wait()
	})
}

func (w *world) deliver(s *pool.Set) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sets = append(w.sets, s)
	w.at = append(w.at, time.Since(w.begin))
}

func (w *world) apply(services ...Service) {
	w.t.Helper()
	w.catalog.Apply(Want{Services: services})
	w.settle()
}

// settle lets a burst end and everything that follows from it happen.
func (w *world) settle() { w.after(window) }

func (w *world) after(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

// wantSets compares all the Sets so far, each as "web: a b; api: c".
func (w *world) wantSets(want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var got []string
	for _, s := range w.sets {
		got = append(got, describe(s))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("delivered -want +got:\n%s", diff)
	}
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sets)
}

// when tells how long after the begin the n-th Set came, from 0.
func (w *world) when(n int) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at[n]
}

func (w *world) last() *pool.Set {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sets[len(w.sets)-1]
}

func (w *world) wantStatus(want ...SourceStatus) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.catalog.Sources()); diff != "" {
		w.t.Errorf("sources -want +got:\n%s", diff)
	}
}

// wantLogged counts the log lines with text in them.
func (w *world) wantLogged(times int, text string) {
	w.t.Helper()
	if n := strings.Count(w.log.String(), text); n != times {
		w.t.Errorf("%q stands %d times in the log, want %d:\n%s", text, n, times, w.log)
	}
}

func describe(s *pool.Set) string {
	var services []string
	for _, v := range s.Services {
		parts := []string{v.Name + ":"}
		for _, l := range v.Ports() {
			parts = append(parts, l.String())
		}
		parts = append(parts, v.Hostnames...)
		for _, e := range v.Endpoints {
			parts = append(parts, fmt.Sprint(e.Address.Port()))
		}
		services = append(services, strings.Join(parts, " "))
	}
	return strings.Join(services, "; ")
}

// endpoints are places on one host that differ in their ports.
func endpoints(ports ...uint16) []pool.Endpoint {
	var e []pool.Endpoint
	for _, p := range ports {
		e = append(e, pool.Endpoint{Address: netip.AddrPortFrom(netip.MustParseAddr("172.31.8.233"), p), Weight: 1})
	}
	return e
}

// A said source does what the test tells it to.
type said struct {
	begun   atomic.Int64
	ended   atomic.Int64 // because it was told to
	updates chan Update
	ends    chan error
}

func newSaid() *said {
	return &said{updates: make(chan Update), ends: make(chan error)}
}

func (s *said) Run(ctx context.Context, deliver func(Update)) error {
	s.begun.Add(1)
	for {
		select {
		case <-ctx.Done():
			s.ended.Add(1)
			return nil
		case err := <-s.ends:
			return err
		case u := <-s.updates:
			deliver(u)
		}
	}
}

func (s *said) finds(ports ...uint16) { s.updates <- Update{Endpoints: endpoints(ports...)} }
func (s *said) fails(text string)     { s.updates <- Update{Err: errors.New(text)} }

// fixed is a source that knows its endpoints from the start.
type fixed []pool.Endpoint

func (f fixed) Run(ctx context.Context, deliver func(Update)) error {
	deliver(Update{Endpoints: f})
	<-ctx.Done()
	return nil
}

func service(name string, source Source, change ...func(*Service)) Service {
	s := Service{Service: pool.Service{Name: name}, Source: source, SourceName: name + "/test", SourceKey: name}
	for _, c := range change {
		c(&s)
	}
	return s
}

func listening(address string) func(*Service) {
	return func(s *Service) {
		text, udp := pool.CutTransport(address)
		if at := netip.MustParseAddrPort(text); udp {
			s.ListenUDP = append(s.ListenUDP, at)
		} else {
			s.Listen = append(s.Listen, at)
		}
	}
}

func answering(name string) func(*Service) {
	return func(s *Service) { s.Hostnames = append(s.Hostnames, name) }
}

func key(k string) func(*Service) { return func(s *Service) { s.SourceKey = k } }

// memory is a Store that can fail.
type memory struct {
	mu     sync.Mutex
	values map[string]map[string]savedSet // guarded by mu
	tries  int                            // of Save, guarded by mu
	err    error                          // guarded by mu
}

func (m *memory) saved() map[string]savedSet {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[storeName]
}

func (m *memory) saves() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tries
}

func (m *memory) Load(name string, v any) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return false, m.err
	}
	value, ok := m.values[name]
	*v.(*map[string]savedSet) = value
	return ok, nil
}

func (m *memory) Save(name string, v any) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tries++
	if m.err != nil {
		return m.err
	}
	m.values = map[string]map[string]savedSet{name: v.(map[string]savedSet)}
	return nil
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (w *world) wantGauge(name string, want float64) {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			if got := f.GetMetric()[0].GetGauge().GetValue(); got != want {
				w.t.Errorf("%s is %v, want %v", name, got, want)
			}
			return
		}
	}
	w.t.Errorf("no metric %s", name)
}
