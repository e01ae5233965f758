package kubernetes

import (
	"context"
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/types"

	"haslohas.com/elbow/pool"
)

// About returns what Events about the backends of a service are about: the object
// it was made of, and whether its nodes are nodes of the cluster. ok is false where
// no Event is wanted.
type About func(service string) (s Subject, nodes, ok bool)

// Watch tells of each backend that goes down or comes back, until ctx ends.
func (r *Recorder) Watch(ctx context.Context, table *pool.Publisher, about About) error {
	changed, stop := table.Watch()
	defer stop()
	before := table.Load()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		after := table.Load()
		for _, t := range turns(before, after) {
			r.turned(t, about)
		}
		before = after
	}
}

// A turn is a backend that went down or came back.
type turn struct {
	service string
	up      bool
	backend *pool.Backend
}

// turns are those between two tables, in their order. A backend that is new, or
// goes away, has none.
func turns(before, after *pool.Table) []turn {
	type key struct {
		service string
		address netip.AddrPort
	}
	was := make(map[key]pool.State)
	for _, p := range before.Pools {
		for i := range p.Backends {
			was[key{p.Name, p.Backends[i].Address}] = p.Backends[i].State
		}
	}
	var out []turn
	for _, p := range after.Pools {
		for i := range p.Backends {
			b := &p.Backends[i]
			old, known := was[key{p.Name, b.Address}]
			switch {
			case known && old == pool.Up && b.State == pool.Down:
				out = append(out, turn{p.Name, false, b})
			case known && old == pool.Down && b.State == pool.Up:
				out = append(out, turn{p.Name, true, b})
			}
		}
	}
	return out
}

func (r *Recorder) turned(t turn, about About) {
	s, nodes, ok := about(t.service)
	if !ok {
		return
	}
	reason, text := "BackendDown", "is down"
	if t.up {
		reason, text = "BackendUp", "is up again"
	}
	text = fmt.Sprintf("backend %s of service %s %s: %s", t.backend.Address, t.service, text, t.backend.Reason)
	if s.Name != "" {
		r.Tell(s, !t.up, reason, text)
	}
	if nodes && t.backend.Node != "" {
		// kubectl looks for the Events of a node by its name as UID, as the kubelet writes them.
		r.Tell(Subject{APIVersion: "v1", Kind: "Node", Name: t.backend.Node, UID: types.UID(t.backend.Node)}, !t.up, reason, text)
	}
}
