package elasticip

import (
	"context"
	"time"
)

// believe publishes the belief whenever it changes, until ctx is cancelled. It
// asks nobody, so that nothing can hold it up: where the lock or an answer
// runs out, the address is withheld to the moment.
func (k *Keeper) believe(ctx context.Context) {
	changes := time.NewTimer(0)
	defer changes.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-changes.C:
		}
		if wait := k.publish(time.Now()); wait > 0 {
			changes.Reset(wait)
		} else {
			changes.Stop()
		}
	}
}

// publish makes the belief of now and returns how long it cannot change by
// itself; 0: for ever.
func (k *Keeper) publish(now time.Time) time.Duration {
	k.mu.Lock()
	until := k.until()
	mine, ends := k.memory.mine(now, until)
	settles := k.memory.settles()
	b := Belief{
		Address:    k.memory.newest.address,
		Allocation: k.memory.newest.allocation,
		Instance:   k.self,
		Holder:     k.memory.newest.holder,
		Asked:      k.memory.newest.asked,
		Here:       k.memory.newest.here,
		Locked:     now.Before(until),
		Mine:       mine,
		Takeover:   k.Lock != nil,
	}
	if b.Allocation == "" {
		b.Allocation = k.Allocation
	}
	if k.Lock == nil {
		b.Mine = b.Here
	}
	if k.err != nil {
		b.Err = k.err.Error()
	}
	k.mu.Unlock()

	before := k.belief.Swap(&b)
	k.log(before, &b)
	if !k.told || !same(before, &b) {
		k.told = true
		if k.Changed != nil {
			k.Changed(b)
		}
	}
	switch {
	case mine:
		return max(ends.Sub(now), time.Millisecond)
	case b.Here && now.Before(settles):
		return settles.Sub(now)
	}
	return 0
}

// mineAt is what Belief asks where the keeper may be late.
func (k *Keeper) mineAt(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	mine, _ := k.memory.mine(now, k.until())
	return mine
}

// poke leaves a wake-up in a channel of capacity 1, unless one is waiting there.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// same reports whether a and b differ in times alone.
func same(a, b *Belief) bool {
	x, y := *a, *b
	x.Asked, y.Asked = time.Time{}, time.Time{}
	return x == y
}

// log tells what has changed.
func (k *Keeper) log(before, b *Belief) {
	switch {
	case b.Err != before.Err && b.Err != "":
		k.Log.Warn("where the Elastic IP is cannot be found out, what was known before counts", "err", b.Err)
	case b.Err != before.Err:
		k.Log.Info("EC2 says where the Elastic IP is again")
	}
	if b.Asked.IsZero() {
		return
	}
	if before.Asked.IsZero() || before.Here != b.Here || before.Holder != b.Holder {
		k.Log.Info("Elastic IP", "address", b.Address, "allocation", b.Allocation, "at", from(b.Holder), "here", b.Here)
	}
	if b.Takeover && (before.Asked.IsZero() || before.Mine != b.Mine) {
		if b.Mine {
			k.Log.Info("answering with the Elastic IP", "address", b.Address, "locked", b.Locked)
		} else {
			k.Log.Info("not answering with the Elastic IP", "address", b.Address, "here", b.Here, "locked", b.Locked)
		}
	}
}
