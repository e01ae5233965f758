package config

import (
	"fmt"
	"net/netip"
	"slices"

	"haslohas.com/elbow/pool"
)

// matches finds out what two services on one listener both want.
type matches struct {
	d        *decoder
	services []Service
	owner    map[wish]int           // index of the service
	first    map[netip.AddrPort]int // the first service on each listener
	told     map[told]bool
}

// A wish is for the connections of a listener that a key stands for.
type wish struct {
	addr netip.AddrPort
	key  pool.MatchKey
}

// told is a conflict that need not be told again for another listener.
type told struct {
	service, owner int
	key            pool.MatchKey
}

func newMatches(d *decoder, services []Service) *matches {
	return &matches{d, services, make(map[wish]int), make(map[netip.AddrPort]int), make(map[told]bool)}
}

// add notes what service i wants of the listener addr, which stands at path, and
// says what another one has already.
func (m *matches) add(addr netip.AddrPort, path string, i int) {
	s, at := &m.services[i], fmt.Sprintf("services[%d]", i)
	if !addr.IsValid() || m.d.has(at+".match") && s.Match.IsZero() { // wrong, as was said
		return
	}
	for _, k := range s.Match.Keys() {
		if k.By == pool.MatchRest && addr.Port() == 0 || k.By != pool.MatchRest && k.Name == "" && k.ALPN == "" {
			continue // any port there is; a value that is wrong
		}
		owner, taken := m.owner[wish{addr, k}]
		switch {
		case !taken:
			m.owner[wish{addr, k}] = i
		case owner == i:
		case k.By == pool.MatchRest:
			m.d.fail(path, "%s is already taken by %s; give all but one of the services on it a match", addr, m.listen(owner, addr))
		case !m.told[told{i, owner, k}]:
			m.told[told{i, owner, k}] = true
			m.d.fail(at+".match."+within(&s.Match, k), "%s on %s already belongs to services[%d]", k, addr, owner)
		}
	}
	m.checkAccept(addr, at, i)
}

// checkAccept checks that all services of a listener expect PROXY headers from
// the same peers.
func (m *matches) checkAccept(addr netip.AddrPort, at string, i int) {
	first, shared := m.first[addr]
	if !shared {
		m.first[addr] = i
		return
	}
	if i == first || m.told[told{service: i, owner: first}] || sameNetworks(m.services[i].ProxyProtocol.Accept, m.services[first].ProxyProtocol.Accept) {
		return
	}
	m.told[told{service: i, owner: first}] = true
	m.d.fail(at+".proxyProtocol.accept", "differs from that of services[%d], which shares the listener %s: a header comes before it is known which service is meant", first, addr)
}

// listen returns the path at which service i lists addr.
func (m *matches) listen(i int, addr netip.AddrPort) string {
	at := slices.IndexFunc(m.d.ports, func(c claim) bool { return c.service == i && c.Port == pool.Port{Address: addr} })
	return m.d.ports[at].path
}

// within returns where k stands in m.
func within(m *pool.Match, k pool.MatchKey) string {
	switch {
	case k.By == pool.MatchHost:
		return fmt.Sprintf("host[%d]", slices.Index(m.Host, k.Name))
	case k.Name == "":
		return fmt.Sprintf("alpn[%d]", slices.Index(m.ALPN, k.ALPN))
	}
	return fmt.Sprintf("sni[%d]", slices.Index(m.SNI, k.Name))
}

func sameNetworks(a, b []netip.Prefix) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Prefix.Compare)
	slices.SortFunc(b, netip.Prefix.Compare)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}
