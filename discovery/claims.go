package discovery

import (
	"cmp"
	"fmt"
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

func claimsOf(s *Service) []claim {
	keys := s.Match.Keys()
	claims := make([]claim, 0, len(s.Listen)*len(keys)+len(s.ListenUDP)+len(s.Hostnames))
	for _, a := range s.Listen {
		for _, k := range keys {
			claims = append(claims, connections(a, k))
		}
	}
	for _, a := range s.ListenUDP {
		claims = append(claims, datagrams(a))
	}
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
// to the first that asks.
func settleClaims(services []*Service, held holders) holders {
	next := make(holders)
	for _, s := range services {
		for _, c := range claimsOf(s) {
			if held[c] == s.Name {
				next[c] = s.Name
			}
		}
	}
	for _, s := range services {
		for _, c := range claimsOf(s) {
			if _, taken := next[c]; !taken {
				next[c] = s.Name
			}
		}
	}
	return next
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
}

func (c conflict) attrs() []any {
	return []any{"service", c.service, "claim", string(c.claim), "holder", c.holder}
}
