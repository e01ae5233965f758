package config

import (
	"fmt"
	"net/netip"
	"slices"

	"haslohas.com/elbow/pool"
)

// A claim is somebody's wish to listen on an address and port.
type claim struct {
	pool.Port
	path    string
	service int // its index; -1: it is none of a service
}

// claims finds out who wants what another has, in one step for each, for one
// of TCP and UDP. Port 0 is a wish for any port, so it never meets another.
type claims struct {
	exact    map[netip.AddrPort]claim
	wildcard [2]map[uint16]claim // 0.0.0.0 and [::], by port
	any      [2]map[uint16]claim // the first of any IPv4 and any IPv6 address, by port
}

func newClaims() *claims {
	c := &claims{exact: make(map[netip.AddrPort]claim)}
	for i := range c.any {
		c.wildcard[i], c.any[i] = make(map[uint16]claim), make(map[uint16]claim)
	}
	return c
}

// add adds a claim unless it meets one that was added before, which is
// returned. A wildcard meets every address of its family and none of the other:
// every socket on [::] is for IPv6 alone, so that 0.0.0.0 can stand beside it.
func (c *claims) add(n claim) (before claim, met bool) {
	const v4, v6 = 0, 1
	addr, port := n.Address.Addr(), n.Address.Port()
	if !n.Address.IsValid() || port == 0 {
		return claim{}, false
	}
	family := v4
	if addr.Is6() {
		family = v6
	}
	if before, met := c.exact[n.Address]; met {
		return before, true
	}
	if before, met := c.wildcard[family][port]; met {
		return before, true
	}
	if before, met := c.any[family][port]; met && addr.IsUnspecified() {
		return before, true
	}
	c.exact[n.Address] = n
	if _, there := c.any[family][port]; !there {
		c.any[family][port] = n
	}
	if addr.IsUnspecified() {
		c.wildcard[family][port] = n
	}
	return claim{}, false
}

// checkListeners checks that no two listeners want the same port of the same
// address, TCP or UDP: there would be no way to tell their clients apart, unless
// it is TCP, both are of services and these have a match.
func (d *decoder) checkListeners(c *Config) {
	tcp, udp, matches := newClaims(), newClaims(), newMatches(d, c.Services)
	add := func(n claim) (ok bool) {
		taken := tcp
		if n.UDP {
			taken = udp
		}
		before, met := taken.add(n)
		switch {
		case !met:
		case before.Port == n.Port && !n.UDP && before.service >= 0 && n.service >= 0 && before.service != n.service: // may be shared
		case before.Port == n.Port:
			d.fail(n.path, "%s is already taken by %s", n.Port, d.origin(before.path))
			return false
		default:
			d.fail(n.path, "%s overlaps %s of %s", n.Port, before.Port, d.origin(before.path))
			return false
		}
		return true
	}
	for i, a := range c.DNS.Listen {
		path := "dns.listen"
		if d.has(path) {
			path = fmt.Sprintf("dns.listen[%d]", i)
		}
		if add(claim{pool.Port{Address: a}, path, -1}) { // else it is said once
			add(claim{pool.Port{UDP: true, Address: a}, path, -1})
		}
	}
	add(claim{pool.Port{Address: c.Admin.Listen}, "admin.listen", -1})
	rest := d.ports
	for i, s := range c.Services {
		n := len(s.Listen) + len(s.ListenUDP)
		for k := range rest[:n] {
			rest[k].service = i
			p := rest[k]
			add(p)
			if !p.UDP {
				matches.add(p.Address, p.path, i)
			}
		}
		rest = rest[n:]
	}
}

// origin names the value at path in a message; it may be a default.
func (d *decoder) origin(path string) string {
	if !d.has(path) {
		return path + " (its default)"
	}
	return path
}

// reaches reports whether a connection from this host to a is one to the
// listener l. The addresses in own are of this host.
func reaches(l, a netip.AddrPort, own []netip.Addr) bool {
	return l == a || l.Port() == a.Port() && l.Addr().IsUnspecified() &&
		l.Addr().Is6() == a.Addr().Is6() &&
		(a.Addr().IsLoopback() || slices.Contains(own, a.Addr()))
}
