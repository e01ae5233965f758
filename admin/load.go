package admin

import (
	"sync"
	"time"

	"haslohas.com/elbow/pool"
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

// sample takes note of how many connections each service has now. Services
// that are not there are forgotten.
func (l *load) sample(now map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rings := make(map[string][]int, len(now))
	for service, n := range now {
		ring := append(l.rings[service], n)
		rings[service] = ring[max(0, len(ring)-samples):]
	}
	l.rings = rings
}

// connections returns how many connections each service with a listener has.
func (s *Server) connections(t *pool.Table) map[string]int {
	listeners := s.listeners()
	out := make(map[string]int)
	for _, p := range t.Pools {
		if len(p.Listen) > 0 || len(p.ListenUDP) > 0 {
			st := ServiceStatus{Listeners: listenersOf(t, p, listeners)}
			for i := range p.Backends {
				st.Backends = append(st.Backends, BackendStatus{Connections: s.active(p.Name, p.Backends[i].Address)})
			}
			out[p.Name] = st.connections()
		}
	}
	return out
}

// connections returns how many connections s has: those of its listeners or,
// where it shares one, those that lead to its backends.
func (s *ServiceStatus) connections() int {
	n := 0
	for _, l := range s.Listeners {
		n += l.Connections
		if len(l.SharedWith) > 0 {
			n = 0
			for _, b := range s.Backends {
				n += b.Connections
			}
			return n
		}
	}
	return n
}

// of returns what is remembered of a service.
func (l *load) of(service string) []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]int(nil), l.rings[service]...)
}
