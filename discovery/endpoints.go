package discovery

import (
	"fmt"
	"net/netip"
	"slices"

	"haslohas.com/elbow/pool"
)

// maxEndpoints bounds the set of one source.
const maxEndpoints = 100_000

// maxWeight is the upper bound of pool.Endpoint.Weight.
const maxWeight = 256

// maxPriority is that of pool.Endpoint.Priority.
const maxPriority = 255

// normal returns endpoints as a pool.Service wants them: sorted by address and
// unique. Of two with one address the one that serves is taken: where a new
// instance follows an old one at the same place, both are seen for a while.
// Endpoints that nothing could connect to make the whole set invalid, since
// the rest of it would be a partial one.
func normal(endpoints []pool.Endpoint) ([]pool.Endpoint, error) {
	if len(endpoints) > maxEndpoints {
		return nil, fmt.Errorf("%d endpoints, the limit is %d", len(endpoints), maxEndpoints)
	}
	out := slices.Clone(endpoints)
	for i := range out {
		e := &out[i]
		if !e.Address.IsValid() || e.Address.Port() == 0 || e.Address.Addr().IsUnspecified() {
			return nil, fmt.Errorf("endpoint %q: not an address and port to connect to", e.Address)
		}
		if e.Weight < 0 || e.Weight > maxWeight {
			return nil, fmt.Errorf("endpoint %s: weight %d is not in 0 to %d", e.Address, e.Weight, maxWeight)
		}
		if e.Priority < 0 || e.Priority > maxPriority {
			return nil, fmt.Errorf("endpoint %s: priority %d is not in 0 to %d", e.Address, e.Priority, maxPriority)
		}
		e.Address = netip.AddrPortFrom(e.Address.Addr().Unmap(), e.Address.Port())
	}
	slices.SortStableFunc(out, func(a, b pool.Endpoint) int {
		if c := a.Address.Compare(b.Address); c != 0 {
			return c
		}
		return int(a.Phase) - int(b.Phase)
	})
	return slices.CompactFunc(out, func(a, b pool.Endpoint) bool { return a.Address == b.Address }), nil
}

func sameEndpoints(a, b []pool.Endpoint) bool { return slices.EqualFunc(a, b, sameEndpoint) }

func sameEndpoint(a, b pool.Endpoint) bool {
	return a.Address == b.Address && a.Node == b.Node && slices.Equal(a.Public, b.Public) &&
		a.Zone == b.Zone && a.Weight == b.Weight && a.Priority == b.Priority && a.Phase == b.Phase
}

// difference counts the addresses that only one of two sorted sets has.
func difference(before, after []pool.Endpoint) (added, removed int) {
	for len(before) > 0 && len(after) > 0 {
		switch c := before[0].Address.Compare(after[0].Address); {
		case c < 0:
			removed++
			before = before[1:]
		case c > 0:
			added++
			after = after[1:]
		default:
			before, after = before[1:], after[1:]
		}
	}
	return added + len(after), removed + len(before)
}
