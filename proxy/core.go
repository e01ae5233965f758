package proxy

import (
	"cmp"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/pool"
)

// How long accepting pauses when this host runs out of something.
const (
	minPause      = 10 * time.Millisecond
	maxPause      = 100 * time.Millisecond
	dialPause     = 25 * time.Millisecond // between two attempts of a connect that failed for a local fault
	faultForgiven = time.Second           // without a fault, until it is said to be over
)

// A core is everything that the engines share. Its methods may be called by
// several goroutines.
type core struct {
	table    *pool.Publisher
	observer Observer
	log      *slog.Logger
	lines    *lineWriter // nil: no connection log
	faults   faults
	epoch    time.Time
	names    sync.Pool // of *asked

	current atomic.Pointer[view]

	mu       sync.Mutex // guards what follows, and the making of a new view
	services map[string]*service

	most        int64        // connections at once that this host has descriptors for; 0: no limit
	sessions    atomic.Int64 // and flows
	cut         cutoff       // set when the proxy ends
	pausedUntil atomic.Int64 // no accept before this moment
	lastFault   atomic.Int64 // 0: all is well
	pauses      atomic.Uint64

	firstPort, lastPort uint16 // that the system gives to outgoing sockets
	mostFlows           int    // at once that this host has resources for
	flows               atomic.Int64
	fresh, lastWords    moment       // freshTimeout and lastWords, but for tests
	lastFlowFault       atomic.Int64 // 0: all is well

	poked chan struct{} // holds one when something may have ended that is waited for
}

func newCore(o Options) *core {
	c := &core{
		table:    o.Table,
		observer: o.Observer,
		log:      o.Log,
		epoch:    time.Now(),
		services: make(map[string]*service),
		poked:    make(chan struct{}, 1),
		most:     mostConnections(),

		fresh:     moment(freshTimeout),
		lastWords: moment(lastWords),
	}
	c.firstPort, c.lastPort = localPorts()
	c.mostFlows = mostFlows(c.most, c.firstPort, c.lastPort)
	c.names.New = func() any { return new(asked) }
	if o.ConnLog != nil {
		c.lines = newLineWriter(o.ConnLog)
	}
	return c
}

func (c *core) moment(t time.Time) moment { return int64(t.Sub(c.epoch)) }

func (c *core) poke() {
	select {
	case c.poked <- struct{}{}:
	default:
	}
}

// view returns the newest Table with its slots. But for the first call after
// a new Table it takes no lock.
func (c *core) view() *view {
	if v := c.current.Load(); v != nil && v.table == c.table.Load() {
		return v
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.table.Load()
	v := c.current.Load()
	if v == nil || v.table != t {
		v = c.newView(t, c.moment(time.Now()))
		c.current.Store(v)
	}
	return v
}

// isNewest reports whether v is still the truth. Whoever has counted itself in
// a slot of v and then finds v to be the newest can rely on the slot: purge
// looks at the counts after the next Table was published.
func (c *core) isNewest(v *view) bool { return v.table == c.table.Load() }

// newView finds or makes the slots of t and sets the cutoffs that follow from
// it. The caller holds c.mu.
func (c *core) newView(t *pool.Table, now moment) *view {
	v := &view{
		table:      t,
		byName:     make(map[string]*route, len(t.Pools)),
		byListener: make(map[netip.AddrPort]*port),
		byUDP:      make(map[netip.AddrPort]*route),
	}
	for _, p := range t.Pools {
		s := c.services[p.Name]
		if s == nil {
			s = &service{name: p.Name, json: appendJSON(nil, p.Name), backends: make(map[netip.AddrPort]*backend)}
			c.services[p.Name] = s
		}
		s.cut.clear()
		s.drain = p.DrainTimeout
		r := &route{pool: p, service: s, backends: make([]*backend, len(p.Backends))}
		for i := range p.Backends {
			r.backends[i] = s.slot(&p.Backends[i], now)
		}
		v.byName[p.Name] = r
		for _, a := range p.ListenUDP {
			v.byUDP[a] = r
			s.udp.used.Store(true)
		}
	}
	for _, l := range t.Listeners {
		p := &port{listener: l, rest: v.of(l.Default)}
		if !l.Routes() {
			p.only = p.rest
		}
		v.byListener[l.Address] = p
	}
	for name, s := range c.services {
		r := v.byName[name]
		if r == nil && !s.cut.isSet() {
			s.cut.set(now + int64(s.drain))
		}
		for _, b := range s.backends {
			if !b.cut.isSet() && (r == nil || r.position(b) < 0) {
				b.cut.set(now + int64(s.drain))
			}
		}
	}
	return v
}

// slot finds or makes the slot of b. The caller holds core.mu.
//
// The time to finish counts from when b was first seen to finish.
// [pool.Backend.Since] would be too early: it tells when the drain
// began, and leaving the DNS comes before.
func (s *service) slot(b *pool.Backend, now moment) *backend {
	slot := s.backends[b.Address]
	if slot == nil {
		slot = &backend{service: s, address: b.Address, text: b.Address.String()}
		s.backends[b.Address] = slot
	}
	if b.Drain < pool.Finishing {
		slot.finishing = 0
		slot.cut.clear()
		return slot
	}
	if slot.finishing == 0 {
		slot.finishing = max(1, time.Duration(now))
	}
	slot.cut.set(int64(slot.finishing + s.drain))
	return slot
}

// purge forgets the slots that the Table does not name and nobody uses, and
// returns the next cutoff of one that is in use; ok is false if there is none.
func (c *core) purge() (next moment, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.current.Load()
	earliest := func(at *cutoff, active *atomic.Int64) {
		if t := at.at.Load(); t != 0 && active.Load() > 0 && (!ok || t < next) {
			next, ok = t, true
		}
	}
	for name, s := range c.services {
		r := v.byName[name]
		for address, b := range s.backends {
			if b.active.Load() == 0 && (r == nil || r.position(b) < 0) {
				delete(s.backends, address)
			}
			earliest(&b.cut, &b.active)
		}
		if r == nil && s.active.Load() == 0 && len(s.backends) == 0 {
			delete(c.services, name)
		}
		earliest(&s.cut, &s.active)
	}
	earliest(&c.cut, &c.sessions)
	return next, ok
}

// wakeQueues lets whoever waits look at the newest Table.
func (c *core) wakeQueues() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.services {
		s.queue.wake()
	}
}

// active returns how many connections lead to a backend.
func (c *core) active(service string, address netip.AddrPort) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.services[service]; s != nil {
		if b := s.backends[address]; b != nil {
			return int(b.active.Load())
		}
	}
	return 0
}

// snapshot returns the services, sorted by name.
func (c *core) snapshot() []*service {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.services), func(a, b *service) int { return cmp.Compare(a.name, b.name) })
}

// backendsOf returns the backends of s, sorted by address.
func (c *core) backendsOf(s *service) []*backend {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.backends), func(a, b *backend) int { return a.address.Compare(b.address) })
}

// acceptDelay returns how long an engine must not accept; 0: it may.
func (c *core) acceptDelay(now time.Time) time.Duration {
	if c.most > 0 && c.sessions.Load() >= c.most {
		c.fault("accept", errDescriptors, minPause, now)
		return minPause
	}
	until := c.pausedUntil.Load()
	if until == 0 {
		return 0
	}
	return max(0, time.Duration(until-c.moment(now)))
}

// acceptFailed takes the error of an accept on l and returns how long to wait
// before the next.
func (c *core) acceptFailed(l *listener, err error, now time.Time) time.Duration {
	if isTransient(err) {
		return 0
	}
	pause := min(max(minPause, 2*time.Duration(l.pause.Load())), maxPause)
	l.pause.Store(int64(pause))
	c.fault("accept", err, pause, now)
	return pause
}

// fault notes that this host is short of something and pauses accepting.
func (c *core) fault(operation string, err error, pause time.Duration, now time.Time) {
	c.pauses.Add(1)
	at := max(1, c.moment(now))
	c.pausedUntil.Store(at + int64(pause))
	if c.lastFault.Swap(at) == 0 {
		c.log.Error("this host is out of resources; accepting pauses until that is over", "operation", operation, "err", err)
	}
}

// works notes that an accept or connect succeeded.
func (c *core) works(now time.Time) {
	last := c.lastFault.Load()
	if last == 0 || c.moment(now)-last < int64(faultForgiven) {
		return
	}
	if c.lastFault.CompareAndSwap(last, 0) {
		c.pausedUntil.Store(0)
		c.log.Info("this host has resources again; accepting goes on")
	}
}
