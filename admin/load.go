package admin

import (
	"net/netip"
	"sync"
	"time"
)

const (
	sampleEvery = 2 * time.Second
	samples     = 60 // kept of each service
)

// load remembers how many connections each service had in the last two
// minutes. The zero value is ready for use.
type load struct {
	mu    sync.Mutex
	rings map[string][]int // by service, the oldest first; guarded by mu
}

// sample takes note of the present. Services without a listener are forgotten.
func (l *load) sample(listeners map[netip.AddrPort]Listener) {
	now := make(map[string]int)
	for _, x := range listeners {
		now[x.Service] += x.Connections
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	rings := make(map[string][]int, len(now))
	for service, n := range now {
		ring := append(l.rings[service], n)
		rings[service] = ring[max(0, len(ring)-samples):]
	}
	l.rings = rings
}

// of returns what is remembered of a service.
func (l *load) of(service string) []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]int(nil), l.rings[service]...)
}
