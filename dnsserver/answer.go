package dnsserver

import (
	"net/netip"
	"slices"
	"time"
)

// maxChain is how many CNAME and DNAME records an answer follows.
const maxChain = 12

// anyInstead is the answer to a question for every type about a name that owns
// nothing it could be answered with, RFC 8482 section 4.2.
var anyInstead = newSet(typeHINFO, nsTTL, []byte("\x07RFC8482\x00"))

// A conversation is how a query came.
type conversation struct {
	tcp    bool
	random uint32     // decides where the addresses of an answer begin
	slip   bool       // the client is over its rate: only tell it to come by TCP
	inside bool       // the answer goes to nobody who would keep it: whole sets are shown
	client netip.Addr // who asks; the zero value: not known
	room   int        // what is added to the answer behind its end

	idle time.Duration // how long the TCP connection may be idle
}

// A result is what became of a query.
type result struct {
	zone      *zone // that answered; nil: none
	rcode     uint16
	truncated bool
}

// A responder makes responses. It is scratch space: one serves one query at a
// time. Its zero value is ready for use.
type responder struct {
	*query // what is answered; nil: read makes room for one
	out    response

	snapshot *snapshot
	zone     *zone
	random   uint32
	inside   bool
	client   netip.Addr

	// The name that is looked up now: the one of the question, or where a chain
	// has led.
	cur    *qname
	target qname // where a chain has led
	apex   int   // the label at which the zone begins
	at     int   // where the name stands in the message

	owners [maxChain + 1]int // where the names of the chain stand
	chain  int
	dnames [maxChain + 1]*rrset // those in the answer
	passed int                  // that many

	wild     [maxName + 2]byte // the name of a wildcard
	wildLen  int
	expanded bool // the current name is answered by that wildcard

	// Where signatures are asked for and the zone has some:
	prove  bool
	zoneAt int                 // where the apex stands in the question
	denied [2 * maxChain]int32 // places in the chain of the zone whose NSEC records belong into the answer
	denies int
	proved int // that many of them are in the answer
	order  [maxOrderKey]byte

	transfer *transfer // that is to follow; nil: none

	peer
	generation uint64 // of the snapshot that decided
	outcome    result
	tally      tally
}

// read takes a packet apart, see query.read. The query is r's until the next one.
func (r *responder) read(packet []byte) verdict {
	if r.query == nil {
		r.query = new(query)
	}
	return r.query.read(packet)
}

// answer appends to dst the response to the query that was read, by what the
// snapshot says and nothing else. It is for a verdict of resolve or reject.
func (r *responder) answer(dst []byte, s *snapshot, v verdict, c conversation) ([]byte, result) {
	size := maxMessage
	if !c.tcp {
		size = minPayload
		if r.edns {
			size = min(max(int(r.payload), minPayload), maxPayload)
		}
	}
	size -= c.room
	r.snapshot, r.random, r.inside, r.client = s, c.random, c.inside, c.client
	if r.subnet != nil && !s.trusts(c.client) {
		r.subnet = nil // as if it were not known here, RFC 7871 section 7.2.1
	}
	r.out.nsid, r.out.idle = s.nsid, c.idle
	r.out.begin(dst, r.query, size, c.tcp)
	var (
		z      *zone
		labels int
		rcode  = r.rcode
	)
	if v == resolve {
		z, r.apex = s.zoneOf(r.query)
		labels = r.labels - r.apex
		switch {
		case z == nil:
			rcode = rcodeRefused
		case c.slip:
			rcode = rcodeSuccess
		default:
			r.zone = z
			rcode = r.lookup()
		}
	}
	if c.slip {
		r.out.full = true
	}
	truncated := r.out.full
	r.out.finish(r.query, rcode, z, labels, c.tcp)
	return r.out.buf, result{z, rcode, truncated}
}

// lookup answers out of the zone, RFC 1034 section 4.3.2, and returns the
// response code, which is that of the last name of a chain, RFC 6604.
func (r *responder) lookup() uint16 {
	r.cur = &r.qname
	r.at, r.chain, r.passed = headerLen, 0, 0
	r.prove, r.expanded, r.denies, r.proved = r.do && r.zone.signed != nil, false, 0, 0
	r.zoneAt = r.place(r.apex)
	if r.qclass == classIN { // RFC 1035 section 6.2: never for all classes
		r.out.setFlags(flagAA)
	}
	for {
		rcode, done := r.step()
		if done || r.out.full {
			r.proofs()
			return rcode
		}
	}
}

// step looks up the current name. It reports false where that has become
// another one, which is to be looked up next.
func (r *responder) step() (rcode uint16, done bool) {
	own := r.zone.get(r.cur.hashes[0], r.cur.wire())
	if own != nil && !own.occluded && !own.cut {
		return r.node(own)
	}
	if own == nil && r.zone.plain && !r.prove && r.qtype != typeDS {
		r.noData(nil) // whatever is above it says the same
		return rcodeNXDomain, true
	}
	// From the apex down: the first delegation, DNAME or gap decides.
	for i := r.apex; i >= 0; i-- {
		n := own
		if i > 0 {
			n = r.zone.get(r.cur.hashes[i], r.cur.suffix(i))
		}
		switch {
		case n == nil:
			return r.wildcard(i + 1)
		case n.cut && i == 0 && r.qtype == typeDS:
			return r.node(n) // RFC 4035 section 3.1.4.1: the parent side answers
		case n.cut:
			r.referral(n, i)
			return rcodeSuccess, true
		case i == 0:
			return r.node(n)
		}
		if s := n.set(typeDNAME); s != nil {
			return r.dname(s, i)
		}
	}
	return rcodeNXDomain, true // not reached: the last round returns
}

// place is where the current name from the label i on stands in the message.
func (r *responder) place(i int) int { return r.at + int(r.cur.offsets[i]) }

// wildcard answers for a name that does not exist and whose closest encloser
// begins at the label i, RFC 4592 section 3.3.1.
func (r *responder) wildcard(i int) (uint16, bool) {
	r.wild[0], r.wild[1] = 1, '*'
	r.wildLen = 2 + copy(r.wild[2:], r.cur.suffix(i))
	if n := r.zone.get(hashWildcard(r.cur.hashes[i]), r.wild[:r.wildLen]); n != nil {
		r.deny(r.cur.wire()) // RFC 4035 section 3.1.3.3
		r.expanded = true
		rcode, done := r.node(n)
		r.expanded = false
		return rcode, done
	}
	// RFC 4035 section 3.1.4.1: a zone of its own below this one proves that
	// the name exists, even where this zone does not delegate it.
	if r.qtype == typeDS && r.chain == 0 && r.snapshot.zones.find(r.cur.hashes[0], r.cur.wire()) != nil {
		r.noData(nil)
		return rcodeSuccess, true
	}
	r.noData(nil)
	return rcodeNXDomain, true
}

// node answers from what n owns.
func (r *responder) node(n *node) (uint16, bool) {
	if r.qtype == typeSOA && n.apex {
		r.set(answerSection, &r.zone.soa, r.at)
		return rcodeSuccess, true
	}
	at := r.out.at()
	if s := n.set(r.qtype); s != nil {
		r.emit(answerSection, n, s)
		if s.typ == typeNS {
			r.additional(s, at)
		}
		return rcodeSuccess, true
	}
	if n.live != nil && n.live.silent && n.live.brings(r.qtype) {
		r.out.why = whySilent
		return rcodeServFail, true
	}
	if r.qtype == typeANY {
		r.anything(n)
		return rcodeSuccess, true
	}
	if r.qtype == typeRRSIG { // as ANY: those of one RRset
		if s := n.any(); s != nil && s.sig != nil {
			r.out.records(answerSection, s.sig.wire, s.sig.count, r.at)
			return rcodeSuccess, true
		}
	}
	if s := n.set(typeCNAME); s != nil {
		r.set(answerSection, s, r.at)
		return rcodeSuccess, r.follow(s.wire[headerLen:], at+headerLen)
	}
	r.noData(n)
	return rcodeSuccess, true
}

// emit adds a set of n, which is the node of the current name.
func (r *responder) emit(section int, n *node, s *rrset) {
	random := r.random
	if s.choice != nil {
		s, random = r.choose(s)
	}
	wire, count := s.turned(random, r.limit(n))
	r.out.records(section, wire, count, r.at)
	r.signature(section, s, r.at)
	switch s.typ {
	case typeA, typeAAAA, typeHTTPS, typeSVCB:
		r.mark(n)
		if n.live != nil && n.live.failOpen.Load() {
			r.out.why = whyFailOpen
		}
	}
}

// set adds a set as it is, with its signature if that is asked for. Its owner
// stands at the given place.
func (r *responder) set(section int, s *rrset, owner int) {
	r.out.records(section, s.wire, int(s.count), owner)
	r.signature(section, s, owner)
}

func (r *responder) signature(section int, s *rrset, owner int) {
	if r.prove && s.sig != nil {
		r.out.records(section, s.sig.wire, s.sig.count, owner)
	}
}

// deny notes that the answer needs the NSEC record of a name or, if there is
// none, the one that proves it.
func (r *responder) deny(wire []byte) {
	if !r.prove || r.denies == len(r.denied) {
		return
	}
	key := appendOrderKey(r.order[:0], wire[:len(wire)-len(r.zone.apex)])
	at, _ := r.zone.signed.chain.find(key)
	for _, other := range r.denied[:r.denies] {
		if other == int32(at) {
			return
		}
	}
	r.denied[r.denies] = int32(at)
	r.denies++
}

// proofs adds the NSEC records that were found to be needed.
func (r *responder) proofs() {
	for ; r.proved < r.denies; r.proved++ {
		owner := r.zone.signed.chain.names[r.denied[r.proved]]
		if n := r.zone.node(owner); n != nil {
			if s := n.set(typeNSEC); s != nil {
				r.out.named(authoritySection, owner[:len(owner)-len(r.zone.apex)], r.zoneAt, s)
			}
		}
	}
}

// mark notes that the addresses of n are handed out, if they are a service's.
func (r *responder) mark(n *node) {
	if n.live != nil && !r.inside {
		n.live.mark()
	}
}

// limit is how many addresses of n an answer names.
func (r *responder) limit(n *node) int {
	if n.live != nil && r.zone.signed == nil && !r.inside {
		return n.live.limit
	}
	return maxMessage // a part of a signed RRset would not verify
}

// anything answers a question for every type with one RRset.
func (r *responder) anything(n *node) {
	switch best := n.any(); {
	case best != nil:
		r.emit(answerSection, n, best)
	case n.apex:
		r.out.records(answerSection, anyInstead.wire, 1, r.at)
	default:
		r.noData(n)
	}
}

// noData adds the SOA that says for how long there is nothing, RFC 2308
// section 3; n is nil where the name does not exist.
func (r *responder) noData(n *node) {
	s := &r.zone.negative
	begin, ttl := len(r.out.buf), s.ttl
	if n != nil && n.live != nil {
		if n.live.nobody {
			r.out.why = whyNobody
		}
		if n.live.negative == r.zone.liveTTL {
			s = &r.zone.negativeLive
		}
		ttl = min(s.ttl, n.live.negative)
	}
	r.set(authoritySection, s, r.place(r.apex))
	if ttl < s.ttl {
		r.out.shorten(begin, ttl)
	}
	if !r.prove {
		return
	}
	// RFC 4035 sections 3.1.3.1 to 3.1.3.4: of the name itself, or of what is
	// around it and the wildcard that could stand for it.
	switch {
	case n == nil:
		r.deny(r.cur.wire())
		r.deny(r.wild[:r.wildLen])
	case r.expanded:
		r.deny(r.wild[:r.wildLen])
	default:
		r.deny(r.cur.wire())
	}
	r.proofs()
}

// referral names the servers of a delegation that begins at the label i, with
// the addresses without which they cannot be found, RFC 9471.
func (r *responder) referral(n *node, i int) {
	if r.chain == 0 { // RFC 1035 section 4.1.1: of the first owner in the answer
		head := r.out.message()
		head[2] &^= flagAA >> 8
	}
	s := n.set(typeNS)
	at := r.out.at()
	r.set(authoritySection, s, r.place(i))
	if r.prove { // RFC 4035 section 3.1.4
		if ds := n.set(typeDS); ds != nil {
			r.set(authoritySection, ds, r.place(i))
		} else if nsec := n.set(typeNSEC); nsec != nil {
			r.set(authoritySection, nsec, r.place(i))
		}
		r.proofs()
	}
	if !r.out.full {
		r.glue(s, at, r.cur.suffix(i))
	}
}

// additional adds the addresses of the name servers that were just answered, at
// the given place of the message, as far as they fit.
func (r *responder) additional(s *rrset, at int) {
	r.proofs()
	if !r.out.full {
		r.glue(s, at, nil)
	}
}

// glue adds the addresses of the name servers s, which stand in the message from
// the given place on. Those at or below cut must fit, others may be missing.
func (r *responder) glue(s *rrset, at int, cut []byte) {
	wire := s.wire
	for _, target := range s.targets() {
		host := at + headerLen // the data of the record is the name
		size := headerLen + int(wire[10])<<8 + int(wire[11])
		at, wire = at+size, wire[size:]
		n := r.zone.node(target)
		if n == nil || host > 0x3fff || !target.below(r.zone.apex) {
			continue
		}
		needed := cut != nil && target.below(name(cut))
		for _, typ := range [...]uint16{typeA, typeAAAA} {
			a := n.set(typ)
			if a == nil {
				continue
			}
			if a.choice != nil { // RFC 7871 section 7.2.1: never by the client's subnet
				a = a.choice.pick(a, r.random, -1)
			}
			records, count := a.turned(r.random, r.limit(n))
			if needed {
				r.out.records(additionalSection, records, count, host)
			} else if r.out.optional(additionalSection, records, count, host) && r.prove && a.sig != nil {
				r.out.optional(additionalSection, a.sig.wire, a.sig.count, host) // RFC 4035 section 3.1.1
			}
			r.mark(n)
		}
	}
}

// dname answers for a name below a DNAME that begins at the label i, RFC 6672
// section 3.2.
func (r *responder) dname(s *rrset, i int) (uint16, bool) {
	if !slices.Contains(r.dnames[:r.passed], s) { // RFC 2181 section 5: no record twice
		r.set(answerSection, s, r.place(i))
		if r.out.full {
			return rcodeSuccess, true
		}
		r.dnames[r.passed] = s
		r.passed++
	}
	prefix, target := int(r.cur.offsets[i]), s.wire[headerLen:]
	if prefix+len(target) > maxName {
		return rcodeYXDomain, true
	}
	// The labels in front are those of the message, whose case is the client's.
	var whole [maxName]byte
	size := copy(whole[:], r.out.message()[r.at:r.at+prefix])
	size += copy(whole[size:], target)
	at := r.out.cname(r.at, s.ttl, whole[:size])
	if r.out.full || r.qtype == typeCNAME {
		return rcodeSuccess, true
	}
	return rcodeSuccess, r.follow(whole[:size], at)
}

// follow makes the target of an alias, which stands at the given place of the
// message, the current name. It reports true where the answer ends here: the
// chain is too long, goes round, or has left the zone.
func (r *responder) follow(target []byte, at int) (done bool) {
	if r.out.full || r.chain == maxChain {
		return true
	}
	r.owners[r.chain] = r.at
	r.chain++
	r.cur = &r.target
	r.cur.take(target) // always a name
	r.at = at
	for _, owner := range r.owners[:r.chain] {
		if r.seen(owner) {
			return true
		}
	}
	apex := r.cur.labels - r.zone.apexLabels
	if apex < 0 || name(r.cur.suffix(apex)) != r.zone.apex {
		return true
	}
	// A zone of its own below this one is another zone, too.
	for i := range apex {
		if r.cur.labels-i <= r.snapshot.maxLabels && r.snapshot.zones.find(r.cur.hashes[i], r.cur.suffix(i)) != nil {
			return true
		}
	}
	r.apex = apex
	return false
}

// seen reports whether the current name is the one at a place of the message.
func (r *responder) seen(at int) bool {
	message := r.out.message()
	for i, c := range r.cur.wire() {
		m := message[at+i]
		if 'A' <= m && m <= 'Z' {
			m += 'a' - 'A'
		}
		if m != c {
			return false
		}
	}
	return true
}
