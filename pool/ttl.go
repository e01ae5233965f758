package pool

import (
	"fmt"
	"time"
)

// A Lifetime is how long an answer about a pool may be cached, and why.
type Lifetime struct {
	TTL      time.Duration
	Degraded bool
	Reason   string // in words for a person
}

// Lifetime decides the TTL of the answers about p. It is ttl.Degraded while the
// state of any backend could flip before ttl.Normal has run out: a cache
// must not outlive the truth it holds.
func (p *Pool) Lifetime(ttl ZoneTTL) Lifetime {
	if len(p.Names.Index) == 0 {
		return Lifetime{ttl.Degraded, true, "no backend is eligible"}
	}
	if p.Names.FailOpen {
		return Lifetime{ttl.Degraded, true, "every backend is down; all are tried"}
	}
	for i := range p.Backends {
		b := &p.Backends[i]
		if b.Flip > 0 && b.Flip < ttl.Normal {
			return Lifetime{ttl.Degraded, true,
				fmt.Sprintf("%s is %s and could change within %s", b.Address, b.State, b.Flip)}
		}
	}
	return Lifetime{ttl.Normal, false, "no state could change soon"}
}
