package pool

import "net/netip"

// Eligible is a choice among the backends of a pool.
type Eligible struct {
	Index []int // positions in Pool.Backends, ascending

	// FailOpen is set where no backend is well and all are tried all the same,
	// as WhenAllDown: all asks for.
	FailOpen bool

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

// eligible is the rule of who may serve, by falling preference:
//
//  1. backends that are well, and draining ones that draining lets in;
//  2. those among them that are suspect, when nobody else is left;
//  3. with ServeAll every backend that is down or not yet known.
//
// An operator's forced-down, a weight of 0 and a finished drain are wishes,
// not findings: such a backend is in none of the three.
func eligible(backends []Backend, rule WhenAllDown, draining func(*Backend) bool) Eligible {
	var well, suspect, rest []int
	for i := range backends {
		b := &backends[i]
		switch {
		case b.Weight == 0 || b.State == ForcedDown:
		case b.State == Draining && !draining(b):
		case b.State != Draining && !b.Well():
			rest = append(rest, i)
		case b.Suspect:
			suspect = append(suspect, i)
		default:
			well = append(well, i)
		}
	}
	switch {
	case len(well) > 0:
		return choose(backends, well, false)
	case len(suspect) > 0:
		return choose(backends, suspect, false)
	case rule == ServeAll && len(rest) > 0:
		return choose(backends, rest, true)
	}
	return Eligible{}
}

func choose(backends []Backend, index []int, failOpen bool) Eligible {
	e := Eligible{Index: index, FailOpen: failOpen, cumulative: make([]uint64, len(index))}
	var sum uint64
	for n, i := range index {
		sum += uint64(backends[i].Weight)
		e.cumulative[n] = sum
	}
	return e
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
