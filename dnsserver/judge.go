package dnsserver

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// A ZoneError is something in a zone that would make loading it fail, or
// answers from it wrong.
type ZoneError struct {
	File         string // the master file; empty: the configuration of the zone itself
	Line, Column int    // from 1; 0: not one line
	Message      string
}

func (e ZoneError) Error() string {
	switch {
	case e.File == "":
		return e.Message
	case e.Line == 0:
		return fmt.Sprintf("%s: %s", e.File, e.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// CheckZone returns what is wrong with z, sorted by line, if services
// answer for the given names. What is merely odd, such as a record that stands
// there twice, is not among it: the server logs that when it loads the zone.
func CheckZone(z *pool.Zone, names []pool.OwnName) []ZoneError {
	st, findings := loadZone(z)
	if st != nil {
		owned := ownersOf(names)
		findings = append(findings, st.conflicts(owned)...)
		findings = append(findings, st.missingAddresses(owned)...)
		_, wrong := newKeyring(st.apex, &z.DNSSEC, nil, time.Now())
		findings = append(findings, wrong...)
	}
	var out []ZoneError
	for _, f := range readable(findings) {
		if !f.warning {
			out = append(out, f.of(z))
		}
	}
	return out
}

// of is the finding as what is wrong with a zone.
func (f finding) of(z *pool.Zone) ZoneError {
	e := ZoneError{File: cmp.Or(f.file, z.File), Line: f.line, Column: f.column, Message: f.message}
	if e.Line == 0 {
		e.Column = 0
	}
	return e
}

// An owned is a name of a service and the types of the records it has there.
type owned struct {
	name  name
	kind  pool.NameKind
	types []uint16
}

// ownersOf leaves out what is no name: the configuration has reported it.
func ownersOf(names []pool.OwnName) []owned {
	var out []owned
	for _, n := range names {
		if owner, err := parseName(n.Name); err == nil {
			out = append(out, owned{owner, n.Kind, typesOf(n.Kind, n.HTTPS)})
		}
	}
	return out
}

// judge finds what is wrong between the records of the zone, and takes out what
// cannot be answered.
func (l *loader) judge() {
	for owner, n := range l.nodes.all() {
		l.judgeNode(owner, n)
	}
	for owner, n := range l.nodes.all() {
		if s := n.set(typeCNAME); s != nil {
			l.judgeChain(owner, s)
		}
		for i := range n.sets {
			l.judgeTargets(owner, &n.sets[i])
		}
		if n.occluded && len(n.sets) > 0 {
			l.judgeOccluded(owner, n)
		}
	}
}

func (l *loader) judgeNode(owner name, n *node) {
	if s := n.set(typeCNAME); s != nil {
		switch {
		case n.apex:
			l.fault(s.line(), "the apex %s cannot be a CNAME: it owns the SOA and NS", owner)
		case len(n.sets) > 1: // RFC 2181 section 10.1
			l.fault(s.line(), "%s is a CNAME and owns other records too", owner)
		default:
			return
		}
		n.sets = slices.DeleteFunc(n.sets, func(s rrset) bool { return s.typ == typeCNAME })
	}
	if s := n.set(typeDNAME); s != nil {
		if n.cut { // RFC 6672 section 2.3
			l.fault(s.line(), "%s is delegated and cannot own a DNAME", owner)
		}
		if s.target().below(owner) {
			l.warn(s.line(), "the DNAME of %s leads below itself, to %s", owner, s.target())
		}
	}
}

// judgeChain follows a CNAME as far as an answer would. A loop is odd and no
// more: BIND, Knot and NSD load it too, and an answer ends after maxChain.
func (l *loader) judgeChain(owner name, s *rrset) {
	line, to := s.line(), s.target()
	for range maxChain {
		if to == owner {
			l.warn(line, "%s is a CNAME that leads back to itself", owner)
			return
		}
		n := l.nodes.get(to)
		if n == nil {
			return
		}
		if s = n.set(typeCNAME); s == nil {
			return
		}
		to = s.target()
	}
	l.warn(line, "%s begins a chain of more than %d CNAME records", owner, maxChain)
}

func (l *loader) judgeTargets(owner name, s *rrset) {
	for _, target := range s.targets() {
		n := l.nodes.get(target)
		if n == nil || n.set(typeCNAME) == nil {
			continue
		}
		switch s.typ {
		case typeNS: // RFC 2181 section 10.3
			l.fault(s.line(), "%s of %s points to %s, which is a CNAME", dns.Type(s.typ), owner, target)
		case dns.TypeMX, dns.TypeSRV:
			l.warn(s.line(), "%s of %s points to %s, which is a CNAME", dns.Type(s.typ), owner, target)
		}
	}
}

func (l *loader) judgeOccluded(owner name, n *node) {
	top, above := l.cover(owner)
	if !above.cut {
		l.fault(n.sets[0].line(), "%s lies below the DNAME of %s", owner, top) // RFC 6672 section 2.4
		return
	}
	for i := range n.sets {
		if t := n.sets[i].typ; t != typeA && t != typeAAAA {
			l.warn(n.sets[i].line(), "%s lies below the delegation of %s: its %s is never answered", owner, top, dns.Type(t))
		}
	}
}

// cover returns the topmost delegation or DNAME above owner, nil if none.
func (st *static) cover(owner name) (top name, covering *node) {
	for up := owner; up != st.apex; {
		up = up.parent()
		if n := st.nodes.get(up); n != nil && (n.cut || n.set(typeDNAME) != nil) {
			top, covering = up, n
		}
	}
	return top, covering
}

// conflicts tells which names of services the master file claims too.
func (st *static) conflicts(names []owned) []finding {
	var out []finding
	add := func(line int, format string, args ...any) {
		out = append(out, finding{line: line, column: 1, message: fmt.Sprintf(format, args...)})
	}
	for _, o := range names {
		if !o.name.below(st.apex) {
			continue
		}
		if n := st.nodes.get(o.name); n != nil {
			for i := range n.sets {
				switch s := &n.sets[i]; {
				case slices.Contains(o.types, s.typ), s.typ == typeCNAME, s.typ == typeDNAME, s.typ == typeNS && n.cut:
					if s.line() == 0 {
						add(0, "%s is the %s of a service and a name server of the zone with addresses of its own", o.name, o.kind)
					} else {
						add(s.line(), "%s is the %s of a service: its %s cannot stand here", o.name, o.kind, dns.Type(s.typ))
					}
				}
			}
		}
		if top, n := st.cover(o.name); n != nil {
			kind, s := "delegation", n.set(typeNS)
			if !n.cut {
				kind, s = "DNAME", n.set(typeDNAME)
			}
			add(s.line(), "%s is the %s of a service and lies below the %s of %s", o.name, o.kind, kind, top)
		}
	}
	return out
}

// missingAddresses tells which name servers inside the zone have no address.
func (st *static) missingAddresses(names []owned) []finding {
	live := make(map[name]bool)
	for _, o := range names {
		live[o.name] = slices.Contains(o.types, typeA)
	}
	var out []finding
	for owner, n := range st.nodes.all() {
		s := n.set(typeNS)
		if s == nil || n.occluded {
			continue
		}
		for _, target := range s.targets() {
			if !target.below(st.apex) || live[target] || n.cut && !target.below(owner) {
				continue
			}
			t := st.nodes.get(target)
			if t == nil && target != st.apex {
				t = st.nodes.get(target.parent().wildcard())
			}
			if t == nil || t.set(typeA) == nil && t.set(typeAAAA) == nil && t.set(typeCNAME) == nil {
				out = append(out, finding{line: s.line(), column: 1,
					message: fmt.Sprintf("%s is a name server of %s and has no address", target, owner)})
			}
		}
	}
	return out
}
