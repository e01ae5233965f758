package dnsserver

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// grace is for readers that still answer from a snapshot just after it was
// replaced, and for the way of the answer to the client.
const grace = time.Second

// handedOut remembers, of answers that are given no longer, how long caches
// may hold them.
type handedOut struct {
	mu         sync.Mutex
	generation uint64 // of the Table that is answered from
	retired    map[netip.Addr][]retired
	before     map[netip.Addr]time.Time // when what the process before this one has answered runs out
}

// A retired is an answer that was replaced.
type retired struct {
	*live
	last uint64    // the generation of the last snapshot that had it
	at   time.Time // when it was replaced
}

// until is when the answer has left every cache. Where it was never given, a
// reader may just be giving it.
func (r *retired) until() time.Time {
	if r.answered.Load() {
		return r.at.Add(r.ttl + grace)
	}
	return r.at.Add(grace)
}

// replaced notes that the snapshot now follows before.
func (h *handedOut) replaced(before, now *snapshot, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.retired == nil {
		h.retired = make(map[netip.Addr][]retired)
	}
	for a, list := range h.retired {
		if list = slices.DeleteFunc(list, func(r retired) bool { return !r.until().After(at) }); len(list) == 0 {
			delete(h.retired, a)
		} else {
			h.retired[a] = list
		}
	}
	kept := make(map[*live]bool)
	for _, z := range now.without(before) {
		for _, n := range z.live.all() {
			kept[n.live] = true
		}
	}
	for _, z := range before.without(now) {
		for _, n := range z.live.all() {
			if n.live == nil || kept[n.live] {
				continue
			}
			for _, a := range n.live.addresses {
				h.retired[a] = append(h.retired[a], retired{n.live, before.generation, at})
			}
		}
	}
	h.generation = now.generation
}

// Expires tells when the last answer that names addr and was given before the
// Table of that generation was in force has left every cache. The zero time
// says that there is none. It reports false while answers still come from an
// older Table.
//
// Names that go on to be answered as they were are left out: their answers go
// on naming addr. Expires may be called by several goroutines, and again: an
// answer that left in the very moment of the change is seen a little later.
func (s *Server) Expires(addr netip.Addr, generation uint64) (until time.Time, ok bool) {
	h := &s.handedOut
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.generation < generation || h.generation == 0 {
		return time.Time{}, false
	}
	for _, r := range h.retired[addr.Unmap().WithZone("")] {
		if u := r.until(); r.last < generation && u.After(until) {
			until = u
		}
	}
	if u := h.before[addr.Unmap().WithZone("")]; u.After(until) && u.After(time.Now()) {
		until = u
	}
	return until, true
}
