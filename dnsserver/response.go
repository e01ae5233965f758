package dnsserver

import (
	"encoding/binary"
	"time"
)

// A response is a message being written behind whatever buf held before.
type response struct {
	buf    []byte
	base   int  // where the message begins in buf
	limit  int  // where the sections must end, counted from base
	size   int  // where the message must
	full   bool // something that belongs into the message did not fit
	counts [3]uint16

	nsid string        // for who asks for it
	idle time.Duration // how long a TCP connection may be idle
	why  string        // what more there is to say, as an extended error; empty: nothing
}

// The sections that hold records.
const (
	answerSection = iota
	authoritySection
	additionalSection
)

// begin writes the header and the question of the response to q, of at most
// size octets. It keeps room for the OPT record.
func (m *response) begin(dst []byte, q *query, size int, tcp bool) {
	m.buf, m.base, m.full, m.counts, m.why = dst, len(dst), false, [3]uint16{}, ""
	m.size, m.limit = size, size-q.optRoom(tcp, m.nsid)
	// RFC 8906 section 3.1.4: of the flags, those that an opcode does not define
	// are zero in its response.
	flags := flagQR | q.flags&opcodeMask
	if q.opcode() == opcodeQuery {
		flags |= q.flags & (flagRD | flagCD)
	}
	m.buf = binary.BigEndian.AppendUint16(m.buf, q.id)
	m.buf = binary.BigEndian.AppendUint16(m.buf, flags)
	questions := uint16(0)
	if q.question != nil {
		questions = 1
	}
	m.buf = binary.BigEndian.AppendUint16(m.buf, questions)
	m.buf = append(m.buf, 0, 0, 0, 0, 0, 0)
	m.buf = append(m.buf, q.question...) // to the octet, so that the case of the name is kept
}

func (m *response) message() []byte { return m.buf[m.base:] }

// at is where the next octet goes, as a compression pointer sees it.
func (m *response) at() int { return len(m.buf) - m.base }

func (m *response) setFlags(flags uint16) {
	head := m.message()[2:]
	binary.BigEndian.PutUint16(head, binary.BigEndian.Uint16(head)|flags)
}

func (m *response) setRcode(rcode uint16) { m.message()[3] |= byte(rcode & 0xf) }

// fits reports whether n octets more do, and takes it down where not.
func (m *response) fits(n int) bool {
	if m.at()+n > m.limit {
		m.full = true
		return false
	}
	return true
}

// records adds prebuilt records whose owner stands at the given place of the
// message.
func (m *response) records(section int, wire []byte, count, owner int) {
	if !m.fits(len(wire)) {
		return
	}
	from := len(m.buf)
	m.buf = append(m.buf, wire...)
	m.counts[section] += uint16(count)
	if owner == headerLen {
		return
	}
	for at := from; at < len(m.buf); {
		binary.BigEndian.PutUint16(m.buf[at:], 0xc000|uint16(owner))
		at += headerLen + int(binary.BigEndian.Uint16(m.buf[at+10:]))
	}
}

// shorten sets the TTL of the records that begin at a place of buf.
func (m *response) shorten(at int, ttl uint32) {
	for at < len(m.buf) {
		binary.BigEndian.PutUint32(m.buf[at+6:], ttl)
		at += headerLen + int(binary.BigEndian.Uint16(m.buf[at+10:]))
	}
}

// optional is records for what the answer is whole without. It reports whether
// they fitted.
func (m *response) optional(section int, wire []byte, count, owner int) bool {
	if m.at()+len(wire) > m.limit {
		return false
	}
	m.records(section, wire, count, owner)
	return true
}

// maxPointer is the last place that a compression pointer can lead to.
const maxPointer = 0x3fff

// named adds a set of one record and its signature, whose owner does not stand
// in the message but for its end: the apex, at the given place.
func (m *response) named(section int, labels name, apex int, s *rrset) {
	at := m.at()
	m.prefixed(section, labels, apex, s.wire)
	if s.sig == nil || m.full {
		return
	}
	if at <= maxPointer {
		m.records(section, s.sig.wire, s.sig.count, at)
		return
	}
	for wire := s.sig.wire; len(wire) > 0; {
		end := headerLen + int(binary.BigEndian.Uint16(wire[10:]))
		m.prefixed(section, labels, apex, wire[:end])
		wire = wire[end:]
	}
}

// prefixed adds one record with an owner of labels and what stands at apex.
func (m *response) prefixed(section int, labels name, apex int, wire []byte) {
	if !m.fits(len(labels) + len(wire)) {
		return
	}
	m.buf = append(m.buf, labels...)
	m.buf = binary.BigEndian.AppendUint16(m.buf, 0xc000|uint16(apex))
	m.buf = append(m.buf, wire[2:]...)
	m.counts[section]++
}

// cname adds a synthesized CNAME record. It returns where its target stands.
func (m *response) cname(owner int, ttl uint32, target []byte) int {
	if !m.fits(headerLen + len(target)) {
		return 0
	}
	m.buf = binary.BigEndian.AppendUint16(m.buf, 0xc000|uint16(owner))
	m.buf = binary.BigEndian.AppendUint16(m.buf, typeCNAME)
	m.buf = binary.BigEndian.AppendUint16(m.buf, classIN)
	m.buf = binary.BigEndian.AppendUint32(m.buf, ttl)
	m.buf = binary.BigEndian.AppendUint16(m.buf, uint16(len(target)))
	m.buf = append(m.buf, target...)
	m.counts[answerSection]++
	return m.at() - len(target)
}

// truncate takes out all records and says so. A part of an RRset is never
// sent, and nothing is gained by sending some of the others, RFC 2181 section 9.
func (m *response) truncate(q *query) {
	m.buf = m.buf[:m.base+headerLen+len(q.question)]
	m.counts = [3]uint16{}
	m.full = false
	m.setFlags(flagTC)
}

// keepaliveUnit is what RFC 7828 section 3.1 counts in.
const keepaliveUnit = 100 * time.Millisecond

// Texts of extended errors, RFC 8914 section 4.1. They are left out where there
// is no room.
const (
	whyNobody   = "no backend is up"
	whyFailOpen = "no backend is up: answered all the same"
	whySilent   = "the address may be another server's now: ask that one"
)

// optRoom is how long the OPT record of a response can get, without a text.
func (q *query) optRoom(tcp bool, nsid string) int {
	if !q.edns {
		return 0
	}
	room := optLen + 4 + 2 // with an extended error
	if q.cookie != nil {
		room += 4 + len(q.newCookie)
	}
	if q.subnet != nil {
		room += 4 + len(q.subnet)
	}
	if q.nsid && nsid != "" {
		room += 4 + len(nsid)
	}
	if q.zoneVersion {
		room += 4 + 6
	}
	if q.keepalive && tcp {
		room += 4 + 2
	}
	return room
}

// finish adds what stands at the end of the additional section and the
// counts. Zone is nil where no zone has answered.
func (m *response) finish(q *query, rcode uint16, z *zone, zoneLabels int, tcp bool) {
	m.setRcode(rcode)
	if m.full {
		m.truncate(q)
	}
	if q.edns { // RFC 6891 section 7: if and only if the query had one
		m.opt(q, rcode, z, zoneLabels, tcp)
	}
	head := m.message()
	for i, n := range m.counts {
		binary.BigEndian.PutUint16(head[6+2*i:], n)
	}
}

func (m *response) opt(q *query, rcode uint16, z *zone, zoneLabels int, tcp bool) {
	m.buf = append(m.buf, 0) // the root
	m.buf = binary.BigEndian.AppendUint16(m.buf, typeOPT)
	m.buf = binary.BigEndian.AppendUint16(m.buf, maxPayload)
	flags := byte(0)
	if q.do {
		flags = 0x80
	}
	m.buf = append(m.buf, byte(rcode>>4), 0, flags, 0, 0, 0)
	options := len(m.buf)
	if z == nil && rcode == rcodeRefused {
		m.option(optionError, 2)
		why := uint16(errorNotAuthoritative)
		if q.prohibited {
			why = errorProhibited
		}
		m.buf = binary.BigEndian.AppendUint16(m.buf, why)
	}
	if q.cookie != nil {
		m.option(optionCookie, uint16(len(q.newCookie)))
		m.buf = append(m.buf, q.newCookie[:]...)
	}
	if q.subnet != nil { // RFC 7871 section 7.2.1: a scope of 0 says that it made no difference
		m.option(optionSubnet, uint16(len(q.subnet)))
		m.buf = append(m.buf, q.subnet...)
		m.buf[len(m.buf)-len(q.subnet)+3] = q.scope
	}
	if q.nsid && m.nsid != "" {
		m.option(optionNSID, uint16(len(m.nsid)))
		m.buf = append(m.buf, m.nsid...)
	}
	if z != nil && q.zoneVersion {
		m.option(optionZoneVersion, 6)
		m.buf = append(m.buf, byte(zoneLabels), 0) // 0: the version is the serial of the SOA
		m.buf = binary.BigEndian.AppendUint32(m.buf, z.serial)
	}
	if q.keepalive && tcp {
		m.option(optionKeepalive, 2)
		m.buf = binary.BigEndian.AppendUint16(m.buf, uint16(m.idle/keepaliveUnit))
	}
	if z != nil && m.why != "" && m.at()+4+2+len(m.why) <= m.size {
		m.option(optionError, uint16(2+len(m.why)))
		m.buf = binary.BigEndian.AppendUint16(m.buf, errorOther)
		m.buf = append(m.buf, m.why...)
	}
	binary.BigEndian.PutUint16(m.buf[options-2:], uint16(len(m.buf)-options))
	m.counts[additionalSection]++
}

func (m *response) option(code, size uint16) {
	m.buf = binary.BigEndian.AppendUint16(m.buf, code)
	m.buf = binary.BigEndian.AppendUint16(m.buf, size)
}
