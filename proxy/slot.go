package proxy

import (
	"net/netip"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/pool"
)

// A moment is a time as nanoseconds since the core was made, by the
// monotonic clock: it fits in one atomic word and does not jump.
type moment = int64

// A cutoff is when connections that belong to something must have ended. The
// zero value is never.
type cutoff struct{ at atomic.Int64 }

func (c *cutoff) set(at moment)          { c.at.Store(max(1, at)) }
func (c *cutoff) clear()                 { c.at.Store(0) }
func (c *cutoff) isSet() bool            { return c.at.Load() != 0 }
func (c *cutoff) passed(now moment) bool { at := c.at.Load(); return at != 0 && at <= now }

// A service is what the proxy keeps of a service over all generations of the
// Table: its counters and its queue. It exists while the Table names it
// or a connection belongs to it.
type service struct {
	name string
	json []byte // name as a JSON string

	active      atomic.Int64 // admitted connections
	turn        atomic.Uint64
	bytes       [2]tally // by direction
	retries     atomic.Uint64
	spillover   atomic.Uint64
	resets      [2]atomic.Uint64 // by the direction of the bytes that the one who reset would have sent
	refused     [reasons]atomic.Uint64
	connectTime histogram
	udp         udpCounts

	queue queue
	cut   cutoff // set while the Table does not name it

	// Guarded by core.mu.
	backends map[netip.AddrPort]*backend
	drain    time.Duration // the drain timeout it last had
}

// A backend is what the proxy keeps of one backend of one service. It exists
// while the Table names it or a connection leads to it.
type backend struct {
	service *service
	address netip.AddrPort
	text    string

	active      atomic.Int64  // connections that lead to it or are being made
	connections atomic.Uint64 // that were made
	failures    [failures]atomic.Uint64

	cut cutoff // set while it finishes or the Table does not name it

	// Guarded by core.mu.
	finishing time.Duration // since the core was made: when it began to finish; 0: it does not
}

// A tally is counted up by every loop with every message. Each loop has a
// place of its own, so that they do not take the cache line from each other.
type tally [tallyPlaces]struct {
	n atomic.Uint64
	_ [cacheLine - 8]byte
}

const (
	tallyPlaces = 16 // loops beyond these share them
	cacheLine   = 64
)

func (c *tally) add(place int, n uint64) { c[place%tallyPlaces].n.Add(n) }

// Load returns the sum of all places.
func (c *tally) Load() (sum uint64) {
	for i := range c {
		sum += c[i].n.Load()
	}
	return sum
}

// acquire counts one more in n unless limit are there already; 0 is no limit.
func acquire(n *atomic.Int64, limit int) bool {
	if limit == 0 {
		n.Add(1)
		return true
	}
	for {
		now := n.Load()
		if now >= int64(limit) {
			return false
		}
		if n.CompareAndSwap(now, now+1) {
			return true
		}
	}
}

// leave ends the claim of one connection on b and lets the next one in.
func (b *backend) leave() {
	b.active.Add(-1)
	b.service.queue.wake()
}

// A view is a Table with the slots of its services and backends.
type view struct {
	table      *pool.Table
	byName     map[string]*route
	byListener map[netip.AddrPort]*port
	byUDP      map[netip.AddrPort]*route
}

// leads reports whether the Table names the listener.
func (v *view) leads(p pool.Port) bool {
	if p.UDP {
		return v.byUDP[p.Address] != nil
	}
	return v.byListener[p.Address] != nil
}

// of returns the route of p, nil for nil.
func (v *view) of(p *pool.Pool) *route {
	if p == nil {
		return nil
	}
	return v.byName[p.Name]
}

// A port is a listener of the Table.
type port struct {
	listener *pool.Listener
	only     *route // where every connection goes; nil: that depends on the client's hello
	rest     *route // where those go that no match takes; nil: nowhere
}

// A route is a pool of the Table with its slots.
type route struct {
	pool     *pool.Pool
	service  *service
	backends []*backend // in the order of pool.Backends
}

// Active implements [pool.Load].
func (r *route) Active(i int) int { return int(r.backends[i].active.Load()) }

// position returns where b is in the pool, -1 if it is not.
func (r *route) position(b *backend) int {
	for i, other := range r.backends {
		if other == b {
			return i
		}
	}
	return -1
}
