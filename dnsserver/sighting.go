package dnsserver

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/miekg/dns"
)

// noResponse is the response code of a query that got none.
const noResponse = rcodes

// maxSubnet is how long the data of a client subnet option may be.
const maxSubnet = 4 + 16

// A sighting is what the query log says of a query. It refers to nothing of
// the query, of the response or of a snapshot: it is read when those are gone.
type sighting struct {
	at         int64 // Unix nanoseconds
	client     netip.AddrPort
	tcp        bool
	flags      uint16
	edns, do   bool
	truncated  bool
	transfer   bool // the response is a zone
	rcode      uint16
	size       int // of the response, octets
	zone       string
	serial     uint32
	generation uint64

	question    [maxName + 4]byte // as the client wrote it
	questionLen int               // 0: it asked nothing
	subnet      [maxSubnet]byte
	subnetLen   int
}

// take takes down the query in r.
func (s *sighting) take(r *responder, response []byte, client netip.Addr, tcp bool, now time.Time) {
	s.at = now.UnixNano()
	s.client, s.tcp = netip.AddrPortFrom(client, r.port), tcp
	s.flags, s.edns, s.do = r.flags, r.edns, r.do
	s.rcode, s.truncated, s.transfer = r.outcome.rcode, r.outcome.truncated, r.transfer != nil
	s.size, s.generation = len(response), r.generation
	s.zone, s.serial = "", 0
	if z := r.outcome.zone; z != nil {
		s.zone, s.serial = z.conf.Name, z.serial
	}
	s.questionLen = copy(s.question[:], r.question)
	s.subnetLen = copy(s.subnet[:], r.subnet)
}

// appendLine appends the line of the query log. Whatever a client may choose
// is ASCII by then, without anything that could end the line or the string.
func (s *sighting) appendLine(dst []byte, sample int) []byte {
	dst = append(dst, `{"time":"`...)
	dst = time.Unix(0, s.at).UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
	dst = append(dst, `","client":"`...)
	dst = s.client.AppendTo(dst)
	dst = append(dst, `","transport":"`...)
	transport := 0
	if s.tcp {
		transport = 1
	}
	dst = append(dst, transports[transport]...)
	dst = append(dst, '"')
	if s.questionLen > 4 {
		end := s.questionLen - 4
		dst = append(dst, `,"name":"`...)
		dst = appendName(dst, s.question[:end], true)
		dst = append(dst, `","type":"`...)
		dst = append(dst, dns.Type(uint16(s.question[end])<<8|uint16(s.question[end+1])).String()...)
		dst = append(dst, `","class":"`...)
		dst = append(dst, dns.Class(uint16(s.question[end+2])<<8|uint16(s.question[end+3])).String()...)
		dst = append(dst, '"')
	}
	if op := s.flags & opcodeMask >> 11; op != opcodeQuery {
		dst = append(dst, `,"opcode":`...)
		dst = strconv.AppendUint(dst, uint64(op), 10)
	}
	dst = appendFlag(dst, "rd", s.flags&flagRD != 0)
	dst = appendFlag(dst, "cd", s.flags&flagCD != 0)
	dst = appendFlag(dst, "edns", s.edns)
	dst = appendFlag(dst, "do", s.do)
	switch {
	case s.transfer:
		dst = append(dst, `,"response":"transfer"`...)
	case s.rcode == noResponse:
		dst = append(dst, `,"response":"none"`...)
	default:
		dst = append(dst, `,"rcode":"`...)
		dst = append(dst, rcodeNames[s.rcode]...)
		dst = append(dst, `","size":`...)
		dst = strconv.AppendInt(dst, int64(s.size), 10)
		dst = appendFlag(dst, "truncated", s.truncated)
	}
	if s.zone != "" {
		dst = append(dst, `,"zone":"`...)
		dst = append(dst, s.zone...) // a hostname: the configuration takes nothing else
		dst = append(dst, `","serial":`...)
		dst = strconv.AppendUint(dst, uint64(s.serial), 10)
	}
	if s.subnetLen > 0 {
		dst = append(dst, `,"subnet":"`...)
		dst = appendSubnet(dst, s.subnet[:s.subnetLen])
		dst = append(dst, '"')
	}
	dst = append(dst, `,"generation":`...)
	dst = strconv.AppendUint(dst, s.generation, 10)
	dst = append(dst, `,"sample":`...)
	dst = strconv.AppendInt(dst, int64(sample), 10)
	return append(dst, '}', '\n')
}

func appendFlag(dst []byte, name string, set bool) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return strconv.AppendBool(dst, set)
}

// appendSubnet appends the data of a client subnet option, which is valid, as
// a prefix.
func appendSubnet(dst, option []byte) []byte {
	var whole [16]byte
	copy(whole[:], option[4:])
	addr := netip.AddrFrom16(whole)
	if option[1] == 1 {
		addr = netip.AddrFrom4([4]byte(whole[:]))
	}
	return netip.PrefixFrom(addr, int(option[2])).AppendTo(dst)
}

// appendName appends a name in wire form as people write it, without the final
// dot except for the root. It escapes what name.String does, so that what is
// left is printable ASCII. With quoted, it stands in a JSON string.
func appendName(dst, wire []byte, quoted bool) []byte {
	if len(wire) <= 1 {
		return append(dst, '.')
	}
	escape := []byte{'\\'}
	if quoted {
		escape = []byte{'\\', '\\'}
	}
	for at := 0; at < len(wire) && wire[at] != 0; {
		if at > 0 {
			dst = append(dst, '.')
		}
		size := int(wire[at])
		for _, c := range wire[at+1 : at+1+size] {
			switch {
			case c < ' ' || c > '~':
				dst = append(dst, escape...)
				dst = append(dst, '0'+c/100, '0'+c/10%10, '0'+c%10)
			case c == '\\' || c == '"':
				dst = append(dst, escape...)
				if quoted {
					dst = append(dst, '\\')
				}
				dst = append(dst, c)
			case c == '.' || c == ' ' || c == '\'' || c == '@' || c == ';' || c == '(' || c == ')':
				dst = append(dst, escape...)
				dst = append(dst, c)
			default:
				dst = append(dst, c)
			}
		}
		at += 1 + size
	}
	return dst
}
