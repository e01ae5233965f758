package gateway

import (
	"fmt"
	"slices"
	"strings"

	"haslohas.com/elbow/labels"
)

// The protocols that matter, and the mode of TLS that is supported.
const (
	protocolTCP = "TCP"
	protocolTLS = "TLS"
	passthrough = "Passthrough"
)

// A listener is one of a Gateway and what is decided about it.
type listener struct {
	*Listener
	hostname  string // lower case
	kind      string // of the routes that it can take; empty: none
	kinds     []GroupKind
	badKinds  verdict // its allowedRoutes name kinds that it cannot take
	conflict  verdict
	rejected  verdict       // why it is not accepted
	routes    []*attachment // by precedence
	wishes    []*Wish
	allowedNS func(namespace string) bool
}

// serves reports whether connections are taken for it.
func (l *listener) serves() bool { return !l.rejected.said() && !l.conflict.said() }

// readListeners judges the listeners of g by themselves.
func readListeners(g *Gateway, namespaces map[string]map[string]string) []*listener {
	all := make([]*listener, 0, len(g.Spec.Listeners))
	for i := range g.Spec.Listeners {
		l := &listener{Listener: &g.Spec.Listeners[i]}
		l.hostname = strings.ToLower(l.Hostname)
		l.readProtocol()
		l.readKinds()
		l.readNamespaces(g.Namespace, namespaces)
		all = append(all, l)
	}
	for _, l := range all {
		l.conflict = conflictOf(l, all)
	}
	return all
}

func (l *listener) readProtocol() {
	mode := ""
	if l.TLS != nil {
		mode = l.TLS.Mode
	}
	switch {
	case l.Port < 1 || l.Port > 65535:
		l.rejected = verdict{portUnavailable, fmt.Sprintf("%d is no port", l.Port)}
	case l.Protocol == protocolTCP:
		l.kind = TCPRoute
	case l.Protocol == protocolTLS && mode == passthrough:
		l.kind = TLSRoute
	case l.Protocol == protocolTLS:
		l.rejected = verdict{unsupportedValue, fmt.Sprintf("tls.mode %s is not supported: elbow does not end TLS, set it to Passthrough", mode)}
	default:
		l.rejected = verdict{unsupportedProtocol, fmt.Sprintf("protocol %s is not supported, there are TCP and TLS with tls.mode Passthrough", l.Protocol)}
	}
	if l.hostname != "" && !validHostname(l.hostname) && !l.rejected.said() {
		l.rejected = verdict{unsupportedValue, fmt.Sprintf("hostname %q cannot be told from others", l.Hostname)}
	}
}

func (l *listener) readKinds() {
	l.kinds = []GroupKind{}
	if l.kind != "" {
		l.kinds = append(l.kinds, routeKind(l.kind))
	}
	if l.AllowedRoutes == nil || len(l.AllowedRoutes.Kinds) == 0 {
		return
	}
	var bad []string
	able := false
	for _, k := range l.AllowedRoutes.Kinds {
		if or(k.Group, Group) == Group && k.Kind == l.kind && l.kind != "" {
			able = true
		} else {
			bad = append(bad, k.String())
		}
	}
	if !able {
		l.kinds = []GroupKind{}
	}
	if len(bad) > 0 {
		l.badKinds = verdict{invalidRouteKinds, "allowedRoutes.kinds: not possible at this listener: " + strings.Join(bad, ", ")}
	}
}

func routeKind(kind string) GroupKind {
	group := Group
	return GroupKind{&group, kind}
}

func (l *listener) readNamespaces(own string, namespaces map[string]map[string]string) {
	from := "Same"
	var selector *Selector
	if a := l.AllowedRoutes; a != nil && a.Namespaces != nil {
		if a.Namespaces.From != "" {
			from = a.Namespaces.From
		}
		selector = a.Namespaces.Selector
	}
	switch from {
	case "All":
		l.allowedNS = func(string) bool { return true }
	case "Selector":
		selects := selector.read()
		l.allowedNS = func(n string) bool {
			labels, known := namespaces[n]
			return known && selects(labels)
		}
	case "Same":
		l.allowedNS = func(n string) bool { return n == own }
	default: // None, or what nobody knows yet
		l.allowedNS = func(string) bool { return false }
	}
}

// allows reports whether r may attach to l, by its kind and its namespace.
func (l *listener) allows(r *Route) bool {
	return len(l.kinds) > 0 && l.kind == r.Kind && l.allowedNS(r.Namespace)
}

// read returns what s selects: nothing, where it is absent or cannot be read.
func (s *Selector) read() func(map[string]string) bool {
	nothing := func(map[string]string) bool { return false }
	if s == nil {
		return nothing
	}
	var text []string
	for k, v := range s.MatchLabels {
		text = append(text, k+"="+v)
	}
	for _, e := range s.MatchExpressions {
		switch e.Operator {
		case "In":
			text = append(text, e.Key+" in ("+strings.Join(e.Values, ",")+")")
		case "NotIn":
			text = append(text, e.Key+" notin ("+strings.Join(e.Values, ",")+")")
		case "Exists":
			text = append(text, e.Key)
		case "DoesNotExist":
			text = append(text, "!"+e.Key)
		default:
			return nothing
		}
	}
	selector, err := labels.Parse(strings.Join(text, ","))
	if err != nil {
		return nothing
	}
	return selector.Matches
}

// conflictOf says with which other listener l cannot be told apart. None of such
// is accepted: it is not for us to choose.
func conflictOf(l *listener, all []*listener) verdict {
	for _, other := range all {
		switch {
		case other == l || other.Port != l.Port || isUDP(other) != isUDP(l):
		case other.Protocol != l.Protocol && (other.Protocol == protocolTCP || l.Protocol == protocolTCP):
			return verdict{protocolConflict, fmt.Sprintf("port %d is also that of listener %s with protocol %s", l.Port, other.Name, other.Protocol)}
		case other.Protocol != l.Protocol: // told apart, if they were supported
		case l.Protocol == protocolTCP:
			return verdict{protocolConflict, fmt.Sprintf("port %d is also that of listener %s", l.Port, other.Name)}
		case other.hostname == l.hostname:
			return verdict{hostnameConflict, fmt.Sprintf("port %d and hostname are also those of listener %s", l.Port, other.Name)}
		}
	}
	return verdict{}
}

func isUDP(l *listener) bool { return l.Protocol == "UDP" }

// closest returns the listener of TLS at a port that connections for a name are
// for: the one whose hostname is closest to it.
func closest(name string, port int32, all []*listener) *listener {
	var best *listener
	for _, l := range all {
		if l.Port == port && l.kind == TLSRoute && l.serves() && covers(l.hostname, name) && (best == nil || closer(l.hostname, best.hostname)) {
			best = l
		}
	}
	return best
}

// covers reports whether all that name stands for is for a listener of hostname.
func covers(hostname, name string) bool {
	suffix, wild := strings.CutPrefix(hostname, "*")
	switch {
	case hostname == "" || hostname == name:
		return true
	case !wild:
		return false
	}
	return strings.HasSuffix(strings.TrimPrefix(name, "*"), suffix)
}

// closer reports whether a is closer than b, of two hostnames that cover a name.
func closer(a, b string) bool {
	if wildA, wildB := isWild(a), isWild(b); wildA != wildB {
		return wildB
	}
	return len(a) > len(b)
}

func isWild(hostname string) bool { return hostname == "" || strings.HasPrefix(hostname, "*.") }

// intersect returns what names a listener's hostname and a route's stand for
// together; false: there is none. The empty one stands for all.
func intersect(hostname, name string) (string, bool) {
	switch {
	case covers(hostname, name):
		return name, true
	case covers(name, hostname):
		return hostname, true
	}
	return "", false
}

// validHostname reports whether a name in lower case can be that of a TLS server,
// or a wildcard of such.
func validHostname(name string) bool {
	name = strings.TrimPrefix(name, "*.")
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
		}) {
			return false
		}
	}
	return true
}

// listenersOf returns those that ref is about, by their names and ports.
func listenersOf(ref *ParentRef, all []*listener) []*listener {
	return slices.DeleteFunc(slices.Clone(all), func(l *listener) bool {
		return ref.SectionName != nil && *ref.SectionName != "" && *ref.SectionName != l.Name || ref.Port != nil && *ref.Port != l.Port
	})
}
