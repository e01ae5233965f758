package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"haslohas.com/elbow/pool"
)

// What a match of a service may list.
const (
	maxMatchNames = 1000
	maxProtocols  = 16
	maxMatches    = 1 << 14 // names, protocols and listeners combined
)

func match(m *pool.Match) rule {
	return section{
		{"sni", list(&m.SNI, maxMatchNames, serverName)},
		{"host", list(&m.Host, maxMatchNames, requestHost)},
		{"alpn", list(&m.ALPN, maxProtocols, protocol)},
	}.rule()
}

// serverName makes a rule for what a TLS client may ask for, RFC 6066 section 3.
func serverName(to *string) rule { return text(to, "a server name", parseServerName) }

func parseServerName(s string) (string, error) {
	if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return "", fmt.Errorf("%s is an address, and TLS clients name no address; write the hostname, or leave match out for the service that takes the rest", quote(s))
	}
	return parsePattern(s)
}

// requestHost makes a rule for what an HTTP client may ask for: as a server
// name, or an address.
func requestHost(to *string) rule { return text(to, "a host", parseRequestHost) }

func parseRequestHost(s string) (string, error) {
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		if a.Zone() != "" {
			return "", fmt.Errorf("%s has an interface, which no request has", quote(s))
		}
		return a.Unmap().String(), nil
	}
	if host, port, ok := strings.Cut(s, ":"); ok && port != "" {
		return "", fmt.Errorf("%s has a port; write %s, the port is not looked at", quote(s), quote(host))
	}
	return parsePattern(s)
}

// parsePattern parses a hostname, or one with "*." in the place of its first
// labels.
func parsePattern(s string) (string, error) {
	rest, wild := strings.CutPrefix(s, "*.")
	if strings.Contains(rest, "*") {
		return "", fmt.Errorf("%s: a * stands for whole labels, and only at the begin; write it like %q", quote(s), "*.example.com")
	}
	name, err := parseHostname(rest)
	switch {
	case err != nil:
		return "", err
	case wild && len(name) > 251:
		return "", fmt.Errorf("%s leaves no room for a name below it", quote(s))
	case wild:
		name = "*." + name
	}
	return name, nil
}

// protocol makes a rule for the name of an application protocol, RFC 7301
// section 3.1.
func protocol(to *string) rule {
	return text(to, "a protocol", func(s string) (string, error) {
		switch {
		case s == "":
			return "", errors.New("want a protocol like h2 or http/1.1, got an empty one")
		case len(s) > 255:
			return "", fmt.Errorf("%s has %d bytes; a protocol has at most 255", quote(s), len(s))
		}
		for i := range len(s) {
			if s[i] <= ' ' || s[i] >= 0x7f {
				return "", fmt.Errorf("%s is no protocol; write it like h2 or http/1.1", quote(s))
			}
		}
		return s, nil
	})
}

// checkMatch checks the match of a service by itself.
func (d *decoder) checkMatch(s *pool.Service, at string) {
	if !d.has(at) || d.bad(at) {
		return
	}
	unique(d, at+".sni", s.Match.SNI)
	unique(d, at+".host", s.Match.Host)
	unique(d, at+".alpn", s.Match.ALPN)
	for path := range d.wrong {
		if strings.HasPrefix(path, at+".") {
			return
		}
	}
	switch {
	case s.Match.IsZero():
		d.fail(at, "matches nothing; name something in sni, host or alpn, or leave it out for the service that takes the rest")
	case len(s.Listen) == 0 && !d.has(strings.TrimSuffix(at, "match")+"listen"):
		d.fail(at, "is about connections, and the service has no listen")
	default:
		if n := len(s.Match.Keys()) * len(s.Listen); n > maxMatches {
			d.fail(at, "makes %d combinations of name, protocol and listener, at most %d are allowed", n, maxMatches)
		}
	}
}
