package health

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"haslohas.com/elbow/pool"
)

// publish makes a new table if something that it would show has changed.
func (l *loop) publish(now time.Time) {
	if l.set == nil || !l.started && l.awaiting > 0 && now.Before(l.startBy) {
		return
	}
	generation := l.generation + 1
	changed := l.changed || !l.started
	pools := make([]*pool.Pool, len(l.set.Services))
	for i, spec := range l.set.Services {
		sv := l.services[spec.Name]
		if sv.dirty && l.rebuild(sv, generation) {
			changed = true
		}
		pools[i] = sv.pool
	}
	for m := range l.draining {
		if m.drain.generation == 0 { // DNS is asked about a table that is sure to come
			m.drain.generation, changed = generation, true
		}
	}
	if !changed {
		return
	}
	l.generation, l.changed = generation, false
	l.Publisher.Publish(pool.NewTable(generation, now, l.set, pools))
	l.metrics.generation.Set(float64(generation))
	if !l.started {
		l.started = true
		l.restored = nil
		close(l.ready)
	}
	if l.saveAt.IsZero() {
		l.saveAt = now.Add(saveEvery)
	}
}

// rebuild makes sv.pool anew unless nothing in it would differ.
func (l *loop) rebuild(sv *service, generation uint64) bool {
	sv.dirty = false
	backends := make([]pool.Backend, len(sv.members))
	for i, m := range sv.members {
		backends[i] = l.backend(m)
	}
	if sv.pool != nil && sv.pool.Service == sv.spec && slices.EqualFunc(backends, sv.pool.Backends, sameBackend) {
		return false
	}
	before := sv.pool
	sv.pool = pool.NewPool(sv.spec, backends)
	for i, m := range sv.members {
		b := &sv.pool.Backends[i]
		l.announce(m, b, generation)
		if m.shown == nil || m.shown.Well() != b.Well() {
			l.metrics.backend(m.backendKey, b.Well())
		}
		m.shown = b
	}
	if p, over := sv.pool, before != nil && before.FailedOver(); serving(p) == servesWell {
		switch to := p.Traffic.Priority; {
		case p.FailedOver() && (!over || to != before.Traffic.Priority):
			l.Log.Warn(failsOver, "service", sv.spec.Name, "priority", to, "generation", generation)
		case over && !p.FailedOver():
			l.Log.Info(failsBack, "service", sv.spec.Name, "priority", to, "generation", generation)
		}
	}
	if now := serving(sv.pool); now != serving(before) {
		level := slog.LevelWarn
		if now == servesWell {
			level = slog.LevelInfo
		}
		l.Log.Log(context.Background(), level, now, "service", sv.spec.Name, "generation", generation)
	}
	l.metrics.pool(sv.pool)
	return true
}

// What the log says about a service as a whole.
const (
	servesWell = "service is served by backends that are well"
	servesAll  = "no backend of the service is well, all are tried"
	servesNone = "no backend of the service is well, connections are refused"
	failsOver  = "service fails over: no backend of a lower priority is well"
	failsBack  = "service is back at its first priority"
)

func serving(p *pool.Pool) string {
	switch {
	case p == nil, len(p.Backends) == 0:
		return servesWell // nothing to say: there is nothing yet
	case p.Traffic.FailOpen:
		return servesAll
	case len(p.Traffic.Index) == 0:
		return servesNone
	}
	return servesWell
}

// backend is what the table says about m.
func (l *loop) backend(m *member) pool.Backend {
	t := m.target
	b := pool.Backend{
		Endpoint: m.endpoint,
		State:    t.verdict.state,
		Since:    t.since,
		Reason:   t.reason,
		Suspect:  t.verdict.suspect,
		Flip:     t.verdict.flip(t.rule),
		RampFrom: t.rampFrom,
	}
	switch { // see "Which verdict wins" in the package documentation
	case m.force.down():
		b.State, b.Suspect, b.RampFrom = pool.ForcedDown, false, time.Time{}
		b.Since, b.Reason, b.Flip = m.force.since, m.force.reason(), m.force.flip
	case m.drain != nil:
		b.State, b.Drain = pool.Draining, m.drain.stage
		b.Since, b.Reason, b.Flip = m.drain.since, m.drain.text, m.drain.flip()
	case m.force.up():
		b.State, b.Suspect, b.RampFrom = pool.ForcedUp, false, time.Time{}
		b.Since, b.Reason, b.Flip = m.force.since, m.force.reason(), m.force.flip
	}
	return b
}

func sameBackend(a, b pool.Backend) bool {
	return a.Address == b.Address && a.Node == b.Node && a.Zone == b.Zone && a.Weight == b.Weight && a.Priority == b.Priority && a.Phase == b.Phase &&
		slices.Equal(a.Public, b.Public) &&
		a.State == b.State && a.Reason == b.Reason && a.Drain == b.Drain && a.Suspect == b.Suspect && a.Flip == b.Flip &&
		a.Since.Equal(b.Since) && a.RampFrom.Equal(b.RampFrom)
}

// announce logs and counts what b changes about m.
func (l *loop) announce(m *member, b *pool.Backend, generation uint64) {
	from, stage := pool.Unknown, pool.NotDraining
	if m.shown != nil {
		from, stage = m.shown.State, m.shown.Drain
	} else if m.target.handed {
		from, stage = b.State, b.Drain
	} else if m.target.verdict.provisional {
		from = b.State // known before the restart, and not found out anew
	}
	if b.State == from && b.Drain == stage {
		return
	}
	if b.State != from {
		l.metrics.transition(m.backendKey, b.State)
	}
	level, what := slog.LevelInfo, "backend is "+b.State.String()
	if b.State == pool.Down {
		level = slog.LevelWarn
	}
	attrs := []any{"service", m.backendKey.service, "backend", b.Address, "node", b.Node,
		"from", from, "to", b.State, "reason", b.Reason, "generation", generation}
	if b.Drain != pool.NotDraining {
		attrs = append(attrs, "stage", b.Drain)
	}
	l.Log.Log(context.Background(), level, what, attrs...)
}

// A force is an operator's order on the state of one backend. The zero value
// is none.
type force struct {
	verdict string // forceUp, forceDown or empty
	since   time.Time
	until   time.Time     // zero: until it is taken back
	flip    time.Duration // see pool.Backend.Flip
}

func (f force) up() bool   { return f.verdict == forceUp }
func (f force) down() bool { return f.verdict == forceDown }

func (f force) reason() string {
	if f.until.IsZero() {
		return fmt.Sprintf("forced %s by the operator", f.verdict)
	}
	return fmt.Sprintf("forced %s by the operator until %s", f.verdict, f.until.UTC().Format(time.RFC3339))
}

// flipSteps are the times left of an order at which it begins to matter to
// the TTL of some name, ascending.
func flipSteps(set *pool.Set) []time.Duration {
	var steps []time.Duration
	for _, z := range set.DNS.Zones {
		steps = append(steps, z.TTL.Normal)
	}
	for _, s := range set.Services {
		if s.Naming.TTL.Normal > 0 {
			steps = append(steps, s.Naming.TTL.Normal)
		}
	}
	slices.Sort(steps)
	return slices.Compact(steps)
}

// endingFlip is Flip of an order that ends after left. It is rounded down to
// a step, so that a new table is due at the steps and not all the time; a zone
// whose normal TTL is longer than what is left sees less than that TTL, every
// other zone does not.
func endingFlip(left time.Duration, steps []time.Duration) time.Duration {
	flip := 100 * time.Millisecond // less than any TTL
	for _, s := range steps {
		if left < s {
			return flip
		}
		flip = s
	}
	return 0
}
