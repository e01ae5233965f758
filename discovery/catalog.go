package discovery

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// window is how long updates are gathered after the first of a burst. It is
	// short beside every probe interval, so that no failover waits for it.
	window = 10 * time.Millisecond

	// patience bounds how long a service waits for the first word of its
	// source before it is served without endpoints.
	patience = 2 * time.Second
)

// A Catalog merges what is wanted with what the sources find. Its methods may
// be called by several goroutines.
type Catalog struct {
	Options
	metrics *metrics

	mu      sync.Mutex
	wanted  Want          // guarded by mu
	applied chan struct{} // capacity 1: there is something wanted
	updated chan struct{} // capacity 1: a source has delivered

	status  atomic.Pointer[[]SourceStatus]
	refused atomic.Pointer[[]Conflict]
	good    atomic.Pointer[map[string]*goodSet] // of the sources, by key; nil: none has delivered
}

// New returns a Catalog that does nothing until Run. Metrics that cannot be
// registered are a mistake of the program, and New panics.
func New(o Options) *Catalog {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Catalog{
		Options: o,
		metrics: newMetrics(o.Registerer),
		applied: make(chan struct{}, 1),
		updated: make(chan struct{}, 1),
	}
}

// Apply makes w what is wanted, in place of what was. It returns at once and
// may be called before Run. The Catalog keeps what w points to.
func (c *Catalog) Apply(w Want) {
	c.mu.Lock()
	c.wanted = w
	c.mu.Unlock()
	poke(c.applied)
}

// Sources returns how the sources are doing, in the order of the services as
// they are wanted.
func (c *Catalog) Sources() []SourceStatus {
	if s := c.status.Load(); s != nil {
		return *s
	}
	return nil
}

// SaveTo saves the good sets as they are, to nothing but to, for a process
// that takes over now.
func (c *Catalog) SaveTo(to Saver) error {
	saved := make(map[string]savedSet)
	if sets := c.good.Load(); sets != nil {
		for key, s := range *sets {
			saved[key] = save(s)
		}
	}
	return to.Save(storeName, saved)
}

// Run runs the sources and delivers until ctx is cancelled. All sources have
// returned before it does.
func (c *Catalog) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	l := newLoop(c)
	defer l.keeper.save()
	defer l.running.Wait()
	defer cancel()
	l.begin(ctx)

	// Both timers are stopped until there is something to wait for.
	gather, patient := stoppedTimer(), stoppedTimer()
	defer gather.Stop()
	defer patient.Stop()
	gathering := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.applied:
			l.apply(ctx, c.take(), time.Now())
		case <-c.updated:
		case <-gather.C:
			gathering = false
			if wait := l.settle(time.Now()); wait > 0 {
				patient.Reset(wait)
			}
			continue
		case <-patient.C:
		}
		if !gathering {
			gathering = true
			gather.Reset(window)
		}
	}
}

func (c *Catalog) take() Want {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wanted
}

// poke leaves a wake-up in a channel of capacity 1, unless one is waiting there.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}
