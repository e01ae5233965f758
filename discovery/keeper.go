package discovery

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/pool"
)

// storeName is the name of the last good sets in the Store.
const storeName = "sets"

const (
	// saveDelay gathers the changes of a rollout into one write.
	saveDelay = time.Second

	// saveRetry is how long after an error the Store is tried again.
	saveRetry = 30 * time.Second
)

// savedSet and those below are the form in the Store. It is apart from
// package pool's so that a renamed field there does not lose what an older
// version saved.
type savedSet struct {
	Updated   time.Time       `json:"updated"`
	Endpoints []savedEndpoint `json:"endpoints"`
	Probe     savedProbe      `json:"probe,omitzero"`
}

type savedProbe struct {
	Port uint16 `json:"port"`
	Path string `json:"path,omitempty"`
}

type savedEndpoint struct {
	Address     netip.AddrPort `json:"address"`
	Node        string         `json:"node,omitempty"`
	Public      []netip.Addr   `json:"public,omitempty"`
	Zone        string         `json:"zone,omitempty"`
	Weight      int            `json:"weight"`
	Priority    int            `json:"priority,omitempty"`
	Terminating bool           `json:"terminating,omitempty"`
}

// A keeper keeps the last good sets over restarts. It writes in a goroutine of
// its own: a slow disk delays no failover.
type keeper struct {
	store   Store
	log     *slog.Logger
	newest  atomic.Pointer[map[string]*goodSet] // nil: all is saved
	changed chan struct{}                       // capacity 1: there is a newest
	failing bool
}

func newKeeper(store Store, log *slog.Logger) *keeper {
	return &keeper{store: store, log: log, changed: make(chan struct{}, 1)}
}

// load returns what was saved, by key of the source. What cannot be read costs
// no start.
func (k *keeper) load() map[string]*goodSet {
	if k.store == nil {
		return nil
	}
	var saved map[string]savedSet
	if _, err := k.store.Load(storeName, &saved); err != nil {
		k.log.Warn("starting without the last good sets of endpoints", "err", err)
		return nil
	}
	sets := make(map[string]*goodSet, len(saved))
	for key, s := range saved {
		endpoints, err := normal(s.restore())
		if err != nil {
			k.log.Warn("a last good set of endpoints is not used", "key", key, "err", err)
			continue
		}
		sets[key] = &goodSet{endpoints, Probe(s.Probe), s.Updated}
	}
	return sets
}

// goodSets are the last good sets of sources.
func goodSets(sources map[string]*source) map[string]*goodSet {
	sets := make(map[string]*goodSet, len(sources))
	for key, s := range sources {
		if s.good != nil {
			sets[key] = s.good
		}
	}
	return sets
}

// keep takes sets over. It does not block.
func (k *keeper) keep(sets map[string]*goodSet) {
	if k.store == nil {
		return
	}
	k.newest.Store(&sets)
	poke(k.changed)
}

// run saves until ctx is cancelled. What came last may then be unsaved.
func (k *keeper) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.changed:
		}
		wait := saveDelay
		if k.failing {
			wait = saveRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			k.save()
		}
	}
}

// save saves what is new, if anything is.
func (k *keeper) save() {
	sets := k.newest.Swap(nil)
	if sets == nil {
		return
	}
	saved := make(map[string]savedSet, len(*sets))
	for key, s := range *sets {
		saved[key] = save(s)
	}
	err := k.store.Save(storeName, saved)
	switch {
	case err != nil && !k.failing:
		k.log.Error("the last good sets of endpoints would not outlive a restart", "err", err)
	case err == nil && k.failing:
		k.log.Info("the last good sets of endpoints are saved again")
	}
	if k.failing = err != nil; k.failing {
		k.newest.CompareAndSwap(nil, sets)
		poke(k.changed)
	}
}

func save(s *goodSet) savedSet {
	saved := savedSet{Updated: s.updated, Endpoints: make([]savedEndpoint, len(s.endpoints)), Probe: savedProbe(s.probe)}
	for i, e := range s.endpoints {
		saved.Endpoints[i] = savedEndpoint{e.Address, e.Node, e.Public, e.Zone, e.Weight, e.Priority, e.Phase == pool.Terminating}
	}
	return saved
}

func (s savedSet) restore() []pool.Endpoint {
	endpoints := make([]pool.Endpoint, len(s.Endpoints))
	for i, e := range s.Endpoints {
		endpoints[i] = pool.Endpoint{Address: e.Address, Node: e.Node, Public: e.Public, Zone: e.Zone, Weight: e.Weight, Priority: e.Priority}
		if e.Terminating {
			endpoints[i].Phase = pool.Terminating
		}
	}
	return endpoints
}
