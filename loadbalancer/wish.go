package loadbalancer

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/discovery/kubernetes"
	"haslohas.com/elbow/pool"
)

// A Site is what this host has for the Services of a cluster.
type Site struct {
	Class     string       // of the Services that are ours; empty: none is
	Zones     []string     // in which names are answered; the first has the names that nobody chose
	Addresses []netip.Addr // of the host
	Default   pool.Service // what a service is like that says nothing about it
}

// A wish is what one Service asks for.
type wish struct {
	service   *corev1.Service
	parts     []part
	hostnames []string // those in our zones
	problems  []problem
}

// A part is a port of a Service.
type part struct {
	port    corev1.ServicePort
	service pool.Service
	source  kubernetes.Service
	probed  bool // the Service says how
	refused string
}

// A problem is what is wrong with a request, for the Service's own people.
type problem struct {
	Reason string // of the Event, in CamelCase
	Text   string
}

// ours reports whether site is to serve s.
func ours(s *corev1.Service, site *Site) bool {
	return ourClass(s, site) && s.DeletionTimestamp == nil
}

func ourClass(s *corev1.Service, site *Site) bool {
	return site.Class != "" && s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.LoadBalancerClass != nil && *s.Spec.LoadBalancerClass == site.Class
}

// read is what s asks site for.
func read(s *corev1.Service, site *Site) wish {
	w := wish{service: s}
	base := site.Default
	base.Answer = pool.Proxied
	options := w.annotations(&base)
	if s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP && !options.balanced {
		base.Balance = pool.Source
	}
	closed := w.allow(&base)
	w.names(site)
	if ip := s.Spec.LoadBalancerIP; ip != "" {
		if a, err := netip.ParseAddr(ip); err != nil || !slices.Contains(site.Addresses, a.Unmap()) {
			w.wrong("NoSuchAddress", "loadBalancerIP %s is no address of this host; it is ignored", ip)
		}
	}
	for _, p := range s.Spec.Ports {
		one := part{port: p, service: base, probed: options.probed}
		one.service.Name = w.partName(p)
		one.source = kubernetes.Service{
			Namespace: s.Namespace,
			Name:      s.Name,
			Port:      kubernetes.Port{Number: uint16(p.Port)},
			UDP:       p.Protocol == corev1.ProtocolUDP,
			NodePort:  p.NodePort != 0 && !options.podIP || options.nodePort,
		}
		switch {
		case closed:
			one.refused = "InvalidSourceRanges"
		case p.Protocol == corev1.ProtocolUDP:
			one.service.ListenUDP = listen(site, p)
			if !options.probed && s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
				w.wrong("ProbeNeeded", "nothing says how the backends of port %d/UDP are asked for their health: set %sprobe, such as tcp:8080 or http:8080/healthz; until then they count as down, and all of them serve", p.Port, prefix)
			}
		case p.Protocol == corev1.ProtocolTCP || p.Protocol == "":
			one.service.Listen = listen(site, p)
		default:
			one.refused = "UnsupportedProtocol"
			w.wrong("UnsupportedProtocol", "port %d is for %s; elbow relays TCP and UDP", p.Port, p.Protocol)
		}
		w.parts = append(w.parts, one)
	}
	// The names are those of the first port that is served: an answer has no ports.
	if i := slices.IndexFunc(w.parts, func(p part) bool { return p.refused == "" }); i >= 0 {
		w.parts[i].service.Hostnames = w.hostnames
	}
	return w
}

func (w *wish) wrong(reason, format string, args ...any) {
	w.problems = append(w.problems, problem{reason, fmt.Sprintf(format, args...)})
}

// partName is what the service of a port is called here.
func (w *wish) partName(p corev1.ServicePort) string {
	name := w.service.Namespace + "/" + w.service.Name
	if len(w.service.Spec.Ports) > 1 {
		name += ":" + cmp.Or(p.Name, strconv.Itoa(int(p.Port)))
	}
	return name
}

// listen returns where the host listens for a port: at all its addresses of each
// family. An Elastic IP is on no interface.
func listen(site *Site, p corev1.ServicePort) []netip.AddrPort {
	var out []netip.AddrPort
	is4 := func(a netip.Addr) bool { return a.Is4() }
	if len(site.Addresses) == 0 || slices.ContainsFunc(site.Addresses, is4) {
		out = append(out, netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(p.Port)))
	}
	if slices.ContainsFunc(site.Addresses, func(a netip.Addr) bool { return !is4(a) }) {
		out = append(out, netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(p.Port)))
	}
	return out
}

// allow reads who may connect. It reports true where that is nobody: ranges are
// given, and none of them can be read.
func (w *wish) allow(to *pool.Service) (closed bool) {
	ranges := w.service.Spec.LoadBalancerSourceRanges
	if text := strings.TrimSpace(w.service.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]); len(ranges) == 0 && text != "" {
		ranges = strings.Split(text, ",")
	}
	to.Allow = nil
	for _, r := range ranges {
		p, err := netip.ParsePrefix(strings.TrimSpace(r))
		if err != nil {
			w.wrong("InvalidSourceRanges", "loadBalancerSourceRanges: %q is no range such as 192.0.2.0/24; it lets nobody in", r)
			continue
		}
		to.Allow = append(to.Allow, p.Masked())
	}
	closed = len(ranges) > 0 && len(to.Allow) == 0
	if everybody := netip.PrefixFrom(netip.IPv4Unspecified(), 0); len(to.Allow) == 1 && to.Allow[0] == everybody {
		to.Allow = nil // tools write that for all, and mean IPv6 too
	}
	return closed
}

// names reads how the Service is called.
func (w *wish) names(site *Site) {
	text, chosen := w.service.Annotations[kubernetes.AnnotationHostname]
	if !chosen && len(site.Zones) > 0 {
		text = fmt.Sprintf("%s.%s.%s", w.service.Name, w.service.Namespace, site.Zones[0])
	}
	for name := range strings.SplitSeq(text, ",") {
		name = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
		if name == "" || slices.Contains(w.hostnames, name) {
			continue
		}
		if len(validation.IsDNS1123Subdomain(name)) > 0 {
			w.wrong("InvalidHostname", "%q is no hostname", name)
			continue
		}
		if !slices.ContainsFunc(site.Zones, func(z string) bool { return name == z || strings.HasSuffix(name, "."+z) }) {
			w.wrong("HostnameOutside", "%s is in no zone that is answered here (%s)", name, cmp.Or(strings.Join(site.Zones, ", "), "there is none"))
			continue
		}
		w.hostnames = append(w.hostnames, name)
	}
}

// wanted are the services of this host that w asks for.
func (w *wish) wanted(source func(kubernetes.Service) discovery.Source) []discovery.Service {
	var out []discovery.Service
	for _, p := range w.parts {
		if p.refused != "" {
			continue
		}
		k := p.source
		out = append(out, discovery.Service{
			Service:    p.service,
			Source:     source(k),
			SourceName: p.service.Name + "/kubernetes",
			SourceKey:  fmt.Sprintf("loadbalancer %s/%s %d %t %t", k.Namespace, k.Name, k.Port.Number, k.UDP, k.NodePort),
			OwnProbe:   p.probed,
		})
	}
	return out
}

// older orders Services by their age, which decides who has what both want.
func older(a, b *corev1.Service) int {
	return cmp.Or(a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time),
		cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
