package discovery

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"haslohas.com/elbow/pool"
)

// A loop is the state of [Catalog.Run]. Only its goroutine touches it.
type loop struct {
	*Catalog
	running sync.WaitGroup // the sources, and the keeper
	keeper  *keeper
	changed bool // a good set is not with the keeper yet

	host      pool.Host
	dns       pool.DNS
	wanted    []wanted
	sources   map[string]*source // by key
	held      holders
	conflicts map[conflict]bool
	left      map[string]*goodSet // what the last process left, until the first apply

	set *pool.Set // the last that was delivered, nil before the first
}

// wanted is a Service after the conflicts were settled.
type wanted struct {
	pool.Service      // with the listeners and hostnames it was granted
	ownProbe     bool // see Service.OwnProbe
	source       *source
	sourceName   string
	refused      []string // in words
}

func newLoop(c *Catalog) *loop {
	return &loop{
		Catalog: c,
		keeper:  newKeeper(c.Store, c.Log),
		sources: make(map[string]*source),
	}
}

// begin loads what the last process left and starts the keeper of what this
// one leaves.
func (l *loop) begin(ctx context.Context) {
	l.left = l.keeper.load()
	l.running.Go(func() { l.keeper.run(ctx) })
}

// apply brings w into force: conflicts are settled and sources started, kept
// and stopped. What follows for the Set, settle finds out.
func (l *loop) apply(ctx context.Context, w Want, now time.Time) {
	l.host = w.Host
	l.dns = w.DNS
	l.dns.Zones = keepZones(w.DNS.Zones, l.set)

	before := l.wanted
	l.wanted = l.grantAll(w.Services)
	keys := make(map[string]bool)
	for i := range l.wanted {
		s := l.wanted[i].source
		keys[s.key] = true
		if running := l.sources[s.key]; running != nil {
			l.wanted[i].source = running
			continue
		}
		s.since = now
		s.good = l.left[s.key]
		l.sources[s.key] = s
		s.start(ctx, &l.running)
	}
	for key, s := range l.sources {
		if !keys[key] {
			s.cancel()
			delete(l.sources, key)
			l.changed = true
		}
	}
	l.left = nil
	l.metrics.forget(before, l.wanted)
}

// keepZones returns zones sorted by name, each as the pointer of the former
// Set where it is equal.
func keepZones(zones []*pool.Zone, former *pool.Set) []*pool.Zone {
	zones = slices.Clone(zones)
	slices.SortStableFunc(zones, func(a, b *pool.Zone) int { return strings.Compare(a.Name, b.Name) })
	if former == nil {
		return zones
	}
	kept := make(map[string]*pool.Zone)
	for _, z := range former.DNS.Zones {
		kept[z.Name] = z
	}
	for i, z := range zones {
		if k := kept[z.Name]; reflect.DeepEqual(k, z) {
			zones[i] = k
		}
	}
	return zones
}

// settle takes in what the sources delivered and delivers the Set if it
// changed. It returns how long to wait for a source that has said nothing
// yet, 0 if none is waited for.
func (l *loop) settle(now time.Time) time.Duration {
	for _, s := range l.sources {
		if s.gather() {
			l.changed = true
		}
	}
	services, wait := l.services(now)
	whole := l.set != nil || wait == 0 // the first Set waits for everybody
	set := &pool.Set{Host: l.host, DNS: l.dns, Services: services}
	if whole && (l.set == nil || !sameSet(l.set, set)) {
		l.set = set
		l.Deliver(set)
	}
	l.report()
	sets := goodSets(l.sources)
	l.good.Store(&sets)
	if l.changed {
		l.changed = false
		l.keeper.keep(sets)
	}
	return wait
}

// services makes the services of the next Set. One whose source has said
// nothing yet has its former endpoints, those of another source; where there
// are none, it is left out until patience ends.
func (l *loop) services(now time.Time) (services []*pool.Service, wait time.Duration) {
	for i := range l.wanted {
		w := &l.wanted[i]
		next, former := w.Service, l.former(w.Name)
		switch left := w.source.since.Add(patience).Sub(now); {
		case w.source.good != nil:
			next.Endpoints = w.source.good.endpoints
			if !w.ownProbe {
				next.Probe = w.source.good.probe.in(next.Probe)
			}
		case former != nil:
			next.Endpoints = former.Endpoints
		case !w.source.heard && left > 0:
			if wait == 0 || left < wait {
				wait = left
			}
			continue
		}
		if former != nil && sameService(former, &next) {
			services = append(services, former)
		} else {
			services = append(services, &next)
		}
	}
	slices.SortFunc(services, func(a, b *pool.Service) int { return strings.Compare(a.Name, b.Name) })
	return services, wait
}

// in returns p with the question of probe, if that is one.
func (probe Probe) in(p pool.Probe) pool.Probe {
	if probe.Port == 0 {
		return p
	}
	p.Type, p.Port, p.Path, p.Proxy = pool.ProbeHTTP, probe.Port, probe.Path, pool.ProxyOff
	p.Status = pool.StatusRanges{{First: 200, Last: 399}}
	return p
}

// former returns the service of that name as it was last delivered, nil if
// it was not.
func (l *loop) former(name string) *pool.Service {
	if l.set == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(l.set.Services, name, func(s *pool.Service, name string) int {
		return strings.Compare(s.Name, name)
	})
	if !ok {
		return nil
	}
	return l.set.Services[i]
}

// report publishes how the sources are doing.
func (l *loop) report() {
	status := make([]SourceStatus, len(l.wanted))
	for i := range l.wanted {
		w := &l.wanted[i]
		s := SourceStatus{Name: w.sourceName}
		if former := l.former(w.Name); former != nil {
			s.Endpoints = len(former.Endpoints)
		}
		if w.source.good != nil {
			s.Updated = w.source.good.updated
		}
		var wrong []string
		if w.source.err != nil {
			wrong = append(wrong, w.source.err.Error())
		}
		s.Err = strings.Join(append(wrong, w.refused...), "; ")
		status[i] = s
		l.metrics.report(s, w.source.errors)
	}
	l.metrics.conflicts.Set(float64(len(l.conflicts)))
	l.status.Store(&status)
}

func sameSet(a, b *pool.Set) bool {
	return slices.Equal(a.Services, b.Services) && // pointers: equal services were kept
		reflect.DeepEqual(a.Host, b.Host) && reflect.DeepEqual(a.DNS, b.DNS)
}

func sameService(a, b *pool.Service) bool {
	if !sameEndpoints(a.Endpoints, b.Endpoints) {
		return false
	}
	x, y := *a, *b
	x.Endpoints, y.Endpoints = nil, nil
	return reflect.DeepEqual(x, y)
}
