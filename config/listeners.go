package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// A claim is somebody's wish to listen on an address and port, TCP.
type claim struct {
	addr    netip.AddrPort
	path    string
	service int // its index; -1: it is none of a service
}

// claims finds out who wants what another has, in one step for each. Port 0
// is a wish for any port, so it never meets another.
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
	addr, port := n.addr.Addr(), n.addr.Port()
	if !n.addr.IsValid() || port == 0 {
		return claim{}, false
	}
	family := v4
	if addr.Is6() {
		family = v6
	}
	if before, met := c.exact[n.addr]; met {
		return before, true
	}
	if before, met := c.wildcard[family][port]; met {
		return before, true
	}
	if before, met := c.any[family][port]; met && addr.IsUnspecified() {
		return before, true
	}
	c.exact[n.addr] = n
	if _, there := c.any[family][port]; !there {
		c.any[family][port] = n
	}
	if addr.IsUnspecified() {
		c.wildcard[family][port] = n
	}
	return claim{}, false
}

// checkListeners checks that no two listeners want the same TCP port of the
// same address: there would be no way to tell their connections apart, unless
// both are of services and these have a match.
func (d *decoder) checkListeners(c *Config) {
	taken, matches := newClaims(), newMatches(d, c.Services)
	add := func(path string, addr netip.AddrPort, service int) {
		before, met := taken.add(claim{addr, path, service})
		switch {
		case !met:
		case before.addr == addr && before.service >= 0 && service >= 0 && before.service != service: // may be shared
		case before.addr == addr:
			d.fail(path, "%s is already taken by %s", addr, d.origin(before.path))
		default:
			d.fail(path, "%s overlaps %s of %s", addr, before.addr, d.origin(before.path))
		}
	}
	for i, a := range c.DNS.Listen {
		if d.has("dns.listen") {
			add(fmt.Sprintf("dns.listen[%d]", i), a, -1)
		} else {
			add("dns.listen", a, -1)
		}
	}
	add("admin.listen", c.Admin.Listen, -1)
	for i, s := range c.Services {
		for j, a := range s.Listen {
			path := fmt.Sprintf("services[%d].listen[%d]", i, j)
			add(path, a, i)
			matches.add(a, path, i)
		}
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
