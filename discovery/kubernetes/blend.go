package kubernetes

import (
	"net/netip"
	"strings"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/pool"
)

// A Share is a Service and its share of the connections.
type Share struct {
	Service
	Weight int // at least 1
}

// Blend returns the Source of the endpoints of several Services, of which each
// Service has its share as long as it has an endpoint, however many those are.
func (c *Cluster) Blend(shares []Share) discovery.Source {
	if len(shares) == 1 {
		return c.Service(shares[0].Service)
	}
	var names []string
	var parts []*source
	s := &source{cluster: c}
	for _, one := range shares {
		part := c.Service(one.Service).(*source)
		parts = append(parts, part)
		s.wanted = append(s.wanted, part.wanted...)
		names = append(names, one.Namespace+"/"+one.Name)
	}
	s.name = "services " + strings.Join(names, ", ")
	s.find = func(informers []*informer) finding {
		f := finding{ok: true}
		sets := make([][]pool.Endpoint, len(parts))
		for i, p := range parts {
			own := p.find(informers[:len(p.wanted)])
			informers = informers[len(p.wanted):]
			f.ok = f.ok && own.ok
			if f.Err == nil {
				f.Err = own.Err
			}
			f.complaints = append(f.complaints, own.complaints...)
			sets[i] = own.Endpoints
		}
		f.Endpoints = blend(shares, sets)
		return f
	}
	return s
}

// maxCommon bounds the numbers that weights are made of.
const maxCommon = 1 << 31

// blend gives the endpoints of each set weights that add up to its share: the
// smallest whole numbers, if they are not above 256, else the closest of 1 to 256. An
// endpoint of two sets counts for the first.
func blend(shares []Share, sets [][]pool.Endpoint) []pool.Endpoint {
	sums := make([]int, len(sets))
	common := 1 // a multiple of all sums, if there is a small one
	for i, set := range sets {
		for _, e := range set {
			if e.Phase == pool.Serving {
				sums[i] += e.Weight
			}
		}
		if sums[i] > 0 {
			common = min(maxCommon, common/divisor(common, sums[i])*sums[i])
		}
	}
	var out []pool.Endpoint
	seen := make(map[netip.AddrPort]bool)
	most, steps := 1, 0
	for i, set := range sets {
		for _, e := range set {
			if seen[e.Address] {
				continue
			}
			seen[e.Address] = true
			if sums[i] > 0 && e.Weight > 0 {
				e.Weight = max(1, e.Weight*common/sums[i]*shares[i].Weight)
				most, steps = max(most, e.Weight), divisor(steps, e.Weight)
			}
			out = append(out, e)
		}
	}
	for i, e := range out {
		if most/max(1, steps) <= maxWeight {
			out[i].Weight = max(min(1, e.Weight), e.Weight/max(1, steps))
		} else {
			out[i].Weight = max(min(1, e.Weight), (e.Weight*maxWeight+most/2)/most)
		}
	}
	return out
}

// divisor is the greatest that a and b have in common.
func divisor(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
