package dnsserver

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/pool"
)

// A limit is the rate limit of a snapshot.
type limit struct {
	cost   uint64 // of one response, in ticks; 0: nothing is limited
	slip   uint32
	exempt []netip.Prefix
}

// Time in the limiter is counted in ticks. Rates above one response a tick are
// not limited.
const (
	ticksPerSecond = 1 << 16
	tickBits       = 46 // 34 years
	tickMask       = 1<<tickBits - 1
)

func newLimit(r pool.RateLimit) limit {
	if r.PerSecond <= 0 {
		return limit{}
	}
	return limit{cost: ticksPerSecond / uint64(r.PerSecond), slip: uint32(max(r.Slip, 0)), exempt: r.Exempt}
}

// A limiter counts the responses for each client prefix. It is a table of
// fixed size that all sockets share, without locks: a client counts as one
// whichever sockets its packets arrive at.
//
// A place holds the time until which the responses so far are paid for (the
// generic cell rate algorithm), and some bits of the prefix's hash. The limit
// is passed where that is a second ahead, so a burst of one second's
// responses is allowed. Eight places, one cache line, may hold a prefix;
// when all are taken the one that is ahead the least gives way.
type limiter struct {
	seed   maphash.Seed // nobody can aim at the places of another
	start  time.Time
	places [limiterPlaces]atomic.Uint64
}

const (
	limiterPlaces = 1 << 16 // 512 KiB
	limiterWays   = 8
)

func newLimiter() *limiter { return &limiter{seed: maphash.MakeSeed(), start: time.Now()} }

// exempts reports whether client is never limited.
func (l *limit) exempts(client netip.Addr) bool {
	for _, p := range l.exempt {
		if p.Contains(client) {
			return true
		}
	}
	return false
}

// prefixOf is what clients are told apart by: an IPv4 /24 or an IPv6 /56.
func prefixOf(client netip.Addr) uint64 {
	if client.Is4() {
		b := client.As4()
		return uint64(b[0])<<16 | uint64(b[1])<<8 | uint64(b[2])
	}
	b := client.As16()
	return binary.BigEndian.Uint64(b[:])&^0xff | 0xff // no IPv4 prefix looks like it
}

// over counts a response for client at the time now and reports whether it is
// over the limit. Client must not be an IPv4 address in IPv6 form.
func (l *limiter) over(lim *limit, client netip.Addr, now time.Time) bool {
	if lim.cost == 0 || lim.exempts(client) {
		return false
	}
	hash := maphash.Comparable(l.seed, prefixOf(client))
	ways := l.places[hash%(limiterPlaces/limiterWays)*limiterWays:][:limiterWays]
	tag := hash >> tickBits << tickBits
	// One second is added so that an empty place is in the past.
	tick := uint64(now.Sub(l.start)+time.Second) * ticksPerSecond / uint64(time.Second) & tickMask
	for range limiterWays { // more tries than that mean that others count for the same prefix at once
		place, old := find(ways, tag)
		paid := tick
		if old&^tickMask == tag {
			paid = max(paid, old&tickMask)
		}
		if paid+lim.cost > tick+ticksPerSecond {
			return true
		}
		if place.CompareAndSwap(old, tag|(paid+lim.cost)&tickMask) {
			return false
		}
	}
	return false
}

// find returns the place of the prefix with that tag, or the one to give it.
func find(ways []atomic.Uint64, tag uint64) (place *atomic.Uint64, value uint64) {
	for i := range ways {
		v := ways[i].Load()
		if v&^tickMask == tag && v != 0 {
			return &ways[i], v
		}
		if place == nil || v&tickMask < value&tickMask {
			place, value = &ways[i], v
		}
	}
	return place, value
}
