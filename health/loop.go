package health

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"haslohas.com/elbow/pool"
)

// localCalm is how long no probe may have met a fault of this host before the
// trouble counts as over.
const localCalm = 10 * time.Second

// suspectLogEvery bounds how often one address is logged as suspect: a server
// whose probe succeeds while its clients are refused is it again and again.
const suspectLogEvery = time.Minute

// A loop is the state of a running Checker. One goroutine owns it all; what
// others have to say arrives through the Checker's channels.
type loop struct {
	*Checker
	slots  chan struct{} // held by running probes
	probes sync.WaitGroup
	saver  *saver

	set      *pool.Set
	services map[string]*service
	members  map[backendKey]*member
	targets  map[targetKey]*target

	awaiting   int       // targets without a result
	startBy    time.Time // when the first table is published at the latest
	started    bool      // the first table is published
	gone       bool      // another process goes on, see HandOver
	generation uint64    // of the newest table
	changed    bool      // the set has changed since

	orders   map[string]order // by the operator, by target
	restored map[backendKey]savedBackend
	draining map[*member]struct{} // those that are not Drained yet
	pollAt   time.Time            // when the drains are looked at again
	saveAt   time.Time            // when the states are saved; zero: nothing has changed
	stepAt   time.Time            // by the clock on the wall: when the time left of a forced state crosses a TTL; zero: never

	localAt time.Time // of the last probe that met a fault of this host
	trouble bool      // that was logged, and its end was not
}

// A service is a pool.Service that is served.
type service struct {
	spec    *pool.Service
	members []*member  // in the order of spec.Endpoints
	pool    *pool.Pool // as last published; nil: never
	dirty   bool       // a member may differ from pool
}

// A member is an endpoint as part of one service.
type member struct {
	backendKey
	service  *service
	endpoint pool.Endpoint
	names    [3]string // what an operator may call it, the widest first; the node may be empty
	target   *target
	inbox    *inbox
	force    force
	drain    *drain        // nil: not draining
	shown    *pool.Backend // as last published; nil: never
}

func newLoop(c *Checker) *loop {
	l := &loop{
		Checker:  c,
		slots:    make(chan struct{}, maxProbes),
		services: make(map[string]*service),
		members:  make(map[backendKey]*member),
		targets:  make(map[targetKey]*target),
		draining: make(map[*member]struct{}),
		saver:    newSaver(c.Store, c.Log),
	}
	l.restore(time.Now())
	return l
}

func (l *loop) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-l.updated:
			if s := l.newest.Swap(nil); s != nil {
				l.apply(ctx, s, time.Now())
			}
		case <-l.reports.wake:
		case r := <-l.results:
			l.result(r)
		case do := <-l.requests:
			if do(l); l.gone {
				return
			}
		}
		// Whatever is there already goes into the same table.
		for range len(l.results) {
			l.result(<-l.results)
		}
		l.reports.take(l.report)

		now := time.Now()
		l.tick(now)
		l.publish(now)
		timer.Reset(l.next(now))
	}
}

// tick does what is due.
func (l *loop) tick(now time.Time) {
	if l.expire(now) {
		l.resolve(now)
	}
	if len(l.draining) > 0 && !now.Before(l.pollAt) {
		for m := range l.draining {
			l.advance(m, now)
		}
		l.pollAt = now.Add(drainPoll)
	}
	if !l.saveAt.IsZero() && !now.Before(l.saveAt) {
		l.saveAt = time.Time{}
		l.saver.save(l.snapshot(false))
	}
	if l.trouble && now.Sub(l.localAt) > localCalm {
		l.trouble = false
		l.Log.Info("probes run again without a fault of this host")
	}
}

// next is how long the loop may sleep.
func (l *loop) next(now time.Time) time.Duration {
	d := time.Hour
	if l.set != nil && !l.started {
		d = min(d, l.startBy.Sub(now))
	}
	if len(l.draining) > 0 {
		d = min(d, l.pollAt.Sub(now))
	}
	if !l.saveAt.IsZero() {
		d = min(d, l.saveAt.Sub(now))
	}
	if l.trouble {
		d = min(d, localCalm)
	}
	return max(0, min(d, l.nextExpiry(now)))
}

// apply makes s the set that is served.
func (l *loop) apply(ctx context.Context, s *pool.Set, now time.Time) {
	if l.set == nil {
		l.startBy = now.Add(l.StartTimeout)
	}
	l.set, l.changed = s, true

	before := l.members
	l.members = make(map[backendKey]*member, len(before))
	services := make(map[string]*service, len(s.Services))
	touched := make(map[*target]struct{}) // may have lost a member
	for _, spec := range s.Services {
		sv := l.services[spec.Name]
		if sv == nil {
			sv = new(service)
		}
		sv.spec, sv.dirty, sv.members = spec, true, nil
		services[spec.Name] = sv
		for _, e := range spec.Endpoints {
			key := backendKey{spec.Name, e.Address}
			m := before[key]
			if m == nil {
				m = l.newMember(key)
			}
			delete(before, key)
			m.service, m.endpoint = sv, e
			m.names = [3]string{e.Node, e.Address.String(), spec.Name + "/" + e.Address.String()}
			if old := m.target; old == nil || old.targetKey.probe != spec.Probe {
				l.attach(ctx, m, targetKey{e.Address, spec.Probe}, now)
				if old != nil {
					touched[old] = struct{}{}
				}
			}
			sv.members = append(sv.members, m)
			l.members[key] = m
		}
	}
	for _, m := range before {
		touched[m.target] = struct{}{}
		delete(l.draining, m)
		l.metrics.forgetBackend(m.backendKey)
	}
	for name := range l.services {
		if services[name] == nil {
			l.metrics.forgetService(name)
		}
	}
	l.services = services
	for t := range touched {
		l.stopUnused(t)
	}
	l.index()
	l.resolve(now)
}

func (l *loop) newMember(key backendKey) *member {
	m := &member{backendKey: key}
	m.inbox = &inbox{member: m}
	m.inbox.connectFailures, m.inbox.resets = l.metrics.reports(key)
	return m
}

// attach has m probed as key says.
func (l *loop) attach(ctx context.Context, m *member, key targetKey, now time.Time) {
	t := l.targets[key]
	if t == nil {
		t = l.newTarget(m, key, now)
		ctx, cancel := context.WithCancel(ctx)
		t.cancel = cancel
		l.probes.Go(func() { t.run(ctx, l.slots, l.results) })
	}
	if m.target != nil {
		m.target.drop(m)
	}
	t.members = append(t.members, m)
	m.target = t
}

// newTarget makes the target that m is to have. What is known of m is kept: by
// the probe it had until now, else from before the restart.
func (l *loop) newTarget(m *member, key targetKey, now time.Time) *target {
	t := &target{
		targetKey: key,
		rule:      ruleOf(key.probe),
		probe:     l.prober(key.address, key.probe),
		nudges:    make(chan time.Duration, 1),
		waits:     make(chan time.Duration, 1),
		since:     now,
		reason:    "not probed yet",
		begin:     rand.N(firstJitter),
	}
	if old := m.target; old != nil {
		t.seen, t.verdict, t.since, t.reason, t.cause, t.rampFrom = old.seen, old.verdict, old.since, old.reason, old.cause, old.rampFrom
		t.live, t.liveAfter, t.suspectAt, t.suspectLog = old.live, old.liveAfter, old.suspectAt, old.suspectLog
	} else if was, ok := l.restored[m.backendKey]; ok && was.State != pool.Unknown.String() {
		t.verdict, t.since = was.verdict(), was.Since
		t.cause, t.reason = was.Reason, "not probed since the restart; before it: "+was.Reason
		if was.Handed {
			t.seen, t.handed, t.reason, t.rampFrom = true, true, was.Text, was.RampFrom
			t.begin = rand.N(max(1, t.verdict.wait(t.rule))) // the last probe was not long ago
		}
	}
	if !t.seen {
		l.awaiting++
	}
	l.targets[key] = t
	return t
}

func (t *target) drop(m *member) {
	t.members = slices.DeleteFunc(t.members, func(x *member) bool { return x == m })
}

// stopUnused ends t if none of the members it has is served by it any more.
func (l *loop) stopUnused(t *target) {
	t.members = slices.DeleteFunc(t.members, func(m *member) bool { return l.members[m.backendKey] != m })
	if len(t.members) > 0 {
		return
	}
	t.stopped = true
	t.cancel()
	delete(l.targets, t.targetKey)
	if !t.seen {
		l.awaiting--
	}
}

// index lets the proxy's reports find the members.
func (l *loop) index() {
	boxes := make(map[backendKey]*inbox, len(l.members))
	for key, m := range l.members {
		boxes[key] = m.inbox
	}
	l.inboxes.Store(&boxes)
}

// result takes the result of a probe.
func (l *loop) result(r result) {
	t := r.target
	if t.stopped {
		return
	}
	now := time.Now()
	first := !t.seen
	if local, ok := errors.AsType[*localFault](r.err); ok {
		l.metrics.probe(t, r, resultLocal)
		l.localTrouble(local, now)
		t.waits <- t.rule.fast
		return
	}
	if first {
		t.seen = true
		l.awaiting--
	}
	l.metrics.probe(t, r, resultOf(r.err))
	// A success that began before real traffic failed does not speak against it.
	if r.err != nil || !t.verdict.suspect || !r.started.Before(t.suspectAt) {
		l.judge(t, t.verdict.next(r.err == nil, t.rule), r.said(), now)
	}
	wait := t.verdict.wait(t.rule)
	if first && t.verdict.state == pool.Up {
		wait = wait/10 + rand.N(wait) // spreads the targets that began together
	}
	t.waits <- wait
}

// report takes what the proxy reported about m.
func (l *loop) report(m *member, failed string, hasFailed, reset bool) {
	t := m.target
	if l.members[m.backendKey] != m {
		return
	}
	now := time.Now()
	v := t.verdict
	if hasFailed {
		v = v.refused(t.rule)
	}
	if v != t.verdict {
		t.live, t.liveAfter, t.suspectAt = failed, t.verdict.against, now
		if now.Sub(t.suspectLog) > suspectLogEvery && v.suspect {
			t.suspectLog = now
			l.Log.Info("backend is passed over until a probe has decided",
				"service", m.backendKey.service, "backend", m.address, "node", m.endpoint.Node, "reason", failed+" on live traffic")
		}
		l.judge(t, v, failed, now)
	}
	if reset || v.state != pool.Down {
		t.nudge(now)
	}
}

// judge makes v the verdict on t; said is what the last result said.
func (l *loop) judge(t *target, v verdict, said string, now time.Time) {
	old := t.verdict
	if v == old {
		return
	}
	t.verdict = v
	t.explain(old, said)
	if v.state != old.state {
		t.since = now
		t.rampFrom = time.Time{}
		if v.state == pool.Up && l.started {
			t.rampFrom = now
		}
	}
	for _, m := range t.members {
		m.service.dirty = true
	}
}

// localTrouble notes a probe that failed by a fault of this host, which is no
// result: it says nothing about the backend.
func (l *loop) localTrouble(fault *localFault, now time.Time) {
	l.localAt = now
	if !l.trouble {
		l.trouble = true
		l.Log.Error("probes cannot be sent; states stay as they are", "err", fault)
	}
}
