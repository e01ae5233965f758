package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"haslohas.com/elbow/pool"
)

// address makes a rule for the address of one host.
func address(to *netip.Addr) rule { return scalar(to, "an IP address", parseAddress) }

func parseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return a, fmt.Errorf("%s is no IP address; names are not resolved here", quote(s))
	case a.Zone() != "":
		return a, fmt.Errorf("%s has an interface, which is not supported", quote(s))
	case a.IsUnspecified(), a.IsMulticast(), a.Unmap().IsUnspecified(), a.Unmap().IsMulticast():
		return a, fmt.Errorf("%s is not the address of one host", quote(s))
	}
	return a.Unmap(), nil
}

// backend makes a rule for the address and port of a backend.
func backend(to *netip.AddrPort) rule {
	return scalar(to, "an address and port", func(s string) (netip.AddrPort, error) {
		a, err := parseAddrPort(s, "172.31.8.233:80")
		if err != nil {
			return a, err
		}
		if _, err := parseAddress(a.Addr().String()); err != nil {
			return a, err
		}
		if a.Port() == 0 {
			return a, fmt.Errorf("%s has port 0; want 1 to 65535", quote(s))
		}
		return a, nil
	})
}

// listener makes a rule for the address and port to listen on. Port 0 leaves
// the choice to the kernel.
func listener(to *netip.AddrPort) rule {
	return scalar(to, "an address and port", func(s string) (netip.AddrPort, error) {
		if plain, udp := pool.CutTransport(s); udp || plain != s {
			return netip.AddrPort{}, fmt.Errorf("%s names a transport, which only a service's listen does; write %q", quote(s), plain)
		}
		return parseListener(s)
	})
}

func parseListener(s string) (netip.AddrPort, error) {
	a, err := parseAddrPort(s, "0.0.0.0:80")
	if err == nil && a.Addr().IsMulticast() {
		err = fmt.Errorf("%s is a multicast address", quote(s))
	}
	return a, err
}

// listeners makes a rule for where a service listens: for TCP or, with udp/
// ahead, for UDP. The decoder remembers where in the file each stands.
func listeners(s *pool.Service) rule {
	var all []pool.Port
	r := list(&all, maxListeners, func(to *pool.Port) rule {
		return scalar(to, "an address and port", func(text string) (l pool.Port, err error) {
			text, l.UDP = pool.CutTransport(text)
			l.Address, err = parseListener(text)
			return l, err
		})
	})
	decode := r.decode
	r.decode = func(d *decoder, v value) {
		decode(d, v)
		for i, l := range all {
			d.ports = append(d.ports, claim{Port: l, path: v.path + "[" + strconv.Itoa(i) + "]"})
			if l.UDP {
				s.ListenUDP = append(s.ListenUDP, l.Address)
			} else {
				s.Listen = append(s.Listen, l.Address)
			}
		}
	}
	return r
}

// listenerOrOff is listener, with the empty string for none.
func listenerOrOff(to *netip.AddrPort) rule {
	byDefault, on := *to, listener(to)
	return rule{
		decode: func(d *decoder, v value) {
			if v.ShortTag() == "!!str" && v.Value == "" {
				*to = netip.AddrPort{}
				return
			}
			on.decode(d, v)
		},
		about: func() string { return fmt.Sprintf("an address and port; default %s", byDefault) },
	}
}

func parseAddrPort(s, example string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s is no address and port; write it like %q or %q", quote(s), example, "[::1]:80")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("the port %s of %s is not a number from 0 to 65535", quote(port), quote(s))
	}
	if host == "" {
		return netip.AddrPort{}, fmt.Errorf("%s has no address; write \"0.0.0.0:%d\" for IPv4 or \"[::]:%d\" for IPv6", quote(s), n, n)
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return netip.AddrPort{}, fmt.Errorf("%s is no IP address; names are not resolved here", quote(host))
	case a.Zone() != "":
		return netip.AddrPort{}, fmt.Errorf("%s has an interface, which is not supported", quote(s))
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// network makes a rule for a range of client addresses.
func network(to *netip.Prefix) rule { return scalar(to, "a network", parseNetwork) }

func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.Prefix{}, fmt.Errorf("%s has no length; write %q", quote(s), netip.PrefixFrom(a, a.BitLen()))
	}
	p, err := netip.ParsePrefix(s)
	if err == nil && p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, fmt.Errorf("%s reaches beyond the IPv4 addresses", quote(s))
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	switch {
	case err != nil:
		return p, fmt.Errorf("%s is no network; write it like 10.0.0.0/8 or 2001:db8::/32", quote(s))
	case p != p.Masked():
		return p, fmt.Errorf("%s has bits beyond its length; write %q", quote(s), p.Masked())
	}
	return p, nil
}
