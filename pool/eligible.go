package pool

import (
	"math"
	"net/netip"
)

// Eligible is a choice among the backends of a pool.
type Eligible struct {
	Index []int // positions in Pool.Backends, ascending

	// FailOpen is set where no backend is well and all of the first priority
	// are tried all the same, as WhenAllDown: all asks for.
	FailOpen bool

	// Priority is that of the backends in Index; without any, 0.
	Priority int

	cumulative []uint64 // running sums of the weights, in the order of Index
}

// Has reports whether the backend at position i was chosen.
func (e *Eligible) Has(i int) bool {
	for _, j := range e.Index {
		if j == i {
			return true
		}
	}
	return false
}

// takesConnections reports whether a draining backend still gets new
// connections: only while cached answers may lead clients to it.
func takesConnections(b *Backend) bool { return b.Drain == LeavingDNS }

// takesNames reports whether a draining backend is still answered: never.
func takesNames(*Backend) bool { return false }

// may reports whether b could serve if it were well. An operator's forced-down,
// a weight of 0 and a drain that goes beyond draining are wishes, not findings.
func (b *Backend) may(draining func(*Backend) bool) bool {
	return b.Weight > 0 && b.State != ForcedDown && (b.State != Draining || draining(b))
}

// eligible is the rule of who may serve. Among those that no wish forbids, the
// priority is, by falling preference:
//
//  1. the lowest of a backend that is well: one that is suspect is no verdict,
//     and so moves nobody to another priority;
//  2. the lowest of one that draining lets in;
//  3. with ServeAll the lowest of any: the probes may be what is broken, and then
//     who serves in calm is right.
//
// Of that priority those serve that are well, and draining ones that draining
// lets in; those among them that are suspect, when nobody else is left; and in
// the third case those that are down or not yet known.
func eligible(backends []Backend, rule WhenAllDown, draining func(*Backend) bool) Eligible {
	const none = math.MaxInt
	well, leaving, first := none, none, none
	for i := range backends {
		b := &backends[i]
		if !b.may(draining) {
			continue
		}
		first = min(first, b.Priority)
		if b.Well() {
			well = min(well, b.Priority)
		} else if b.State == Draining {
			leaving = min(leaving, b.Priority)
		}
	}
	priority, failOpen := well, false
	if priority == none {
		priority = leaving
	}
	if priority == none && rule == ServeAll {
		priority, failOpen = first, first < none
	}
	if priority == none {
		return Eligible{}
	}
	var trusted, suspect []int
	for i := range backends {
		b := &backends[i]
		switch serves := failOpen || b.Well() || b.State == Draining; {
		case b.Priority != priority || !serves || !b.may(draining):
		case b.Suspect && !failOpen:
			suspect = append(suspect, i)
		default:
			trusted = append(trusted, i)
		}
	}
	if len(trusted) == 0 {
		trusted = suspect
	}
	return choose(backends, trusted, priority, failOpen)
}

func choose(backends []Backend, index []int, priority int, failOpen bool) Eligible {
	e := Eligible{Index: index, FailOpen: failOpen, Priority: priority, cumulative: make([]uint64, len(index))}
	var sum uint64
	for n, i := range index {
		sum += uint64(backends[i].Weight)
		e.cumulative[n] = sum
	}
	return e
}

// Standby reports whether b is well and takes no connections only because
// others of a lower priority are.
func (p *Pool) Standby(b *Backend) bool {
	return b.Well() && b.Weight > 0 && len(p.Traffic.Index) > 0 && b.Priority > p.Traffic.Priority
}

// FailedOver reports whether the backends that take connections are not those
// of the first priority.
func (p *Pool) FailedOver() bool {
	return len(p.Traffic.Index) > 0 && p.Traffic.Priority > p.FirstPriority()
}

// FirstPriority is the lowest of any backend; 0 where there is none.
func (p *Pool) FirstPriority() int {
	if len(p.Backends) == 0 {
		return 0
	}
	first := p.Backends[0].Priority
	for i := range p.Backends {
		first = min(first, p.Backends[i].Priority)
	}
	return first
}

// Addresses returns what the hostnames of p resolve to, without duplicates
// and in the order of the backends; host are the addresses of this host.
// It is empty where the answer is NODATA.
func (p *Pool) Addresses(host []netip.Addr) []netip.Addr {
	if p.Answer == Proxied {
		if len(p.Names.Index) == 0 && p.WhenAllDown == Refuse {
			return nil
		}
		return host
	}
	var out []netip.Addr
	seen := make(map[netip.Addr]bool)
	for _, i := range p.Names.Index {
		for _, a := range p.Backends[i].Reachable() {
			if !seen[a] {
				seen[a] = true
				out = append(out, a)
			}
		}
	}
	return out
}
