package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// AnnotationHostname names TCPRoutes and Gateways in DNS, as it does for
// ExternalDNS: names, with commas between them.
const AnnotationHostname = "external-dns.alpha.kubernetes.io/hostname"

// The bounds of what all Gateways together may ask for.
const (
	maxWishes = 10_000
	maxNames  = 100_000
)

// A World is everything that counts. What there is of it nobody may change as long
// as a Decision made of it is in use.
type World struct {
	Classes    []Class
	Gateways   []Gateway
	Routes     []Route
	Grants     []Grant
	Services   []Service
	Namespaces map[string]map[string]string // their labels

	Controller string       // the controllerName of the GatewayClasses that are ours; empty: none is
	Addresses  []netip.Addr // of the host
}

// A Wish is a service of this host that a listener asks for.
type Wish struct {
	// ID is NAMESPACE/GATEWAY/LISTENER and, for TLS, behind it /NAMESPACE/ROUTE. It
	// is unique, and as long as the wish stands it stays.
	ID string

	Gateway   *Gateway
	Listener  string
	Route     *Route // nil: none is attached, and nothing serves
	Port      uint16
	SNI       []string  // the server names; empty: all connections that nobody else has
	Hostnames []string  // under which it is to be found, if they are in a zone of this host
	Backends  []Backend // by their place in the rule; none: connections are refused
}

// A Decision is what is to be done, by the best of what a World says.
type Decision struct {
	Wishes []*Wish // those that come first have what several ask for

	classes  []class
	gateways []*gateway
	routes   []*route
	host     []netip.Addr
	us       string // the name of the controller
}

type class struct {
	*Class
	refused verdict
}

// A gateway is a Gateway that is ours.
type gateway struct {
	*Gateway
	rejected  verdict // why nothing of it is done
	listeners []*listener
}

// A route is a route that is, was or wants to be at a Gateway of ours.
type route struct {
	*Route
	backends []Backend
	problem  verdict // with the backends that are not among them
	parents  []*attachment
}

// An attachment is one parent of a route.
type attachment struct {
	ref     *ParentRef
	route   *route
	refused verdict // why it is not accepted
	at      []*listener
	lost    []string // what an older route has, in words
	wishes  []*Wish
}

// Decide decides. It is a pure function.
func Decide(w *World) *Decision {
	d := &Decision{host: w.Addresses, us: w.Controller}
	ours := make(map[string]bool)
	for i := range w.Classes {
		c := class{Class: &w.Classes[i]}
		if c.Spec.ControllerName != w.Controller || w.Controller == "" {
			continue
		}
		if c.Spec.ParametersRef != nil {
			c.refused = verdict{invalidParameters, "parametersRef: there are no parameters for elbow, its configuration file has them"}
		} else {
			ours[c.Name] = true
		}
		d.classes = append(d.classes, c)
	}
	byName := make(map[Name]*gateway)
	for i := range w.Gateways {
		g := &gateway{Gateway: &w.Gateways[i]}
		if !ours[g.Spec.ClassName] || g.Deleted {
			continue
		}
		g.listeners = readListeners(g.Gateway, w.Namespaces)
		g.rejected = g.judge()
		byName[g.name()] = g
		d.gateways = append(d.gateways, g)
	}
	slices.SortFunc(d.gateways, func(a, b *gateway) int { return older(&a.Meta, &b.Meta) })

	refs := newReferences(w)
	for i := range w.Routes {
		r := &route{Route: &w.Routes[i]}
		if r.Deleted {
			continue
		}
		r.attach(byName)
		if len(r.parents) > 0 {
			r.backends, r.problem = refs.resolve(r.Route)
		}
		d.routes = append(d.routes, r)
	}
	slices.SortFunc(d.routes, func(a, b *route) int {
		if c := older(&a.Meta, &b.Meta); c != 0 {
			return c
		}
		return strings.Compare(a.Kind, b.Kind)
	})
	d.share()
	return d
}

// judge says what is wrong with a Gateway as a whole.
func (g *gateway) judge() verdict {
	if i := g.Spec.Infrastructure; i != nil && i.ParametersRef != nil {
		return verdict{invalidParameters, "infrastructure.parametersRef: there are no parameters for elbow, its configuration file has them"}
	}
	for _, a := range g.Spec.Addresses {
		if kind := or(a.Type, "IPAddress"); kind != "IPAddress" {
			return verdict{unsupportedAddress, fmt.Sprintf("addresses: type %s is not supported, only IPAddress is", kind)}
		}
	}
	return verdict{}
}

// attach finds out to which Gateways of ours r may attach.
func (r *route) attach(gateways map[Name]*gateway) {
	for i := range r.Spec.ParentRefs {
		ref := &r.Spec.ParentRefs[i]
		name, ok := ref.gateway(r.Route)
		g := gateways[name]
		if !ok || g == nil {
			continue
		}
		a := &attachment{ref: ref, route: r}
		a.at, a.refused = r.mayAttach(ref, g)
		r.parents = append(r.parents, a)
	}
}

func (r *route) mayAttach(ref *ParentRef, g *gateway) ([]*listener, verdict) {
	named := listenersOf(ref, g.listeners)
	if len(named) == 0 {
		return nil, verdict{noMatchingParent, fmt.Sprintf("Gateway %s has no such listener", g.name())}
	}
	var allowed []*listener
	kinds := false // one of them is of the right kind
	for _, l := range named {
		kinds = kinds || l.kind == r.Kind
		if l.allows(r.Route) {
			allowed = append(allowed, l)
		}
	}
	switch {
	case len(allowed) == 0 && r.Kind == TLSRoute && !kinds:
		return nil, verdict{unsupportedValue, "a TLSRoute needs a listener with protocol TLS and tls.mode Passthrough"}
	case len(allowed) == 0:
		return nil, verdict{notAllowedByListeners, fmt.Sprintf("no listener takes a %s of namespace %s", r.Kind, r.Namespace)}
	case r.Kind != TLSRoute:
		return allowed, verdict{}
	}
	matching := slices.DeleteFunc(allowed, func(l *listener) bool { return len(namesAt(r.Route, l)) == 0 })
	if len(matching) == 0 {
		return nil, verdict{noMatchingHostname, "no listener has a hostname that is also one of the route"}
	}
	return matching, verdict{}
}

// namesAt returns the server names that a TLSRoute is for at a listener; the empty
// one stands for all.
func namesAt(r *Route, l *listener) []string {
	if len(r.Spec.Hostnames) == 0 {
		return []string{l.hostname}
	}
	var names []string
	for _, h := range r.Spec.Hostnames {
		if h = strings.ToLower(h); !validHostname(h) {
			continue
		}
		if name, ok := intersect(l.hostname, h); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// share gives the listeners to the routes, to the older first, and makes the
// wishes.
func (d *Decision) share() {
	names := 0
	for _, r := range d.routes {
		for _, a := range r.parents {
			for _, l := range a.at {
				l.routes = append(l.routes, a)
			}
		}
	}
	d.dividePorts()
	named := make(map[string]bool) // in DNS
	for _, g := range d.gateways {
		if g.rejected.said() {
			continue
		}
		for _, l := range g.listeners {
			if !l.serves() {
				continue
			}
			wishes := g.wishes(l)
			for _, w := range wishes {
				names += len(w.SNI)
			}
			if len(d.Wishes)+len(wishes) > maxWishes || names > maxNames {
				l.rejected = verdict{noResources, fmt.Sprintf("all Gateways together ask for more than %d routes or %d server names", maxWishes, maxNames)}
				continue
			}
			for _, w := range wishes {
				w.Hostnames = slices.DeleteFunc(w.Hostnames, func(h string) bool {
					taken := named[h]
					named[h] = true
					return taken
				})
			}
			l.wishes = wishes
			d.Wishes = append(d.Wishes, wishes...)
		}
	}
	for _, r := range d.routes {
		for _, a := range r.parents {
			a.settle()
		}
	}
}

// dividePorts has each port be for TCP or for TLS, as the oldest Gateway says that uses
// it. Others would have the connections that they name taken out of its listener.
func (d *Decision) dividePorts() {
	type holder struct {
		protocol string
		gateway  *gateway
	}
	held := make(map[int32]holder)
	for _, g := range d.gateways {
		if g.rejected.said() {
			continue
		}
		for _, l := range g.listeners {
			if !l.serves() {
				continue
			}
			if h, taken := held[l.Port]; taken && h.protocol != l.Protocol {
				l.rejected = verdict{portUnavailable, fmt.Sprintf("port %d is for %s at the older Gateway %s", l.Port, h.protocol, h.gateway.name())}
			} else if !taken {
				held[l.Port] = holder{l.Protocol, g}
			}
		}
	}
}

// settle finds out whether an attachment has come to anything.
func (a *attachment) settle() {
	for _, l := range a.at {
		for _, w := range l.wishes {
			if w.Route == a.route.Route {
				a.wishes = append(a.wishes, w)
			}
		}
	}
	if len(a.at) > 0 && len(a.wishes) == 0 && len(a.lost) > 0 {
		a.refused = verdict{conflictedRoute, strings.Join(a.lost, "; ")}
	}
}

// wishes are what the routes of l ask for.
func (g *gateway) wishes(l *listener) []*Wish {
	at := g.name().String() + "/" + l.Name
	var out []*Wish
	if l.kind == TCPRoute {
		for _, a := range l.routes {
			if len(out) > 0 && out[0].Route == a.route.Route {
				continue
			}
			if len(out) > 0 {
				a.lost = append(a.lost, fmt.Sprintf("listener %s is taken by the older TCPRoute %s", l.Name, out[0].Route.name()))
				continue
			}
			out = append(out, g.wish(l, at, a.route))
		}
	} else {
		out = g.wishesByName(l, at)
	}
	if len(out) == 0 {
		w := g.wish(l, at, nil)
		if l.hostname != "" {
			w.SNI = []string{l.hostname}
			w.Hostnames = exact(w.SNI)
		}
		out = append(out, w)
	}
	for _, w := range out {
		for _, m := range []*Meta{&g.Meta, metaOf(w.Route)} {
			if m != nil && w.SNI == nil {
				w.Hostnames = append(w.Hostnames, annotated(m)...)
			}
		}
	}
	return out
}

func (g *gateway) wish(l *listener, id string, r *route) *Wish {
	w := &Wish{ID: id, Gateway: g.Gateway, Listener: l.Name, Port: uint16(l.Port)}
	if r != nil {
		w.Route, w.Backends = r.Route, r.backends
	}
	return w
}

// wishesByName gives each server name to one route, but for those that are for a
// listener beside l.
func (g *gateway) wishesByName(l *listener, at string) []*Wish {
	var out []*Wish
	holder := make(map[string]*route)
	for _, a := range l.routes {
		var names []string
		for _, name := range namesAt(a.route.Route, l) {
			other := closest(name, l.Port, g.listeners)
			switch {
			case other != l && slices.Contains(a.at, other): // it has the name there
			case other != l:
				a.lost = append(a.lost, fmt.Sprintf("%s is for listener %s", inWords(name), other.Name))
			case holder[name] == nil:
				holder[name] = a.route
				names = append(names, name)
			case holder[name] != a.route:
				a.lost = append(a.lost, fmt.Sprintf("%s belongs to the older TLSRoute %s", inWords(name), holder[name].name()))
			}
		}
		if len(names) == 0 {
			continue
		}
		w := g.wish(l, at+"/"+a.route.name().String(), a.route)
		if !slices.Contains(names, "") {
			w.SNI = names
		}
		w.Hostnames = exact(w.SNI)
		out = append(out, w)
	}
	return out
}

func inWords(name string) string {
	if name == "" {
		return "every server name"
	}
	return name
}

// exact returns those of names that are no wildcards.
func exact(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), isWild)
}

func metaOf(r *Route) *Meta {
	if r == nil {
		return nil
	}
	return &r.Meta
}

// annotated returns the names that an annotation gives an object.
func annotated(m *Meta) []string {
	var names []string
	for name := range strings.SplitSeq(m.Annotations[AnnotationHostname], ",") {
		name = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "."))
		if validHostname(name) && !isWild(name) && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
