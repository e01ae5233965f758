package gateway

import (
	"fmt"
	"slices"
	"strings"
)

// A Backend is a Service that serves, and its share of the connections.
type Backend struct {
	Name
	Port     uint16
	Weight   int  // at least 1
	NodePort bool // reached by the nodes; else by its pods
}

// references are what routes may refer to.
type references struct {
	services map[Name]*Service
	grants   map[string][]*Grant // by namespace
}

func newReferences(w *World) references {
	r := references{make(map[Name]*Service, len(w.Services)), make(map[string][]*Grant)}
	for i := range w.Services {
		r.services[w.Services[i].Name] = &w.Services[i]
	}
	for i := range w.Grants {
		if g := &w.Grants[i]; !g.Deleted {
			r.grants[g.Namespace] = append(r.grants[g.Namespace], g)
		}
	}
	return r
}

// resolve returns the backends of a route, and what is wrong with those that are
// left out. One that asks for no share is left out and nothing wrong.
func (r references) resolve(route *Route) (backends []Backend, problem verdict) {
	if len(route.Spec.Rules) == 0 {
		return nil, verdict{}
	}
	var problems []string
	for i := range route.Spec.Rules[0].BackendRefs {
		ref := &route.Spec.Rules[0].BackendRefs[i]
		b, wrong := r.backend(route, ref)
		if wrong.said() {
			if !problem.said() {
				problem.reason = wrong.reason
			}
			problems = append(problems, wrong.message)
			continue
		}
		if b.Weight == 0 {
			continue
		}
		if same := slices.IndexFunc(backends, func(o Backend) bool { return o.Name == b.Name && o.Port == b.Port }); same >= 0 {
			backends[same].Weight += b.Weight
		} else {
			backends = append(backends, b)
		}
	}
	problem.message = strings.Join(problems, "; ")
	return backends, problem
}

func (r references) backend(route *Route, ref *BackendRef) (Backend, verdict) {
	b := Backend{Name: Name{or(ref.Namespace, route.Namespace), ref.Name}, Weight: int(max(0, or(ref.Weight, 1)))}
	if group, kind := or(ref.Group, ""), or(ref.Kind, "Service"); group != "" || kind != "Service" {
		return b, verdict{invalidKind, fmt.Sprintf("%s %s: only Services can be backends", GroupKind{&group, kind}, ref.Name)}
	}
	if b.Namespace != route.Namespace && !r.granted(route, b.Name) {
		return b, verdict{refNotPermitted, fmt.Sprintf("Service %s: no ReferenceGrant in namespace %s lets a %s of namespace %s refer to it",
			b.Name, b.Namespace, route.Kind, route.Namespace)}
	}
	s := r.services[b.Name]
	switch {
	case s == nil:
		return b, verdict{backendNotFound, fmt.Sprintf("Service %s does not exist", b.Name)}
	case s.Alias:
		return b, verdict{invalidKind, fmt.Sprintf("Service %s is of type ExternalName, and has no endpoints", b.Name)}
	case ref.Port == nil:
		return b, verdict{backendNotFound, fmt.Sprintf("Service %s: which port is meant is not said", b.Name)}
	}
	found := false
	for _, p := range s.Ports {
		if p.Number != *ref.Port {
			continue
		}
		if found = true; p.Protocol == "" || p.Protocol == protocolTCP {
			b.Port, b.NodePort = uint16(p.Number), p.Node && s.Via != "podIP"
			return b, verdict{}
		}
	}
	if found {
		return b, verdict{unsupportedProtocol, fmt.Sprintf("Service %s: port %d is not for TCP", b.Name, *ref.Port)}
	}
	return b, verdict{backendNotFound, fmt.Sprintf("Service %s has no port %d", b.Name, *ref.Port)}
}

// granted reports whether a grant lets route refer to a Service of another
// namespace.
func (r references) granted(route *Route, to Name) bool {
	for _, g := range r.grants[to.Namespace] {
		from := false
		for _, f := range g.Spec.From {
			from = from || f.Group == Group && f.Kind == route.Kind && f.Namespace == route.Namespace
		}
		if !from {
			continue
		}
		for _, t := range g.Spec.To {
			if t.Group == "" && t.Kind == "Service" && (or(t.Name, "") == "" || *t.Name == to.Name) {
				return true
			}
		}
	}
	return false
}
