package health

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"haslohas.com/elbow/pool"
)

const (
	ordersName = "verdicts" // in the Store
	maxOrders  = 4096       // targets with an order; they are kept when their endpoints go

	forceUp   = "up"
	forceDown = "down"
)

// An order is what an operator said about one target.
type order struct {
	Drain      bool      `json:"drain,omitempty"`
	DrainSince time.Time `json:"drainSince,omitzero"`
	Force      string    `json:"force,omitempty"` // forceUp, forceDown or empty
	ForceSince time.Time `json:"forceSince,omitzero"`
	Until      time.Time `json:"until,omitzero"` // end of Force; zero: none
}

// Affected is one backend that an operator's target names.
type Affected struct {
	Service     string
	Backend     string // address:port
	Node        string
	State       string    // a pool.State
	Drain       string    // a pool.DrainStage, empty: it is not draining
	Connections int       // established
	Until       time.Time // while it leaves DNS: when the last cached answer runs out, zero: not known yet
}

// An UnknownTargetError says that no backend goes by a name.
type UnknownTargetError struct{ Target string }

func (e *UnknownTargetError) Error() string {
	return fmt.Sprintf("no backend %q: want the name of a node, address:port, or service/address:port", e.Target)
}

// Drain takes the backends that target names out of service: out of DNS first,
// then, when the answers that were handed out have run out, out of the proxy.
// target is the name of a node, "address:port", or "service/address:port".
//
// Orders are kept by target, over restarts and for endpoints that come back or
// appear later. An error that is not an *UnknownTargetError may say that the
// order is in force but could not be saved; the affected backends are returned
// all the same. This holds for each of the four orders.
func (c *Checker) Drain(target string) ([]Affected, error) {
	return c.order(target, func(l *loop, _ []*member, now time.Time) error {
		o := l.orders[target]
		if !o.Drain {
			o.Drain, o.DrainSince = true, now
		}
		return l.keep(target, o)
	})
}

// Undrain takes a drain back, and those of narrower targets with it. The
// backends are in the state that their probes say, at once.
func (c *Checker) Undrain(target string) ([]Affected, error) {
	return c.order(target, func(l *loop, members []*member, _ time.Time) error {
		l.withdraw(target, members, func(o *order) { o.Drain, o.DrainSince = false, time.Time{} })
		for _, m := range members {
			for _, name := range m.names {
				if name != "" && l.orders[name].Drain {
					return fmt.Errorf("%s is still draining by the order for %q: undrain that", m.address, name)
				}
			}
		}
		return nil
	})
}

// Force sets the state of the backends that target names to forced-up or
// forced-down, for d or, where d is 0, until [Checker.Unforce]. Their probes go
// on underneath. An order for a narrower target wins over one for a wider; one
// that is given later replaces the narrower ones it covers.
func (c *Checker) Force(target string, up bool, d time.Duration) ([]Affected, error) {
	if d < 0 {
		return nil, fmt.Errorf("forcing %q for %s: the duration must not be negative", target, d)
	}
	return c.order(target, func(l *loop, members []*member, now time.Time) error {
		l.withdraw(target, members, (*order).unforce)
		o := l.orders[target]
		o.Force, o.ForceSince = forceDown, now
		if up {
			o.Force = forceUp
		}
		if d > 0 {
			o.Until = now.Add(d)
		}
		return l.keep(target, o)
	})
}

// Unforce takes a forced state back, and those of narrower targets with it.
func (c *Checker) Unforce(target string) ([]Affected, error) {
	return c.order(target, func(l *loop, members []*member, _ time.Time) error {
		l.withdraw(target, members, (*order).unforce)
		for _, m := range members {
			for _, name := range m.names {
				if name != "" && l.orders[name].Force != "" {
					return fmt.Errorf("%s is still forced %s by the order for %q: unforce that", m.address, l.orders[name].Force, name)
				}
			}
		}
		return nil
	})
}

// Affected returns the backends that target names.
func (c *Checker) Affected(target string) ([]Affected, error) {
	var affected []Affected
	var err error
	if ended := c.ask(func(l *loop) {
		members := l.named(target)
		if _, ordered := l.orders[target]; len(members) == 0 && !ordered {
			err = &UnknownTargetError{target}
			return
		}
		affected = l.affected(members)
	}); ended != nil {
		return nil, ended
	}
	return affected, err
}

func (o *order) unforce() { o.Force, o.ForceSince, o.Until = "", time.Time{}, time.Time{} }

// order has the loop change the orders for target and saves them. Saving is
// done here and not in the loop: a slow disk must not hold up the probes.
func (c *Checker) order(target string, change func(*loop, []*member, time.Time) error) ([]Affected, error) {
	c.operator.Lock()
	defer c.operator.Unlock()
	var affected []Affected
	var orders map[string]order
	var err error
	if ended := c.ask(func(l *loop) {
		now := time.Now()
		members := l.named(target)
		if _, ordered := l.orders[target]; len(members) == 0 && !ordered {
			err = &UnknownTargetError{target}
			return
		}
		before := maps.Clone(l.orders)
		err = change(l, members, now.Round(0)) // orders live by the clock on the wall
		if !maps.Equal(before, l.orders) {
			orders = maps.Clone(l.orders)
		}
		l.resolve(now)
		l.publish(now)
		affected = l.affected(members)
	}); ended != nil {
		return nil, ended
	}
	if orders != nil && c.Store != nil {
		if saving := c.Store.Save(ordersName, orders); saving != nil && err == nil {
			err = fmt.Errorf("the order for %q is in force, but a restart will forget it: %w", target, saving)
		}
	}
	return affected, err
}

// named returns the members that target names, by service and address.
func (l *loop) named(target string) []*member {
	if target == "" || l.set == nil {
		return nil
	}
	var out []*member
	for _, spec := range l.set.Services {
		for _, m := range l.services[spec.Name].members {
			if slices.Contains(m.names[:], target) {
				out = append(out, m)
			}
		}
	}
	return out
}

// keep sets the order for target.
func (l *loop) keep(target string, o order) error {
	if _, ok := l.orders[target]; !ok && len(l.orders) >= maxOrders {
		return fmt.Errorf("there are orders for %d targets already: take back those that are no longer needed", maxOrders)
	}
	l.orders[target] = o
	return nil
}

// withdraw applies remove to the order for target and to all orders for
// nothing but some of the same members.
func (l *loop) withdraw(target string, members []*member, remove func(*order)) {
	names := map[string]bool{target: true} // of orders that may have to go
	inside := make(map[*member]bool)
	for _, m := range members {
		inside[m] = true
		for _, name := range m.names {
			names[name] = true
		}
	}
	for name := range names {
		o, ok := l.orders[name]
		outside := func(m *member) bool { return !inside[m] }
		if !ok || name != target && slices.ContainsFunc(l.named(name), outside) {
			continue
		}
		remove(&o)
		l.orders[name] = o
		if o == (order{}) {
			delete(l.orders, name)
		}
	}
}

// expire drops the orders whose time is over.
func (l *loop) expire(now time.Time) bool {
	due := false
	for name, o := range l.orders {
		if o.Until.IsZero() {
			continue
		}
		if !now.Before(o.Until) {
			due = true
			o.unforce()
			l.orders[name] = o
			if o == (order{}) {
				delete(l.orders, name)
			}
		}
	}
	return due || !now.Before(l.stepAt) && !l.stepAt.IsZero()
}

// nextExpiry is how long it takes until an order ends or its end begins to
// matter to the TTL. The clock on the wall may be set meanwhile, so it is
// looked at from time to time.
func (l *loop) nextExpiry(now time.Time) time.Duration {
	const look = 10 * time.Second
	d := time.Hour
	for _, o := range l.orders {
		if !o.Until.IsZero() {
			d = min(d, look, o.Until.Sub(now))
		}
	}
	if !l.stepAt.IsZero() {
		d = min(d, l.stepAt.Sub(now))
	}
	return max(d, time.Millisecond)
}

// resolve finds out which orders hold for which members.
func (l *loop) resolve(now time.Time) {
	l.expire(now)
	l.stepAt = time.Time{}
	if l.set == nil {
		return
	}
	steps := flipSteps(l.set)
	for _, m := range l.members {
		f, drains, since := l.ordersFor(m, steps, now)
		if f != m.force {
			m.force = f
			m.service.dirty = true
		}
		switch {
		case drains && m.drain == nil:
			l.startDrain(m, since, now)
			m.service.dirty = true
		case !drains && m.drain != nil:
			m.drain = nil
			delete(l.draining, m)
			m.service.dirty = true
		}
	}
}

func (l *loop) ordersFor(m *member, steps []time.Duration, now time.Time) (f force, drains bool, since time.Time) {
	if m.endpoint.Phase == pool.Terminating {
		drains, since = true, now
	}
	for _, name := range m.names {
		o, ok := l.orders[name]
		if !ok || name == "" {
			continue
		}
		if o.Drain && (!drains || o.DrainSince.Before(since)) {
			drains, since = true, o.DrainSince
		}
		if o.Force != "" { // a later name is a narrower one
			f = force{verdict: o.Force, since: o.ForceSince, until: o.Until}
		}
	}
	if !f.until.IsZero() {
		left := f.until.Sub(now)
		f.flip = endingFlip(left, steps)
		for _, s := range steps {
			if at := f.until.Add(time.Millisecond - s); s <= left && (l.stepAt.IsZero() || at.Before(l.stepAt)) {
				l.stepAt = at
			}
		}
	}
	return f, drains, since
}

func (l *loop) affected(members []*member) []Affected {
	now := time.Now()
	var out []Affected
	for _, m := range members {
		a := Affected{
			Service:     m.backendKey.service,
			Backend:     m.address.String(),
			Node:        m.endpoint.Node,
			State:       l.backend(m).State.String(),
			Connections: l.active(m),
		}
		if d := m.drain; d != nil {
			a.Drain = d.stage.String()
			if !l.forgotten(m, now) {
				a.Until = d.until
			}
		}
		out = append(out, a)
	}
	return out
}
