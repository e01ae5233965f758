package kubernetes

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// lastPriority is that of the endpoints on excluded nodes: they stand by. The
// label says which nodes to use; it is no order to close a service whose nodes
// all have it, as that of a cluster with one node, or whose others are down.
const lastPriority = maxPriority

// A node is what is used of one.
type node struct {
	name     string
	internal netip.Addr // the first InternalIP, of the primary family; invalid: it has none
	public   []netip.Addr
	zone     string
	excluded bool // by its label
	leaving  bool // it is being deleted
}

func nodesByName(nodes []*corev1.Node) map[string]*node {
	byName := make(map[string]*node, len(nodes))
	for _, n := range nodes {
		byName[n.Name] = readNode(n)
	}
	return byName
}

func readNode(n *corev1.Node) *node {
	out := &node{name: n.Name, zone: n.Labels[corev1.LabelTopologyZone], leaving: n.DeletionTimestamp != nil}
	_, out.excluded = n.Labels[corev1.LabelNodeExcludeBalancers] // its value says nothing
	for _, a := range n.Status.Addresses {
		ip, err := netip.ParseAddr(a.Address)
		if err != nil || ip.IsUnspecified() || ip.Zone() != "" {
			continue
		}
		switch a.Type {
		case corev1.NodeInternalIP:
			if !out.internal.IsValid() {
				out.internal = ip.Unmap()
			}
		case corev1.NodeExternalIP:
			out.public = append(out.public, ip.Unmap())
		}
	}
	return out
}
