package health

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/pool"
)

// A Store keeps values over restarts, by name.
type Store interface {
	Load(name string, v any) (bool, error)
	Save(name string, v any) error
}

// A Saver takes what is given to a process that takes over.
type Saver interface {
	Save(name string, v any) error
}

// Answered tells how long DNS answers that were handed out may be cached.
type Answered interface {
	// Expires returns when the last answer that named addr and was given
	// before the table of that generation was in force runs out; the zero
	// time if none was given. ok is false while DNS has not got to that
	// generation.
	Expires(addr netip.Addr, generation uint64) (until time.Time, ok bool)
}

// Load tells how many connections of a service a backend has.
type Load interface {
	Active(service string, backend netip.AddrPort) int
}

// Options are what a [Checker] works with. Only Publisher is required.
type Options struct {
	Publisher *pool.Publisher
	Store     Store    // nil: nothing outlives the process
	Answered  Answered // nil: no DNS answer was ever handed out
	Load      Load     // nil: there are no connections

	// Elsewhere reports whether another process may still have connections to
	// any backend. It must not block. nil: none has.
	Elsewhere func() bool

	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: the metrics are not registered

	// StartTimeout bounds how long the first table waits for the first round
	// of probes, counted from the first set; 0: 10s.
	StartTimeout time.Duration
}

// A Checker probes the endpoints of a [pool.Set] and publishes what it found.
// Its methods may be called by several goroutines.
type Checker struct {
	Options
	metrics *metrics
	prober  func(netip.AddrPort, pool.Probe) probeFunc // newProbe, but for tests

	newest  atomic.Pointer[pool.Set]
	updated chan struct{} // capacity 1: there is a newest
	ready   chan struct{}
	ended   chan struct{} // Run has returned

	inboxes  atomic.Pointer[map[backendKey]*inbox]
	reports  reportQueue
	results  chan result
	requests chan func(*loop)

	operator sync.Mutex // one order at a time, so that they are saved in the order they were given
}

// New returns a Checker that does nothing until Run. Metrics that cannot be
// registered are a mistake of the program, and New panics.
func New(o Options) *Checker {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.StartTimeout <= 0 {
		o.StartTimeout = 10 * time.Second
	}
	return &Checker{
		Options:  o,
		metrics:  newMetrics(o.Registerer),
		prober:   newProbe,
		updated:  make(chan struct{}, 1),
		ready:    make(chan struct{}),
		ended:    make(chan struct{}),
		reports:  reportQueue{wake: make(chan struct{}, 1)},
		results:  make(chan result, 256),
		requests: make(chan func(*loop)),
	}
}

// Run probes and publishes until ctx is cancelled, and then returns nil. It
// may be called once.
//
// The first table is published when each endpoint of the newest set has had a
// probe, at the latest after StartTimeout. An endpoint without a result then
// is in the state it had before the restart, if that is known and not older
// than ten minutes, else unknown.
func (c *Checker) Run(ctx context.Context) error {
	defer close(c.ended)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := newLoop(c)
	l.run(ctx)
	cancel()
	l.probes.Wait()
	if l.started { // else what was saved before is worth more
		l.saver.save(l.snapshot(true))
	}
	l.saver.close()
	return nil
}

// Update hands over what ought to be served from now on. It never blocks; of
// several sets in quick succession only the last may be looked at. Endpoints
// that were there before keep their state, counters and timing, also when
// their probe has changed; new ones are unknown and probed at once.
func (c *Checker) Update(s *pool.Set) {
	c.newest.Store(s)
	select {
	case c.updated <- struct{}{}:
	default:
	}
}

// Ready returns a channel that is closed when the first table is published.
func (c *Checker) Ready() <-chan struct{} { return c.ready }

var errNotRunning = errors.New("the health checker has ended")

// ask has the event loop do something and waits until it is done; before Run
// it waits for Run.
func (c *Checker) ask(do func(*loop)) error {
	done := make(chan struct{})
	select {
	case c.requests <- func(l *loop) { defer close(done); do(l) }:
		<-done
		return nil
	case <-c.ended:
		return errNotRunning
	}
}
