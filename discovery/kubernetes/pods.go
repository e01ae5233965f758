package kubernetes

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/pool"
)

// annotationPrefix is that of all annotations of our own.
const annotationPrefix = "elbow.haslohas.com/"

// AnnotationHostname is where a Service says how it is called, a list with commas;
// external-dns reads it, too.
const AnnotationHostname = "external-dns.alpha.kubernetes.io/hostname"

// The annotations of a pod that are understood.
const (
	annotationWeight   = "elbow.haslohas.com/weight"   // its share of the connections, 0 to 256
	annotationPriority = "elbow.haslohas.com/priority" // higher ones stand by, 0 to 255
)

const (
	defaultWeight = 1
	maxWeight     = 256
	maxPriority   = 255
)

// Pods are the pods that a selector finds.
type Pods struct {
	Namespace string
	Selector  string // as in kubectl get --selector; empty: every pod of the namespace
	Port      Port   // of a container, its number or its name
	HostPort  bool   // connect to the node, at the hostPort of the container's port; else to the pod

	// IncludeExcluded has pods on nodes with the label
	// node.kubernetes.io/exclude-from-external-load-balancers taken like others.
	IncludeExcluded bool
}

// A Port is a port's number or its name.
type Port struct {
	Number uint16 // 0: Name counts
	Name   string
}

func (p Port) String() string {
	if p.Number != 0 {
		return strconv.Itoa(int(p.Number))
	}
	return p.Name
}

// Pods returns the Source of the endpoints that w describes.
func (c *Cluster) Pods(w Pods) discovery.Source {
	s := &source{cluster: c, name: "pods " + w.Namespace + " " + w.Selector}
	s.wanted = []interest{{kind: kindPod, namespace: w.Namespace, labels: w.Selector}}
	if w.HostPort {
		s.wanted = append(s.wanted, interest{kind: kindNode})
	}
	s.find = func(informers []*informer) finding {
		f := finding{ok: true}
		var pods []*corev1.Pod
		var nodes []*corev1.Node
		gather(&f, &pods)(known[*corev1.Pod](informers[0]))
		if w.HostPort {
			gather(&f, &nodes)(known[*corev1.Node](informers[1]))
		}
		if f.ok && f.Err == nil {
			f.Endpoints, f.complaints, f.Err = podEndpoints(w, pods, nodes)
		}
		return f
	}
	return s
}

// podEndpoints is what becomes of pods, which lie on nodes.
//
// A pod is in the set when its kubelet last said that its containers are
// ready, and its readiness gates are met. That is the pod's condition Ready
// but for one case: where a node is no longer heard of, the control plane sets
// Ready to false for every pod there, which it cannot know. Here the probe
// decides.
//
// Pods that cannot be reached as w asks are left out with a complaint; where
// that leaves nobody though there are pods that are ready, it is an error.
func podEndpoints(w Pods, pods []*corev1.Pod, nodes []*corev1.Node) (endpoints []pool.Endpoint, complaints []string, err error) {
	byName := nodesByName(nodes)
	for _, p := range pods {
		terminating := p.DeletionTimestamp != nil
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed || !terminating && !ready(p) {
			continue
		}
		node := byName[p.Spec.NodeName]
		address, why := podAddress(w, p, node)
		if why != "" {
			complaints = append(complaints, fmt.Sprintf("pod %s/%s %s", p.Namespace, p.Name, why))
			continue
		}
		e := pool.Endpoint{Address: address, Node: p.Spec.NodeName, Zone: p.Labels[corev1.LabelTopologyZone]}
		if e.Weight, why = annotated(p, annotationWeight, maxWeight, defaultWeight); why != "" {
			complaints = append(complaints, fmt.Sprintf("pod %s/%s %s", p.Namespace, p.Name, why))
		}
		if e.Priority, why = annotated(p, annotationPriority, maxPriority, 0); why != "" {
			complaints = append(complaints, fmt.Sprintf("pod %s/%s %s", p.Namespace, p.Name, why))
		}
		if terminating {
			e.Phase = pool.Terminating
		}
		if node != nil {
			e.Zone, e.Public = node.zone, node.public
			if node.excluded && !w.IncludeExcluded {
				e.Priority = lastPriority
			}
		}
		endpoints = append(endpoints, e)
	}
	if len(endpoints) == 0 && len(complaints) > 0 {
		return nil, nil, fmt.Errorf("no pod can be reached: %s", complaints[0])
	}
	return endpoints, complaints, nil
}

// ready reports whether the kubelet's last word is that p is ready.
func ready(p *corev1.Pod) bool {
	status := make(map[corev1.PodConditionType]bool, len(p.Status.Conditions))
	for _, c := range p.Status.Conditions {
		status[c.Type] = c.Status == corev1.ConditionTrue
	}
	containers, told := status[corev1.ContainersReady]
	if !told {
		return status[corev1.PodReady]
	}
	for _, g := range p.Spec.ReadinessGates {
		if !status[g.ConditionType] {
			return false
		}
	}
	return containers
}

// podAddress returns where p is connected to, or why it cannot be.
func podAddress(w Pods, p *corev1.Pod, node *node) (address netip.AddrPort, why string) {
	port, found := containerPort(p, w.Port)
	if !found {
		switch {
		case w.Port.Number == 0:
			return address, fmt.Sprintf("has no container port of the name %s%s", w.Port, itsPorts(p))
		case w.HostPort && !p.Spec.HostNetwork:
			return address, fmt.Sprintf("has no container port %s%s", w.Port, itsPorts(p))
		}
		port.ContainerPort = int32(w.Port.Number) // nobody has to declare what a container listens on
	}
	if !w.HostPort {
		ip, ok := podIP(p)
		if !ok {
			return address, "has no IP address yet"
		}
		return netip.AddrPortFrom(ip, uint16(port.ContainerPort)), ""
	}
	number := port.HostPort
	if number == 0 && p.Spec.HostNetwork {
		number = port.ContainerPort
	}
	if number == 0 {
		return address, fmt.Sprintf("has no hostPort for its container port %s; give it one, or use via: podIP", w.Port)
	}
	if bound, err := netip.ParseAddr(port.HostIP); err == nil && !bound.IsUnspecified() {
		return netip.AddrPortFrom(bound.Unmap(), uint16(number)), ""
	}
	if node != nil && node.internal.IsValid() {
		return netip.AddrPortFrom(node.internal, uint16(number)), ""
	}
	if ip, err := netip.ParseAddr(p.Status.HostIP); err == nil {
		return netip.AddrPortFrom(ip.Unmap(), uint16(number)), ""
	}
	return address, fmt.Sprintf("is on node %s, which has no InternalIP", p.Spec.NodeName)
}

// containerPort returns the port of p's containers that want is about: one for
// TCP, else one of another protocol.
func containerPort(p *corev1.Pod, want Port) (found corev1.ContainerPort, ok bool) {
	for c := range allContainers(p) {
		for _, port := range c.Ports {
			if want.Number != 0 && port.ContainerPort != int32(want.Number) || want.Number == 0 && port.Name != want.Name {
				continue
			}
			if port.Protocol == corev1.ProtocolTCP || port.Protocol == "" {
				return port, true
			}
			if !ok {
				found, ok = port, true
			}
		}
	}
	return found, ok
}

// allContainers walks the containers of p that serve: sidecars stand among
// those for initialization.
func allContainers(p *corev1.Pod) func(yield func(*corev1.Container) bool) {
	return func(yield func(*corev1.Container) bool) {
		for i := range p.Spec.Containers {
			if !yield(&p.Spec.Containers[i]) {
				return
			}
		}
		for i := range p.Spec.InitContainers {
			c := &p.Spec.InitContainers[i]
			if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways && !yield(c) {
				return
			}
		}
	}
}

// itsPorts lists the container ports of p, for a message.
func itsPorts(p *corev1.Pod) string {
	var ports []string
	for c := range allContainers(p) {
		for _, port := range c.Ports {
			s := strconv.Itoa(int(port.ContainerPort))
			if port.Name != "" {
				s += " (" + port.Name + ")"
			}
			ports = append(ports, s)
		}
	}
	if len(ports) == 0 {
		return ", it has none"
	}
	slices.Sort(ports)
	return ", it has " + strings.Join(slices.Compact(ports), ", ")
}

// podIP returns the address of p in its primary family.
func podIP(p *corev1.Pod) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(p.Status.PodIP)
	return ip.Unmap(), err == nil
}

// annotated returns the number that an annotation of p says and, where that is
// of no use, why it is the usual one.
func annotated(p *corev1.Pod, annotation string, most, usual int) (n int, why string) {
	text, ok := p.Annotations[annotation]
	if !ok {
		return usual, ""
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return usual, fmt.Sprintf("has the annotation %s: %q, want a number from 0 to %d; it counts as %d", annotation, text, most, usual)
	}
	return n, ""
}
