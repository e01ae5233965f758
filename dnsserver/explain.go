package dnsserver

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// An Explanation is what would be answered for a name now, and why.
type Explanation struct {
	Zone, Name string // without the final dot; Zone is empty if the name is in none
	Kind       string
	Records    []string // in presentation format, the order of addresses left aside
	Serial     uint32   // of the zone
	Generation uint64   // of the Table that is answered from
}

// The kinds of an Explanation.
const (
	KindService     = "service"
	KindStatic      = "static"
	KindDelegation  = "delegation"
	KindNonTerminal = "empty non-terminal"
	KindWildcard    = "wildcard"
	KindMissing     = "does not exist"
	KindOutside     = "outside" // of every zone
)

// explainedRecords is how many records an Explanation shows.
const explainedRecords = 64

// Explain tells what would be answered for a name: the addresses, where
// aliases lead, and whatever else the name owns. It reports false if the name
// is in no zone.
func (s *Server) Explain(text string) (Explanation, bool) {
	snap := s.snapshot.Load()
	e := Explanation{
		Name:       strings.TrimSuffix(text, "."),
		Kind:       KindOutside,
		Generation: snap.generation,
	}
	owner, err := parseName(text)
	if err != nil {
		return e, false
	}
	e.Name = owner.label()
	r := new(responder)
	types := []uint16{typeA, typeAAAA}
	z := r.explainZone(snap, owner)
	if z == nil {
		return e, false
	}
	e.Zone, e.Serial = z.conf.Name, z.serial
	n, kind := z.kind(owner)
	e.Kind = kind
	if n != nil {
		for _, set := range n.sets {
			if !slices.Contains(types, set.typ) && set.typ != typeNSEC {
				types = append(types, set.typ)
			}
		}
		if n.apex {
			types = append(types, typeSOA)
		}
	}
	for _, typ := range types {
		for _, text := range r.explain(snap, owner, typ) {
			if !slices.Contains(e.Records, text) && len(e.Records) < explainedRecords {
				e.Records = append(e.Records, text)
			}
		}
	}
	return e, true
}

// explainZone returns the zone of a name.
func (r *responder) explainZone(snap *snapshot, owner name) *zone {
	r.ask(owner, typeA)
	z, _ := snap.zoneOf(r.query)
	return z
}

// ask makes r the responder of a question.
func (r *responder) ask(owner name, typ uint16) verdict {
	packet := make([]byte, headerLen, headerLen+len(owner)+4)
	packet[5] = 1
	packet = append(packet, owner...)
	return r.read(append(packet, byte(typ>>8), byte(typ), 0, classIN))
}

// explain returns the records of the response to a question, as text: the
// answer, or the referral.
func (r *responder) explain(snap *snapshot, owner name, typ uint16) []string {
	verdict := r.ask(owner, typ)
	wire, _ := r.answer(nil, snap, verdict, conversation{tcp: true, inside: true})
	var m dns.Msg
	if m.Unpack(wire) != nil {
		return nil // pack has accepted each record, so this does not happen
	}
	records := m.Answer
	if !m.Authoritative {
		records = slices.Concat(m.Ns, m.Extra)
	}
	var out []string
	for _, rr := range records {
		out = append(out, rr.String())
	}
	return out
}

// kind says what a name of the zone is, and returns the node that answers for
// it, nil if none.
func (z *zone) kind(owner name) (*node, string) {
	if n := z.live.get(owner); n != nil && n.live != nil {
		return n, KindService
	}
	var path []name // from the name up to the apex
	for up := owner; ; up = up.parent() {
		path = append(path, up)
		if up == z.apex {
			break
		}
	}
	for i, up := range slices.Backward(path) {
		n := z.node(up)
		switch {
		case n == nil:
			if w := z.node(up.parent().wildcard()); w != nil {
				return w, KindWildcard
			}
			return nil, KindMissing
		case n.cut:
			return nil, KindDelegation
		case i == 0 && len(n.sets) == 0 && !n.apex:
			return nil, KindNonTerminal
		case i == 0, n.set(typeDNAME) != nil:
			return n, KindStatic
		}
	}
	return nil, KindMissing // not reached: the last round returns
}
