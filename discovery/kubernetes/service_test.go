package kubernetes

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"haslohas.com/elbow/discovery"
)

func yes() *bool { return new(true) }
func no() *bool  { return new(false) }

// web returns a Service with a port 80 called http, changed by what follows.
func web(changes ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeNodePort,
			ClusterIP:  "10.96.0.7",
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{
				{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, NodePort: 30080},
				{Name: "metrics", Port: 9090, Protocol: corev1.ProtocolTCP, NodePort: 30090},
			},
		},
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

func local(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	s.Spec.HealthCheckNodePort = 32000
}

// slice returns a slice of IPv4 whose port http is 8080.
func slice(endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{
			{Name: new("metrics"), Port: new(int32(9100)), Protocol: new(corev1.ProtocolTCP)},
			{Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)},
		},
		Endpoints: endpoints,
	}
}

// at returns an endpoint with the conditions ready, serving and terminating.
func at(address, node string, ready, serving, terminating *bool) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses:  []string{address},
		Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: serving, Terminating: terminating},
		NodeName:   new(node), Zone: new("b"),
		Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "elsewhere"}}},
	}
}

func TestServices(t *testing.T) {
	byPod := Service{Port: Port{Number: 80}}
	byNode := Service{Port: Port{Name: "http"}, NodePort: true}
	one := at("10.244.0.1", "minion1", yes(), yes(), no())
	two := at("10.244.0.2", "minion2", yes(), yes(), no())
	starting := at("10.244.0.2", "minion2", no(), no(), no())
	ending := at("10.244.0.2", "minion2", no(), yes(), yes())
	ended := at("10.244.0.2", "minion2", no(), no(), yes())
	v6 := slice(at("2001:db8::1", "minion1", yes(), yes(), no()))
	v6.AddressType = discoveryv1.AddressTypeIPv6
	named := slice(at("www.example", "minion1", yes(), yes(), no()))
	named.AddressType = discoveryv1.AddressTypeFQDN
	otherPort := slice(two)
	otherPort.Ports[1].Port = new(int32(8888))
	noPorts := slice(one)
	noPorts.Ports = nil
	slices := func(s ...*discoveryv1.EndpointSlice) []*discoveryv1.EndpointSlice { return s }
	nodes := []*corev1.Node{minion("minion1", "172.31.8.233", "203.0.113.1"), minion("minion2", "172.31.8.18"), minion("strange")}
	const pod1, pod2 = "10.244.0.1:8080 minion1 zone=b", "10.244.0.2:8080 minion2 zone=b"
	const node1, node2 = "172.31.8.233:30080 minion1 zone=a public=203.0.113.1", "172.31.8.18:30080 minion2 zone=a"
	tests := []struct {
		name   string
		what   Service
		web    *corev1.Service
		slices []*discoveryv1.EndpointSlice
		want   string
	}{
		{"the pods that are ready", byPod, web(), slices(slice(one, two)), pod1 + "; " + pod2},
		{"one is not ready yet", byPod, web(), slices(slice(one, starting)), pod1},
		{"nothing is said: ready", byPod, web(), slices(slice(at("10.244.0.1", "minion1", nil, nil, nil))), pod1},
		{"one terminates and serves on", byPod, web(), slices(slice(one, ending)), pod1 + "; " + pod2 + " terminating"},
		{"one terminates and does not serve", byPod, web(), slices(slice(one, ended)), pod1 + "; " + pod2 + " terminating"},
		{"all terminate: who still can serves", byPod, web(), slices(slice(ending)), pod2},
		{"all terminate and nobody can", byPod, web(), slices(slice(ended)), pod2 + " terminating"},
		{"in two slices at once", byPod, web(), slices(slice(one), slice(one, two)), pod1 + "; " + pod2},
		{"ready in one slice, terminating in another", byPod, web(), slices(slice(one, ending), slice(two)), pod1 + "; " + pod2},
		{"slices with a port each, in a rollout", byPod, web(), slices(slice(one), otherPort), pod1 + "; 10.244.0.2:8888 minion2 zone=b"},
		{"two families: the first of the Service", byPod, web(), slices(v6, slice(one)), pod1},
		{"two families: IPv6 first", byPod, web(func(s *corev1.Service) {
			s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
		}),
			slices(v6, slice(one)), "[2001:db8::1]:8080 minion1 zone=b"},
		{"names are no addresses", byPod, web(), slices(named, slice(one)), pod1},
		{"headless", byPod, web(func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }), slices(slice(one)), pod1},
		{"a slice without the port", byPod, web(), slices(noPorts), ""},
		{"no slices", byPod, web(), nil, ""},

		{"every node", byNode, web(), slices(slice(one)), node2 + "; " + node1},
		{"every node, though nobody is ready: the probe decides", byNode, web(), nil, node2 + "; " + node1},
		{"local: the nodes that run one", byNode, web(local), slices(slice(one, starting)), node1},
		{"local: one drains", byNode, web(local), slices(slice(one, ending)), node2 + " terminating; " + node1},
		{"local: nobody", byNode, web(local), nil, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u, complaints := serviceEndpoints(test.what, stripService(test.web), stripAll(test.slices, stripSlice), stripAll(nodes, stripNode))
			if u.Err != nil || len(complaints) > 0 {
				t.Fatalf("error %v, complaints %q", u.Err, complaints)
			}
			if got := show(u.Endpoints); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			var probe discovery.Probe
			if strings.HasPrefix(test.name, "local") {
				probe = discovery.Probe{Port: 32000, Path: "/healthz"}
			}
			if u.Probe != probe {
				t.Errorf("probe %+v, want %+v", u.Probe, probe)
			}
		})
	}
}

func TestServicesThatHaveNoEndpoints(t *testing.T) {
	clusterIP := func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP }
	tests := []struct {
		name string
		what Service
		web  *corev1.Service
		want string
	}{
		{"ExternalName", Service{Port: Port{Number: 80}}, web(func(s *corev1.Service) {
			s.Spec.Type, s.Spec.ExternalName = corev1.ServiceTypeExternalName, "www.example"
		}), "service default/web is an alias for www.example (type ExternalName) and has no endpoints; give the addresses behind that name as static backends"},
		{"no such port", Service{Port: Port{Number: 81}}, web(), "service default/web has no port 81, it has 80 (http), 9090 (metrics)"},
		{"no port of that name", Service{Port: Port{Name: "web"}}, web(), "service default/web has no port web, it has 80 (http), 9090 (metrics)"},
		{"node port of a ClusterIP", Service{Port: Port{Number: 80}, NodePort: true}, web(clusterIP),
			"service default/web is of type ClusterIP and has no node ports; use via: podIP, or make it of type NodePort"},
		{"node port of a headless one", Service{Port: Port{Number: 80}, NodePort: true}, web(clusterIP, func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone }),
			"service default/web is headless and has no node ports"},
		{"node port not allocated", Service{Port: Port{Number: 80}, NodePort: true}, web(func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 0 }),
			"service default/web has no node port for its port 80 (allocateLoadBalancerNodePorts: false?); use via: podIP"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			u, _ := serviceEndpoints(test.what, stripService(test.web), nil, nil)
			if u.Err == nil || !strings.HasPrefix(u.Err.Error(), test.want) {
				t.Errorf("error %v\nwant  %s", u.Err, test.want)
			}
		})
	}
}
