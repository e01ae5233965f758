package dnsserver

import (
	"net/netip"
	"sync"
	"time"

	"haslohas.com/elbow/pool"
)

// maxSecondaries is of how many clients it is known what they have copied.
const maxSecondaries = 10_000

// secondaries remembers which client has which zone. The zero value is ready
// for use.
type secondaries struct {
	mu    sync.Mutex
	known map[secondaryKey]*secondaryState
}

type secondaryKey struct {
	zone   name
	client netip.Addr
}

type secondaryState struct {
	result int       // of the newest transfer
	at     time.Time // of the newest one that was good; zero: none was
	serial uint32    // that it has brought
}

// good reports whether a client has, after a transfer with that result, what
// it wanted.
func good(result int) bool { return result <= sentCurrent }

// note takes down a transfer. It reports whether the client was, as far as is
// known, better or worse off before.
func (s *secondaries) note(k secondaryKey, result int, serial uint32, now time.Time) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.known[k]
	if state == nil {
		if len(s.known) >= maxSecondaries && !s.forget() {
			return false
		}
		if s.known == nil {
			s.known = make(map[secondaryKey]*secondaryState)
		}
		state = new(secondaryState)
		s.known[k], changed = state, true
	}
	changed = changed || good(state.result) != good(result)
	state.result = result
	if good(result) {
		state.at, state.serial = now, serial
	}
	return changed
}

// forget makes room: whoever was refused is the least important.
func (s *secondaries) forget() bool {
	for k, state := range s.known {
		if state.at.IsZero() {
			delete(s.known, k)
			return true
		}
	}
	return false
}

// of returns what is known of a client.
func (s *secondaries) of(k secondaryKey) (state secondaryState, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.known[k]; p != nil {
		return *p, true
	}
	return state, false
}

// keep forgets zones that are not served any more.
func (s *secondaries) keep(snap *snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.known {
		if snap.zones.get(k.zone) == nil {
			delete(s.known, k)
		}
	}
}

// named returns the addresses that the configuration of a zone has for its
// secondaries, each once.
func named(t *pool.Transfer) []netip.Addr {
	var all []netip.Addr
	seen := make(map[netip.Addr]bool)
	add := func(a netip.Addr) {
		if !seen[a] {
			seen[a] = true
			all = append(all, a)
		}
	}
	for _, n := range t.Notify {
		add(n.Address.Addr())
	}
	for _, a := range t.Allow {
		if a.Network.IsValid() && a.Network.IsSingleIP() {
			add(a.Network.Addr())
		}
	}
	return all
}

// transferred takes down what has become of a transfer.
func (s *Server) transferred(t *transfer, client netip.Addr, result int) {
	t.zone.counts.transfers[t.kind][result].Add(1)
	if result == sentTooLarge {
		return // the client comes again
	}
	if !s.secondaries.note(secondaryKey{t.zone.apex, client}, result, t.zone.serial, time.Now()) {
		return
	}
	log := s.log.With("zone", t.zone.conf.Name, "client", client, "asked", transferKindNames[t.kind])
	switch {
	case good(result):
		log.Info("secondary has the zone", "serial", t.zone.serial, "sent", transferResultNames[result])
	case result == sentRefused:
		log.Warn("transfer refused: add the client, or the key that it signs with, to transfer.allow if it is a secondary")
	case result == sentBusy:
		log.Warn("transfer put off: too many are going on")
	default:
		log.Warn("transfer broke off")
	}
}
