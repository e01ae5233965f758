package health

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"haslohas.com/elbow/pool"
)

// maxProbes bounds how many probes run at the same time, and with them the
// descriptors they hold: ten thousand backends that do not answer must not
// take the proxy's.
const maxProbes = 512

// firstJitter bounds the delay of a new target's first probe. The table is
// waiting for it; the later ones are spread over the whole interval.
const firstJitter = 20 * time.Millisecond

// A targetKey is what one probe goroutine is shared by. The address is the
// endpoint's, not the one that is dialled when the probe has a port of its
// own: what real traffic reports about one port says nothing about another.
type targetKey struct {
	address netip.AddrPort
	probe   pool.Probe
}

// A target is an endpoint's address that is probed in one way.
type target struct {
	targetKey
	rule   rule
	probe  probeFunc
	cancel context.CancelFunc
	nudges chan time.Duration // capacity 1: probe after so long, whatever was planned
	waits  chan time.Duration // capacity 1: the answer to each result
	begin  time.Duration      // until the first probe

	// The rest belongs to the event loop.

	members []*member // never empty
	stopped bool
	seen    bool // a probe had a result
	handed  bool // seen in the process before, see Checker.HandOver

	verdict  verdict
	since    time.Time // when verdict.state was entered
	reason   string
	cause    string    // the reason for verdict.state, without what speaks against it
	rampFrom time.Time // see pool.Backend.RampFrom

	live       string    // why real traffic failed to connect, if that is one of verdict.against
	liveAfter  int       // how many probes had failed before
	suspectAt  time.Time // when verdict.suspect was last set
	suspectLog time.Time // when that was last logged
	nudgedFor  time.Time // when the last probe out of turn was to start
}

// A result is how one probe ended.
type result struct {
	target  *target
	started time.Time
	took    time.Duration
	words   string // of a success
	err     error  // of a failure; a *localFault is none
}

// run probes until ctx ends. It sends each result and is told how long to wait.
func (t *target) run(ctx context.Context, slots chan struct{}, results chan<- result) {
	timer := time.NewTimer(t.begin)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case d := <-t.nudges:
			if d > 0 {
				timer.Reset(d)
				continue
			}
		}
		select { // the wait for a slot is not the target's fault and no part of its time
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		r := t.once(ctx)
		<-slots
		select {
		case <-ctx.Done():
			return
		case results <- r:
		}
		select {
		case <-ctx.Done():
			return
		case wait := <-t.waits:
			// From start to start, but never back to back.
			timer.Reset(max(jitter(wait)-time.Since(r.started), wait/10))
		}
	}
}

func (t *target) once(ctx context.Context) result {
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeoutOf(t.targetKey.probe))
	defer cancel()
	words, err := t.probe(ctx)
	return result{t, started, time.Since(started), words, err}
}

// jitter spreads d by a tenth in both directions, so that probes of many
// targets do not march in step.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// nudge has t probed at once, but out of turn at most once in each fastInterval.
func (t *target) nudge(now time.Time) {
	if now.Before(t.nudgedFor) {
		return // one is planned
	}
	at := now
	if next := t.nudgedFor.Add(t.rule.fast); !t.nudgedFor.IsZero() && next.After(now) {
		at = next
	}
	t.nudgedFor = at
	select {
	case t.nudges <- at.Sub(now):
	default: // one is waiting for the probe that runs now
	}
}
