package loadbalancer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"haslohas.com/elbow/pool"
)

const ourClassName = "haslohas.com/elbow"

// here is a host with an address of each family.
func here() *Site {
	return &Site{
		Class:     ourClassName,
		Zones:     []string{"public.haslohas.com", "haslohas.org"},
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Default:   pool.Service{IdleTimeout: time.Minute, Probe: pool.Probe{Interval: 2 * time.Second}},
	}
}

// shop returns a Service of our class with a port 80, changed by what follows.
func shop(changes ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "shop", UID: "1", ResourceVersion: "7", Finalizers: []string{Finalizer}},
		Spec: corev1.ServiceSpec{
			Type:              corev1.ServiceTypeLoadBalancer,
			LoadBalancerClass: ptr(ourClassName),
			Ports:             []corev1.ServicePort{port("http", 80)},
		},
	}
	for _, change := range changes {
		change(s)
	}
	return s
}

func port(name string, number int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number, NodePort: 30000 + number, Protocol: corev1.ProtocolTCP}
}

func ports(all ...corev1.ServicePort) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.Ports = all }
}

func annotated(lines ...string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Annotations = make(map[string]string)
		for _, l := range lines {
			key, value, _ := strings.Cut(l, " ")
			if !strings.Contains(key, "/") {
				key = prefix + key
			}
			s.Annotations[key] = value
		}
	}
}

func from(ranges ...string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = ranges }
}

const hostnameKey = "external-dns.alpha.kubernetes.io/hostname "

// described is what is asked for, a line for each part and each problem.
func described(w wish) []string {
	var out []string
	for _, p := range w.parts {
		s := p.service
		via := "pods"
		if p.source.NodePort {
			via = "nodes"
		}
		l := fmt.Sprintf("%s via %s", s.Name, via)
		for _, a := range s.Listen {
			l += " " + a.String()
		}
		for _, a := range s.ListenUDP {
			l += " udp/" + a.String()
		}
		for _, h := range s.Hostnames {
			l += " " + h
		}
		for _, a := range s.Allow {
			l += " from " + a.String()
		}
		if p.refused != "" {
			l += " refused " + p.refused
		}
		if s.Answer != pool.Proxied || s.Balance != pool.LeastConn {
			l += fmt.Sprintf(" %s %s", s.Answer, s.Balance)
		}
		if p.probed {
			l += fmt.Sprintf(" probe %s %d %s", s.Probe.Type, s.Probe.Port, s.Probe.Path)
		}
		if s.ProxyProtocol.Send != pool.ProxyOff {
			l += " proxy " + s.ProxyProtocol.Send.String()
		}
		if s.IdleTimeout != time.Minute {
			l += " idle " + s.IdleTimeout.String()
		}
		out = append(out, l)
	}
	for _, p := range w.problems {
		out = append(out, "! "+p.Reason+": "+p.Text)
	}
	return out
}

func TestRead(t *testing.T) {
	const plain = "default/shop via nodes 0.0.0.0:80 shop.default.public.haslohas.com"
	tests := map[string]struct {
		service *corev1.Service
		want    []string
	}{
		"nothing special": {shop(), []string{plain}},
		"without node ports": {shop(func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 0 }),
			[]string{"default/shop via pods 0.0.0.0:80 shop.default.public.haslohas.com"}},
		"by its pods": {shop(annotated("via podIP")), []string{"default/shop via pods 0.0.0.0:80 shop.default.public.haslohas.com"}},
		"two ports": {shop(ports(port("http", 80), port("", 81))), []string{
			"default/shop:http via nodes 0.0.0.0:80 shop.default.public.haslohas.com",
			"default/shop:81 via nodes 0.0.0.0:81"}},
		"a port for UDP": {shop(ports(corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP})), []string{
			"default/shop via pods udp/0.0.0.0:53 shop.default.public.haslohas.com",
			"! ProbeNeeded: nothing says how the backends of port 53/UDP are asked for their health: set elbow.haslohas.com/probe, such as tcp:8080 or http:8080/healthz; until then they count as down, and all of them serve"}},
		"a port for SCTP": {shop(ports(corev1.ServicePort{Port: 9, Protocol: corev1.ProtocolSCTP}, port("http", 80))), []string{
			"default/shop:9 via pods refused UnsupportedProtocol",
			"default/shop:http via nodes 0.0.0.0:80 shop.default.public.haslohas.com",
			"! UnsupportedProtocol: port 9 is for SCTP; elbow relays TCP and UDP"}},
		"other names": {shop(annotated(hostnameKey + "A.haslohas.org., b.public.haslohas.com ,a.haslohas.org")),
			[]string{"default/shop via nodes 0.0.0.0:80 a.haslohas.org b.public.haslohas.com"}},
		"names that cannot be": {shop(annotated(hostnameKey + "x.example.com,_a.haslohas.org,haslohas.org")), []string{
			"default/shop via nodes 0.0.0.0:80 haslohas.org",
			"! HostnameOutside: x.example.com is in no zone that is answered here (public.haslohas.com, haslohas.org)",
			`! InvalidHostname: "_a.haslohas.org" is no hostname`}},
		"no name": {shop(annotated(hostnameKey)), []string{"default/shop via nodes 0.0.0.0:80"}},
		"for some": {shop(from("192.0.2.7/24", "2001:db8::/32")),
			[]string{plain + " from 192.0.2.0/24 from 2001:db8::/32"}},
		"for some, by annotation": {shop(annotated("service.beta.kubernetes.io/load-balancer-source-ranges 192.0.2.0/24, 198.51.100.0/24")),
			[]string{plain + " from 192.0.2.0/24 from 198.51.100.0/24"}},
		"for everybody": {shop(from("0.0.0.0/0")), []string{plain}},
		"for whom it is hard to say": {shop(from("192.0.2.0/24", "me")), []string{plain + " from 192.0.2.0/24",
			`! InvalidSourceRanges: loadBalancerSourceRanges: "me" is no range such as 192.0.2.0/24; it lets nobody in`}},
		"for nobody": {shop(from("me")), []string{"default/shop via nodes refused InvalidSourceRanges",
			`! InvalidSourceRanges: loadBalancerSourceRanges: "me" is no range such as 192.0.2.0/24; it lets nobody in`}},
		"with affinity": {shop(func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }),
			[]string{plain + " proxied source"}},
		"with affinity and a balance": {shop(annotated("balance roundrobin"), func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }),
			[]string{plain + " proxied roundrobin"}},
		"our annotations": {shop(annotated("probe http:8080/healthz?full=1", "answer direct", "proxy-protocol v2", "idle-timeout 90s")),
			[]string{plain + " direct leastconn probe http 8080 /healthz?full=1 proxy v2 idle 1m30s"}},
		"annotations that cannot be read": {shop(annotated("probe ping", "answer maybe", "idle-timeout 90", "via tunnel", "colour red")), []string{plain,
			`! InvalidAnnotation: elbow.haslohas.com/answer: unknown value "maybe", want one of proxied, direct; it is ignored`,
			"! InvalidAnnotation: elbow.haslohas.com/colour is unknown; there are answer, balance, drain-timeout, idle-timeout, probe, proxy-protocol, via",
			`! InvalidAnnotation: elbow.haslohas.com/idle-timeout: "90" is no time such as 90s or 10m, at most 168h; it is ignored`,
			`! InvalidAnnotation: elbow.haslohas.com/probe: "ping": want tcp, tls, http, https or grpc, with :PORT and, for http and https, /PATH behind it; it is ignored`,
			`! InvalidAnnotation: elbow.haslohas.com/via: unknown value "tunnel", want podIP or nodePort; it is ignored`}},
		"an address of somebody else": {shop(func(s *corev1.Service) { s.Spec.LoadBalancerIP = "192.0.2.2" }), []string{plain,
			"! NoSuchAddress: loadBalancerIP 192.0.2.2 is no address of this host; it is ignored"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, described(read(test.service, here()))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestListenFamilies(t *testing.T) {
	for addresses, want := range map[string]string{
		"":                      "0.0.0.0:80",
		"192.0.2.1":             "0.0.0.0:80",
		"2001:db8::1":           "[::]:80",
		"192.0.2.1 2001:db8::1": "0.0.0.0:80 [::]:80",
	} {
		site := here()
		site.Addresses = nil
		for a := range strings.FieldsSeq(addresses) {
			site.Addresses = append(site.Addresses, netip.MustParseAddr(a))
		}
		var got []string
		for _, a := range listen(site, port("http", 80)) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("with %q: %v, want %s", addresses, got, want)
		}
	}
}

func TestProbeAnnotation(t *testing.T) {
	for text, want := range map[string]string{
		"tcp":               "tcp 0 ",
		"tcp:8080":          "tcp 8080 ",
		"tls:443":           "tls 443 ",
		"grpc":              "grpc 0 ",
		"http":              "http 0 /",
		"http/healthz":      "http 0 /healthz",
		"https:8443/a/b?c=": "https 8443 /a/b?c=",
	} {
		var p pool.Probe
		if err := readProbe(text, &p); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := fmt.Sprintf("%s %d %s", p.Type, p.Port, p.Path); got != want {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"", "udp", "tcp:", "tcp:0", "tcp:65536", "tcp:http", "tcp/healthz", "http:80:81", "http/a b", "http/%zz", "HTTP"} {
		if err := readProbe(text, new(pool.Probe)); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

func TestOlder(t *testing.T) {
	at := func(seconds int64, namespace, name string) *corev1.Service {
		return shop(func(s *corev1.Service) {
			s.Namespace, s.Name, s.CreationTimestamp = namespace, name, metav1.Unix(seconds, 0)
		})
	}
	all := []*corev1.Service{at(2, "a", "a"), at(1, "b", "b"), at(1, "b", "a"), at(1, "a", "z")}
	slices.SortFunc(all, older)
	var got []string
	for _, s := range all {
		got = append(got, s.Namespace+"/"+s.Name)
	}
	if want := "a/z b/a b/b a/a"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
