package proxy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/pool"
)

// How long to wait before a listener that could not be opened is tried again;
// it doubles each time.
const (
	minBindRetry = 100 * time.Millisecond
	maxBindRetry = 5 * time.Second
)

// A listener is an address that clients connect to, or send UDP datagrams. It
// exists while the Table names it or a connection came through it.
type listener struct {
	udp     bool
	address netip.AddrPort // as it is configured
	text    string         // of address, for UDP with udp/ ahead
	active  atomic.Int64   // connections or flows that came through it
	pause   atomic.Int64   // of the last accept that failed, nanoseconds; 0: the last one succeeded
	cut     cutoff         // set while the Table does not name it

	unmatched unmatched

	// Guarded by Server.mu.
	service string        // that it belongs to; several: their names, with commas
	routes  bool          // what the client says decides between services
	drain   time.Duration // the longest drain timeout of them
	opened                // close is nil: it is not open
	err     error         // why it is not open
	retry   time.Duration
	retryAt time.Time
}

// A ListenerStatus is the state of one listener.
type ListenerStatus struct {
	UDP         bool
	Address     netip.AddrPort // where it listens; differs from Configured where the configured port is 0
	Configured  netip.AddrPort // as the Table names it
	Service     string         // whose it is; several: their names, with commas
	Connections int            // that came through it and go on; for UDP, flows
	Err         error          // why it is not open; nil: it is open
}

// ErrNotYet is the state of a listener between a Table and its first bind.
var ErrNotYet = errors.New("not opened yet")

// follow opens and closes listeners until they are those of v, and returns
// when to try again those that could not be opened. A listener that stays is not
// touched: to which services it leads is looked up for each connection.
func (s *Server) follow(e engine, v *view, now time.Time) (again time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	again = now.Add(time.Hour)
	for key, l := range s.listeners {
		if !v.leads(key) && l.close != nil {
			l.close()
			l.close = nil
			s.core.log.Info("listener closed", "listener", l.text, "service", l.service)
		}
		if !v.leads(key) {
			l.err = nil
			if !l.cut.isSet() {
				l.cut.set(s.core.moment(now.Add(l.drain)))
			}
		}
	}
	// In the order of the pools, so that logs and conflicts are the same each time.
	for _, wanted := range wantedBy(v.table) {
		l := s.listeners[wanted.Port]
		if l == nil {
			l = &listener{udp: wanted.UDP, address: wanted.Address, text: wanted.String()}
			s.listeners[wanted.Port] = l
		}
		service := servicesOf(wanted.pools)
		if l.close != nil && l.service != service {
			s.core.log.Info("listener leads to another service", "listener", l.text, "service", service, "before", l.service)
		}
		if l.cut.isSet() {
			l.cut.clear()
			l.retry, l.retryAt = 0, time.Time{}
		}
		l.service, l.routes, l.drain = service, wanted.routes, 0
		for _, p := range wanted.pools {
			l.drain = max(l.drain, p.DrainTimeout)
		}
		if l.close == nil {
			s.open(e, l, now)
		}
		if l.close == nil {
			again = earlier(again, l.retryAt)
		}
	}
	return again
}

// A wanted is a listener as the Table names it.
type wanted struct {
	pool.Port
	pools  []*pool.Pool // that share it, at least one
	routes bool
}

// wantedBy returns the listeners of t, those for TCP first.
func wantedBy(t *pool.Table) []wanted {
	var all []wanted
	for _, l := range t.Listeners {
		all = append(all, wanted{pool.Port{Address: l.Address}, l.Pools, l.Routes()})
	}
	for _, p := range t.Pools {
		for _, a := range p.ListenUDP {
			all = append(all, wanted{Port: pool.Port{UDP: true, Address: a}, pools: []*pool.Pool{p}})
		}
	}
	return all
}

// servicesOf returns the names of the services that share a listener, the
// first few.
func servicesOf(pools []*pool.Pool) string {
	const most = 8
	var names []string
	for i, p := range pools {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(pools)-most))
			break
		}
		names = append(names, p.Name)
	}
	return strings.Join(names, ", ")
}

// network is what the sockets of l are for, as handed to the next process.
func (l *listener) network() string {
	if l.udp {
		return "udp"
	}
	return "tcp"
}

// open binds l unless it is too early to try again. The caller holds s.mu.
func (s *Server) open(e engine, l *listener, now time.Time) {
	if now.Before(l.retryAt) {
		return
	}
	o, err := e.listen(l, s.inherited(l.network(), l.address.String()))
	if err != nil {
		if l.err == nil || l.err.Error() != err.Error() {
			s.core.log.Error("listener cannot be opened; trying again", "listener", l.text, "service", l.service, "err", err)
		}
		l.err = err
		l.retry = min(max(minBindRetry, 2*l.retry), maxBindRetry)
		l.retryAt = now.Add(l.retry)
		return
	}
	l.opened, l.err, l.retry, l.retryAt = o, nil, 0, time.Time{}
	s.core.log.Info("listener open", "listener", pool.Port{UDP: l.udp, Address: o.bound}.String(), "service", l.service)
}

// eachRouted calls do for each listener that several services share.
func (s *Server) eachRouted(do func(*listener)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		if l.routes && !l.cut.isSet() {
			do(l)
		}
	}
}

// closeListeners closes all, for the end.
func (s *Server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		if l.close != nil {
			l.close()
			l.close = nil
		}
	}
}

// purgeListeners forgets those that are closed and not used, and returns the
// next cutoff of one that is used; ok is false if there is none.
func (s *Server) purgeListeners() (next moment, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, l := range s.listeners {
		if !l.cut.isSet() {
			continue
		}
		if l.active.Load() == 0 {
			delete(s.listeners, key)
			continue
		}
		if at := l.cut.at.Load(); !ok || at < next {
			next, ok = at, true
		}
	}
	return next, ok
}

// Serving returns nil if every listener of the newest Table is open and leads to
// its service, else an error that names which are not and why.
func (s *Server) Serving() error {
	t := s.core.table.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, wanted := range wantedBy(t) {
		l := s.listeners[wanted.Port]
		if l != nil && l.close != nil {
			continue
		}
		err := ErrNotYet
		if l != nil && l.err != nil {
			err = l.err
		}
		errs = append(errs, fmt.Errorf("service %q: listener %s: %w", servicesOf(wanted.pools), wanted.Port, err))
	}
	return errors.Join(errs...)
}

// Services returns how the listeners of each service of the newest Table are: nil
// where all are open, [ErrNotYet] where one is about to open, else why
// one does not. A service without listeners is absent.
func (s *Server) Services() map[string]error {
	t := s.core.table.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]error)
	for _, wanted := range wantedBy(t) {
		err := ErrNotYet
		if l := s.listeners[wanted.Port]; l != nil && l.err != nil {
			err = l.err
		} else if l != nil && l.close != nil {
			err = nil
		}
		for _, p := range wanted.pools {
			if old, seen := out[p.Name]; !seen || old == nil || errors.Is(old, ErrNotYet) && err != nil {
				out[p.Name] = err
			}
		}
	}
	return out
}

// Listeners returns the listeners that the proxy was last told of, by address,
// those for UDP last.
func (s *Server) Listeners() []ListenerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []ListenerStatus
	for _, l := range s.listeners {
		if l.cut.isSet() {
			continue
		}
		status := ListenerStatus{
			UDP:         l.udp,
			Address:     l.address,
			Configured:  l.address,
			Service:     l.service,
			Connections: int(l.active.Load()),
			Err:         l.err,
		}
		if l.close != nil {
			status.Address = l.bound
		} else if l.err == nil {
			status.Err = ErrNotYet
		}
		all = append(all, status)
	}
	slices.SortFunc(all, func(a, b ListenerStatus) int {
		switch {
		case a.UDP != b.UDP && a.UDP:
			return 1
		case a.UDP != b.UDP:
			return -1
		}
		return cmp.Or(a.Configured.Compare(b.Configured), a.Address.Compare(b.Address))
	})
	return all
}
