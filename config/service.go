package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"haslohas.com/elbow/pool"
)

const (
	millisecond = time.Millisecond
	day         = 24 * time.Hour

	maxConnections = 10_000_000
	maxBody        = 5120 // what a probe reads of an answer
	maxSend        = 1200 // of a datagram that a probe sends: no path needs to fragment it
)

func service(to *Service) rule {
	s := defaultService()
	*to = Service{Service: s}
	return section{
		{"name", required(name(&s.Name))},
		{"hostnames", list(&s.Hostnames, maxHostnames, hostname)},
		{"answer", enum(&s.Answer, pool.ParseAnswer)},
		{"listen", listeners(s)},
		{"backends", required(section{
			{"static", list(&to.Source.Static, maxEndpoints, endpoint)},
			{"file", fileSource(&to.Source.File)},
			{"kubernetes", kubernetesSource(&to.Source.Kubernetes)},
			{"ec2", ec2Source(&to.Source.EC2)},
		}.rule())},
		{"probe", probe(&s.Probe)},
		{"balance", enum(&s.Balance, pool.ParseBalance)},
		{"whenAllDown", enum(&s.WhenAllDown, pool.ParseWhenAllDown)},
		{"connect", section{
			{"timeout", duration(&s.Connect.Timeout, millisecond, time.Minute)},
			{"attempts", number(&s.Connect.Attempts, 1, 16)},
		}.rule()},
		{"idleTimeout", durationOrZero(&s.IdleTimeout, 100*millisecond, 7*day)},
		{"halfCloseTimeout", durationOrZero(&s.HalfCloseTimeout, 100*millisecond, 7*day)},
		{"udp", section{
			{"idleTimeout", duration(&s.UDP.IdleTimeout, 100*millisecond, 7*day)},
			{"responses", number(&s.UDP.Responses, 0, 1000)},
			{"maxFlows", number(&s.UDP.MaxFlows, 1, maxConnections)},
		}.rule()},
		{"drain", section{
			{"timeout", duration(&s.DrainTimeout, 0, 7*day)},
		}.rule()},
		{"maxConnections", number(&s.MaxConnections, 0, maxConnections)},
		{"maxConnectionsPerBackend", number(&s.MaxConnectionsPerBackend, 0, maxConnections)},
		{"queue", section{
			{"length", number(&s.Queue.Length, 0, 1_000_000)},
			{"timeout", duration(&s.Queue.Timeout, millisecond, time.Hour)},
		}.rule()},
		{"proxyProtocol", section{
			{"accept", list(&s.ProxyProtocol.Accept, maxNetworks, network)},
			{"send", enum(&s.ProxyProtocol.Send, pool.ParseProxyVersion)},
		}.rule()},
		{"allow", list(&s.Allow, maxNetworks, network)},
		{"slowStart", duration(&s.SlowStart, 0, day)},
		{"match", match(&s.Match)},
		{"dns", naming(s)},
	}.rule()
}

// endpoint is the rule for a static one: its address alone, or a mapping.
func endpoint(e *pool.Endpoint) rule {
	e.Weight = 1
	long, brief := section{
		{"address", required(backend(&e.Address))},
		{"public", oneOrMore(&e.Public, maxAddresses, address)},
		{"node", name(&e.Node)},
		{"zone", name(&e.Zone)},
		{"weight", number(&e.Weight, 0, 256)},
		{"priority", number(&e.Priority, 0, 255)},
	}.rule(), backend(&e.Address)
	return rule{decode: func(d *decoder, v value) {
		if v.Kind == yaml.MappingNode {
			long.decode(d, v)
		} else {
			brief.decode(d, v)
		}
	}}
}

func probe(p *pool.Probe) rule {
	return section{
		{"type", enum(&p.Type, pool.ParseProbeType)},
		{"interval", duration(&p.Interval, 10*millisecond, time.Hour)},
		{"timeout", duration(&p.Timeout, millisecond, time.Minute)},
		{"rise", number(&p.Rise, 1, 1000)},
		{"fall", number(&p.Fall, 1, 1000)},
		{"fastInterval", duration(&p.FastInterval, 10*millisecond, time.Hour)},
		{"downInterval", duration(&p.DownInterval, 10*millisecond, time.Hour)},
		{"port", number(&p.Port, 0, 65535)},
		{"path", text(&p.Path, "a path", parseTarget)},
		{"host", text(&p.Host, "a hostname", parseProbeHost)},
		{"expect", section{
			{"status", scalar(&p.Status, "status codes", parseStatus)},
			{"body", words(&p.Body, maxBody)},
		}.rule()},
		{"service", words(&p.Service, 255)},
		{"send", words(&p.Send, maxSend)},
		{"sendHex", text(&p.Send, "hexadecimal digits", parseHex)},
		{"verify", boolean(&p.Verify)},
		{"proxyProtocol", enum(&p.Proxy, pool.ParseProxyVersion)},
	}.rule()
}

// parseTarget parses the path and query of an HTTP request, RFC 9112 section 3.2.1.
func parseTarget(s string) (string, error) {
	switch path, _, _ := strings.Cut(s, "?"); {
	case !strings.HasPrefix(s, "/"):
		return "", fmt.Errorf("%s does not begin with a slash", quote(s))
	case len(s) > 2048:
		return "", fmt.Errorf("has %d bytes, at most 2048 are allowed", len(s))
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '#' || r >= 0x7f }):
		return "", fmt.Errorf("%s has characters that must be written as %%XX", quote(s))
	default:
		if _, err := url.PathUnescape(path); err != nil {
			return "", fmt.Errorf("%s: %v", quote(s), err)
		}
	}
	return s, nil
}

// parseProbeHost parses a hostname or address, with or without a port.
func parseProbeHost(s string) (string, error) {
	if _, err := netip.ParseAddrPort(s); err == nil {
		return s, nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		return s, nil
	}
	host, port, found := strings.Cut(s, ":")
	if n, err := strconv.ParseUint(port, 10, 16); found && (err != nil || n == 0) {
		return "", fmt.Errorf("%s is neither a hostname nor HOST:PORT", quote(s))
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return s, nil
	}
	host, err := parseHostname(host)
	if err != nil {
		return "", err
	}
	if found {
		host += ":" + port
	}
	return host, nil
}

// parseHex parses bytes written as pairs of hexadecimal digits, between which
// there may be spaces.
func parseHex(s string) (string, error) {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	switch {
	case err != nil:
		return "", fmt.Errorf("%s is not written in pairs of hexadecimal digits, like \"a1 b2\"", quote(s))
	case len(b) == 0:
		return "", errors.New("is empty; leave the key out instead")
	case len(b) > maxSend:
		return "", fmt.Errorf("has %d bytes, at most %d are allowed", len(b), maxSend)
	}
	return string(b), nil
}

// parseStatus parses codes and ranges of codes like 200-399,401.
func parseStatus(s string) (pool.StatusRanges, error) {
	var ranges pool.StatusRanges
	n := 0
	for part := range strings.SplitSeq(s, ",") {
		if n == len(ranges) {
			return ranges, fmt.Errorf("has more than %d ranges", len(ranges))
		}
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || first < 100 || last > 599 || first > last {
			return ranges, fmt.Errorf("%s is no range of status codes from 100 to 599; write it like 200-399,401", quote(part))
		}
		ranges[n] = pool.StatusRange{First: uint16(first), Last: uint16(last)}
		n++
	}
	return ranges, nil
}
