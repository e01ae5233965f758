package health

import (
	"time"

	"haslohas.com/elbow/pool"
)

// A rule is the part of a probe that decides about its results.
type rule struct {
	rise, fall int           // results in a row, at least 1
	interval   time.Duration // between two probes while the state is certain
	fast       time.Duration // while it is in doubt
	down       time.Duration // while it is down
}

// ruleOf fills what p leaves at zero: 1 result, an interval of two seconds,
// and that interval for the other two.
func ruleOf(p pool.Probe) rule {
	r := rule{max(1, p.Rise), max(1, p.Fall), p.Interval, p.FastInterval, p.DownInterval}
	if r.interval <= 0 {
		r.interval = 2 * time.Second
	}
	if r.fast <= 0 {
		r.fast = r.interval
	}
	if r.down <= 0 {
		r.down = r.interval
	}
	return r
}

// A verdict is what the results so far say about a backend. The zero value is
// the one without any result. Its methods are pure.
type verdict struct {
	state   pool.State // Unknown, Up or Down
	against int        // results in a row that speak against state

	// suspect: real traffic failed to connect and no probe has succeeded since.
	suspect bool

	// provisional: state is that of before the restart, and the first result
	// decides alone.
	provisional bool
}

// next is the verdict after the result of a probe.
func (v verdict) next(ok bool, r rule) verdict {
	if v.state == pool.Unknown || v.provisional {
		return verdict{state: stateOf(ok)}
	}
	if ok == (v.state == pool.Up) {
		return verdict{state: v.state}
	}
	v.against++
	return v.settle(r)
}

// refused is the verdict after real traffic failed to connect. Only the first
// failure of a suspicion counts, and a backend that is not up has no
// reputation to lose.
func (v verdict) refused(r rule) verdict {
	if v.state != pool.Up || v.suspect {
		return v
	}
	v.suspect = true
	v.against++
	return v.settle(r)
}

// settle turns the state over once enough results speak against it.
func (v verdict) settle(r rule) verdict {
	switch {
	case v.state == pool.Up && v.against >= r.fall:
		return verdict{state: pool.Down, provisional: v.provisional}
	case v.state == pool.Down && v.against >= r.rise:
		return verdict{state: pool.Up, provisional: v.provisional}
	}
	return v
}

func stateOf(ok bool) pool.State {
	if ok {
		return pool.Up
	}
	return pool.Down
}

// wait is the time from the start of one probe to that of the next.
func (v verdict) wait(r rule) time.Duration {
	switch {
	case v.suspect || v.against > 0 || v.provisional || v.state == pool.Unknown:
		return r.fast
	case v.state == pool.Down:
		return r.down
	}
	return r.interval
}

// flip is the least time after which the state could change, as
// [pool.Backend.Flip] wants it. More may speak against the state than the rule
// asks for, if the rule has just been changed.
func (v verdict) flip(r rule) time.Duration {
	switch {
	case v.suspect:
		return r.fast
	case v.state == pool.Unknown:
		return r.interval
	case v.provisional:
		return r.fast
	case v.state == pool.Up:
		if v.against == 0 {
			return 0
		}
		return time.Duration(max(1, r.fall-v.against)) * r.fast
	case v.against > 0:
		return time.Duration(max(1, r.rise-v.against)) * r.fast
	}
	return r.down + time.Duration(r.rise-1)*r.fast
}
