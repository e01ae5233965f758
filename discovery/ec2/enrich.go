package ec2

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/pool"
)

// firstWord is how long a set of endpoints waits for the first word of EC2: until
// then answers would name private addresses.
const firstWord = 2 * time.Second

// An Enricher gives endpoints that were found elsewhere, and have no public address,
// that of the instance with their address. It asks EC2 while one of its sources runs.
// Its methods may be called by several goroutines.
type Enricher struct {
	options Options

	mu      sync.Mutex
	users   map[chan<- struct{}]bool // guarded by mu: poked when the addresses differ
	public  *Public                  // guarded by mu; nil: nobody runs
	stop    context.CancelFunc       // guarded by mu
	running sync.WaitGroup
}

// NewEnricher returns an Enricher; of o it uses what [NewPublic] does.
func NewEnricher(o Options) *Enricher {
	return &Enricher{options: o, users: make(map[chan<- struct{}]bool)}
}

// Enrich returns a source of what s finds, with public addresses.
func (e *Enricher) Enrich(s discovery.Source) discovery.Source { return enriched{e, s} }

// join begins to follow the public addresses; leave ends it.
func (e *Enricher) join(changed chan<- struct{}) *Public {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.users[changed] = true
	if e.public == nil {
		var ctx context.Context
		ctx, e.stop = context.WithCancel(context.Background())
		p := NewPublic(e.options)
		e.public = p
		e.running.Go(func() { _ = p.Run(ctx, e.changed) }) // nil
	}
	return e.public
}

func (e *Enricher) leave(changed chan<- struct{}) {
	e.mu.Lock()
	delete(e.users, changed)
	last := len(e.users) == 0
	if last {
		e.stop()
		e.public = nil
	}
	e.mu.Unlock()
	if last {
		e.running.Wait()
	}
}

func (e *Enricher) changed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.users {
		poke(c)
	}
}

func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// enriched is a source with an Enricher.
type enriched struct {
	*Enricher
	source discovery.Source
}

// Run runs the source. Its sets are delivered again when EC2 says something else.
func (e enriched) Run(ctx context.Context, deliver func(discovery.Update)) error {
	ctx, cancel := context.WithCancel(ctx)
	changed, found := make(chan struct{}, 1), make(chan struct{}, 1)
	public := e.join(changed)
	defer e.leave(changed)

	var mu sync.Mutex
	var newest *discovery.Update // guarded by mu; nil: there is none
	ended := make(chan error, 1)
	go func() {
		ended <- e.source.Run(ctx, func(u discovery.Update) {
			mu.Lock()
			newest = &u
			mu.Unlock()
			poke(found)
		})
	}()
	begun := false
	for {
		select {
		case err := <-ended:
			cancel()
			return err
		case <-changed:
		case <-found:
		}
		mu.Lock()
		u := newest
		mu.Unlock()
		if u == nil {
			continue
		}
		wait, stop := context.WithTimeout(ctx, firstWord)
		if begun {
			stop() // what is known will do
		}
		addresses := public.PublicAddresses(wait)
		stop()
		begun = true
		out := *u
		out.Endpoints = withPublic(u.Endpoints, addresses)
		deliver(out)
	}
}

// withPublic is endpoints, each that has no public address with that of its own.
func withPublic(endpoints []pool.Endpoint, public map[netip.Addr][]netip.Addr) []pool.Endpoint {
	out := make([]pool.Endpoint, len(endpoints))
	copy(out, endpoints)
	for i := range out {
		if e := &out[i]; len(e.Public) == 0 {
			e.Public = public[e.Address.Addr().Unmap()]
		}
	}
	return out
}
