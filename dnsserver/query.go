package dnsserver

import "encoding/binary"

const (
	headerLen  = 12
	optLen     = 11   // an OPT record without options
	minPayload = 512  // RFC 1035 section 4.2.1, RFC 6891 section 6.2.3
	maxPayload = 1232 // no larger answer leaves by UDP: it fits in every path without fragments
	maxMessage = 65535
	maxQuery   = 4096 // of a query; nothing that a client has to say is longer
)

// Bits of the second 16-bit word of the header.
const (
	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagCD = 1 << 4

	opcodeMask = 0xf << 11
)

const (
	opcodeQuery  = 0
	opcodeNotify = 4
	opcodeUpdate = 5
)

// Response codes. Those above 15 need an OPT record.
const (
	rcodeSuccess   = 0
	rcodeFormat    = 1
	rcodeServFail  = 2
	rcodeNXDomain  = 3
	rcodeNotImpl   = 4
	rcodeRefused   = 5
	rcodeYXDomain  = 6
	rcodeNotAuth   = 9
	rcodeBadVers   = 16
	rcodeBadCookie = 23
	rcodes         = 24
)

const (
	typeA     = 1
	typeNS    = 2
	typeCNAME = 5
	typeSOA   = 6
	typeHINFO = 13
	typeTXT   = 16
	typeAAAA  = 28
	typeSRV   = 33
	typeDNAME = 39
	typeOPT   = 41
	typeDS    = 43
	typeRRSIG = 46
	typeNSEC  = 47
	typeSVCB  = 64
	typeHTTPS = 65
	typeTSIG  = 250
	typeIXFR  = 251
	typeAXFR  = 252
	typeANY   = 255

	classIN  = 1
	classANY = 255

	optionNSID        = 3  // RFC 5001
	optionSubnet      = 8  // RFC 7871
	optionCookie      = 10 // RFC 7873
	optionKeepalive   = 11 // RFC 7828
	optionError       = 15 // RFC 8914
	optionZoneVersion = 19 // RFC 9660

	errorOther            = 0  // extended error, RFC 8914 section 4.1
	errorProhibited       = 18 // RFC 8914 section 4.19
	errorNotAuthoritative = 20 // RFC 8914 section 4.21
)

// A verdict says what becomes of a packet.
type verdict uint8

const (
	resolve verdict = iota // it is a query to look up
	reject                 // it is answered with query.rcode and nothing else
	special                // it is signed or asks for a whole zone, see Server.special
	ignore                 // it gets no answer
)

// A query is what was read of a packet. It refers to the packet's bytes.
type query struct {
	id    uint16
	flags uint16
	rcode uint16 // where the verdict is reject

	question []byte // of the packet: name, type and class; nil: none that could be read
	qtype    uint16
	qclass   uint16

	qname // of the question

	edns        bool
	payload     uint16 // how long a UDP answer the client takes
	version     uint8
	do          bool
	zoneVersion bool // asks for the serial of the zone, RFC 9660
	keepalive   bool // asks how long a TCP connection may be idle, RFC 7828
	nsid        bool // asks which server answers, RFC 5001

	subnet []byte // the data of a client subnet option, of the packet; nil: none, RFC 7871
	scope  uint8  // of the answer, for that option
	cookie []byte // of the packet, the client's part and what it has of ours; nil: none, RFC 7873

	// What the response says of the cookie, see cookieJar.serve.
	newCookie [clientCookieLen + serverCookieLen]byte
	proven    bool // the client has a cookie of ours

	tsigKey []byte // the owner of a TSIG record; nil: there is none
	tsig    []byte // its data
	tsigAt  int    // where it begins in the packet

	prohibited bool // it is refused because of who asks
}

func (q *query) opcode() uint16 { return q.flags & opcodeMask >> 11 }

// reset makes q the empty query. The arrays keep what they hold: nothing
// past nameLen and labels is read.
func (q *query) reset() {
	q.id, q.flags, q.rcode = 0, 0, 0
	q.question, q.qtype, q.qclass = nil, 0, 0
	q.nameLen, q.labels = 0, 0
	q.edns, q.payload, q.version, q.do, q.zoneVersion, q.keepalive = false, 0, 0, false, false, false
	q.nsid, q.subnet, q.scope, q.cookie, q.proven = false, nil, 0, nil, false
	q.tsigKey, q.tsig, q.tsigAt = nil, nil, 0
	q.prohibited = false
}

// read is the one admission check, for every transport: it takes the packet
// apart and decides what becomes of it. It follows no pointer and reads each
// octet at most twice.
func (q *query) read(packet []byte) verdict {
	q.reset()
	if len(packet) < headerLen {
		return ignore
	}
	q.id = binary.BigEndian.Uint16(packet)
	q.flags = binary.BigEndian.Uint16(packet[2:])
	if q.flags&flagQR != 0 {
		return ignore // two servers must not answer each other's answers
	}
	questions := binary.BigEndian.Uint16(packet[4:])
	switch op := q.opcode(); op {
	case opcodeQuery:
	case opcodeNotify, opcodeUpdate:
		// The first section of both has the form of a question, so that it can
		// be echoed for whoever compares it.
		if questions == 1 {
			q.readQuestion(packet)
		}
		return q.rejected(rcodeNotImpl)
	default:
		return q.rejected(rcodeNotImpl)
	}
	if questions == 0 && q.readRecords(packet, headerLen) && q.cookie != nil && q.tsigKey == nil {
		return q.rejected(rcodeSuccess) // it asks for a cookie, RFC 7873 section 5.4
	}
	if questions != 1 { // RFC 9619
		return q.rejected(rcodeFormat)
	}
	at, ok := q.readQuestion(packet)
	if !ok || !q.readRecords(packet, at) {
		return q.rejected(rcodeFormat)
	}
	if q.tsigKey != nil {
		return special
	}
	return q.judge()
}

// judge is read for a packet that was taken apart and whose signature, if it
// has one, is good.
func (q *query) judge() verdict {
	switch {
	case q.version > 0:
		return q.rejected(rcodeBadVers) // RFC 6891 section 6.1.3
	case q.qclass != classIN && q.qclass != classANY:
		return q.rejected(rcodeRefused)
	case q.qtype == typeAXFR, q.qtype == typeIXFR:
		return special
	}
	return resolve
}

func (q *query) rejected(rcode uint16) verdict {
	q.rcode = rcode
	return reject
}

// readQuestion reads the question and returns where it ends.
func (q *query) readQuestion(packet []byte) (int, bool) {
	n, ok := q.take(packet[headerLen:])
	at := headerLen + n
	if !ok || at+4 > len(packet) {
		return 0, false
	}
	q.qtype = binary.BigEndian.Uint16(packet[at:])
	q.qclass = binary.BigEndian.Uint16(packet[at+2:])
	q.question = packet[headerLen : at+4]
	return at + 4, true
}

// readRecords walks the records after the question. What stands behind the
// last of them is not looked at.
func (q *query) readRecords(packet []byte, at int) bool {
	answers := int(binary.BigEndian.Uint16(packet[6:])) + int(binary.BigEndian.Uint16(packet[8:]))
	additional := int(binary.BigEndian.Uint16(packet[10:]))
	for i := range answers + additional {
		owner := at
		var ok bool
		if at, ok = skipName(packet, at); !ok || at+10 > len(packet) {
			return false
		}
		typ := binary.BigEndian.Uint16(packet[at:])
		fixed := packet[at+2 : at+8] // class and TTL
		end := at + 10 + int(binary.BigEndian.Uint16(packet[at+8:]))
		if end > len(packet) {
			return false
		}
		data := packet[at+10 : end]
		switch typ {
		case typeOPT:
			// RFC 6891 section 6.1.1: one, in the additional section, owned by the root.
			if q.edns || i < answers || packet[owner] != 0 || !q.readOptions(fixed, data) {
				return false
			}
		case typeTSIG:
			// RFC 8945 section 5.1: the last of the additional section.
			if i < answers || i != answers+additional-1 || !wholeName(packet[owner:at]) {
				return false
			}
			q.tsigKey, q.tsig, q.tsigAt = packet[owner:at], data, owner
		}
		at = end
	}
	return true
}

// readOptions reads an OPT record from its class, TTL and data.
func (q *query) readOptions(fixed, data []byte) bool {
	q.edns = true
	q.payload = binary.BigEndian.Uint16(fixed)
	q.version = fixed[3]
	q.do = fixed[4]&0x80 != 0
	if q.version > 0 {
		return true // whatever the options mean there
	}
	for len(data) > 0 {
		if len(data) < 4 {
			return false
		}
		size := int(binary.BigEndian.Uint16(data[2:]))
		if 4+size > len(data) {
			return false
		}
		value := data[4 : 4+size]
		switch binary.BigEndian.Uint16(data) {
		case optionNSID:
			q.nsid = true
		case optionSubnet:
			if !validSubnet(value) {
				return false // RFC 7871 section 7.1.2
			}
			q.subnet = value
		case optionCookie:
			// RFC 7873 section 5.2.2; of several the first counts, section 5.2.
			if size != clientCookieLen && (size < 2*clientCookieLen || size > 5*clientCookieLen) {
				return false
			}
			if q.cookie == nil {
				q.cookie = value
			}
		case optionZoneVersion:
			q.zoneVersion = size == 0 // RFC 9660 section 3.1
		case optionKeepalive:
			q.keepalive = size == 0 // RFC 7828 section 3.2.1
		}
		data = data[4+size:]
	}
	return true
}

// validSubnet reports whether the data of a client subnet option of a query has
// the form of RFC 7871 section 6: no scope, no more octets than the prefix
// has, and nothing in the last one beyond it.
func validSubnet(data []byte) bool {
	if len(data) < 4 {
		return false
	}
	family, source, address := binary.BigEndian.Uint16(data), int(data[2]), data[4:]
	most := 0 // of family 0, which is for nobody's address
	switch family {
	case 1:
		most = 32
	case 2:
		most = 128
	}
	if family > 2 || source > most || data[3] != 0 || len(address) != (source+7)/8 {
		return false
	}
	return source%8 == 0 || address[len(address)-1]<<(source%8) == 0
}

// skipName returns where the name at the given place ends.
func skipName(packet []byte, at int) (int, bool) {
	for at < len(packet) {
		size := int(packet[at])
		switch {
		case size == 0:
			return at + 1, true
		case size >= 0xc0:
			return at + 2, at+2 <= len(packet)
		case size > maxLabel:
			return 0, false
		}
		at += 1 + size
	}
	return 0, false
}

// wholeName reports whether wire is one name without a pointer.
func wholeName(wire []byte) bool {
	if len(wire) > maxName {
		return false
	}
	at := 0
	for at < len(wire) && wire[at] <= maxLabel {
		if wire[at] == 0 {
			return at+1 == len(wire)
		}
		at += 1 + int(wire[at])
	}
	return false
}
