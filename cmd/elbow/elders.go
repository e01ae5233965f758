package main

import (
	"slices"
	"sync"

	"haslohas.com/elbow/handover"
)

// elders are the processes before this one that still finish connections. The
// zero value is none.
type elders struct {
	mu   sync.Mutex
	live []*handover.Predecessor // guarded by mu
}

func (e *elders) add(some ...*handover.Predecessor) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.live = append(e.live, some...)
}

func (e *elders) remove(p *handover.Predecessor) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.live = slices.DeleteFunc(e.live, func(other *handover.Predecessor) bool { return other == p })
}

func (e *elders) all() []*handover.Predecessor {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.live)
}

// any reports whether there are some. What connections they have is not known here.
func (e *elders) any() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.live) > 0
}
