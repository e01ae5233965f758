package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol, https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt

const (
	// maxHeaderV1 is the longest line of version 1, its CRLF included (section 2.1).
	maxHeaderV1 = 107
	// maxHeaderBody bounds what may follow the 16 fixed bytes of version 2:
	// addresses and TLVs.
	maxHeaderBody = 4096
	fixedHeaderV2 = 16
	// maxHeader is how many bytes a header can have that is accepted.
	maxHeader = fixedHeaderV2 + maxHeaderBody
)

const (
	prefixV1    = "PROXY "
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
)

// Version and command in the 13th byte, family and transport in the 14th.
const (
	v2Local = 0x20
	v2Proxy = 0x21
	v2TCP4  = 0x11
	v2TCP6  = 0x21
)

var errHeader = errors.New("malformed PROXY protocol header")

// A header is what a PROXY protocol header says. Both addresses are invalid
// where it says nothing (LOCAL, UNKNOWN, another transport than TCP).
type header struct {
	source, destination netip.AddrPort
}

// parseHeader reads the header that data begins with and returns how many
// bytes it has. It returns 0 and no error while data may be the begin of a
// header that is not complete yet.
func parseHeader(data []byte) (h header, n int, err error) {
	switch {
	case hasPrefix(data, signatureV2):
		return parseHeaderV2(data)
	case hasPrefix(data, prefixV1):
		return parseHeaderV1(data)
	}
	return header{}, 0, errHeader
}

// hasPrefix reports whether data begins with prefix as far as it goes.
func hasPrefix(data []byte, prefix string) bool {
	n := min(len(data), len(prefix))
	return string(data[:n]) == prefix[:n]
}

func parseHeaderV1(data []byte) (header, int, error) {
	end := bytes.IndexByte(data[:min(len(data), maxHeaderV1)], '\n')
	if end < 0 {
		if len(data) >= maxHeaderV1 {
			return header{}, 0, errHeader
		}
		return header{}, 0, nil
	}
	if end <= len(prefixV1) || data[end-1] != '\r' {
		return header{}, 0, errHeader
	}
	protocol, rest, _ := strings.Cut(string(data[len(prefixV1):end-1]), " ")
	if protocol == "UNKNOWN" { // the rest of the line must be ignored
		return header{}, end + 1, nil
	}
	field := strings.Split(rest, " ")
	if len(field) != 4 || protocol != "TCP4" && protocol != "TCP6" {
		return header{}, 0, errHeader
	}
	source, ok1 := parseAddrPort(field[0], field[2], protocol == "TCP4")
	destination, ok2 := parseAddrPort(field[1], field[3], protocol == "TCP4")
	if !ok1 || !ok2 {
		return header{}, 0, errHeader
	}
	return header{source, destination}, end + 1, nil
}

func parseAddrPort(addr, port string, v4 bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" || a.Is4() != v4 {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port { // no sign, no leading zero
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), true
}

func parseHeaderV2(data []byte) (header, int, error) {
	if len(data) > 12 && data[12] != v2Local && data[12] != v2Proxy {
		return header{}, 0, errHeader
	}
	if len(data) < fixedHeaderV2 {
		return header{}, 0, nil
	}
	body := int(binary.BigEndian.Uint16(data[14:]))
	if body > maxHeaderBody {
		return header{}, 0, errHeader
	}
	n := fixedHeaderV2 + body
	command, family := data[12], data[13]
	size := 0 // of an address; two of them and two ports lead the body
	switch {
	case command == v2Local: // the sender's own connection, say a health check
	case family>>4 > 3 || family&0xf > 2:
		return header{}, 0, errHeader
	case family == v2TCP4:
		size = 4
	case family == v2TCP6:
		size = 16
	}
	if size > 0 && body < 2*size+4 {
		return header{}, 0, errHeader
	}
	if len(data) < n {
		return header{}, 0, nil
	}
	if size == 0 {
		return header{}, n, nil
	}
	b := data[fixedHeaderV2:]
	source, _ := netip.AddrFromSlice(b[:size])
	destination, _ := netip.AddrFromSlice(b[size : 2*size])
	b = b[2*size:]
	return header{
		source:      netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(b)),
		destination: netip.AddrPortFrom(destination.Unmap(), binary.BigEndian.Uint16(b[2:])),
	}, n, nil
}

// appendHeaderV1 appends the text form of h, whose addresses are valid.
func appendHeaderV1(dst []byte, h header) []byte {
	s, d := h.source.Addr().WithZone(""), h.destination.Addr().WithZone("")
	if s.Is4() && d.Is4() {
		dst = append(dst, "PROXY TCP4 "...)
	} else {
		s, d = netip.AddrFrom16(s.As16()), netip.AddrFrom16(d.As16())
		dst = append(dst, "PROXY TCP6 "...)
	}
	dst = append(s.AppendTo(dst), ' ')
	dst = append(d.AppendTo(dst), ' ')
	dst = append(strconv.AppendUint(dst, uint64(h.source.Port()), 10), ' ')
	dst = strconv.AppendUint(dst, uint64(h.destination.Port()), 10)
	return append(dst, '\r', '\n')
}

// appendHeaderV2 appends the binary form of h, whose addresses are valid.
func appendHeaderV2(dst []byte, h header) []byte {
	dst = append(dst, signatureV2...)
	s, d := h.source.Addr(), h.destination.Addr()
	if s.Is4() && d.Is4() {
		dst = append(dst, v2Proxy, v2TCP4, 0, 12)
		s4, d4 := s.As4(), d.As4()
		dst = append(append(dst, s4[:]...), d4[:]...)
	} else {
		dst = append(dst, v2Proxy, v2TCP6, 0, 36)
		s16, d16 := s.As16(), d.As16()
		dst = append(append(dst, s16[:]...), d16[:]...)
	}
	dst = binary.BigEndian.AppendUint16(dst, h.source.Port())
	return binary.BigEndian.AppendUint16(dst, h.destination.Port())
}
