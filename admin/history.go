package admin

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"haslohas.com/elbow/pool"
)

// A Transition is one change of a backend.
type Transition struct {
	Time       time.Time `json:"time"`
	Generation uint64    `json:"generation"`
	Service    string    `json:"service"`
	Backend    string    `json:"backend"`
	Node       string    `json:"node"`
	From       string    `json:"from"` // empty: it is new
	To         string    `json:"to"`   // empty: it is gone
	Reason     string    `json:"reason"`
}

// remembered bounds how many transitions are kept.
const remembered = 64

// history remembers the last transitions. It learns of them by comparing
// successive tables: what changed back between two looks is not in it.
type history struct {
	mu   sync.Mutex
	last *pool.Table  // the table looked at last; guarded by mu
	kept []Transition // the oldest first; guarded by mu
}

// observe takes note of what t changed.
func (h *history) observe(t *pool.Table) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != nil && h.last.Generation == t.Generation {
		return
	}
	h.kept = append(h.kept, transitions(h.last, t)...)
	if extra := len(h.kept) - remembered; extra > 0 {
		h.kept = slices.Delete(h.kept, 0, extra)
	}
	h.last = t
}

// list returns what is remembered, the newest first.
func (h *history) list() []Transition {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Transition, len(h.kept))
	for i, t := range h.kept {
		out[len(out)-1-i] = t
	}
	return out
}

// transitions lists what differs between two tables; before may be nil.
func transitions(before, after *pool.Table) []Transition {
	type key struct {
		service string
		address netip.AddrPort
	}
	old := make(map[key]*pool.Backend)
	if before != nil {
		for _, p := range before.Pools {
			for i := range p.Backends {
				old[key{p.Name, p.Backends[i].Address}] = &p.Backends[i]
			}
		}
	}
	var out []Transition
	for _, p := range after.Pools {
		for i := range p.Backends {
			b := &p.Backends[i]
			k := key{p.Name, b.Address}
			change := Transition{
				Time: seconds(after.Published), Generation: after.Generation,
				Service: p.Name, Backend: b.Address.String(), Node: b.Node,
				To: stateWord(b), Reason: b.Reason,
			}
			if was, ok := old[k]; ok {
				delete(old, k)
				change.From = stateWord(was)
			}
			if change.From != change.To {
				out = append(out, change)
			}
		}
	}
	if before == nil {
		return out
	}
	for _, p := range before.Pools { // in their order, not that of the map
		for i := range p.Backends {
			b := &p.Backends[i]
			if _, gone := old[key{p.Name, b.Address}]; gone {
				out = append(out, Transition{
					Time: seconds(after.Published), Generation: after.Generation,
					Service: p.Name, Backend: b.Address.String(), Node: b.Node,
					From: stateWord(b), Reason: "its source no longer names it",
				})
			}
		}
	}
	return out
}

// stateWord is the state of b, and how far its drain has come.
func stateWord(b *pool.Backend) string {
	if b.State == pool.Draining && b.Drain != pool.NotDraining {
		return b.State.String() + ", " + drainWords(b.Drain.String())
	}
	return b.State.String()
}

// drainWords is a drain stage for a person.
func drainWords(stage string) string {
	switch stage {
	case pool.LeavingDNS.String():
		return "leaving DNS"
	case pool.Drained.String():
		return "safe to power off"
	}
	return stage
}
