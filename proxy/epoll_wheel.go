//go:build linux

package proxy

import (
	"math/bits"
	"time"
)

// The wheel of a loop turns in two speeds: fine for what is near, so that a
// connect times out within some 10 ms, coarse for what is far, so that idle
// connections seldom wake the loop.
const (
	wheelSlots = 256
	fineTick   = moment(8 * time.Millisecond)   // reaches 2 s
	coarseTick = moment(512 * time.Millisecond) // reaches 130 s; what is later is put in again then
)

// never is a moment that does not come.
const never = moment(1<<63 - 1)

// A wheel holds pairs by when their deadline is looked at.
type wheel struct {
	tick  moment
	at    int64             // the last tick that was looked at
	slots [wheelSlots]*pair // linked by pair.timer
	some  [wheelSlots / 64]uint64
}

// A timer is the part of a pair that a wheel uses.
type timer struct {
	deadline       moment // never: none
	next, previous *pair
	wheel          *wheel // nil: in none
	slot           int
}

// add has p looked at in tick t, or as near to it as the wheel reaches, and
// returns when that is.
func (w *wheel) add(p *pair, t int64) moment {
	t = min(max(t, w.at+1), w.at+wheelSlots-1)
	slot := int(t % wheelSlots)
	p.timer.wheel, p.timer.slot, p.timer.previous, p.timer.next = w, slot, nil, w.slots[slot]
	if first := w.slots[slot]; first != nil {
		first.timer.previous = p
	}
	w.slots[slot] = p
	w.some[slot/64] |= 1 << (slot % 64)
	return t * w.tick
}

func (w *wheel) remove(p *pair) {
	t := &p.timer
	if t.next != nil {
		t.next.timer.previous = t.previous
	}
	if t.previous != nil {
		t.previous.timer.next = t.next
	} else if w.slots[t.slot] = t.next; t.next == nil {
		w.some[t.slot/64] &^= 1 << (t.slot % 64)
	}
	t.wheel, t.next, t.previous = nil, nil, nil
}

// turn takes out all that is to be looked at by now, linked by timer.next.
func (w *wheel) turn(now moment) (first *pair) {
	to := now / w.tick
	from := max(w.at+1, to-wheelSlots+1)
	w.at = max(w.at, to)
	for t := from; t <= to; t++ {
		slot := int(t % wheelSlots)
		for p := w.slots[slot]; p != nil; {
			next := p.timer.next
			p.timer.wheel, p.timer.previous, p.timer.next = nil, nil, first
			first, p = p, next
		}
		w.slots[slot] = nil
		w.some[slot/64] &^= 1 << (slot % 64)
	}
	return first
}

// next returns when there is something to be looked at.
func (w *wheel) next() moment {
	begin := int((w.at + 1) % wheelSlots)
	for i := range len(w.some) + 1 {
		word := (begin/64 + i) % len(w.some)
		set := w.some[word]
		switch i {
		case 0:
			set &= ^uint64(0) << (begin % 64)
		case len(w.some):
			set &= 1<<(begin%64) - 1
		}
		if set != 0 {
			slot := word*64 + bits.TrailingZeros64(set)
			return (w.at + 1 + int64((slot-begin+wheelSlots)%wheelSlots)) * w.tick
		}
	}
	return never
}

// set has the deadline of p looked at, instead of any before.
func (l *loop) set(p *pair, deadline moment) {
	if p.timer.wheel != nil {
		p.timer.wheel.remove(p)
	}
	p.timer.deadline = deadline
	if deadline == never {
		return
	}
	// The coarse wheel looks early and leaves the rest to the fine one, which
	// looks at most a tick late.
	w, t := &l.fine, deadline/fineTick+1
	if t-w.at >= wheelSlots {
		w, t = &l.coarse, deadline/coarseTick
	}
	l.alarm = min(l.alarm, w.add(p, t))
}

// turn looks at all deadlines that have come.
func (l *loop) turn() {
	for _, p := range [...]*pair{l.coarse.turn(l.at), l.fine.turn(l.at)} { // both stand at now before anything is set
		for p != nil {
			next := p.timer.next
			p.timer.next = nil
			if deadline := p.timer.deadline; deadline > l.at {
				l.set(p, deadline)
			} else {
				p.timer.deadline = never
				p.expire()
			}
			p = next
		}
	}
	l.alarm = min(l.fine.next(), l.coarse.next(), l.acceptAt)
}
