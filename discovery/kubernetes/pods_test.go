package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"haslohas.com/elbow/pool"
)

// apache returns a pod of the original setup on minion1, which is ready, and
// changed by what follows.
func apache(changes ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "http-1"},
		Spec: corev1.PodSpec{NodeName: "minion1", Containers: []corev1.Container{{
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 80, HostPort: 8080, Protocol: corev1.ProtocolTCP}},
		}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, HostIP: "172.31.8.99", PodIP: "10.244.0.1",
			Conditions: []corev1.PodCondition{
				{Type: corev1.PodReady, Status: corev1.ConditionTrue},
				{Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
			},
		},
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

func named(name, ip string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Name, p.Status.PodIP = name, ip }
}

func on(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }

func condition(c corev1.PodConditionType, status corev1.ConditionStatus) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = slices.DeleteFunc(p.Status.Conditions, func(old corev1.PodCondition) bool { return old.Type == c })
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: c, Status: status})
	}
}

func without(c corev1.PodConditionType) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = slices.DeleteFunc(p.Status.Conditions, func(old corev1.PodCondition) bool { return old.Type == c })
	}
}

func gated(p *corev1.Pod) { p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "lb"}} }

func terminating(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }

func weighs(w string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{annotationWeight: w} }
}

func standsBy(priority string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{annotationPriority: priority} }
}

func ports(ports ...corev1.ContainerPort) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Ports = ports }
}

func hostNetwork(p *corev1.Pod) { p.Spec.HostNetwork = true }

func phase(phase corev1.PodPhase) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Phase = phase }
}

// minion returns a node with addresses, of which those in 203.0.113.0/24 are
// external.
func minion(name string, addresses ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: "a"}}}
	for _, a := range addresses {
		kind := corev1.NodeInternalIP
		if strings.HasPrefix(a, "203.0.113.") {
			kind = corev1.NodeExternalIP
		}
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: kind, Address: a})
	}
	return n
}

func excluded(n *corev1.Node) *corev1.Node {
	n.Labels[corev1.LabelNodeExcludeBalancers] = ""
	return n
}

// show writes endpoints as ADDRESS node=… zone=… public=… weight=… phase, each
// where it says something, in the order of the addresses.
func show(endpoints []pool.Endpoint) string {
	lines := make([]string, len(endpoints))
	for i, e := range endpoints {
		s := e.Address.String()
		if e.Node != "" {
			s += " " + e.Node
		}
		if e.Zone != "" {
			s += " zone=" + e.Zone
		}
		for _, a := range e.Public {
			s += " public=" + a.String()
		}
		if e.Weight != 1 {
			s += fmt.Sprintf(" weight=%d", e.Weight)
		}
		if e.Priority != 0 {
			s += fmt.Sprintf(" priority=%d", e.Priority)
		}
		if e.Phase == pool.Terminating {
			s += " terminating"
		}
		lines[i] = s
	}
	slices.Sort(lines)
	return strings.Join(lines, "; ")
}

var (
	hostPort80 = Pods{Port: Port{Number: 80}, HostPort: true}
	podIP80    = Pods{Port: Port{Number: 80}}
)

func TestPods(t *testing.T) {
	minion1 := minion("minion1", "172.31.8.233", "203.0.113.1", "203.0.113.2")
	minion2 := minion("minion2", "172.31.8.18")
	const first = "172.31.8.233:8080 minion1 zone=a public=203.0.113.1 public=203.0.113.2"
	pods := func(p ...*corev1.Pod) []*corev1.Pod { return p }
	nodes := func(n ...*corev1.Node) []*corev1.Node { return n }
	tests := []struct {
		name  string
		what  Pods
		pods  []*corev1.Pod
		nodes []*corev1.Node
		want  string
	}{
		{"at the hostPort of the node", hostPort80, pods(apache()), nodes(minion1), first},
		{"at the pod", podIP80, pods(apache()), nil, "10.244.0.1:80 minion1"},
		{"by the name of the port", Pods{Port: Port{Name: "web"}, HostPort: true}, pods(apache()), nodes(minion1), first},
		{"at a port nobody declared", Pods{Port: Port{Number: 9000}}, pods(apache()), nil, "10.244.0.1:9000 minion1"},
		{"the port for TCP, of two with one number", Pods{Port: Port{Number: 53}, HostPort: true},
			pods(apache(ports(corev1.ContainerPort{ContainerPort: 53, HostPort: 1053, Protocol: corev1.ProtocolUDP},
				corev1.ContainerPort{ContainerPort: 53, HostPort: 2053, Protocol: corev1.ProtocolTCP}))), nil, "172.31.8.99:2053 minion1"},
		{"a node not known yet: where the pod says it is", hostPort80, pods(apache()), nil, "172.31.8.99:8080 minion1"},
		{"a hostPort bound to an address", hostPort80,
			pods(apache(ports(corev1.ContainerPort{ContainerPort: 80, HostPort: 80, HostIP: "172.31.8.7"}))), nodes(minion2), "172.31.8.7:80 minion1"},
		{"in the network of the host", hostPort80, pods(apache(hostNetwork, ports())), nodes(minion1),
			"172.31.8.233:80 minion1 zone=a public=203.0.113.1 public=203.0.113.2"},
		{"of two families the first", hostPort80, pods(apache()), nodes(minion("minion1", "2001:db8::1", "172.31.8.233")), "[2001:db8::1]:8080 minion1 zone=a"},

		{"not ready", hostPort80, pods(apache(condition(corev1.PodReady, corev1.ConditionFalse), condition(corev1.ContainersReady, corev1.ConditionFalse))), nil, ""},
		{"ready, and nobody speaks of containers", podIP80, pods(apache(without(corev1.ContainersReady))), nil, "10.244.0.1:80 minion1"},
		{"not ready, and nobody speaks of containers", podIP80,
			pods(apache(without(corev1.ContainersReady), condition(corev1.PodReady, corev1.ConditionFalse))), nil, ""},
		{"not ready because the node is not heard of: the probe decides", podIP80, pods(apache(condition(corev1.PodReady, corev1.ConditionFalse))), nil, "10.244.0.1:80 minion1"},
		{"a readiness gate that is not met", podIP80, pods(apache(gated, condition(corev1.PodReady, corev1.ConditionFalse))), nil, ""},
		{"a readiness gate that is met", podIP80, pods(apache(gated, condition("lb", corev1.ConditionTrue))), nil, "10.244.0.1:80 minion1"},
		{"terminating", podIP80, pods(apache(terminating)), nil, "10.244.0.1:80 minion1 terminating"},
		{"terminating and no longer ready", podIP80, pods(apache(terminating, condition(corev1.ContainersReady, corev1.ConditionFalse))), nil, "10.244.0.1:80 minion1 terminating"},
		{"terminating and ended", podIP80, pods(apache(terminating, phase(corev1.PodSucceeded))), nil, ""},
		{"evicted", podIP80, pods(apache(phase(corev1.PodFailed))), nil, ""},

		{"that stands by", podIP80, pods(apache(), apache(named("http-2", "10.244.0.2"), standsBy("1"))), nil,
			"10.244.0.1:80 minion1; 10.244.0.2:80 minion1 priority=1"},
		{"with a weight", podIP80, pods(apache(weighs("7")), apache(named("http-2", "10.244.0.2"), weighs("0"))), nil,
			"10.244.0.1:80 minion1 weight=7; 10.244.0.2:80 minion1 weight=0"},
		{"an excluded node, beside another", hostPort80, pods(apache(), apache(on("minion2"))), nodes(excluded(minion("minion1", "172.31.8.233")), minion2),
			"172.31.8.18:8080 minion2 zone=a; 172.31.8.233:8080 minion1 zone=a priority=255"},
		{"excluded nodes alone", hostPort80, pods(apache()), nodes(excluded(minion("minion1", "172.31.8.233"))), "172.31.8.233:8080 minion1 zone=a priority=255"},
		{"an excluded node that is not to be", Pods{Port: Port{Number: 80}, HostPort: true, IncludeExcluded: true}, pods(apache(), apache(on("minion2"))),
			nodes(excluded(minion("minion1", "172.31.8.233")), minion2), "172.31.8.18:8080 minion2 zone=a; 172.31.8.233:8080 minion1 zone=a"},
		{"nobody", podIP80, nil, nil, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, complaints, err := podEndpoints(test.what, stripAll(test.pods, stripPod), stripAll(test.nodes, stripNode))
			if err != nil || len(complaints) > 0 {
				t.Fatalf("error %v, complaints %q", err, complaints)
			}
			if got := show(got); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// stripAll strips objects as the informers do, twice, as they may.
func stripAll[T any](objects []T, strip func(T) T) []T {
	out := make([]T, len(objects))
	for i, o := range objects {
		out[i] = strip(strip(o))
	}
	return out
}

func TestPodsThatCannotBeReached(t *testing.T) {
	good := apache()
	tests := []struct {
		name string
		what Pods
		pod  *corev1.Pod
		want string
	}{
		{"no hostPort", hostPort80, apache(ports(corev1.ContainerPort{ContainerPort: 80})),
			"pod default/bad has no hostPort for its container port 80; give it one, or use via: podIP"},
		{"no such port", Pods{Port: Port{Number: 81}, HostPort: true}, apache(), "pod default/bad has no container port 81, it has 80 (web)"},
		{"no port of that name", Pods{Port: Port{Name: "www"}}, apache(ports()), "pod default/bad has no container port of the name www, it has none"},
		{"no address", podIP80, apache(named("", "")), "pod default/bad has no IP address yet"},
		{"no address of the node", hostPort80, apache(func(p *corev1.Pod) { p.Status.HostIP = "" }), "pod default/bad is on node minion1, which has no InternalIP"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.pod.Name = "bad"
			if got, _, err := podEndpoints(test.what, []*corev1.Pod{test.pod}, nil); got != nil || err == nil || err.Error() != "no pod can be reached: "+test.want {
				t.Errorf("alone: got %v, error %v\nwant %s", got, err, test.want)
			}
		})
	}
	t.Run("beside one that can be", func(t *testing.T) {
		bad := apache(named("bad", "10.244.0.9"), ports(corev1.ContainerPort{ContainerPort: 80}))
		got, complaints, err := podEndpoints(hostPort80, []*corev1.Pod{bad, good}, nil)
		if err != nil || len(got) != 1 || len(complaints) != 1 {
			t.Errorf("got %s, complaints %q, error %v; want one of each and no error", show(got), complaints, err)
		}
	})
	t.Run("a weight that is none", func(t *testing.T) {
		for _, w := range []string{"", "-1", "257", "heavy", "1.5"} {
			got, complaints, err := podEndpoints(podIP80, []*corev1.Pod{apache(weighs(w))}, nil)
			if err != nil || len(got) != 1 || got[0].Weight != 1 || len(complaints) != 1 {
				t.Errorf("%q: got %s, complaints %q, error %v", w, show(got), complaints, err)
			}
		}
	})
}
