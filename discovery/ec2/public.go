package ec2

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/pool"
)

// A Public knows the public addresses of instances by their private ones, for
// nodes that were found elsewhere, such as those of a cluster that have no
// ExternalIP. Its methods may be called by several goroutines.
type Public struct {
	options Options
	newest  atomic.Pointer[map[netip.Addr][]netip.Addr]
	first   chan struct{} // closed when EC2 has answered or refused for the first time
	once    sync.Once
	failing string // the last error that was logged; of Run alone
}

// NewPublic returns a Public that knows nothing until Run. Of o it uses
// Connect, Tags, Group, VPC, Interval and Log. A VPC should be given, since others
// may have the same private addresses; an address that several instances have
// is left out.
func NewPublic(o Options) *Public {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Interval == 0 {
		o.Interval = time.Minute
	}
	return &Public{options: o, first: make(chan struct{})}
}

// PublicAddresses returns the public addresses of instances by the private ones,
// as EC2 last told them; nil: it has not. It waits for its first word, no
// longer than ctx, and never again after that. Nobody may change the map.
func (p *Public) PublicAddresses(ctx context.Context) map[netip.Addr][]netip.Addr {
	select {
	case <-p.first:
	case <-ctx.Done():
	}
	if m := p.newest.Load(); m != nil {
		return *m
	}
	return nil
}

// Run asks EC2 now and then until ctx is cancelled, and calls changed, which
// must not block and may be nil, each time the addresses differ.
func (p *Public) Run(ctx context.Context, changed func()) error {
	failed := func(err error) {
		if ctx.Err() != nil {
			return
		}
		p.once.Do(func() { close(p.first) })
		if err.Error() != p.failing {
			p.failing = err.Error()
			p.options.Log.Warn("public addresses of nodes are those known before", "err", err)
		}
	}
	poll(ctx, p.options.Connect, p.options.Interval, func(ctx context.Context, api API) error {
		instances, err := list(ctx, api, p.options.filters())
		if err == nil {
			var found []pool.Endpoint
			if found, err = endpoints(instances, 1, ByID); err == nil {
				if p.take(byPrivate(found)) && changed != nil {
					changed()
				}
				if p.failing != "" {
					p.failing = ""
					p.options.Log.Info("public addresses of nodes are known again")
				}
				return nil
			}
		}
		failed(err)
		return err
	}, failed)
	return nil
}

// take makes m the newest and reports whether it differs.
func (p *Public) take(m map[netip.Addr][]netip.Addr) bool {
	before := p.newest.Swap(&m)
	p.once.Do(func() { close(p.first) })
	return before == nil || !maps.EqualFunc(*before, m, slices.Equal)
}

// byPrivate drops private addresses that several instances have.
func byPrivate(found []pool.Endpoint) map[netip.Addr][]netip.Addr {
	out := make(map[netip.Addr][]netip.Addr, len(found))
	seen := make(map[netip.Addr]bool, len(found))
	for _, e := range found {
		a := e.Address.Addr()
		if seen[a] {
			delete(out, a)
			continue
		}
		seen[a] = true
		if len(e.Public) > 0 {
			out[a] = e.Public
		}
	}
	return out
}
