package pool

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"sort"
	"time"
)

// A Request is what picking a backend depends on besides the pool.
type Request struct {
	Client netip.Addr // for Source
	Random uint64     // fresh random bits, for LeastConn and slow start
	Turn   uint64     // grows by one with each request, for RoundRobin
	Now    time.Time  // for slow start
	Tried  []int      // positions that were tried and failed
}

// Load tells how many connections a backend has, by its position in
// Pool.Backends.
type Load interface {
	Active(backend int) int
}

// A Choice is how picking a backend ended.
type Choice uint8

const (
	Picked   Choice = iota
	NobodyUp        // no backend is eligible
	AllFull         // every eligible backend that was not tried is at MaxConnectionsPerBackend
	AllTried        // every eligible backend was tried
)

// Pick picks a backend for a new connection: a position in p.Backends where
// the Choice is Picked, else -1. It allocates nothing.
func (p *Pool) Pick(r Request, load Load) (int, Choice) {
	e := &p.Traffic
	if len(e.Index) == 0 {
		return -1, NobodyUp
	}
	var i int
	switch p.Balance {
	case RoundRobin:
		i = p.inTurn(r, load)
	case Source:
		i = p.bySource(r, load)
	default:
		i = p.leastLoaded(r, load)
	}
	if i >= 0 {
		return i, Picked
	}
	for _, i := range e.Index {
		if !slices.Contains(r.Tried, i) {
			return -1, AllFull
		}
	}
	return -1, AllTried
}

// free reports whether the backend at i was not tried and has room.
func (p *Pool) free(i int, r *Request, load Load) bool {
	return !slices.Contains(r.Tried, i) &&
		(p.MaxConnectionsPerBackend == 0 || load.Active(i) < p.MaxConnectionsPerBackend)
}

// fullWeight is what one unit of weight counts in weight: fine enough that
// the first second of a long slow start is not rounded to nothing.
const fullWeight = 1000

// weight is the weight of the backend at i at the time now, in thousandths,
// at least one: during slow start it grows linearly.
func (p *Pool) weight(i int, now time.Time) uint64 {
	b := &p.Backends[i]
	full := uint64(b.Weight) * fullWeight
	if p.SlowStart <= 0 || b.RampFrom.IsZero() {
		return full
	}
	age := now.Sub(b.RampFrom)
	if age >= p.SlowStart {
		return full
	}
	return max(1, uint64(float64(full)*max(0, float64(age)/float64(p.SlowStart))))
}

// leastLoaded is the power of two choices: two backends are drawn by weight,
// and the one with fewer connections for its weight is taken. It balances
// nearly as well as looking at all of them and never sends a herd to the one
// that looks idle.
func (p *Pool) leastLoaded(r Request, load Load) int {
	e := &p.Traffic
	first, second := r.Random, mix(r.Random)
	if len(r.Tried) == 0 && !r.Now.Before(p.rampEnd) {
		if len(e.Index) == 1 {
			if p.free(e.Index[0], &r, load) {
				return e.Index[0]
			}
			return -1
		}
		a, b := e.draw(first, -1), e.draw(second, -1)
		if a == b {
			b = e.draw(mix(second), a) // fresh bits: those of second fall where a is
		}
		fa, fb := p.free(a, &r, load), p.free(b, &r, load)
		switch {
		case fa && fb:
			return p.lighter(a, b, r.Now, load)
		case fa:
			return a
		case fb:
			return b
		}
	}
	// Somebody was tried, is full or ramps up: draw among the rest.
	a := p.drawFree(&r, load, first, -1)
	if a < 0 {
		return -1
	}
	b := p.drawFree(&r, load, second, a)
	if b < 0 {
		return a
	}
	return p.lighter(a, b, r.Now, load)
}

// lighter returns the one of a and b with fewer connections for its weight,
// the one to come counted in. Where neither has any, the draw decides, which
// was by weight: else connections that come one by one would all go to the
// heaviest.
func (p *Pool) lighter(a, b int, now time.Time, load Load) int {
	ca, cb := load.Active(a), load.Active(b)
	if ca == 0 && cb == 0 {
		return a
	}
	la := uint64(ca+1) * p.weight(b, now)
	lb := uint64(cb+1) * p.weight(a, now)
	if lb < la {
		return b
	}
	return a
}

// draw returns a position in Backends by weight. Where but is not
// negative, that position is left out, which needs two or more.
func (e *Eligible) draw(random uint64, but int) int {
	total := e.cumulative[len(e.cumulative)-1]
	var skipFrom, skipTo uint64
	if but >= 0 {
		n, _ := slices.BinarySearch(e.Index, but)
		skipTo = e.cumulative[n]
		if n > 0 {
			skipFrom = e.cumulative[n-1]
		}
	}
	at, _ := bits.Mul64(random, total-(skipTo-skipFrom))
	if but >= 0 && at >= skipFrom {
		at += skipTo - skipFrom
	}
	return e.Index[sort.Search(len(e.cumulative), func(n int) bool { return e.cumulative[n] > at })]
}

// drawFree draws by the weights of this moment among the backends that are
// free, leaving out but; -1 if there is none.
func (p *Pool) drawFree(r *Request, load Load, random uint64, but int) int {
	var total uint64
	for _, i := range p.Traffic.Index {
		if i != but && p.free(i, r, load) {
			total += p.weight(i, r.Now)
		}
	}
	at, _ := bits.Mul64(random, total)
	last := -1
	for _, i := range p.Traffic.Index {
		if i == but || !p.free(i, r, load) {
			continue
		}
		w := p.weight(i, r.Now)
		if at < w {
			return i
		}
		at -= w
		last = i // a count may have changed between the two loops
	}
	return last
}

// maxGifts bounds how often one turn is given away.
const maxGifts = 8

// inTurn walks the prebuilt round. A backend in slow start gives up a part of
// its turns to anybody, not to the next one, which would have to carry all of
// them.
func (p *Pool) inTurn(r Request, load Load) int {
	round := p.turns
	ramping := r.Now.Before(p.rampEnd)
	turn, fallback := r.Turn, -1
	for n := range maxGifts + uint64(len(round)) { // after the gifts, a whole round
		i := round[(turn+n)%uint64(len(round))]
		if !p.free(i, &r, load) {
			continue
		}
		if ramping {
			full := uint64(p.Backends[i].Weight) * fullWeight
			if random := mix(r.Random + n); random%full >= p.weight(i, r.Now) {
				if fallback = i; n < maxGifts {
					turn = mix(random)
				}
				continue
			}
		}
		return i
	}
	return fallback
}

// maxRound bounds the length of one round of weighted turns, as far as each
// backend has one.
const maxRound = 4096

// turns lays out one round in which each backend has as many turns as its
// weight, at equal distances. Where in its first distance a backend begins is
// spread by the golden ratio, so that few turns of one follow each other.
// Weights are reduced by their common divisor and, where the round would be
// too long, scaled down.
func turns(backends []Backend, index []int) []int {
	divisor := 0
	for _, i := range index {
		divisor = gcd(divisor, backends[i].Weight)
	}
	weights, sum := make([]int, len(index)), 0
	for n, i := range index {
		weights[n] = backends[i].Weight / divisor
		sum += weights[n]
	}
	if sum == len(index) { // all weigh the same
		return index
	}
	type turn struct {
		at      uint64 // in the round, 32 bits of fraction
		backend int
	}
	all := make([]turn, 0, min(sum, maxRound+len(index)))
	for n, i := range index {
		w := weights[n]
		if sum > maxRound {
			w = max(1, w*maxRound/sum)
		}
		begin := uint64(uint32(n) * 2654435769) // 2^32 divided by the golden ratio
		for k := range w {
			all = append(all, turn{(uint64(k)<<32 + begin) / uint64(w), i})
		}
	}
	slices.SortStableFunc(all, func(a, b turn) int { return cmp.Compare(a.at, b.at) })
	round := make([]int, len(all))
	for n, t := range all {
		round[n] = t.backend
	}
	return round
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// bySource is weighted rendezvous hashing (Thaler and Ravishankar 1998;
// weights after Schindelhauer and Schomaker 2005): the highest score wins, so
// that a backend that leaves moves nobody but its own clients. Slow start
// is not applied: it would move clients twice.
func (p *Pool) bySource(r Request, load Load) int {
	client := hashAddr(r.Client)
	best, top := -1, math.Inf(-1)
	for _, i := range p.Traffic.Index {
		if !p.free(i, &r, load) {
			continue
		}
		// 52 random bits as a number in (0, 1); one more would be rounded up to 1.
		u := (float64(mix(client^p.seeds[i])>>12) + 0.5) / (1 << 52)
		if score := -float64(p.Backends[i].Weight) / math.Log(u); score > top {
			best, top = i, score
		}
	}
	return best
}

// seed is the fixed random number of a backend. It depends on the address
// alone, so that every host and every restart picks alike.
func seed(a netip.AddrPort) uint64 { return mix(hashAddr(a.Addr()) + uint64(a.Port())) }

func hashAddr(a netip.Addr) uint64 {
	b := a.Unmap().As16()
	return mix(mix(binary.BigEndian.Uint64(b[:8])) ^ binary.BigEndian.Uint64(b[8:]))
}

// mix is the finalizer of SplitMix64 (Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
