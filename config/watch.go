package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"haslohas.com/elbow/pool"
)

// maxSample is of how many queries one may be looked at.
const maxSample = 1_000_000

func queryLog(q *pool.QueryLog) rule {
	return section{
		{"file", required(scalar(&q.File, "stdout, stderr, off or a path", parseQueryLogFile))},
		{"sample", number(&q.Sample, 1, maxSample)},
	}.rule()
}

func dnstap(t *pool.Dnstap) rule {
	return section{
		{"socket", required(scalar(t, "unix:PATH or tcp:ADDRESS:PORT", func(s string) (pool.Dnstap, error) {
			out := *t
			var err error
			out.Network, out.Address, err = parseTapSocket(s)
			return out, err
		}))},
		{"identity", text(&t.Identity, "a text", parseShort)},
		{"version", text(&t.Version, "a text", parseShort)},
		{"queries", boolean(&t.Queries)},
		{"responses", boolean(&t.Responses)},
		{"sample", number(&t.Sample, 1, maxSample)},
	}.rule()
}

func parseQueryLogFile(s string) (string, error) {
	s, err := parseConnections(s)
	if s == "off" {
		s = ""
	}
	return s, err
}

func parseTapSocket(s string) (network, address string, err error) {
	network, address, _ = strings.Cut(s, ":")
	switch network {
	case "unix":
		switch {
		case !filepath.IsAbs(address) || strings.ContainsRune(address, 0):
			return "", "", fmt.Errorf("%s has no absolute path; write it like unix:/run/dnstap.sock", quote(s))
		case len(address) > 107: // sun_path of unix(7)
			return "", "", fmt.Errorf("the path has %d bytes; a socket's has at most 107", len(address))
		}
		return network, address, nil
	case "tcp":
		a, err := netip.ParseAddrPort(address)
		if err != nil || a.Port() == 0 {
			return "", "", fmt.Errorf("%s has no IP address and port; write it like tcp:192.0.2.1:6000", quote(s))
		}
		return network, a.String(), nil
	}
	return "", "", fmt.Errorf("unknown kind of socket %s, want unix:PATH or tcp:ADDRESS:PORT", quote(s))
}

// checkDnstap completes what dns.dnstap says.
func (d *decoder) checkDnstap(c *Config) {
	t := &c.DNS.Dnstap
	if t.Network == "" {
		return
	}
	if !d.has("dns.dnstap.identity") {
		t.Identity = c.Host.Name
	}
	if !t.Queries && !t.Responses {
		d.fail("dns.dnstap", "sends neither queries nor responses; set one of them to true, or leave dnstap out")
	}
}
