package controller

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/discovery/kubernetes"
	"haslohas.com/elbow/discovery/static"
	"haslohas.com/elbow/gateway"
	"haslohas.com/elbow/pool"
)

// services are the services of this host that fulfil the wishes.
func services(d *gateway.Decision, s *Settings) []discovery.Service {
	var out []discovery.Service
	for _, w := range d.Wishes {
		one := discovery.Service{Service: s.Site.Default, SourceName: w.ID + "/gateway"}
		one.Name = w.ID
		one.Answer = pool.Proxied
		one.Listen = listen(&s.Site, w.Port)
		one.Match = pool.Match{SNI: w.SNI}
		one.Hostnames = inside(s.Site.Zones, w.Hostnames)
		one.Source, one.SourceKey = source(s.Cluster, w.Backends)
		out = append(out, one)
	}
	return out
}

// source returns where the endpoints of backends come from, and its key.
func source(cluster *kubernetes.Cluster, backends []gateway.Backend) (discovery.Source, string) {
	if len(backends) == 0 {
		return static.New(nil), "gateway: no backends"
	}
	key := "gateway:"
	var shares []kubernetes.Share
	for _, b := range backends {
		key += fmt.Sprintf(" %s:%d*%d", b.Name, b.Port, b.Weight)
		if b.NodePort {
			key += " by nodes"
		}
		shares = append(shares, kubernetes.Share{Weight: b.Weight, Service: kubernetes.Service{
			Namespace: b.Namespace,
			Name:      b.Name.Name,
			Port:      kubernetes.Port{Number: b.Port},
			NodePort:  b.NodePort,
		}})
	}
	return cluster.Blend(shares), key
}

// listen returns where the host listens for a port: at all its addresses of each
// family. An Elastic IP is on no interface.
func listen(site *Site, port uint16) []netip.AddrPort {
	var out []netip.AddrPort
	is4 := func(a netip.Addr) bool { return a.Is4() }
	if len(site.Addresses) == 0 || slices.ContainsFunc(site.Addresses, is4) {
		out = append(out, netip.AddrPortFrom(netip.IPv4Unspecified(), port))
	}
	if slices.ContainsFunc(site.Addresses, func(a netip.Addr) bool { return !is4(a) }) {
		out = append(out, netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	}
	return out
}

// inside returns those of names that are in one of the zones.
func inside(zones, names []string) []string {
	var out []string
	for _, n := range names {
		if slices.ContainsFunc(zones, func(z string) bool { return n == z || strings.HasSuffix(n, "."+z) }) {
			out = append(out, n)
		}
	}
	return out
}

// outcomes returns what has become of each wish, at this moment.
func outcomes(f Front) func(id string) gateway.Outcome {
	listeners := f.Listeners()
	refused := make(map[string][]string)
	for _, c := range f.Conflicts() {
		if !strings.HasPrefix(c.Claim, "name ") { // a name in DNS is nothing that a Gateway is about
			refused[c.Service] = append(refused[c.Service], c.Claim+" belongs to "+holder(c.Holder))
		}
	}
	return func(id string) gateway.Outcome {
		l, there := listeners[id]
		o := gateway.Outcome{Listening: there && l.Open, Refused: refused[id]}
		if l.Err != nil {
			o.Err = l.Err.Error()
		}
		return o
	}
}

// holder is a service in words.
func holder(name string) string {
	switch parts := strings.Split(name, "/"); len(parts) {
	case 1:
		return fmt.Sprintf("service %q of elbow's configuration", name)
	case 2:
		return "Service " + name
	default:
		return "Gateway " + parts[0] + "/" + parts[1]
	}
}
