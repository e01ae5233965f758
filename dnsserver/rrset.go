package dnsserver

import (
	"bytes"
	"encoding/binary"
)

// maxSet is how long an RRset may be in wire form to be answered at all.
const maxSet = maxMessage - 2*minPayload

// ownerPointer is a compression pointer to the name of the question.
const ownerPointer = 0xc000 | headerLen

// An rrset is all records of one type at one name, ready to be copied into an
// answer: the owner of each is a pointer to the name of the question.
//
// It takes 64 octets, one line of the cache: a million of these are kept, and an
// answer waits for one that nobody has asked for of late.
type rrset struct {
	typ uint16

	// step is the length of each record where they all are as long and the
	// order of the answer turns: wire then holds the records twice, so that any
	// count of them from any place on is one piece.
	step uint16

	ttl    uint32
	count  int32
	inFile int32 // see line
	wire   []byte
	sig    *signature // nil: the set is not signed
	choice *choice    // what is answered in its place; nil: itself
	leads  *leads     // to other names; nil: nowhere
}

// leads are the names that the records of a set lead to, in lower case.
type leads struct {
	target  name   // of a CNAME or DNAME
	targets []name // of NS, MX and SRV records, in their order
}

// line is that of the first record in the master file; 0: it has none there.
func (s *rrset) line() int { return int(s.inFile) }

// target is where a CNAME or DNAME leads.
func (s *rrset) target() name { return s.leads.target }

// targets are where NS, MX and SRV records lead, in their order; there may be none.
func (s *rrset) targets() []name {
	if s.leads == nil {
		return nil
	}
	return s.leads.targets
}

// newSet makes the set of records with the given data.
func newSet(typ uint16, ttl uint32, data ...[]byte) rrset {
	s := rrset{typ: typ, count: int32(len(data)), ttl: ttl}
	turns := 1
	if (typ == typeA || typ == typeAAAA) && len(data) > 1 {
		turns = 2
		s.step = uint16(headerLen + len(data[0]))
	}
	for range turns {
		for _, d := range data {
			s.wire = appendRecord(s.wire, typ, ttl, d)
		}
	}
	return s
}

func appendRecord(wire []byte, typ uint16, ttl uint32, data []byte) []byte {
	wire = binary.BigEndian.AppendUint16(wire, ownerPointer)
	wire = binary.BigEndian.AppendUint16(wire, typ)
	wire = binary.BigEndian.AppendUint16(wire, classIN)
	wire = binary.BigEndian.AppendUint32(wire, ttl)
	wire = binary.BigEndian.AppendUint16(wire, uint16(len(data)))
	return append(wire, data...)
}

// same reports whether both sets are the same records with the same TTL.
func (s *rrset) same(other *rrset) bool {
	return s.typ == other.typ && s.count == other.count && s.ttl == other.ttl && bytes.Equal(s.wire, other.wire)
}

// turned returns the records of an answer, at most limit of them, beginning
// at a place that random decides.
func (s *rrset) turned(random uint32, limit int) ([]byte, int) {
	if s.step == 0 {
		return s.wire, int(s.count)
	}
	n, step := min(int(s.count), limit), int(s.step)
	// The high bits of the product are as even as random is.
	start := int(uint64(random) * uint64(s.count) >> 32)
	return s.wire[start*step : (start+n)*step], n
}

// A node is a name of a zone and what it owns. A node without sets is an empty
// non-terminal, or a service without addresses.
type node struct {
	sets []rrset // sorted by type; without the SOA, whose serial changes

	apex     bool
	cut      bool // a delegation: not the apex and it owns NS
	occluded bool // lies below a delegation or a DNAME: not an answer, at most glue

	live *live // the service that owns the name; nil: none

	bare *node // where this node is signed, what it was made of
}

func (n *node) set(typ uint16) *rrset {
	for i := range n.sets {
		if n.sets[i].typ == typ {
			return &n.sets[i]
		}
	}
	return nil
}

// any returns the set that stands for all of them, RFC 8482 section 4.1: the
// addresses where there are some. It is nil where there is none.
func (n *node) any() (best *rrset) {
	for i := range n.sets {
		s := &n.sets[i]
		if s.typ != typeNSEC && (best == nil || s.typ == typeA || s.typ == typeAAAA && best.typ != typeA) {
			best = s
		}
	}
	return best
}
