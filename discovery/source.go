package discovery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"haslohas.com/elbow/pool"
)

// The pause before a source that returned is run again.
const (
	minPause = time.Second
	maxPause = 30 * time.Second
)

var errReturned = errors.New("the source ended without being told to")

// A goodSet is a full set of endpoints and when it was delivered. It is
// immutable.
type goodSet struct {
	endpoints []pool.Endpoint // sorted by address, unique
	probe     Probe
	updated   time.Time
}

// A source is a Source that runs.
type source struct {
	Source
	key     string
	name    string
	log     *slog.Logger
	updated chan<- struct{} // poked after each delivery
	cancel  context.CancelFunc

	mu  sync.Mutex
	box box // guarded by mu

	// What follows belongs to the loop.
	since  time.Time // when it was started
	heard  bool      // it has delivered something, if only an error
	good   *goodSet  // nil: there is none
	err    error     // why good is not the newest
	errors int       // since the time before
}

// A box holds what a source delivered since it was last emptied: of many
// updates only the last set and the last word count.
type box struct {
	heard  bool
	good   *goodSet // nil: no new set
	err    error    // of the last update
	errors int
}

func newSource(s Source, key, name string, updated chan<- struct{}, log *slog.Logger) *source {
	return &source{Source: s, key: key, name: name, updated: updated, log: log.With("source", name)}
}

func (s *source) start(ctx context.Context, running *sync.WaitGroup) {
	ctx, s.cancel = context.WithCancel(ctx)
	running.Go(func() { s.run(ctx) })
}

// run runs the Source until ctx is cancelled, again and again if need be.
func (s *source) run(ctx context.Context) {
	pause := minPause
	for {
		begin := time.Now()
		err := s.Run(ctx, s.deliver)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errReturned
		}
		s.deliver(Update{Err: err})
		if time.Since(begin) >= maxPause {
			pause = minPause // it ran well for a while
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// deliver leaves u for the loop. It never blocks, however often it is called.
func (s *source) deliver(u Update) {
	err := u.Err
	var good *goodSet
	if err == nil {
		var endpoints []pool.Endpoint
		if endpoints, err = normal(u.Endpoints); err == nil {
			good = &goodSet{endpoints, u.Probe, time.Now()}
		}
	}
	s.mu.Lock()
	s.box.heard = true
	s.box.err = err
	if err != nil {
		s.box.errors++
	} else {
		s.box.good = good
	}
	s.mu.Unlock()
	poke(s.updated)
}

// gather takes over what was delivered, logs what is new in it, and reports
// whether another set is in force.
func (s *source) gather() (changed bool) {
	s.mu.Lock()
	b := s.box
	s.box = box{}
	s.mu.Unlock()
	s.errors = b.errors
	if !b.heard {
		return false
	}
	s.heard = true
	if b.good != nil {
		changed = s.replace(b.good)
	}
	s.judge(b.err)
	return changed
}

// replace puts good into force. Where its endpoints are the old ones, the old
// slice stays, so that services made of it stay equal.
func (s *source) replace(good *goodSet) (changed bool) {
	var before []pool.Endpoint
	if s.good != nil {
		before = s.good.endpoints
		if sameEndpoints(before, good.endpoints) {
			changed = s.good.probe != good.probe
			s.good = &goodSet{before, good.probe, good.updated}
			return changed
		}
	}
	s.good = good
	added, removed := difference(before, good.endpoints)
	s.log.Info("endpoints changed", "endpoints", len(good.endpoints), "added", added, "removed", removed)
	return true
}

func (s *source) judge(err error) {
	switch {
	case err == nil && s.err != nil:
		s.log.Info("source works again")
	case err != nil && (s.err == nil || s.err.Error() != err.Error()):
		if s.good == nil {
			s.log.Warn("source fails and has no good set", "err", err)
			break
		}
		s.log.Warn("source fails, its last good set stays in force", "err", err,
			"endpoints", len(s.good.endpoints), "age", time.Since(s.good.updated).Round(time.Second))
	}
	s.err = err
}
