package dnsserver

import "encoding/binary"

// maxAnswer is how many addresses of a service one answer names.
const maxAnswer = 8

// maxSet is how long an RRset may be in wire form to be answered at all.
const maxSet = maxMessage - 2*minPayload

// ownerPointer is a compression pointer to the name of the question.
const ownerPointer = 0xc000 | headerLen

// An rrset is all records of one type at one name, ready to be copied into an
// answer: the owner of each is a pointer to the name of the question.
type rrset struct {
	typ   uint16
	count int
	ttl   uint32
	wire  []byte

	// step is the length of each record where they all are as long and the
	// order of the answer turns: wire then holds the records twice, so that any
	// count of them from any place on is one piece.
	step int

	target  name   // of a CNAME or DNAME, in lower case
	targets []name // of NS records, in lower case and in their order
	line    int    // of the first record in the master file; 0: it has none
}

// newSet makes the set of records with the given data.
func newSet(typ uint16, ttl uint32, data ...[]byte) rrset {
	s := rrset{typ: typ, count: len(data), ttl: ttl}
	turns := 1
	if (typ == typeA || typ == typeAAAA) && len(data) > 1 {
		turns = 2
		s.step = headerLen + len(data[0])
	}
	for range turns {
		for _, d := range data {
			s.wire = binary.BigEndian.AppendUint16(s.wire, ownerPointer)
			s.wire = binary.BigEndian.AppendUint16(s.wire, typ)
			s.wire = binary.BigEndian.AppendUint16(s.wire, classIN)
			s.wire = binary.BigEndian.AppendUint32(s.wire, ttl)
			s.wire = binary.BigEndian.AppendUint16(s.wire, uint16(len(d)))
			s.wire = append(s.wire, d...)
		}
	}
	return s
}

// turned returns the records of an answer, at most limit of them, beginning
// at a place that random decides.
func (s *rrset) turned(random uint32, limit int) ([]byte, int) {
	if s.step == 0 {
		return s.wire, s.count
	}
	n := min(s.count, limit)
	// The high bits of the product are as even as random is.
	start := int(uint64(random) * uint64(s.count) >> 32)
	return s.wire[start*s.step : (start+n)*s.step], n
}

// A node is a name of a zone and what it owns. A node without sets is an empty
// non-terminal, or a service without addresses.
type node struct {
	sets []rrset // sorted by type; without the SOA, whose serial changes

	apex     bool
	cut      bool // a delegation: not the apex and it owns NS
	occluded bool // lies below a delegation or a DNAME: not an answer, at most glue

	live *live // the service that owns the name; nil: none
}

func (n *node) set(typ uint16) *rrset {
	for i := range n.sets {
		if n.sets[i].typ == typ {
			return &n.sets[i]
		}
	}
	return nil
}
