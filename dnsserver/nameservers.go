package dnsserver

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// NameServers returns the name servers of z as it is served: those of its master
// file, if it has any, else those of the configuration. An address of one outside
// the zone is known only where the configuration has it.
func NameServers(z *pool.Zone) []pool.NameServer {
	if z.File == "" {
		return z.NameServers
	}
	st, _ := loadZone(z)
	if st == nil || st.nodes.get(st.apex) == nil {
		return z.NameServers
	}
	set := st.nodes.get(st.apex).set(typeNS)
	if set == nil {
		return z.NameServers
	}
	var out []pool.NameServer
	for _, target := range set.targets() {
		n := pool.NameServer{Name: strings.TrimSuffix(target.String(), ".")}
		if i := slices.IndexFunc(z.NameServers, func(c pool.NameServer) bool { return c.Name == n.Name }); i >= 0 && !target.below(st.apex) {
			n.Addresses = z.NameServers[i].Addresses
		}
		if node := st.nodes.get(target); node != nil {
			n.Addresses = node.addresses(target)
		}
		out = append(out, n)
	}
	return out
}

// addresses are those of the A and AAAA records of a node.
func (n *node) addresses(owner name) []netip.Addr {
	var out []netip.Addr
	for _, typ := range []uint16{typeA, typeAAAA} {
		set := n.set(typ)
		if set == nil {
			continue
		}
		records, err := set.unpack(owner)
		if err != nil {
			continue // it was packed here
		}
		for _, rr := range records {
			var octets []byte
			switch rr := rr.(type) {
			case *dns.A:
				octets = rr.A
			case *dns.AAAA:
				octets = rr.AAAA
			}
			if a, ok := netip.AddrFromSlice(octets); ok {
				out = append(out, a.Unmap())
			}
		}
	}
	return out
}
