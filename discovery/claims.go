package discovery

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"haslohas.com/elbow/pool"
)

// holders says which service has what only one can have.
type holders map[claim]string

// A claim is what only one service can have, in words.
type claim string

// name is the claim to a name in DNS, whatever is to be answered there.
func name(n string) claim { return claim("name " + n) }

func serviceName(n pool.ServiceName) claim { return name(n.Name) }

// connections is the claim to those of a listener that k stands for.
func connections(a netip.AddrPort, k pool.MatchKey) claim {
	if k.By == pool.MatchRest {
		return claim("listener " + a.String())
	}
	return claim(k.String() + " on listener " + a.String())
}

// datagrams is the claim to a UDP listener.
func datagrams(a netip.AddrPort) claim {
	return claim("listener " + pool.Port{UDP: true, Address: a}.String())
}

// portsOf are the listeners that s asks for.
func portsOf(s *Service) []pool.Port {
	ports := make([]pool.Port, 0, len(s.Listen)+len(s.ListenUDP))
	for _, a := range s.Listen {
		ports = append(ports, pool.Port{Address: a})
	}
	for _, a := range s.ListenUDP {
		ports = append(ports, pool.Port{UDP: true, Address: a})
	}
	return ports
}

// claimsTo is what s asks for of a listener.
func claimsTo(s *Service, p pool.Port) []claim {
	if p.UDP {
		return []claim{datagrams(p.Address)}
	}
	var claims []claim
	for _, k := range s.Match.Keys() {
		claims = append(claims, connections(p.Address, k))
	}
	return claims
}

// namesOf are the claims of s to names.
func namesOf(s *Service) []claim {
	var claims []claim
	for _, h := range s.Hostnames {
		claims = append(claims, name(h))
	}
	for _, n := range s.Naming.SRV {
		claims = append(claims, serviceName(n))
	}
	for _, n := range s.Naming.SVCB {
		claims = append(claims, serviceName(n))
	}
	for _, n := range s.Naming.Status {
		claims = append(claims, name(n))
	}
	return claims
}

// A conflict is a claim that a service was refused.
type conflict struct {
	service string
	claim   claim
	holder  string // the service that has it
}

// anotherService is the claim of a second service to a name.
const anotherService claim = "the name of the service"

// settleClaims gives every claim to one service: to the one that held it, else
// to the first that asks. What overlaps a listener of another service goes to that
// one: 0.0.0.0:80 and 192.0.2.1:80 are of one port, and cannot both be opened.
func settleClaims(services []*Service, held holders) holders {
	next := make(holders)
	ports := make(neighbourhood)
	settle := func(s *Service, ask func(c claim) bool) {
		give := func(c claim) {
			if _, taken := next[c]; !taken && ask(c) {
				next[c] = s.Name
			}
		}
		for _, p := range portsOf(s) {
			for _, c := range claimsTo(s, p) {
				if other, ok := ports.overlapping(p, s.Name); ok && ask(c) {
					next[c] = other
				} else if give(c); next[c] == s.Name {
					ports.add(p, s.Name)
				}
			}
		}
		for _, c := range namesOf(s) {
			give(c)
		}
	}
	for _, s := range services {
		settle(s, func(c claim) bool { return held[c] == s.Name })
	}
	for _, s := range services {
		settle(s, func(claim) bool { return true })
	}
	return next
}

// A neighbourhood is the listeners of one port, by transport and family, with whose
// they are: the first of those that share one.
type neighbourhood map[street]map[netip.Addr]string

type street struct {
	udp, is4 bool
	port     uint16 // 0: any that is free
}

func streetOf(p pool.Port) street { return street{p.UDP, p.Address.Addr().Is4(), p.Address.Port()} }

func (n neighbourhood) add(p pool.Port, service string) {
	at := streetOf(p)
	if n[at] == nil {
		n[at] = make(map[netip.Addr]string)
	}
	if _, taken := n[at][p.Address.Addr()]; !taken {
		n[at][p.Address.Addr()] = service
	}
}

// overlapping returns whose listener p cannot be open beside.
func (n neighbourhood) overlapping(p pool.Port, service string) (holder string, ok bool) {
	at := streetOf(p)
	if at.port == 0 {
		return "", false
	}
	for _, other := range slices.SortedFunc(maps.Keys(n[at]), netip.Addr.Compare) {
		if holder := n[at][other]; holder != service && other != p.Address.Addr() && (other.IsUnspecified() || p.Address.Addr().IsUnspecified()) {
			return holder, true
		}
	}
	return "", false
}

// grantAll settles the conflicts among services.
func (l *loop) grantAll(services []Service) []wanted {
	conflicts := make(map[conflict]bool)
	var named []*Service
	byName := make(map[string]bool)
	for i := range services {
		s := &services[i]
		if byName[s.Name] {
			conflicts[conflict{s.Name, anotherService, s.Name}] = true
			continue
		}
		byName[s.Name] = true
		named = append(named, s)
	}
	l.held = settleClaims(named, l.held)

	granted := make([]wanted, 0, len(named))
	for _, s := range named {
		w := wanted{Service: s.Service, sourceName: cmp.Or(s.SourceName, s.Name), ownProbe: s.OwnProbe}
		w.source = newSource(s.Source, cmp.Or(s.SourceKey, w.sourceName), w.sourceName, l.updated, l.Log)
		w.Listen, w.Match = grantListeners(l.held, &w, conflicts)
		w.ListenUDP = grant(l.held, &w, s.ListenUDP, datagrams, conflicts)
		w.Hostnames = grant(l.held, &w, s.Hostnames, name, conflicts)
		w.Naming.SRV = grant(l.held, &w, s.Naming.SRV, serviceName, conflicts)
		w.Naming.SVCB = grant(l.held, &w, s.Naming.SVCB, serviceName, conflicts)
		w.Naming.Status = grant(l.held, &w, s.Naming.Status, name, conflicts)
		if conflicts[conflict{s.Name, anotherService, s.Name}] {
			w.refused = append(w.refused, "another service of this name is left out")
		}
		granted = append(granted, w)
	}
	l.tellConflicts(conflicts)
	return granted
}

// grantListeners returns on which addresses w may listen and for what. A name
// that another service has on one of them is left out on all.
func grantListeners(h holders, w *wanted, conflicts map[conflict]bool) ([]netip.AddrPort, pool.Match) {
	lost := make(map[pool.MatchKey]bool)
	for _, k := range w.Match.Keys() {
		granted := grant(h, w, w.Listen, func(a netip.AddrPort) claim { return connections(a, k) }, conflicts)
		if k.By == pool.MatchRest {
			return granted, pool.Match{}
		}
		if len(granted) < len(w.Listen) {
			if k.Name != "" {
				k.ALPN = "" // the name with it, for whatever other protocol
			}
			lost[k] = true
		}
	}
	m := pool.Match{
		SNI:  without(w.Match.SNI, func(name string) bool { return lost[pool.MatchKey{Name: name, By: pool.MatchSNI}] }),
		Host: without(w.Match.Host, func(name string) bool { return lost[pool.MatchKey{Name: name, By: pool.MatchHost}] }),
		ALPN: without(w.Match.ALPN, func(protocol string) bool { return lost[pool.MatchKey{ALPN: protocol, By: pool.MatchSNI}] }),
	}
	if len(m.SNI) < len(w.Match.SNI) && len(m.SNI) == 0 {
		m.ALPN = nil // it was for those names, not for all
	}
	if m.IsZero() {
		return nil, m // and not the default of its listeners
	}
	return w.Listen, m
}

func without(all []string, is func(string) bool) []string {
	return slices.DeleteFunc(slices.Clone(all), is)
}

// grant returns those of all that w holds and notes the others as refused.
func grant[T any](h holders, w *wanted, all []T, as func(T) claim, conflicts map[conflict]bool) []T {
	var granted []T
	for _, one := range all {
		c := as(one)
		holder := h[c]
		if holder == w.Name {
			granted = append(granted, one)
			continue
		}
		conflicts[conflict{w.Name, c, holder}] = true
		w.refused = append(w.refused, fmt.Sprintf("%s belongs to service %q", c, holder))
	}
	return granted
}

// Conflicts returns what services are refused at the moment, in no order.
func (c *Catalog) Conflicts() []Conflict {
	if all := c.refused.Load(); all != nil {
		return *all
	}
	return nil
}

// tellConflicts logs the conflicts that are new and those that are gone.
func (l *loop) tellConflicts(now map[conflict]bool) {
	for c := range now {
		if !l.conflicts[c] {
			l.Log.Warn("conflict, the claim is refused", c.attrs()...)
		}
	}
	for c := range l.conflicts {
		if !now[c] {
			l.Log.Info("conflict is gone", c.attrs()...)
		}
	}
	l.conflicts = now
	all := make([]Conflict, 0, len(now))
	for c := range now {
		all = append(all, Conflict{c.service, string(c.claim), c.holder})
	}
	l.refused.Store(&all)
}

func (c conflict) attrs() []any {
	return []any{"service", c.service, "claim", string(c.claim), "holder", c.holder}
}
