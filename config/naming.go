package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"haslohas.com/elbow/pool"
)

const (
	maxServiceNames = 64     // of one kind, of one service
	maxClientRules  = 1000   // of one service
	maxSubnets      = 10_000 // of one service
	maxClientZones  = 16     // of one rule
	maxViews        = 32     // zones that the rules of one service name
)

// naming is the rule for how the names of s are answered, and which it has
// beside its hostnames.
func naming(s *pool.Service) rule {
	n := &s.Naming
	var clients []pool.ClientRule
	ttls := ttlsOf(&n.TTL)
	r := section{
		{"policy", enum(&n.Policy, pool.ParseAnswerPolicy)},
		{"limit", naturally(&n.Limit, 1, pool.MaxAnswer, "8, or 1 if weighted")},
		{"ttl", ttls.rule()},
		{"clients", list(&clients, maxClientRules, clientRule)},
		{"https", https(&n.HTTPS)},
		{"srv", list(&n.SRV, maxServiceNames, srvName)},
		{"svcb", list(&n.SVCB, maxServiceNames, svcbName)},
		{"status", oneOrMore(&n.Status, maxServiceNames, hostname)},
	}.rule()
	decode := r.decode
	r.decode = func(d *decoder, v value) {
		decode(d, v)
		if len(clients) > 0 {
			n.Clients = pool.NewClientMap(clients)
		}
	}
	return r
}

// ttlsOf are the times that a service may have of its own. What is left out
// stays 0: the zone's.
func ttlsOf(to *pool.ZoneTTL) section {
	own := func(to *time.Duration) rule {
		r := ttl(to)
		r.about = func() string { return "duration, 1s to 168h; default: the zone's" }
		return r
	}
	return section{
		{"normal", own(&to.Normal)},
		{"degraded", own(&to.Degraded)},
		{"negative", own(&to.Negative)},
	}
}

// naturally is number for a key whose default, in words, depends on others.
func naturally[T ~int | ~uint16](to *T, least, most int, byDefault string) rule {
	r := number(to, least, most)
	r.about = func() string { return fmt.Sprintf("number, %d to %d; default: %s", least, most, byDefault) }
	return r
}

func clientRule(to *pool.ClientRule) rule {
	return section{
		{"subnets", required(list(&to.Subnets, maxSubnets, network))},
		{"zones", required(list(&to.Zones, maxClientZones, name))},
	}.rule()
}

// https is the rule for the parameters of HTTPS records. An empty mapping asks
// for records without any.
func https(to **pool.Parameters) rule {
	p := new(pool.Parameters)
	r := section{
		{"alpn", list(&p.ALPN, maxProtocols, protocol)},
		{"port", number(&p.Port, 0, 65535)},
	}.rule()
	decode := r.decode
	r.decode = func(d *decoder, v value) {
		*to = p
		decode(d, v)
	}
	return r
}

// srvName is the rule for the name of an SRV record: alone, or as a mapping.
func srvName(to *pool.ServiceName) rule {
	on := text(&to.Name, "a hostname", parseSRVName)
	return briefly(on, section{
		{"name", required(on)},
		{"port", naturally(&to.Port, 1, 65535, "that of the listener or backend")},
	})
}

// parseSRVName parses the name of an SRV record, RFC 2782.
func parseSRVName(s string) (string, error) {
	name, err := parseHostname(s)
	if err != nil {
		return "", err
	}
	service, rest, _ := strings.Cut(name, ".")
	transport, _, more := strings.Cut(rest, ".")
	if !strings.HasPrefix(service, "_") || !more || transport != "_tcp" && transport != "_udp" {
		return "", fmt.Errorf("%s is no name of an SRV record; write it like _http._tcp.example.com", quote(s))
	}
	return name, nil
}

// svcbName is the rule for the name of an SVCB record: alone, or as a mapping.
func svcbName(to *pool.ServiceName) rule {
	on := hostname(&to.Name)
	return briefly(on, section{
		{"name", required(on)},
		{"alpn", list(&to.ALPN, maxProtocols, protocol)},
		{"port", number(&to.Port, 0, 65535)},
	})
}

// checkNaming checks the dns sections of the services, and that each name has
// one owner and one zone. The hostnames were checked before.
func (d *decoder) checkNaming(c *Config, all zones) {
	first := make(map[string]string)
	for i := range c.Services {
		for j, h := range c.Services[i].Hostnames {
			if _, doubled := first[h]; !doubled {
				first[h] = fmt.Sprintf("services[%d].hostnames[%d]", i, j)
			}
		}
	}
	servers := make(map[string]bool)
	for _, z := range c.DNS.Zones {
		for _, n := range z.NameServers {
			servers[n.Name] = true
		}
	}
	for i := range c.Services {
		s := &c.Services[i]
		at := fmt.Sprintf("services[%d].dns", i)
		if !d.has(at) || d.bad(at) {
			continue
		}
		if len(s.Hostnames) == 0 && !d.bad(fmt.Sprintf("services[%d].hostnames", i)) {
			d.fail(at, "the service has no hostnames to answer; set hostnames, or take this out")
			continue
		}
		d.checkPolicy(s, at)
		d.checkOwnTTL(s.Service, at+".ttl", all)
		d.checkClients(s, at)
		d.checkSRV(s, at)
		own := func(name, at string) {
			switch {
			case name == "":
				return
			case len(c.DNS.Zones) > 0 && all.around(name) == nil && !slices.ContainsFunc(c.DNS.Zones, func(z *pool.Zone) bool { return z.Name == "" }):
				d.fail(at, "%s lies in no zone; the zones are %s", name, some(c.DNS.Zones))
			case servers[name]:
				d.fail(at, "%s is a nameserver, whose addresses are fixed", name)
			}
			if owner, doubled := first[name]; doubled {
				d.fail(at, "%s already belongs to %s", name, owner)
				return
			}
			first[name] = at
		}
		for j, n := range s.Naming.SRV {
			own(n.Name, fmt.Sprintf("%s.srv[%d]", at, j))
		}
		for j, n := range s.Naming.SVCB {
			own(n.Name, fmt.Sprintf("%s.svcb[%d]", at, j))
		}
		for j, n := range s.Naming.Status {
			own(n, fmt.Sprintf("%s.status[%d]", at, j))
		}
	}
	for i := range c.Services { // after all others: they give way
		s := &c.Services[i]
		for _, n := range s.OwnNames() {
			if owner, doubled := first[n.Name]; doubled && n.Kind == pool.TargetName {
				d.fail(fmt.Sprintf("services[%d].dns.srv", i), "its records lead to %s, the name of a backend, which already belongs to %s", n.Name, owner)
			}
		}
	}
}

func (d *decoder) checkPolicy(s *Service, at string) {
	if s.Answer != pool.Proxied {
		return
	}
	if s.Naming.Policy == pool.AnswerWeighted {
		d.fail(at+".policy", "is for answer: direct; the addresses of this host, which this service is answered with, have no weights")
	}
	if d.has(at + ".clients") {
		d.fail(at+".clients", "is for answer: direct; all clients of this service are answered with the addresses of this host")
	}
}

// checkOwnTTL checks the times of a service as it is done for those of a zone,
// beside what the zones of its hostnames have.
func (d *decoder) checkOwnTTL(s *pool.Service, at string, all zones) {
	own := s.Naming.TTL
	for _, h := range s.Hostnames {
		if z := all.around(h); z != nil && z.File == "" && own.Negative > z.TTL.Negative && !d.bad(at+".negative") {
			d.fail(at+".negative", "%s is longer than that of the zone %s, %s, above which its SOA lets nobody go (RFC 2308)", short(own.Negative), z.Name, short(z.TTL.Negative))
			break
		}
	}
	if own.Degraded == 0 || d.bad(at+".normal") || d.bad(at+".degraded") {
		return
	}
	for _, h := range s.Hostnames {
		z := all.around(h)
		if z == nil {
			continue
		}
		if normal := cmp.Or(own.Normal, z.TTL.Normal); own.Degraded > normal {
			d.fail(at+".degraded", "%s is longer than normal, which is %s for %s", short(own.Degraded), short(normal), h)
			return
		}
	}
}

func (d *decoder) checkClients(s *Service, at string) {
	m := s.Naming.Clients
	if m == nil || s.Answer == pool.Proxied {
		return
	}
	if len(m.Zones()) > maxViews {
		d.fail(at+".clients", "names %d zones, at most %d are allowed", len(m.Zones()), maxViews)
	}
	known := make(map[string]bool)
	for _, e := range s.Source.Static {
		known[e.Zone] = true
	}
	subnets := 0
	first := make(map[netip.Prefix]int)
	for i, r := range m.Rules() {
		item := fmt.Sprintf("%s.clients[%d]", at, i)
		if len(r.Subnets) == 0 && d.has(item+".subnets") && !d.bad(item+".subnets") {
			d.fail(item+".subnets", "is empty; it has at least one subnet")
		}
		if len(r.Zones) == 0 && d.has(item+".zones") && !d.bad(item+".zones") {
			d.fail(item+".zones", "is empty; it has at least one zone")
		}
		subnets += len(r.Subnets)
		for j, p := range r.Subnets {
			if other, doubled := first[p]; doubled && p.IsValid() {
				d.fail(fmt.Sprintf("%s.subnets[%d]", item, j), "%s already belongs to %s.clients[%d]", p, at, other)
				continue
			}
			first[p] = i
		}
		unique(d, item+".zones", r.Zones)
		for j, zone := range r.Zones {
			if s.Source.Kind == Static && len(s.Source.Static) > 0 && zone != "" && !known[zone] {
				d.fail(fmt.Sprintf("%s.zones[%d]", item, j), "no backend of this service has the zone %s", zone)
			}
		}
	}
	if subnets > maxSubnets {
		d.fail(at+".clients", "has %d subnets, at most %d are allowed", subnets, maxSubnets)
	}
}

// maxTargetHost is how long the hostname is that names of backends lie below.
const maxTargetHost = 253 - 64

func (d *decoder) checkSRV(s *Service, at string) {
	if s.Answer == pool.Direct && len(s.Naming.SRV) > 0 && len(s.Hostnames[0]) > maxTargetHost {
		d.fail(at+".srv", "the first hostname, below which the names of the backends lie, has %d bytes; at most %d are allowed", len(s.Hostnames[0]), maxTargetHost)
	}
	for i := range s.Naming.SRV {
		n := &s.Naming.SRV[i]
		if s.Answer == pool.Direct || n.Port > 0 || n.Name == "" {
			continue
		}
		port, err := onlyPort(s.Service, n.UDP())
		if err != nil {
			d.fail(fmt.Sprintf("%s.srv[%d]", at, i), "%s: %v; write {name: %s, port: …}", n.Name, err, n.Name)
		}
		n.Port = port
	}
}

// onlyPort returns the port on which s listens.
func onlyPort(s *pool.Service, udp bool) (uint16, error) {
	var ports []uint16
	for _, l := range s.Ports() {
		if p := l.Address.Port(); l.UDP == udp && !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	transport := "TCP"
	if udp {
		transport = "UDP"
	}
	switch {
	case len(ports) == 0:
		return 0, fmt.Errorf("the service does not listen by %s", transport)
	case len(ports) > 1:
		return 0, fmt.Errorf("the service listens on the ports %d and %d", ports[0], ports[1])
	case ports[0] == 0:
		return 0, errors.New("the service listens on any port that is free")
	}
	return ports[0], nil
}
