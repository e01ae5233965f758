package pool

import (
	"cmp"
	"fmt"
	"time"
)

// A Lifetime is how long an answer about a pool may be cached, and why.
type Lifetime struct {
	TTL      time.Duration
	Degraded bool
	Reason   string // in words for a person
}

// tried says in words who is tried where every backend is down.
func (p *Pool) tried() string {
	if len(p.Names.Index) < len(p.Backends) {
		for i := range p.Backends {
			if p.Backends[i].Priority != p.Names.Priority {
				return fmt.Sprintf("all of priority %d are tried", p.Names.Priority)
			}
		}
	}
	return "all are tried"
}

// TTL returns the times of the answers about s in a zone: its own where it has
// some, else the zone's.
func (s *Service) TTL(zone ZoneTTL) ZoneTTL {
	own := s.Naming.TTL
	ttl := ZoneTTL{
		Normal:   cmp.Or(own.Normal, zone.Normal),
		Degraded: cmp.Or(own.Degraded, zone.Degraded),
		Negative: cmp.Or(own.Negative, zone.Negative),
	}
	ttl.Degraded = min(ttl.Degraded, ttl.Normal)
	return ttl
}

// Lifetime decides the TTL of the answers about p in a zone. It is the degraded
// one while the state of any backend could flip before the normal one has run
// out: a cache must not outlive the truth it holds.
func (p *Pool) Lifetime(zone ZoneTTL) Lifetime {
	ttl := p.TTL(zone)
	if len(p.Names.Index) == 0 {
		return Lifetime{ttl.Degraded, true, "no backend is eligible"}
	}
	if p.Names.FailOpen {
		return Lifetime{ttl.Degraded, true, "every backend is down; " + p.tried()}
	}
	for i := range p.Backends {
		b := &p.Backends[i]
		if b.Priority > p.Names.Priority {
			continue // others have to go down first
		}
		if b.Flip > 0 && b.Flip < ttl.Normal {
			return Lifetime{ttl.Degraded, true,
				fmt.Sprintf("%s is %s and could change within %s", b.Address, b.State, b.Flip)}
		}
	}
	return Lifetime{ttl.Normal, false, "no state could change soon"}
}
