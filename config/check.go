package config

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"haslohas.com/elbow/pool"
)

// check completes c with the defaults that depend on other keys and finds what
// is wrong between keys. What is wrong with one alone is known already and
// has left a default or zero value, of which nothing more is said.
func (d *decoder) check(c *Config) {
	if len(c.Services) == 0 && len(c.DNS.Zones) == 0 && len(d.errors) == 0 {
		d.fail("", "there is neither a service nor a zone: nothing to do")
	}
	d.checkHost(&c.Host)
	if n := len(c.Admin.Socket); n > 107 { // sun_path of unix(7)
		d.fail("admin.socket", "the path has %d bytes; a socket's has at most 107", n)
	}
	if !d.has("dns.listen") && len(c.DNS.Zones) > 0 {
		c.DNS.Listen = defaultDNSListen()
	}
	d.checkDnstap(c)
	zones := d.checkZones(c.DNS.Zones)
	d.checkServices(c)
	d.checkHostnames(c, zones)
	d.checkNaming(c, zones)
	d.checkListeners(c)
	d.checkAWS(c)
	d.checkElasticIP(c)
}

func (d *decoder) checkHost(h *pool.Host) {
	unique(d, "host.addresses", h.Addresses)
	if h.Name != "" || d.bad("host.name") {
		return
	}
	name, err := os.Hostname()
	if err != nil {
		d.fail("host.name", "is required, the system does not know it: %v", err)
	}
	h.Name = name
}

func (d *decoder) checkServices(c *Config) {
	first := make(map[string]int)
	for i := range c.Services {
		s := &c.Services[i]
		at := fmt.Sprintf("services[%d]", i)
		if j, doubled := first[s.Name]; doubled && s.Name != "" {
			d.fail(at+".name", "the name %s is already that of services[%d]", s.Name, j)
		} else {
			first[s.Name] = i
		}
		if len(s.Listen) == 0 && len(s.ListenUDP) == 0 && len(s.Hostnames) == 0 && !d.bad(at+".listen") && !d.bad(at+".hostnames") && !d.bad(at) {
			d.fail(at, "has neither listen nor hostnames: nobody could reach it")
		}
		if s.Answer == pool.Proxied && len(s.Hostnames) > 0 && len(c.Host.Addresses) == 0 && !d.bad("host.addresses") && !d.bad(at+".answer") {
			d.fail(at+".answer", "the hostnames are answered with host.addresses, which is empty; set it, or answer: direct")
		}
		d.checkBackends(s, at+".backends", c.Host.Addresses, c.AWS.Region)
		d.checkMatch(s.Service, at+".match")
		d.checkProbe(&s.Probe, at+".probe")
		s.OwnProbe = d.has(at+".probe.type") || d.has(at+".probe.port") || d.has(at+".probe.path")
		d.checkUDP(s.Service, at)
		if !d.has(at+".probe.proxyProtocol") && s.Probe.Port == 0 {
			s.Probe.Proxy = s.ProxyProtocol.Send // the same port expects the same header
		}
	}
}

func (d *decoder) checkBackends(s *Service, at string, own []netip.Addr, region string) {
	var kinds []string
	for _, k := range []string{"static", "file", "kubernetes", "ec2"} {
		if d.has(at + "." + k) {
			kinds = append(kinds, k)
		}
	}
	switch {
	case !d.has(at) || d.bad(at):
		return
	case len(kinds) == 0:
		d.fail(at, "has no kind; want one of static, file, kubernetes, ec2")
	case len(kinds) > 1:
		d.fail(at, "has the kinds %s; want exactly one", strings.Join(kinds, " and "))
	case kinds[0] == "file":
		s.Source.Kind = File
		d.checkFile(&s.Source.File, at+".file")
	case kinds[0] == "kubernetes":
		s.Source.Kind = FromKubernetes
		d.checkKubernetes(&s.Source.Kubernetes, at+".kubernetes")
	case kinds[0] == "ec2":
		s.Source.Kind = FromEC2
		d.checkEC2(&s.Source.EC2, at+".ec2", region)
	case kinds[0] == "static":
		d.checkStatic(s, at+".static", own)
	}
}

func (d *decoder) checkStatic(s *Service, at string, own []netip.Addr) {
	if len(s.Source.Static) == 0 && !d.bad(at) {
		d.fail(at, "is empty; a service has at least one backend")
	}
	first := make(map[netip.AddrPort]int)
	for i, e := range s.Source.Static {
		if !e.Address.IsValid() {
			continue
		}
		item := fmt.Sprintf("%s[%d]", at, i)
		if j, doubled := first[e.Address]; doubled {
			d.fail(item, "the address %s is already that of %s[%d]", e.Address, at, j)
			continue
		}
		first[e.Address] = i
		for _, l := range s.Ports() {
			if reaches(l.Address, e.Address, own) {
				d.fail(item, "%s leads to the listener %s of this service itself: connections would go round in circles", e.Address, l)
			}
		}
	}
	slices.SortFunc(s.Source.Static, func(a, b pool.Endpoint) int { return a.Address.Compare(b.Address) })
	s.Endpoints = slices.Clone(s.Source.Static)
}

// probeKeys are the keys that only some types of probe have.
var probeKeys = []struct {
	key   string
	types []pool.ProbeType
}{
	{"path", []pool.ProbeType{pool.ProbeHTTP, pool.ProbeHTTPS}},
	{"host", []pool.ProbeType{pool.ProbeHTTP, pool.ProbeHTTPS, pool.ProbeTLS, pool.ProbeGRPC}},
	{"expect", []pool.ProbeType{pool.ProbeHTTP, pool.ProbeHTTPS, pool.ProbeUDP}},
	{"expect.status", []pool.ProbeType{pool.ProbeHTTP, pool.ProbeHTTPS}},
	{"service", []pool.ProbeType{pool.ProbeGRPC}},
	{"verify", []pool.ProbeType{pool.ProbeHTTPS, pool.ProbeTLS}},
	{"send", []pool.ProbeType{pool.ProbeUDP}},
	{"sendHex", []pool.ProbeType{pool.ProbeUDP}},
	{"proxyProtocol", []pool.ProbeType{pool.ProbeTCP, pool.ProbeHTTP, pool.ProbeHTTPS, pool.ProbeTLS, pool.ProbeGRPC}},
}

func (d *decoder) checkProbe(p *pool.Probe, at string) {
	if d.bad(at + ".type") {
		return
	}
	for _, k := range probeKeys {
		around, _, _ := strings.Cut(k.key, ".")
		if d.has(at+"."+k.key) && !d.bad(at+"."+around) && !slices.Contains(k.types, p.Type) {
			d.fail(at+"."+k.key, "is only for probes of type %s, this one is %s", types(k.types), p.Type)
		}
	}
	if p.Type == pool.ProbeHTTP || p.Type == pool.ProbeHTTPS {
		if p.Path == "" {
			p.Path = defaultProbePath
		}
		if p.Status == (pool.StatusRanges{}) {
			p.Status = defaultStatus()
		}
	}
}

// checkUDP checks what has to do with UDP: the probe that speaks it, and what
// a service with such listeners cannot have.
func (d *decoder) checkUDP(s *pool.Service, at string) {
	probe := at + ".probe"
	switch text, bytes := probe+".send", probe+".sendHex"; {
	case d.bad(probe + ".type"), s.Probe.Type != pool.ProbeUDP:
	case d.has(text) && d.has(bytes):
		d.fail(bytes, "send is there too; want one of them")
	case !d.has(text) && !d.has(bytes):
		d.fail(probe, "a probe of type udp needs send or sendHex: what the backend is sent, and has to answer")
	}
	if len(s.ListenUDP) == 0 {
		if d.has(at+".udp") && !d.bad(at+".listen") {
			d.fail(at+".udp", "is only for services with a UDP listener, like udp/0.0.0.0:53")
		}
		return
	}
	for _, key := range []string{".accept", ".send"} {
		if key = at + ".proxyProtocol" + key; d.has(key) && (len(s.ProxyProtocol.Accept) > 0 || s.ProxyProtocol.Send != pool.ProxyOff) {
			d.fail(key, "is not for services with a UDP listener; make one of its own for TCP")
			break
		}
	}
	if len(s.Listen) == 0 && !d.has(probe+".type") && !d.has(probe+".port") {
		d.fail(probe, "a service that listens on UDP alone says how its backends are probed: type: udp with send, or another type, where useful with the port it is for")
	}
}

func types(all []pool.ProbeType) string {
	words := make([]string, len(all))
	for i, t := range all {
		words[i] = t.String()
	}
	return strings.Join(words, ", ")
}

// checkHostnames checks that each hostname has one owner and one zone.
func (d *decoder) checkHostnames(c *Config, all zones) {
	nameServers := make(map[string]bool)
	named := true // every zone has its name
	for _, z := range c.DNS.Zones {
		named = named && z.Name != ""
		for _, n := range z.NameServers {
			nameServers[n.Name] = true
		}
	}
	first := make(map[string]string)
	for i, s := range c.Services {
		for j, h := range s.Hostnames {
			if h == "" {
				continue
			}
			at := fmt.Sprintf("services[%d].hostnames[%d]", i, j)
			owner, doubled := first[h]
			switch {
			case doubled:
				d.fail(at, "%s already belongs to %s", h, owner)
				continue
			case len(c.DNS.Zones) == 0 && !d.bad("dns") && !d.bad("dns.zones"):
				d.fail(at, "%s lies in no zone, as there is none; add it to dns.zones", h)
			case len(c.DNS.Zones) > 0 && named && all.around(h) == nil:
				d.fail(at, "%s lies in no zone; the zones are %s", h, some(c.DNS.Zones))
			case nameServers[h]:
				d.fail(at, "%s is a nameserver, whose addresses are fixed", h)
			}
			first[h] = at
		}
	}
}

// some lists the first few zones.
func some(all []*pool.Zone) string {
	var list []string
	for i, z := range all {
		if i == 5 {
			list = append(list, "…")
			break
		}
		list = append(list, z.Name)
	}
	return strings.Join(list, ", ")
}

// unique reports values that stand twice in the list at that path.
func unique[T comparable](d *decoder, at string, values []T) {
	var none T
	first := make(map[T]bool, len(values))
	for i, v := range values {
		if first[v] && v != none {
			d.fail(fmt.Sprintf("%s[%d]", at, i), "%v stands here twice", v)
		}
		first[v] = true
	}
}
