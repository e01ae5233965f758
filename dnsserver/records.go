package dnsserver

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"
)

// each returns every set of the zone but the SOA, which is apart, in the
// canonical order of RFC 4034 section 6.1, with its owner. Signatures are sets of
// their own; that of the SOA comes first.
func (z *zone) each() iter.Seq2[name, *rrset] {
	return func(yield func(name, *rrset) bool) {
		if sig := z.soa.sig; sig != nil && !yield(z.apex, &rrset{typ: typeRRSIG, count: int32(sig.count), wire: sig.wire}) {
			return
		}
		static, live := z.order(), canonical(z.live)
		for len(static) > 0 || len(live) > 0 {
			var owner name
			var n *node
			if len(live) == 0 || len(static) > 0 && canonicalOrder(static[0], live[0]) < 0 {
				owner, static = static[0], static[1:]
				n = z.nodes.get(owner)
			} else {
				owner, live = live[0], live[1:]
				if len(static) > 0 && static[0] == owner {
					static = static[1:]
				}
				n = z.live.get(owner)
			}
			sets := n.all()
			for i := range sets {
				if !yield(owner, &sets[i]) {
					return
				}
			}
		}
	}
}

// all returns the sets of n, by type, for whoever copies the zone; n may be nil.
func (n *node) all() []rrset {
	if n == nil {
		return nil
	}
	if n.bare == nil {
		return n.sets
	}
	all := make([]rrset, 0, len(n.sets)+1)
	sigs := rrset{typ: typeRRSIG}
	for _, s := range n.sets {
		if s.sig != nil {
			sigs.wire = append(sigs.wire, s.sig.wire...)
			sigs.count += int32(s.sig.count)
		}
		all = append(all, s)
	}
	all = append(all, sigs)
	slices.SortFunc(all, func(a, b rrset) int { return int(a.typ) - int(b.typ) })
	return all
}

// canonical returns the names of t in canonical order.
func canonical(t *table[*node]) []name {
	all := slices.AppendSeq(make([]name, 0, t.len()), t.names())
	slices.SortFunc(all, canonicalOrder)
	return all
}

// canonicalOrder compares two names, label by label from the root.
func canonicalOrder(a, b name) int {
	var as, bs [maxLabels]uint8 // where labels begin
	i, j := starts(a, &as), starts(b, &bs)
	for i > 0 && j > 0 {
		i, j = i-1, j-1
		x, y := int(as[i]), int(bs[j])
		if c := strings.Compare(string(a[x+1:x+1+int(a[x])]), string(b[y+1:y+1+int(b[y])])); c != 0 {
			return c
		}
	}
	return i - j
}

func starts(n name, at *[maxLabels]uint8) int {
	labels := 0
	for i := 0; n[i] != 0; i += 1 + int(n[i]) {
		at[labels] = uint8(i)
		labels++
	}
	return labels
}

// records are all records of the set, each once.
func (s *rrset) records() []byte {
	if s.step > 0 {
		return s.wire[:int(s.count)*int(s.step)]
	}
	return s.wire
}

// split cuts the first record from wire.
func split(wire []byte) (record, rest []byte) {
	end := headerLen + int(binary.BigEndian.Uint16(wire[10:]))
	return wire[:end], wire[end:]
}
