package pool

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A Backend is an Endpoint and the verdict on it.
type Backend struct {
	Endpoint
	State  State
	Since  time.Time // when State was entered
	Reason string    // why, in words for a person

	Drain DrainStage // past NotDraining only where State is Draining

	// Suspect is set on a backend that real traffic just failed to connect
	// to. It is passed over, where another is well, until a probe has decided.
	Suspect bool

	// Flip is the least time after which State could change by what is known
	// now; 0: nothing speaks for a change.
	Flip time.Duration

	// RampFrom is when the backend came up while the daemon was running, the
	// begin of its slow start; zero: it has its full weight.
	RampFrom time.Time
}

// Well reports whether b may serve by its own state alone.
func (b *Backend) Well() bool { return b.State == Up || b.State == ForcedUp }

// A Pool is a Service with the verdicts on its endpoints and what follows
// from them. Make one with [NewPool]; it is immutable.
type Pool struct {
	*Service
	Backends []Backend // in the order of Service.Endpoints

	Traffic Eligible // who takes new connections
	Names   Eligible // whose addresses are answered

	turns   []int     // one round of weighted turns, positions in Backends; for RoundRobin
	seeds   []uint64  // per backend, for Source
	rampEnd time.Time // no backend ramps from then on
}

// NewPool derives everything that follows from the backends of a service.
// It keeps backends, which must not change any more.
func NewPool(s *Service, backends []Backend) *Pool {
	p := &Pool{Service: s, Backends: backends}
	p.Traffic = eligible(backends, s.WhenAllDown, takesConnections)
	p.Names = eligible(backends, s.WhenAllDown, takesNames)
	if s.Balance == RoundRobin {
		p.turns = turns(backends, p.Traffic.Index)
	}
	p.seeds = make([]uint64, len(backends))
	for i := range backends {
		p.seeds[i] = seed(backends[i].Address)
		if from := backends[i].RampFrom; s.SlowStart > 0 && !from.IsZero() {
			if end := from.Add(s.SlowStart); end.After(p.rampEnd) {
				p.rampEnd = end
			}
		}
	}
	return p
}

// A Table is the whole truth at one moment: all services with their
// backends, under one generation number. It is immutable. Nobody keeps
// a second copy.
type Table struct {
	Generation uint64 // grows by one with each Table; 0: nothing was decided yet
	Published  time.Time
	Host       Host
	DNS        DNS
	Pools      []*Pool     // sorted by Name
	Listeners  []*Listener // for TCP, of all Pools, in their order; each address once

	byHostname map[string]*Pool
	byListener map[netip.AddrPort]*Listener
	byUDP      map[netip.AddrPort]*Pool
}

// NewTable makes a Table of set with pools, one for each of its services and
// in their order.
func NewTable(generation uint64, at time.Time, set *Set, pools []*Pool) *Table {
	t := &Table{
		Generation: generation,
		Published:  at,
		Host:       set.Host,
		DNS:        set.DNS,
		Pools:      pools,
		byHostname: make(map[string]*Pool),
		byUDP:      make(map[netip.AddrPort]*Pool),
	}
	t.Listeners, t.byListener = listenersOf(pools)
	for _, p := range pools {
		for _, h := range p.Hostnames {
			t.byHostname[h] = p
		}
		for _, l := range p.ListenUDP {
			t.byUDP[l] = p
		}
	}
	return t
}

// Hostname returns the pool that name belongs to, nil if none. The name is
// lower case and has no final dot.
func (t *Table) Hostname(name string) *Pool { return t.byHostname[name] }

// Listener returns the listener for TCP with that address, nil if none.
func (t *Table) Listener(addr netip.AddrPort) *Listener { return t.byListener[addr] }

// UDPListener returns the pool that the UDP listener belongs to, nil if none.
func (t *Table) UDPListener(addr netip.AddrPort) *Pool { return t.byUDP[addr] }

// Service returns the pool of the service with that name, nil if none.
func (t *Table) Service(name string) *Pool {
	for _, p := range t.Pools {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Zone returns the zone with the longest name that name is at or below, nil if
// none. The name is lower case and has no final dot.
func (d *DNS) Zone(name string) *Zone {
	var best *Zone
	for _, z := range d.Zones {
		if within(name, z.Name) && (best == nil || len(z.Name) > len(best.Name)) {
			best = z
		}
	}
	return best
}

func within(name, zone string) bool {
	if zone == "" || name == zone {
		return true
	}
	cut := len(name) - len(zone)
	return cut > 0 && name[cut-1] == '.' && name[cut:] == zone
}

// A Publisher hands the newest Table to everybody who asks. Load never
// returns nil: before the first Publish it returns an empty Table of
// generation 0. Its methods may be called by several goroutines. The zero
// value is ready for use.
type Publisher struct {
	current atomic.Pointer[Table]

	mu       sync.Mutex
	watchers map[chan struct{}]struct{} // guarded by mu
}

var empty = NewTable(0, time.Time{}, &Set{}, nil)

// Load returns the newest Table. It takes no lock and allocates nothing.
func (p *Publisher) Load() *Table {
	if t := p.current.Load(); t != nil {
		return t
	}
	return empty
}

// Publish makes t the newest Table and wakes everybody who watches.
func (p *Publisher) Publish(t *Table) {
	p.current.Store(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.watchers {
		select {
		case c <- struct{}{}:
		default: // one wake-up is already waiting, and it will load this Table
		}
	}
}

// Watch returns a channel that receives after a Publish. Several Publish calls
// may be seen as one: load the newest Table after each receive. The channel
// is never closed; call stop when done with it.
func (p *Publisher) Watch() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watchers == nil {
		p.watchers = make(map[chan struct{}]struct{})
	}
	p.watchers[c] = struct{}{}
	return c, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watchers, c)
	}
}
