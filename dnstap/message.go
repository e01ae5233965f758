package dnstap

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// A Message is a query or the response to one.
type Message struct {
	IsResponse bool // AUTH_RESPONSE; false: AUTH_QUERY
	TCP        bool
	Client     netip.AddrPort
	Server     netip.AddrPort // where the query arrived; an address that is not valid is left out
	QueryTime  time.Time
	Zone       []byte // that answers, in wire form; nil: none

	ResponseTime time.Time // of a response
	Wire         []byte    // the query or, of a response, the response
}

// The fields of the messages and their types on the wire, dnstap.proto.
const (
	wireVarint = 0
	wireBytes  = 2
	wireFixed  = 5

	dnstapIdentity = 1<<3 | wireBytes
	dnstapVersion  = 2<<3 | wireBytes
	dnstapMessage  = 14<<3 | wireBytes
	dnstapType     = 15<<3 | wireVarint

	messageType            = 1<<3 | wireVarint
	messageFamily          = 2<<3 | wireVarint
	messageProtocol        = 3<<3 | wireVarint
	messageQueryAddress    = 4<<3 | wireBytes
	messageResponseAddress = 5<<3 | wireBytes
	messageQueryPort       = 6<<3 | wireVarint
	messageResponsePort    = 7<<3 | wireVarint
	messageQuerySec        = 8<<3 | wireVarint
	messageQueryNsec       = 9<<3 | wireFixed
	messageQuery           = 10<<3 | wireBytes
	messageZone            = 11<<3 | wireBytes
	messageResponseSec     = 12<<3 | wireVarint
	messageResponseNsec    = 13<<3 | wireFixed
	messageResponse        = 14<<3 | wireBytes
)

const (
	typeMessage = 1 // of Dnstap.Type

	authQuery    = 1 // of Message.Type
	authResponse = 2

	familyIPv4 = 1
	familyIPv6 = 2

	protocolUDP = 1
	protocolTCP = 2
)

// An Encoder writes messages as frames. The zero value is ready for use; it
// serves one goroutine.
type Encoder struct {
	Identity string // of the server, e.g. its NSID; empty: left out
	Version  string // of its software; empty: left out

	message []byte // scratch
}

// Append appends m to dst as a data frame.
func (e *Encoder) Append(dst []byte, m *Message) []byte {
	e.message = appendMessage(e.message[:0], m)
	begin := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	if e.Identity != "" {
		dst = appendBytes(dst, dnstapIdentity, e.Identity)
	}
	if e.Version != "" {
		dst = appendBytes(dst, dnstapVersion, e.Version)
	}
	dst = appendBytes(dst, dnstapMessage, e.message)
	dst = appendNumber(dst, dnstapType, typeMessage)
	binary.BigEndian.PutUint32(dst[begin:], uint32(len(dst)-begin-4))
	return dst
}

func appendMessage(dst []byte, m *Message) []byte {
	kind, family, protocol := uint64(authQuery), uint64(familyIPv6), uint64(protocolUDP)
	if m.IsResponse {
		kind = authResponse
	}
	if m.Client.Addr().Is4() {
		family = familyIPv4
	}
	if m.TCP {
		protocol = protocolTCP
	}
	dst = appendNumber(dst, messageType, kind)
	dst = appendNumber(dst, messageFamily, family)
	dst = appendNumber(dst, messageProtocol, protocol)
	dst = appendAddress(dst, messageQueryAddress, m.Client.Addr())
	if m.Server.Addr().IsValid() {
		dst = appendAddress(dst, messageResponseAddress, m.Server.Addr())
	}
	dst = appendNumber(dst, messageQueryPort, uint64(m.Client.Port()))
	if m.Server.Port() != 0 {
		dst = appendNumber(dst, messageResponsePort, uint64(m.Server.Port()))
	}
	dst = appendTime(dst, messageQuerySec, messageQueryNsec, m.QueryTime)
	if !m.IsResponse {
		dst = appendBytes(dst, messageQuery, m.Wire)
	}
	if m.Zone != nil {
		dst = appendBytes(dst, messageZone, m.Zone)
	}
	if m.IsResponse {
		dst = appendTime(dst, messageResponseSec, messageResponseNsec, m.ResponseTime)
		dst = appendBytes(dst, messageResponse, m.Wire)
	}
	return dst
}

func appendNumber(dst []byte, field byte, n uint64) []byte {
	return binary.AppendUvarint(append(dst, field), n)
}

func appendBytes[T string | []byte](dst []byte, field byte, data T) []byte {
	return append(appendNumber(dst, field, uint64(len(data))), data...)
}

func appendAddress(dst []byte, field byte, a netip.Addr) []byte {
	if a.Is4() {
		b := a.As4()
		return appendBytes(dst, field, b[:])
	}
	b := a.As16()
	return appendBytes(dst, field, b[:])
}

func appendTime(dst []byte, sec, nsec byte, t time.Time) []byte {
	dst = appendNumber(dst, sec, uint64(t.Unix()))
	return binary.LittleEndian.AppendUint32(append(dst, nsec), uint32(t.Nanosecond()))
}
