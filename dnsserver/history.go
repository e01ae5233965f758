package dnsserver

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// How much is kept of what a zone was. A secondary that is further behind gets
// the whole zone.
const (
	historyMost  = 1000    // changes
	historyBytes = 1 << 20 // of their records
)

// A history holds the latest changes of a zone, each beginning where the one
// before ended. It is immutable, see add.
type history []*difference

// A difference is a change of a zone.
type difference struct {
	serial  uint32 // before
	soa     []byte // before, as in rrset.wire
	removed []piece
	added   []piece
	size    int // octets
}

// A piece is records of one owner.
type piece struct {
	owner name
	wire  []byte // as in rrset.wire, each once
}

// add returns the history after a change; nil is one that is too large to
// keep. What is too much is forgotten. The new history shares memory with h,
// so that only the newest may be added to.
func (h history) add(d *difference) history {
	if d == nil {
		return nil
	}
	from, size := len(h), d.size
	for from > 0 && len(h)-from+1 < historyMost && size+h[from-1].size <= historyBytes {
		from--
		size += h[from].size
	}
	return append(h[from:], d)
}

// since returns what has changed since a serial, nil if that is not known.
func (h history) since(serial uint32) *difference {
	i := slices.IndexFunc(h, func(d *difference) bool { return d.serial == serial })
	switch {
	case i < 0:
		return nil
	case i == len(h)-1:
		return h[i]
	}
	return condense(h[i:])
}

// condense makes one change of several, RFC 1995 section 6: a backend that has
// come and gone leaves nothing.
func condense(h history) *difference {
	type key struct {
		owner  name
		record string
	}
	balance := make(map[key]int)
	count := func(pieces []piece, by int) {
		for _, p := range pieces {
			for wire := p.wire; len(wire) > 0; {
				var record []byte
				record, wire = split(wire)
				k := key{p.owner, string(record)}
				if balance[k] += by; balance[k] == 0 {
					delete(balance, k)
				}
			}
		}
	}
	for _, d := range h {
		count(d.removed, -1)
		count(d.added, +1)
	}
	whole := &difference{serial: h[0].serial, soa: h[0].soa}
	for k, n := range balance {
		p := piece{k.owner, []byte(k.record)}
		if n < 0 {
			whole.removed = append(whole.removed, p)
		} else {
			whole.added = append(whole.added, p)
		}
	}
	whole.sort()
	return whole
}

// compare returns what leads from the zone was to z, nil if that is too much to
// keep. Where both have the same static part it looks at the names of services
// alone.
func compare(was, z *zone) *difference {
	d := &difference{serial: was.serial, soa: was.soa.wire, size: len(was.soa.wire)}
	done := make(map[name]bool) // of those that differ
	look := func(t *table[*node]) {
		for owner := range t.names() {
			before, after := was.node(owner), z.node(owner)
			if d.size <= historyBytes && before != after && !done[owner] && d.compare(owner, before.all(), after.all()) {
				done[owner] = true
			}
		}
	}
	look(was.live)
	look(z.live)
	if was.static != z.static || !sameSigned(was.signed, z.signed) {
		look(was.nodes)
		look(z.nodes)
	}
	if sig := was.soa.sig; sig != nil {
		d.remove(was.apex, sig.wire)
	}
	if sig := z.soa.sig; sig != nil {
		d.add(z.apex, sig.wire)
	}
	if d.size > historyBytes {
		return nil
	}
	d.sort()
	return d
}

// sameSigned reports whether the static parts of both have the same signatures.
func sameSigned(a, b *signed) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.static == b.static
}

// sort puts the records into one order whatever that of maps was.
func (d *difference) sort() {
	byOwner := func(a, b piece) int {
		return cmp.Or(canonicalOrder(a.owner, b.owner), bytes.Compare(a.wire, b.wire))
	}
	slices.SortFunc(d.removed, byOwner)
	slices.SortFunc(d.added, byOwner)
}

// compare adds what changes at one owner, and reports whether anything does.
func (d *difference) compare(owner name, before, after []rrset) bool {
	size := d.size
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && before[0].typ < after[0].typ:
			d.remove(owner, before[0].records())
			before = before[1:]
		case len(before) == 0 || after[0].typ < before[0].typ:
			d.add(owner, after[0].records())
			after = after[1:]
		default:
			d.remove(owner, without(before[0].records(), after[0].records()))
			d.add(owner, without(after[0].records(), before[0].records()))
			before, after = before[1:], after[1:]
		}
	}
	return d.size != size
}

func (d *difference) remove(owner name, wire []byte) {
	if len(wire) > 0 {
		d.removed = append(d.removed, piece{owner, wire})
		d.size += len(owner) + len(wire)
	}
}

func (d *difference) add(owner name, wire []byte) {
	if len(wire) > 0 {
		d.added = append(d.added, piece{owner, wire})
		d.size += len(owner) + len(wire)
	}
}

// without returns the records of wire that do not stand in other, TTL and all.
func without(wire, other []byte) []byte {
	if bytes.Equal(wire, other) {
		return nil
	}
	known := make(map[string]bool)
	for len(other) > 0 {
		var record []byte
		record, other = split(other)
		known[string(record)] = true
	}
	var out []byte
	for len(wire) > 0 {
		var record []byte
		record, wire = split(wire)
		if !known[string(record)] {
			out = append(out, record...)
		}
	}
	return out
}

// serialOf reads the serial from the SOA in the authority section of an IXFR
// query for the zone apex, RFC 1995 section 3. It reports false where there is
// none.
func serialOf(packet []byte, apex name) (serial uint32, ok bool) {
	at, ok := skipName(packet, headerLen)
	at += 4
	if !ok || binary.BigEndian.Uint16(packet[6:]) != 0 || binary.BigEndian.Uint16(packet[8:]) != 1 {
		return 0, false
	}
	owner := at
	if at, ok = skipName(packet, at); !ok || at+headerLen-2 > len(packet) || !sameName(packet, owner, apex) {
		return 0, false
	}
	end := at + 10 + int(binary.BigEndian.Uint16(packet[at+8:]))
	data := at + 10
	if binary.BigEndian.Uint16(packet[at:]) != typeSOA || binary.BigEndian.Uint16(packet[at+2:]) != classIN || end > len(packet) {
		return 0, false
	}
	// Two names and 20 octets, of which the first four are the serial.
	for range 2 {
		if data, ok = skipName(packet[:end], data); !ok {
			return 0, false
		}
	}
	if data+20 != end {
		return 0, false
	}
	return binary.BigEndian.Uint32(packet[data:]), true
}

// sameName reports whether the name at a place of a packet, whose question
// has the name apex, is apex.
func sameName(packet []byte, at int, apex name) bool {
	if at+2 <= len(packet) && packet[at] == 0xc0 && packet[at+1] == headerLen {
		return true
	}
	end := at + len(apex)
	if end > len(packet) {
		return false
	}
	owner := bytes.Clone(packet[at:end])
	lower(owner)
	return name(owner) == apex
}
