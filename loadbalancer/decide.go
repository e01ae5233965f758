package loadbalancer

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/pool"
)

// Finalizer keeps a Service until its listeners are closed. It is that of all cloud
// providers.
const Finalizer = "service.kubernetes.io/load-balancer-cleanup"

// A Front is what the host does for services, by their names.
type Front interface {
	// Listeners returns how those of each service are. A service that has none is
	// absent.
	Listeners() map[string]Listener

	// Answers reports whether a hostname is answered for a service.
	Answers(hostname string) bool

	// Conflicts returns what services are refused.
	Conflicts() []discovery.Conflict
}

// A Listener is how the listeners of a service are, all together.
type Listener struct {
	Open bool  // each accepts
	Err  error // why one does not; nil: it is about to
}

// facts are what a [Front] says at one moment.
type facts struct {
	Front
	listeners map[string]Listener             // by service
	conflicts map[string][]discovery.Conflict // by service
}

func look(f Front) facts {
	out := facts{f, f.Listeners(), make(map[string][]discovery.Conflict)}
	for _, c := range f.Conflicts() {
		out.conflicts[c.Service] = append(out.conflicts[c.Service], c)
	}
	for _, c := range out.conflicts {
		slices.SortFunc(c, func(a, b discovery.Conflict) int { return strings.Compare(a.Claim, b.Claim) })
	}
	return out
}

// A verdict is what becomes of a Service.
type verdict struct {
	finalize bool // the finalizer is to be added, before anything is served
	release  bool // the finalizer is to be taken away
	status   bool // ingress is to be written
	ingress  []corev1.LoadBalancerIngress

	condition *metav1.Condition // is to be written; nil: it is as it is
	forget    bool              // the condition is to be taken away

	problems []problem
	pending  bool // something is expected to change soon
	state    state
}

// A state is how far a Service has come.
type state uint8

const (
	pending state = iota
	serving
	refused
	leaving
)

var stateNames = [...]string{"pending", "serving", "refused", "leaving"}

// The errors of a port in the status.
const (
	portConflict = prefix + "PortConflict"
	portClosed   = prefix + "ListenFailed"
)

// decide is what is to be written for the Service of w.
func decide(w *wish, f facts, addresses []string) verdict {
	v := verdict{problems: w.problems}
	if !slices.Contains(w.service.Finalizers, Finalizer) {
		v.finalize, v.pending = true, true
	}
	accepting := false
	var ports []corev1.PortStatus
	var lost []string // hostnames that another service has
	for _, p := range w.parts {
		status := corev1.PortStatus{Port: p.port.Port, Protocol: p.port.Protocol}
		if status.Protocol == "" {
			status.Protocol = corev1.ProtocolTCP
		}
		name := p.service.Name
		for _, c := range f.conflicts[name] {
			if host, isName := strings.CutPrefix(c.Claim, "name "); isName {
				lost = append(lost, host)
				v.problems = append(v.problems, problem{"HostnameConflict", fmt.Sprintf("%s belongs to %s", host, holder(c.Holder))})
				continue
			}
			status.Error = ptr(portConflict)
			v.problems = append(v.problems, problem{"PortConflict", fmt.Sprintf("port %d/%s belongs to %s", p.port.Port, status.Protocol, holder(c.Holder))})
		}
		switch l := f.listeners[name]; {
		case p.refused != "":
			status.Error = ptr(prefix + p.refused)
		case status.Error != nil:
		case l.Err != nil:
			status.Error = ptr(portClosed)
			v.problems = append(v.problems, problem{"ListenFailed", fmt.Sprintf("port %d/%s: %v", p.port.Port, status.Protocol, l.Err)})
		case l.Open:
			accepting = true
		default:
			v.pending = true
		}
		ports = append(ports, status)
	}
	var answered []string
	for _, h := range w.hostnames {
		switch {
		case slices.Contains(lost, h):
		case f.Answers(h):
			answered = append(answered, h)
		default:
			v.pending = true
		}
	}
	if accepting && !v.pending {
		v.ingress = ingress(addresses, answered, ports, w.direct())
	}
	switch {
	case v.pending:
		v.state = pending
	case accepting:
		v.state = serving
	default:
		v.state = refused
	}
	// What is pending for a moment takes nothing back.
	v.status = !v.pending && !sameIngress(w.service.Status.LoadBalancer.Ingress, v.ingress)
	return v
}

// direct reports whether clients reach the backends by themselves.
func (w *wish) direct() bool {
	return slices.ContainsFunc(w.parts, func(p part) bool { return p.service.Answer == pool.Direct })
}

// holder is a service in words.
func holder(name string) string {
	switch parts := strings.Split(name, "/"); len(parts) {
	case 1:
	case 2:
		return "Service " + name
	default:
		return "Gateway " + parts[0] + "/" + parts[1]
	}
	return fmt.Sprintf("service %q of elbow's configuration", name)
}

// ingress is where the Service is reached: an entry for each address of the host
// with the first name, and one for each further name. Clients of a direct service
// come by its names alone.
func ingress(addresses, hostnames []string, ports []corev1.PortStatus, direct bool) []corev1.LoadBalancerIngress {
	var out []corev1.LoadBalancerIngress
	first := ""
	if len(hostnames) > 0 {
		first = hostnames[0]
	}
	if !direct || first == "" {
		for _, a := range addresses {
			out = append(out, corev1.LoadBalancerIngress{IP: a, Hostname: first, IPMode: ptr(corev1.LoadBalancerIPModeProxy), Ports: ports})
		}
	}
	for i, h := range hostnames {
		if i > 0 || len(out) == 0 {
			out = append(out, corev1.LoadBalancerIngress{Hostname: h, Ports: ports})
		}
	}
	return out
}

// farewell is what is to be written for a Service that is not ours any more, or is
// to go: nothing is taken away as long as a listener of it accepts.
func farewell(s *corev1.Service, names []string, f facts) verdict {
	v := verdict{state: leaving}
	for _, n := range names {
		if f.listeners[n].Open {
			v.pending = true
			return v
		}
	}
	v.forget = hasCondition(s)
	v.status = len(s.Status.LoadBalancer.Ingress) > 0
	v.release = slices.Contains(s.Finalizers, Finalizer)
	return v
}

func sameIngress(a, b []corev1.LoadBalancerIngress) bool {
	return slices.EqualFunc(a, b, func(x, y corev1.LoadBalancerIngress) bool {
		return x.IP == y.IP && x.Hostname == y.Hostname && equal(x.IPMode, y.IPMode) &&
			slices.EqualFunc(x.Ports, y.Ports, func(p, q corev1.PortStatus) bool {
				return p.Port == q.Port && p.Protocol == q.Protocol && equal(p.Error, q.Error)
			})
	})
}

func equal[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func ptr[T any](v T) *T { return &v }
