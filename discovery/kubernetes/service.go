package kubernetes

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/pool"
)

// A Service is what stands behind a Service of the cluster.
type Service struct {
	Namespace string
	Name      string
	Port      Port // of the Service, its number or its name
	UDP       bool // the port is for UDP; false: for TCP where there is such a one
	NodePort  bool // connect to the nodes, at the Service's node port; else to the pods

	// IncludeExcluded has nodes with the label
	// node.kubernetes.io/exclude-from-external-load-balancers taken like others.
	IncludeExcluded bool
}

// Service returns the Source of the endpoints that w describes.
func (c *Cluster) Service(w Service) discovery.Source {
	s := &source{cluster: c, name: "service " + w.Namespace + "/" + w.Name}
	s.wanted = []interest{
		{kind: kindService, namespace: w.Namespace, fields: "metadata.name=" + w.Name},
		{kind: kindSlice, namespace: w.Namespace, labels: discoveryv1.LabelServiceName + "=" + w.Name},
	}
	if w.NodePort {
		s.wanted = append(s.wanted, interest{kind: kindNode})
	}
	s.find = func(informers []*informer) finding {
		f := finding{ok: true}
		var services []*corev1.Service
		var slices []*discoveryv1.EndpointSlice
		var nodes []*corev1.Node
		gather(&f, &services)(known[*corev1.Service](informers[0]))
		gather(&f, &slices)(known[*discoveryv1.EndpointSlice](informers[1]))
		if w.NodePort {
			gather(&f, &nodes)(known[*corev1.Node](informers[2]))
		}
		switch {
		case !f.ok || f.Err != nil:
		case len(services) == 0:
			f.complaints = []string{fmt.Sprintf("service %s/%s does not exist: it has no backends", w.Namespace, w.Name)}
		default:
			f.Update, f.complaints = serviceEndpoints(w, services[0], slices, nodes)
		}
		return f
	}
	return s
}

// serviceEndpoints is what becomes of a Service, by its slices and the nodes.
func serviceEndpoints(w Service, s *corev1.Service, slices []*discoveryv1.EndpointSlice, nodes []*corev1.Node) (discovery.Update, []string) {
	port, err := servicePort(w, s)
	if err != nil {
		return discovery.Update{Err: err}, nil
	}
	behind := behindService(s, slices, port)
	if w.NodePort {
		return nodePorts(w, s, port, behind, nodesByName(nodes)), nil
	}
	return discovery.Update{Endpoints: behind}, nil
}

// servicePort returns the port of s that w is about.
func servicePort(w Service, s *corev1.Service) (corev1.ServicePort, error) {
	at := s.Namespace + "/" + s.Name
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return corev1.ServicePort{}, fmt.Errorf("service %s is an alias for %s (type ExternalName) and has no endpoints; "+
			"give the addresses behind that name as static backends", at, s.Spec.ExternalName)
	}
	headless := s.Spec.ClusterIP == corev1.ClusterIPNone
	if w.NodePort && (headless || s.Spec.Type == corev1.ServiceTypeClusterIP || s.Spec.Type == "") {
		kind := "of type ClusterIP"
		if headless {
			kind = "headless"
		}
		return corev1.ServicePort{}, fmt.Errorf("service %s is %s and has no node ports; use via: podIP, or make it of type NodePort", at, kind)
	}
	var best *corev1.ServicePort
	var names []string
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		name := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			name += " (" + p.Name + ")"
		}
		names = append(names, name)
		if w.Port.Number != 0 && p.Port != int32(w.Port.Number) || w.Port.Number == 0 && p.Name != w.Port.Name {
			continue
		}
		if w.UDP && p.Protocol != corev1.ProtocolUDP {
			continue
		}
		if best == nil || best.Protocol != corev1.ProtocolTCP && p.Protocol == corev1.ProtocolTCP {
			best = p
		}
	}
	switch {
	case best == nil && headless && len(s.Spec.Ports) == 0 && w.Port.Number != 0:
		return corev1.ServicePort{}, nil // a headless Service needs no ports: the number is the pods' own
	case best == nil:
		return corev1.ServicePort{}, fmt.Errorf("service %s has no port %s, it has %s", at, w.Port, strings.Join(names, ", "))
	case w.NodePort && best.NodePort == 0:
		return corev1.ServicePort{}, fmt.Errorf("service %s has no node port for its port %s (allocateLoadBalancerNodePorts: false?); use via: podIP", at, w.Port)
	}
	return *best, nil
}

// behindService returns the pods, or what else stands in the slices, behind
// port, by the rules of KEP-1669: endpoints that are ready serve; one that
// terminates is drained, but where none is ready those serve that still can
// while they terminate. Of a Service with two address families the first
// counts. An endpoint may stand in several slices for a while.
func behindService(s *corev1.Service, all []*discoveryv1.EndpointSlice, port corev1.ServicePort) []pool.Endpoint {
	family := family(s, all)
	var serving, terminating, still []pool.Endpoint
	for _, slice := range all {
		if slice.AddressType != family {
			continue
		}
		number, ok := slicePort(slice, port)
		if !ok {
			continue
		}
		for _, e := range slice.Endpoints {
			ip, ok := firstAddress(e)
			if !ok {
				continue
			}
			out := pool.Endpoint{Address: netip.AddrPortFrom(ip, number), Weight: defaultWeight}
			if e.NodeName != nil {
				out.Node = *e.NodeName
			}
			if e.Zone != nil {
				out.Zone = *e.Zone
			}
			ready := e.Conditions.Ready == nil || *e.Conditions.Ready
			able := e.Conditions.Serving == nil && ready || e.Conditions.Serving != nil && *e.Conditions.Serving
			switch {
			case e.Conditions.Terminating != nil && *e.Conditions.Terminating:
				if able {
					still = append(still, out)
				}
				out.Phase = pool.Terminating
				terminating = append(terminating, out)
			case ready:
				serving = append(serving, out)
			}
		}
	}
	if len(serving) == 0 {
		serving = still
	}
	// Of two at one address the one that serves counts, which comes first.
	out := slices.Concat(serving, terminating)
	slices.SortStableFunc(out, func(a, b pool.Endpoint) int { return a.Address.Compare(b.Address) })
	return slices.CompactFunc(out, func(a, b pool.Endpoint) bool { return a.Address == b.Address })
}

// family returns the kind of addresses that counts: the first that the Service
// has or, where it does not say so, that there are slices of.
func family(s *corev1.Service, all []*discoveryv1.EndpointSlice) discoveryv1.AddressType {
	if len(s.Spec.IPFamilies) > 0 {
		return discoveryv1.AddressType(s.Spec.IPFamilies[0])
	}
	for _, slice := range all {
		if slice.AddressType == discoveryv1.AddressTypeIPv4 {
			return discoveryv1.AddressTypeIPv4
		}
	}
	return discoveryv1.AddressTypeIPv6
}

// slicePort returns the number that the port of the Service has in a slice.
func slicePort(s *discoveryv1.EndpointSlice, port corev1.ServicePort) (uint16, bool) {
	for _, p := range s.Ports {
		name, protocol := "", corev1.ProtocolTCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		want := port.Protocol
		if want == "" {
			want = corev1.ProtocolTCP
		}
		if name == port.Name && protocol == want && p.Port != nil && *p.Port > 0 && *p.Port <= 65535 {
			return uint16(*p.Port), true
		}
	}
	return 0, false
}

// firstAddress returns the address of e. There is one (KEP-752); more would be
// for the same thing.
func firstAddress(e discoveryv1.Endpoint) (netip.Addr, bool) {
	if len(e.Addresses) == 0 {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(e.Addresses[0])
	if err != nil || ip.IsUnspecified() {
		return netip.Addr{}, false
	}
	return ip.Unmap(), true
}

// nodePorts returns the nodes, each of which leads to what is behind the
// Service. With externalTrafficPolicy: Local each leads only to what it runs
// itself, and answers at the health check node port whether it runs any.
func nodePorts(w Service, s *corev1.Service, port corev1.ServicePort, behind []pool.Endpoint, nodes map[string]*node) discovery.Update {
	local := s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
	phases := make(map[string]pool.Phase)
	for _, e := range behind {
		if phase, ok := phases[e.Node]; !ok || phase == pool.Terminating {
			phases[e.Node] = e.Phase
		}
	}
	var u discovery.Update
	for _, n := range nodes {
		if !n.internal.IsValid() {
			continue
		}
		e := pool.Endpoint{
			Address: netip.AddrPortFrom(n.internal, uint16(port.NodePort)),
			Node:    n.name,
			Public:  n.public,
			Zone:    n.zone,
			Weight:  defaultWeight,
		}
		if local {
			phase, runs := phases[n.name]
			if !runs {
				continue
			}
			e.Phase = phase
		}
		if n.leaving {
			e.Phase = pool.Terminating
		}
		if n.excluded && !w.IncludeExcluded {
			e.Priority = lastPriority
		}
		u.Endpoints = append(u.Endpoints, e)
	}
	if check := s.Spec.HealthCheckNodePort; local && check > 0 && check <= 65535 {
		u.Probe = discovery.Probe{Port: uint16(check), Path: "/healthz"}
	}
	return u
}
