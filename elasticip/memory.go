package elasticip

import (
	"net/netip"
	"time"
)

const (
	// trust is how long an answer of EC2 that the address is here counts without
	// the lock, from the moment before EC2 was asked.
	trust = 3 * time.Second

	// staleness is how long after a move EC2 may still tell of the former place.
	staleness = time.Second

	// settling is how long a host to which the address has come waits before
	// it believes that: what the former host may still believe has then run
	// out.
	settling = trust + staleness

	// returning is the same for a host that EC2 could not tell for a while that
	// the address is still here, and that has no lock: long enough for whoever
	// has it to ask where the address is.
	returning = 2 * regular
)

// An answer is what EC2 said.
type answer struct {
	asked      time.Time // before the request was made
	heard      time.Time // when the answer was there
	address    netip.Addr
	allocation string
	holder     string // instance; empty: none
	here       bool   // holder is this instance
}

// A memory is what has to be remembered of the lock and of the answers of EC2. It
// decides alone, with no clock of its own. Its zero value has heard nothing.
type memory struct {
	newest answer
	known  bool

	// began is when EC2 was first heard to say that the address is here, of all
	// the times without a gap up to the newest; the zero time: it was here when
	// the host first asked.
	began time.Time

	// wait is how long after that it is believed.
	wait time.Duration

	// rightful says that the address was here at the start, or was while the lock
	// was held. One that comes otherwise was moved by somebody who did not ask the
	// lock, and whoever holds that may still believe.
	rightful bool

	// taken is when the lock was last taken. What was heard before is no reason
	// to believe for as long as it is held: another host may have had it meanwhile.
	taken time.Time
}

// take notes that the lock is held from now on.
func (m *memory) take(now time.Time) { m.taken = now }

// hear takes in what EC2 answered; until is the end of the lock as it was
// known when the answer was there.
func (m *memory) hear(a answer, until time.Time) {
	if m.known && a.asked.Before(m.newest.asked) {
		return // it was overtaken
	}
	covers := m.covers(a.heard, until) // the last answer still counts
	first, was := !m.known, m.newest.here
	m.newest, m.known = a, true
	switch {
	case !a.here:
		m.rightful = false
	case first:
		m.rightful = true
	default:
		if !covers {
			m.began, m.wait = a.heard, returning
			m.rightful = m.rightful && was
		}
		if m.under(a.heard, until) {
			m.rightful, m.wait = true, settling
		}
	}
}

// under reports whether the newest answer was asked for and heard, by now, under
// the lock.
func (m *memory) under(now, until time.Time) bool {
	return now.Before(until) && !m.newest.asked.Before(m.taken)
}

// covers reports whether the newest answer says that the address is here, and
// is fresh or under the lock.
func (m *memory) covers(now, until time.Time) bool {
	return m.known && m.newest.here && (now.Before(m.newest.asked.Add(trust)) || m.under(now, until))
}

// settles is from when on the address may be believed to be here, if EC2 has said
// so once more by then.
func (m *memory) settles() time.Time {
	if m.began.IsZero() {
		return time.Time{}
	}
	return m.began.Add(m.wait)
}

// mine reports whether the address may be believed to be this host's at now,
// with a lock that ends at until, and until when that holds if nothing more is
// heard.
func (m *memory) mine(now, until time.Time) (mine bool, ends time.Time) {
	if !m.covers(now, until) || now.Before(m.settles()) {
		return false, time.Time{}
	}
	if !m.began.IsZero() && m.newest.asked.Before(m.began.Add(staleness)) {
		return false, time.Time{} // what was heard may tell of a former place
	}
	if m.under(now, until) {
		ends = until
	}
	if fresh := m.newest.asked.Add(trust); m.rightful && fresh.After(ends) {
		ends = fresh
	}
	return now.Before(ends), ends
}
