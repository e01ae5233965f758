package health

import (
	"cmp"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"haslohas.com/elbow/pool"
)

const (
	statesName = "health"         // in the Store
	saveEvery  = 3 * time.Second  // states are saved so long after a change
	maxAge     = 10 * time.Minute // of states that are worth beginning with

	// generationGap is left after an end without a last save, so that
	// generations grow although the last ones were not kept.
	generationGap = 1000
)

// A saved is what outlives a restart besides the operator's orders.
type saved struct {
	Generation uint64         `json:"generation"`
	Clean      bool           `json:"clean"` // written at the end of Run
	At         time.Time      `json:"at"`
	Backends   []savedBackend `json:"backends"`
}

type savedBackend struct {
	Service    string         `json:"service"`
	Address    netip.AddrPort `json:"address"`
	State      string         `json:"state"` // what the probes said
	Since      time.Time      `json:"since"`
	Reason     string         `json:"reason"`
	Drain      string         `json:"drain,omitempty"` // a pool.DrainStage
	DrainSince time.Time      `json:"drainSince,omitzero"`
	DrainUntil time.Time      `json:"drainUntil,omitzero"`
}

func (b savedBackend) verdict() verdict {
	switch b.State {
	case pool.Up.String():
		return verdict{state: pool.Up, provisional: true}
	case pool.Down.String():
		return verdict{state: pool.Down, provisional: true}
	}
	return verdict{}
}

// restore begins with what was saved. What cannot be read is reported and
// costs no start.
func (l *loop) restore(now time.Time) {
	l.orders = make(map[string]order)
	if l.Store == nil {
		return
	}
	orders := make(map[string]order)
	if _, err := l.Store.Load(ordersName, &orders); err != nil {
		l.Log.Error("operator's orders are lost", "err", err)
	}
	for target, o := range orders {
		if o.Force != "" && o.Force != forceUp && o.Force != forceDown || o == (order{}) {
			l.Log.Warn("ignoring a saved order that makes no sense", "target", target, "force", o.Force)
			continue
		}
		if l.keep(target, o) != nil {
			break
		}
	}
	var s saved
	ok, err := l.Store.Load(statesName, &s)
	if err != nil {
		l.Log.Warn("last health states are lost, every backend is probed anew", "err", err)
	}
	if !ok || err != nil {
		return
	}
	if s.Generation < math.MaxUint64/2 {
		l.generation = s.Generation
		if !s.Clean {
			l.generation += generationGap
		}
	}
	fresh := now.Sub(s.At) < maxAge && s.At.Sub(now) < maxAge // and the clock did not jump
	l.restored = make(map[backendKey]savedBackend, len(s.Backends))
	for _, b := range s.Backends {
		if !fresh || b.verdict().state == pool.Unknown {
			b.State = pool.Unknown.String()
		}
		if b.Since.After(now) {
			b.Since = now
		}
		l.restored[backendKey{b.Service, b.Address}] = b
	}
}

// snapshot is what outlives a restart.
func (l *loop) snapshot(clean bool) saved {
	s := saved{Generation: l.generation, Clean: clean, At: time.Now().Round(0)}
	for key, m := range l.members {
		t := m.target
		b := savedBackend{
			Service: key.service, Address: key.address,
			State: t.verdict.state.String(), Since: t.since.Round(0), Reason: t.cause,
		}
		if d := m.drain; d != nil {
			b.Drain, b.DrainSince, b.DrainUntil = d.stage.String(), d.since.Round(0), d.until.Round(0)
		}
		s.Backends = append(s.Backends, b)
	}
	slices.SortFunc(s.Backends, func(a, b savedBackend) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), a.Address.Compare(b.Address))
	})
	return s
}

// A saver writes states in a goroutine of its own. A disk that hangs or is
// full holds up nobody.
type saver struct {
	store   Store
	log     *slog.Logger
	pending chan saved // capacity 1, the latest wins
	done    sync.WaitGroup
}

func newSaver(store Store, log *slog.Logger) *saver {
	s := &saver{store: store, log: log, pending: make(chan saved, 1)}
	s.done.Go(s.run)
	return s
}

func (s *saver) run() {
	failing := false
	for state := range s.pending {
		if s.store == nil {
			continue
		}
		err := s.store.Save(statesName, state)
		if err != nil && !failing {
			s.log.Error("health states cannot be saved; a restart would begin without them", "err", err)
		}
		if err == nil && failing {
			s.log.Info("health states are saved again")
		}
		failing = err != nil
	}
}

// save has state written soon. Only one goroutine may call it.
func (s *saver) save(state saved) {
	select {
	case <-s.pending: // not begun, and old now
	default:
	}
	s.pending <- state
}

// close waits until what is pending was written.
func (s *saver) close() {
	close(s.pending)
	s.done.Wait()
}
