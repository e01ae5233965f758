package health

import (
	"cmp"
	"errors"
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
	Clean      bool           `json:"clean"`            // written at the end of Run
	Handed     bool           `json:"handed,omitempty"` // to a process that goes on at once, see Checker.HandOver
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

	// What is worth knowing for who goes on at once; only where it was handed over.
	Handed    bool      `json:"handed,omitempty"`
	Text      string    `json:"text,omitempty"` // target.reason
	Against   int       `json:"against,omitempty"`
	Suspect   bool      `json:"suspect,omitempty"`
	RampFrom  time.Time `json:"rampFrom,omitzero"`
	Finishing time.Time `json:"finishing,omitzero"` // drain.finishing
}

func (b savedBackend) verdict() verdict {
	if b.Handed {
		state := pool.Down
		if b.State == pool.Up.String() {
			state = pool.Up
		}
		return verdict{state: state, against: max(0, b.Against), suspect: b.Suspect}
	}
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
		b.Handed = b.Handed && s.Handed && fresh
		if b.State != pool.Up.String() && b.State != pool.Down.String() || !fresh {
			b.State, b.Handed = pool.Unknown.String(), false
		}
		if b.Since.After(now) {
			b.Since = now
		}
		l.restored[backendKey{b.Service, b.Address}] = b
	}
}

// snapshot is what outlives a restart.
func (l *loop) snapshot(clean bool) saved {
	now := time.Now()
	s := saved{Generation: l.generation, Clean: clean, At: now.Round(0)}
	for key, m := range l.members {
		t := m.target
		b := savedBackend{
			Service: key.service, Address: key.address,
			State: t.verdict.state.String(), Since: t.since.Round(0), Reason: t.cause,
		}
		if d := m.drain; d != nil {
			b.Drain, b.DrainSince, b.DrainUntil = d.stage.String(), d.since.Round(0), l.leaves(m, now).Round(0)
		}
		s.Backends = append(s.Backends, b)
	}
	slices.SortFunc(s.Backends, func(a, b savedBackend) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), a.Address.Compare(b.Address))
	})
	return s
}

// leaves is when the last answer that names m, which drains, runs out. Where
// DNS has not told yet, it is the latest that it can be.
func (l *loop) leaves(m *member, now time.Time) time.Time {
	if m.drain.stage == pool.LeavingDNS && !l.forgotten(m, now) && !m.drain.until.After(now) {
		return now.Add(l.longestTTL() + time.Second)
	}
	return m.drain.until
}

// exact is what a process needs that goes on where this one stops.
func (l *loop) exact() saved {
	s := l.snapshot(true)
	s.Handed = true
	for i := range s.Backends {
		b := &s.Backends[i]
		m := l.members[backendKey{b.Service, b.Address}]
		t := m.target
		b.Handed, b.Text, b.Against, b.Suspect = t.seen, t.reason, t.verdict.against, t.verdict.suspect
		b.RampFrom = t.rampFrom.Round(0)
		if m.drain != nil {
			b.Finishing = m.drain.finishing.Round(0)
		}
	}
	return s
}

// HandOver saves, to nothing but to, everything that another Checker needs to go on as if it were this one, and calls take. Until take
// returns, nothing changes here: no table is published and no order is carried
// out, but probes and reports wait. If take returns true, the other one has
// gone on: this one ends, and Run with it, without having changed anything
// more; orders that wait get an error. Otherwise it goes on itself.
func (c *Checker) HandOver(to Saver, take func() bool) error {
	var err error
	if ended := c.ask(func(l *loop) {
		if !l.started {
			err = errors.New("the first round of probes has not ended")
			return
		}
		if err = errors.Join(to.Save(statesName, l.exact()), to.Save(ordersName, l.orders)); err == nil {
			l.gone = take()
		}
	}); ended != nil {
		return ended
	}
	return err
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
