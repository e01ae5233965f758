package elasticip

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// How often EC2 is asked: while the address is here and the lock is lost,
	// so that a fresh answer is always there; while this host has the
	// address or competes for it; and where it only looks.
	urgent  = 700 * time.Millisecond
	regular = 5 * time.Second
	relaxed = 30 * time.Second

	// askTimeout bounds one question, with its retries. Two of them and an
	// urgent interval fit into trust, so that one lost packet costs nothing.
	askTimeout = time.Second

	// connectTimeout bounds asking who this instance is.
	connectTimeout = 10 * time.Second
)

// watch asks EC2 until ctx is cancelled.
func (k *Keeper) watch(ctx context.Context) {
	errs := backoff{least: regular, most: time.Minute}
	for ctx.Err() == nil {
		err := k.ask(ctx)
		wait := k.interval(time.Now())
		switch {
		case err == nil:
			errs.reset()
		case wait > urgent:
			wait = errs.next()
		}
		select {
		case <-ctx.Done():
		case <-time.After(jitter(wait)):
		case <-k.look:
		}
	}
}

// interval is how long after now EC2 is asked again.
func (k *Keeper) interval(now time.Time) time.Duration {
	k.mu.Lock()
	here := k.memory.known && k.memory.newest.here
	until := k.until()
	k.mu.Unlock()
	const ahead = 2 * askTimeout // a fresh answer is there when the lock ends
	switch left := until.Sub(now); {
	case k.Lock == nil:
		return relaxed
	case here && left <= ahead:
		return urgent
	case left > ahead: // who holds the lock asks in take
		return min(relaxed, left-ahead)
	}
	return regular
}

// until is the end of the lock as the keeper knows that it was taken: one that is
// taken anew counts only once the memory has been told. The zero time: it is
// not held. mu must be held.
func (k *Keeper) until() time.Time {
	if k.Lock == nil {
		return time.Time{}
	}
	until := k.Lock.Until()
	if !k.holding && until.After(k.last) {
		return k.last
	}
	return until
}

// hold tells the memory that the lock was taken, or that it is not renewed any
// more.
func (k *Keeper) hold(holding bool) {
	k.mu.Lock()
	if holding {
		k.memory.take(time.Now())
	} else {
		k.last = k.Lock.Until()
	}
	k.holding = holding
	k.mu.Unlock()
	poke(k.wake)
	poke(k.look)
}

// jitter is d, a tenth more or less, so that hosts that were started together
// do not ask together.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// A backoff is a pause that doubles.
type backoff struct{ least, most, last time.Duration }

func (b *backoff) reset() { b.last = 0 }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, b.least), b.most)
	return jitter(b.last)
}

// sleep waits for d, and reports false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
