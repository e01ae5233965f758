package pool

import (
	"net/netip"
	"strings"
)

// A Port is where clients reach a service. It is comparable: the same address
// and port is another Port for UDP than for TCP.
type Port struct {
	UDP     bool
	Address netip.AddrPort
}

// What stands ahead of the address and port of a listener in text.
const (
	tcpPrefix = "tcp/"
	udpPrefix = "udp/"
)

// String returns the text that users write and see: "0.0.0.0:80" for TCP,
// "udp/0.0.0.0:53" for UDP.
func (p Port) String() string {
	if p.UDP {
		return udpPrefix + p.Address.String()
	}
	return p.Address.String()
}

// CutTransport takes the transport from the text of a listener, TCP where none
// is named, and returns the rest.
func CutTransport(s string) (address string, udp bool) {
	if address, ok := strings.CutPrefix(s, udpPrefix); ok {
		return address, true
	}
	return strings.TrimPrefix(s, tcpPrefix), false
}

// Ports returns where clients reach s, by TCP first.
func (s *Service) Ports() []Port {
	all := make([]Port, 0, len(s.Listen)+len(s.ListenUDP))
	for _, a := range s.Listen {
		all = append(all, Port{Address: a})
	}
	for _, a := range s.ListenUDP {
		all = append(all, Port{UDP: true, Address: a})
	}
	return all
}
