package elasticip_test

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/amazon"
	"haslohas.com/elbow/elasticip"
	"haslohas.com/elbow/internal/awstest"
)

const allocation = "eipalloc-0123456789abcdef0"

var address = netip.MustParseAddr("54.93.167.95")

// A world is a cloud with one Elastic IP and hosts that want it, in memory,
// over real HTTP.
type world struct {
	t       *testing.T
	cloud   awstest.Cloud
	network awstest.Network
	lock    modelLock
	hosts   []*host
	stops   []func()
	log     logBook
}

// A host is an instance with a keeper.
type host struct {
	id       string
	lock     *hostLock
	keeper   *elasticip.Keeper
	registry *prometheus.Registry
	stop     func()

	mu      sync.Mutex
	beliefs []elasticip.Belief // as they changed
}

func newWorld(t *testing.T) *world {
	t.Setenv("AWS_ACCESS_KEY_ID", awstest.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", awstest.SecretKey)
	t.Setenv("AWS_CA_BUNDLE", "") // it would be for another client
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	w := &world{t: t}
	w.cloud.AddAddress(awstest.Address{Allocation: allocation, Public: address})
	w.lock = modelLock{lease: 6 * time.Second, renew: 500 * time.Millisecond}
	return w
}

// begin opens the network; it is apart from newWorld so that all goroutines
// are in the bubble of the test.
func (w *world) begin(t *testing.T) {
	w.t = t
	w.stops = append(w.stops, w.network.Serve("ec2.test", &w.cloud))
}

func (w *world) end() {
	for _, h := range w.hosts {
		h.stop()
	}
	for _, stop := range w.stops {
		stop()
	}
	time.Sleep(time.Minute) // calls that nobody waits for any more end as well
}

func (w *world) connect(id string) func(context.Context) (elasticip.API, string, error) {
	o := amazon.Options{Region: awstest.Region, Endpoint: "http://ec2.test"}
	return func(ctx context.Context) (elasticip.API, string, error) {
		return elasticip.Connect(ctx, o, w.network.Client(id+"/"))
	}
}

// believed returns the beliefs that were told so far.
func (h *host) believed() []elasticip.Belief {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.beliefs)
}

// add starts a host that competes for the address, or only looks.
func (w *world) add(id string, takeover bool) *host {
	w.instance(id)
	h := &host{id: id}
	w.hosts = append(w.hosts, h)
	w.start(h, takeover)
	return h
}

// instance adds an instance on which nothing runs.
func (w *world) instance(id string) {
	instance := awstest.Instance{ID: id, Private: netip.MustParseAddr("172.31.8.1"), Zone: awstest.Region + "a", VPC: "vpc-1"}
	w.cloud.AddInstance(instance)
	w.stops = append(w.stops, w.network.Serve(id+"/"+awstest.MetadataHost, awstest.Metadata(instance)))
}

func (w *world) start(h *host, takeover bool) {
	h.registry = prometheus.NewRegistry()
	o := elasticip.Options{
		Connect:    w.connect(h.id),
		Allocation: allocation,
		Changed: func(b elasticip.Belief) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.beliefs = append(h.beliefs, b)
		},
		Log:        slog.New(slog.NewTextHandler(&w.log, nil)).With("host", h.id),
		Registerer: h.registry,
	}
	if takeover {
		h.lock = &hostLock{model: &w.lock, id: h.id}
		o.Lock = h.lock
	}
	h.keeper = elasticip.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := h.keeper.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	h.stop = func() {
		cancel()
		<-done
	}
}

// owners returns the hosts that believe they own the address.
func (w *world) owners() []string {
	var out []string
	for _, h := range w.hosts {
		if h.keeper.Belief().Mine {
			out = append(out, h.id)
		}
	}
	return out
}

// within waits until ok, looking every ten milliseconds, and never sees two
// owners. It returns how long it took.
func (w *world) within(limit time.Duration, what string, ok func() bool) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for time.Since(begin) <= limit {
		if owners := w.owners(); len(owners) > 1 {
			w.t.Fatalf("%v believe they own the address\n%s", owners, &w.log)
		}
		if ok() {
			return time.Since(begin)
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("not within %s: %s; owners %v, at %s\n%s", limit, what, w.owners(), w.cloud.Holder(allocation), &w.log)
	return 0
}

// A modelLock is a lease: one holder, who renews it; it runs out. It stands for
// what keeps it as well: a server that can be cut off.
type modelLock struct {
	lease, renew time.Duration

	mu     sync.Mutex
	holder string
	ends   time.Time
	cut    map[string]bool // hosts that cannot reach it
}

func (m *modelLock) try(id string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut[id] || m.holder != id && now.Before(m.ends) {
		return false
	}
	m.holder, m.ends = id, now.Add(m.lease)
	return true
}

func (m *modelLock) release(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holder == id && !m.cut[id] {
		m.ends = time.Time{}
	}
}

func (m *modelLock) setCut(id string, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut == nil {
		m.cut = make(map[string]bool)
	}
	m.cut[id] = cut
}

// A hostLock is the lock as one host sees it.
type hostLock struct {
	model *modelLock
	id    string
	drift float64 // how much faster the clock of the host goes

	mu    sync.Mutex
	until time.Time
}

func (l *hostLock) Until() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until
}

func (l *hostLock) set(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = t
}

// margin is what the lock takes off for clocks that differ in their rate.
const margin = 200 * time.Millisecond

func (l *hostLock) Run(ctx context.Context, held func(context.Context)) error {
	for ctx.Err() == nil {
		before := time.Now()
		if l.model.try(l.id, before) {
			l.hold(ctx, before, held)
		}
		select {
		case <-ctx.Done():
		case <-time.After(l.model.renew):
		}
	}
	return nil
}

func (l *hostLock) hold(ctx context.Context, since time.Time, held func(context.Context)) {
	l.set(since.Add(l.length()))
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		held(ctx)
	}()
	for ctx.Err() == nil && time.Now().Before(l.Until().Add(-time.Second)) {
		select {
		case <-ctx.Done():
		case <-time.After(l.model.renew):
		}
		if before := time.Now(); ctx.Err() == nil && l.model.try(l.id, before) {
			l.set(before.Add(l.length()))
		}
	}
	ended := ctx.Err() != nil
	cancel()
	<-done
	if ended {
		l.set(time.Time{})
		l.model.release(l.id)
	}
}

func (l *hostLock) length() time.Duration {
	return time.Duration(float64(l.model.lease-margin) / (1 - l.drift))
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
