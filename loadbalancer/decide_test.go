package loadbalancer

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"haslohas.com/elbow/discovery"
)

// A host is a Front.
type host struct {
	listeners map[string]Listener
	answers   []string
	conflicts []discovery.Conflict
}

func (h host) Listeners() map[string]Listener  { return h.listeners }
func (h host) Conflicts() []discovery.Conflict { return h.conflicts }
func (h host) Answers(name string) bool {
	for _, a := range h.answers {
		if a == name {
			return true
		}
	}
	return false
}

const shopName = "shop.default.public.haslohas.com"

// said is a verdict in words.
func said(v verdict) string {
	var out []string
	for _, x := range []struct {
		set  bool
		text string
	}{{v.finalize, "finalize"}, {v.release, "release"}, {v.status, "status"}, {v.pending, "pending"}} {
		if x.set {
			out = append(out, x.text)
		}
	}
	out = append(out, "is "+stateNames[v.state])
	for _, i := range v.ingress {
		mode := ""
		if i.IPMode != nil {
			mode = string(*i.IPMode)
		}
		l := strings.Join(strings.Fields(i.IP+" "+i.Hostname+" "+mode), " ")
		for _, p := range i.Ports {
			l += fmt.Sprintf(" %d/%s", p.Port, p.Protocol)
			if p.Error != nil {
				l += " " + strings.TrimPrefix(*p.Error, prefix)
			}
		}
		out = append(out, "at "+l)
	}
	for _, p := range v.problems {
		out = append(out, "! "+p.Reason+": "+p.Text)
	}
	return strings.Join(out, "\n")
}

func TestDecide(t *testing.T) {
	open := map[string]Listener{"default/shop": {Open: true}}
	well := host{listeners: open, answers: []string{shopName}}
	const reached = "at 192.0.2.1 shop.default.public.haslohas.com Proxy 80/TCP"
	ingress := []corev1.LoadBalancerIngress{{IP: "192.0.2.1", Hostname: shopName, IPMode: ptr(corev1.LoadBalancerIPModeProxy),
		Ports: []corev1.PortStatus{{Port: 80, Protocol: corev1.ProtocolTCP}}}}
	withStatus := func(s *corev1.Service) { s.Status.LoadBalancer.Ingress = ingress }
	tests := map[string]struct {
		service *corev1.Service
		host    host
		want    string
	}{
		"new":                  {shop(func(s *corev1.Service) { s.Finalizers = nil }), host{}, "finalize\npending\nis pending"},
		"nothing is open":      {shop(), host{}, "pending\nis pending"},
		"about to open":        {shop(), host{listeners: map[string]Listener{"default/shop": {}}}, "pending\nis pending"},
		"no answer yet":        {shop(), host{listeners: open}, "pending\nis pending"},
		"it is reached":        {shop(), well, "status\nis serving\n" + reached},
		"it is, as is written": {shop(withStatus), well, "is serving\n" + reached},
		"pending takes nothing back": {shop(withStatus), host{listeners: map[string]Listener{"default/shop": {}}},
			"pending\nis pending"},
		"it cannot listen": {shop(withStatus), host{answers: well.answers, listeners: map[string]Listener{"default/shop": {Err: errors.New("address already in use")}}},
			"status\nis refused\n! ListenFailed: port 80/TCP: address already in use"},
		"another has the port": {shop(), host{answers: well.answers, conflicts: []discovery.Conflict{{Service: "default/shop", Claim: "listener 0.0.0.0:80", Holder: "default/older"}}},
			"is refused\n! PortConflict: port 80/TCP belongs to Service default/older"},
		"the configuration has the name": {shop(), host{listeners: open, conflicts: []discovery.Conflict{{Service: "default/shop", Claim: "name " + shopName, Holder: "web"}}},
			"status\nis serving\nat 192.0.2.1 Proxy 80/TCP\n! HostnameConflict: " + shopName + ` belongs to service "web" of elbow's configuration`},
		"one of two ports": {shop(ports(port("http", 80), port("admin", 81))), host{answers: well.answers,
			listeners: map[string]Listener{"default/shop:http": {Open: true}},
			conflicts: []discovery.Conflict{{Service: "default/shop:admin", Claim: "listener 0.0.0.0:81", Holder: "a/b"}}},
			"status\nis serving\nat 192.0.2.1 shop.default.public.haslohas.com Proxy 80/TCP 81/TCP PortConflict\n! PortConflict: port 81/TCP belongs to Service a/b"},
		"two names": {shop(annotated(hostnameKey + "a.haslohas.org,b.haslohas.org")), host{listeners: open, answers: []string{"a.haslohas.org", "b.haslohas.org"}},
			"status\nis serving\nat 192.0.2.1 a.haslohas.org Proxy 80/TCP\nat b.haslohas.org 80/TCP"},
		"direct": {shop(annotated("answer direct")), well, "status\nis serving\nat shop.default.public.haslohas.com 80/TCP"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := read(test.service, here())
			if diff := cmp.Diff(test.want, said(decide(&w, look(test.host), []string{"192.0.2.1"}))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestFarewell(t *testing.T) {
	going := shop(func(s *corev1.Service) {
		s.DeletionTimestamp = &metav1.Time{}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
	})
	names := []string{"default/shop"}
	open := host{listeners: map[string]Listener{"default/shop": {Open: true}}}
	if got := said(farewell(going, names, look(open))); got != "pending\nis leaving" {
		t.Errorf("while it is open: %s", got)
	}
	if got := said(farewell(going, names, look(host{}))); got != "release\nstatus\nis leaving" {
		t.Errorf("once it is closed: %s", got)
	}
	going.Status = corev1.ServiceStatus{}
	if got := said(farewell(going, names, look(host{}))); got != "release\nis leaving" {
		t.Errorf("without a status: %s", got)
	}
}

// A Service that another load balancer has taken over is not touched any more.
func TestLeft(t *testing.T) {
	s := &service{object: shop(), class: ourClassName}
	for name, test := range map[string]struct {
		now  *corev1.Service
		left bool
	}{
		"as it was":               {shop(), false},
		"of another class":        {shop(func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr("example.com/other") }), true},
		"of no class":             {shop(func(s *corev1.Service) { s.Spec.LoadBalancerClass = nil }), true},
		"of another type":         {shop(func(s *corev1.Service) { s.Spec.Type, s.Spec.LoadBalancerClass = corev1.ServiceTypeClusterIP, nil }), false},
		"of another type, let go": {shop(func(s *corev1.Service) { s.Spec.Type, s.Finalizers = corev1.ServiceTypeClusterIP, nil }), true},
	} {
		if got := s.left(test.now); got != test.left {
			t.Errorf("%s: left is %t", name, got)
		}
	}
}
