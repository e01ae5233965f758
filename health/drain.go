package health

import (
	"fmt"
	"time"

	"haslohas.com/elbow/pool"
)

const (
	drainPoll = 500 * time.Millisecond // how often the progress of drains is looked at

	// drainTextEvery bounds how often a table is published for nothing but
	// the progress in the reason of a drain.
	drainTextEvery = 2 * time.Second

	// drainGrace is what the proxy gets, after the drain timeout, to reset
	// the connections that are left.
	drainGrace = 2 * time.Second
)

// A drain is the way of a backend out of service.
type drain struct {
	since      time.Time
	stage      pool.DrainStage
	generation uint64    // of the first table without its names; 0: none yet
	until      time.Time // when the last answer that names it runs out, as far as known
	finishing  time.Time // when stage became Finishing

	text   string // the reason in the table
	textAt time.Time
}

// flip is short while the drain is under way: the set of backends is changing,
// and answers given now should not be cached for long.
func (d *drain) flip() time.Duration {
	if d.stage == pool.Drained {
		return 0
	}
	return drainPoll
}

// startDrain begins the drain of m. Where it had left the proxy before a
// restart, it does not come back.
func (l *loop) startDrain(m *member, since, now time.Time) {
	m.drain = &drain{since: since, stage: pool.LeavingDNS}
	if was, ok := l.restored[m.backendKey]; ok && was.Drain != "" {
		// A clock that jumped must not hold the drain up for ever.
		if limit := now.Add(l.longestTTL()); was.DrainUntil.Before(limit) {
			m.drain.until = was.DrainUntil
		} else {
			m.drain.until = limit
		}
		if was.Drain != pool.LeavingDNS.String() {
			m.drain.stage, m.drain.finishing = pool.Finishing, now
			if was.Handed && !was.Finishing.IsZero() && was.Finishing.Before(now) {
				m.drain.finishing = was.Finishing
			}
			if was.Handed && was.Drain == pool.Drained.String() {
				m.drain.stage = pool.Drained
			}
		}
		if !was.DrainSince.IsZero() {
			m.drain.since = was.DrainSince
		}
	}
	if m.drain.stage != pool.Drained {
		l.draining[m] = struct{}{}
	}
	if l.pollAt.Before(now) {
		l.pollAt = now.Add(drainPoll)
	}
	l.advance(m, now)
}

// advance moves the drain of m on as far as it has come:
//
//   - LeavingDNS until every answer that names it has run out. It goes on
//     taking connections for that long, but only as long as it is well;
//   - Finishing until no connection is left, or the drain timeout has passed
//     and the proxy has reset the rest;
//   - Drained, at the earliest one poll after Finishing was published, so
//     that a connection that was just being made has been counted, and not
//     while another process may have connections, which are not counted here.
func (l *loop) advance(m *member, now time.Time) {
	d := m.drain
	stage := d.stage
	forgotten := l.forgotten(m, now)
	if v := m.target.verdict; d.stage == pool.LeavingDNS && (forgotten || v.state != pool.Up || v.suspect) {
		d.stage, d.finishing = pool.Finishing, now
	}
	connections := l.active(m)
	if took := now.Sub(d.finishing); d.stage == pool.Finishing && forgotten && took >= drainPoll && !l.elsewhere() &&
		(connections == 0 || took >= m.service.spec.DrainTimeout+drainGrace) {
		d.stage = pool.Drained
		delete(l.draining, m)
	}
	text := l.drainText(m, forgotten, connections, now)
	if d.stage != stage || d.text == "" || text != d.text && now.Sub(d.textAt) >= drainTextEvery {
		d.text, d.textAt = text, now
		m.service.dirty = true
	}
}

// forgotten reports whether no cache can hold an answer that names m any more.
// A service that is answered with this host's addresses never named m, and
// a backend that is down has nothing to lose.
func (l *loop) forgotten(m *member, now time.Time) bool {
	s, d := m.service.spec, m.drain
	if s.Answer == pool.Proxied || len(s.Hostnames) == 0 || m.target.verdict.state == pool.Down {
		return true
	}
	if l.Answered != nil && len(l.set.DNS.Zones) > 0 {
		if d.generation == 0 {
			return false
		}
		for _, a := range m.endpoint.Reachable() {
			until, ok := l.Answered.Expires(a, d.generation)
			if !ok {
				return false
			}
			if until.After(d.until) {
				d.until = until
			}
		}
	}
	return !now.Before(d.until)
}

func (l *loop) active(m *member) int {
	if l.Load == nil {
		return 0
	}
	return l.Load.Active(m.backendKey.service, m.address)
}

func (l *loop) elsewhere() bool { return l.Elsewhere != nil && l.Elsewhere() }

func (l *loop) drainText(m *member, forgotten bool, connections int, now time.Time) string {
	switch {
	case m.drain.stage == pool.Drained && m.service.spec.Answer == pool.Direct:
		return "drained: safe to power off once the clients that reached it directly are done"
	case m.drain.stage == pool.Drained:
		return "drained: safe to power off"
	case !forgotten && m.drain.until.After(now):
		left := m.drain.until.Sub(now)
		return fmt.Sprintf("draining: cached DNS answers run out in %s", ceil(left, time.Second))
	case !forgotten:
		return "draining: waiting until DNS has stopped naming it"
	case connections == 0 && l.elsewhere():
		return "draining: the process before the upgrade still has connections, maybe to it"
	case connections == 1:
		return "draining: 1 connection left"
	case connections == 0:
		return "draining: no connection left"
	}
	return fmt.Sprintf("draining: %d connections left", connections)
}

// longestTTL is the longest normal TTL of any zone.
func (l *loop) longestTTL() time.Duration {
	var longest time.Duration
	for _, z := range l.set.DNS.Zones {
		longest = max(longest, z.TTL.Normal)
	}
	return longest
}

func ceil(d, unit time.Duration) time.Duration {
	if rest := d % unit; rest > 0 {
		return d - rest + unit
	}
	return d
}
