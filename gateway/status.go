package gateway

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// An Outcome is what became of a [Wish].
type Outcome struct {
	Listening bool     // connections for it are accepted
	Refused   []string // what another service has, in words
	Err       string   // why it is not listening, if that is known and no refusal
}

// A Write is a status that has to be written.
type Write struct {
	Resource        string // such as gateways
	Name            Name
	ResourceVersion string // of the object that was read
	Patch           []byte // a merge patch, RFC 7396, which has the ResourceVersion in it
}

// Status returns what is to be written, by what became of the wishes. What stays as
// it is is not among it.
func (d *Decision) Status(became func(id string) Outcome, now time.Time) []Write {
	var out []Write
	for _, c := range d.classes {
		said := c.refused.or(accepted, yes(accepted, accepted, "elbow serves the Gateways of this class"))
		conditions := settle(c.Status.Conditions, []Condition{said}, c.Generation, now)
		if !sameConditions(conditions, c.Status.Conditions) {
			out = append(out, write("gatewayclasses", &c.Meta, ClassStatus{conditions}))
		}
	}
	for _, g := range d.gateways {
		if s := g.status(d.host, became, now); !sameGatewayStatus(s, g.Status) {
			out = append(out, write("gateways", &g.Meta, s))
		}
	}
	for _, r := range d.routes {
		if s, changed := r.status(d.us, became, now); changed {
			out = append(out, write(strings.ToLower(r.Kind)+"s", &r.Meta, s))
		}
	}
	return out
}

func write(resource string, m *Meta, status any) Write {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]string{"resourceVersion": m.ResourceVersion}, "status": status})
	if err != nil {
		panic(err) // what was read as JSON can be written as such
	}
	return Write{resource, m.name(), m.ResourceVersion, patch}
}

// outcome sums up what became of several wishes. It reports none where there is
// none.
func outcome(wishes []*Wish, became func(id string) Outcome) (sum Outcome, none bool) {
	for _, w := range wishes {
		o := became(w.ID)
		sum.Listening = sum.Listening || o.Listening
		sum.Refused = append(sum.Refused, o.Refused...)
		sum.Err = cmp.Or(sum.Err, o.Err)
	}
	slices.Sort(sum.Refused)
	sum.Refused = slices.Compact(sum.Refused)
	return sum, len(wishes) == 0
}

// unavailable says why a listener cannot be had; nothing is said as long as there
// is hope.
func (o Outcome) unavailable() verdict {
	if o.Listening || len(o.Refused) == 0 {
		return verdict{}
	}
	return verdict{portUnavailable, strings.Join(o.Refused, "; ")}
}

func (g *gateway) status(host []netip.Addr, became func(string) Outcome, now time.Time) GatewayStatus {
	s := GatewayStatus{Listeners: []ListenerStatus{}}
	var refused, waiting []string
	served := 0
	for _, l := range g.listeners {
		o, none := outcome(l.wishes, became)
		open := !none && o.Listening
		said := l.said(g, o, open)
		before := slices.IndexFunc(g.Status.Listeners, func(old ListenerStatus) bool { return old.Name == l.Name })
		var there []Condition
		if before >= 0 {
			there = g.Status.Listeners[before].Conditions
		}
		attached := int32(0)
		for _, a := range l.routes {
			if !a.verdict(became).said() {
				attached++
			}
		}
		s.Listeners = append(s.Listeners, ListenerStatus{l.Name, l.kinds, attached, settle(there, said, g.Generation, now)})
		switch {
		case !l.serves() || o.unavailable().said():
			refused = append(refused, l.Name)
		case open:
			served++
		default:
			waiting = append(waiting, l.Name)
		}
	}
	addresses, unusable := g.addresses(host)
	s.Addresses = addresses
	ok := yes(accepted, accepted, "")
	switch {
	case g.rejected.said():
		ok = no(accepted, g.rejected)
	case len(refused) > 0 && served+len(waiting) == 0:
		ok = no(accepted, verdict{listenersNotValid, "no listener can be served: " + strings.Join(refused, ", ")})
	case len(refused) > 0:
		ok = yes(accepted, listenersNotValid, "not served: listener "+strings.Join(refused, ", "))
	}
	done := yes(programmed, programmed, "")
	switch {
	case ok.Status == conditionFalse:
		done = no(programmed, verdict{invalid, "it is not accepted"})
	case unusable.said():
		done = no(programmed, unusable)
	case len(waiting) > 0:
		done = no(programmed, verdict{pending, "not open yet: listener " + strings.Join(waiting, ", ")})
	}
	if done.Status == conditionFalse && done.Reason == invalid {
		s.Addresses = []Address{}
	}
	s.Conditions = settle(g.Status.Conditions, []Condition{ok, done}, g.Generation, now)
	return s
}

// said are the conditions of a listener.
func (l *listener) said(g *gateway, o Outcome, open bool) []Condition {
	why := l.rejected
	if !why.said() {
		why = l.conflict
	}
	if !why.said() {
		why = o.unavailable()
	}
	ok := why.or(accepted, yes(accepted, accepted, ""))
	if ok.Status == conditionTrue && len(o.Refused) > 0 {
		ok.Message = "but for this: " + strings.Join(o.Refused, "; ")
	}
	done := yes(programmed, programmed, fmt.Sprintf("port %d accepts connections", l.Port))
	switch {
	case why.said():
		done = no(programmed, verdict{invalid, "it is not accepted"})
	case g.rejected.said():
		done = no(programmed, verdict{invalid, "its Gateway is not accepted"})
	case !open:
		done = no(programmed, verdict{pending, cmp.Or(o.Err, "the port is not open yet")})
	}
	conflict := Condition{Type: conflicted, Status: conditionFalse, Reason: noConflicts}
	if l.conflict.said() {
		conflict = yes(conflicted, l.conflict.reason, l.conflict.message)
	}
	return []Condition{ok, done, conflict, l.badKinds.or(resolvedRefs, yes(resolvedRefs, resolvedRefs, ""))}
}

// addresses are those of the Gateway: of the host's those that it asks for, or all.
func (g *gateway) addresses(host []netip.Addr) ([]Address, verdict) {
	kind := "IPAddress"
	out := []Address{}
	var unusable []string
	for _, a := range g.Spec.Addresses {
		ip, err := netip.ParseAddr(a.Value)
		switch {
		case a.Value == "":
		case err != nil || !slices.Contains(host, ip.Unmap()):
			unusable = append(unusable, a.Value)
		default:
			out = append(out, Address{&kind, ip.String()})
		}
	}
	if len(unusable) > 0 {
		return out, verdict{addressNotUsable, fmt.Sprintf("%s: not among the addresses of this host (host.addresses in its configuration)", strings.Join(unusable, ", "))}
	}
	if len(out) == 0 {
		for _, ip := range host {
			out = append(out, Address{&kind, ip.String()})
		}
	}
	if len(out) == 0 {
		return out, verdict{addressNotAssigned, "the host has no address to be reached at (host.addresses in its configuration)"}
	}
	return out, verdict{}
}

// status returns the status of a route, and whether it is another one. What other
// controllers say stays where it is.
func (r *route) status(us string, became func(string) Outcome, now time.Time) (RouteStatus, bool) {
	var s RouteStatus
	said := make(map[*attachment]bool)
	changed := false
	for i := range r.Status.Parents {
		old := &r.Status.Parents[i]
		if old.ControllerName != us {
			s.Parents = append(s.Parents, *old)
			continue
		}
		at := slices.IndexFunc(r.parents, func(a *attachment) bool { return a.ref.same(&old.ParentRef) && !said[a] })
		if at < 0 {
			changed = true // it wants to be elsewhere now
			continue
		}
		said[r.parents[at]] = true
		next := r.parents[at].status(us, old.Conditions, became, now)
		changed = changed || !sameConditions(next.Conditions, old.Conditions)
		s.Parents = append(s.Parents, next)
	}
	for _, a := range r.parents {
		if !said[a] {
			changed = true
			s.Parents = append(s.Parents, a.status(us, nil, became, now))
		}
	}
	if s.Parents == nil {
		s.Parents = []ParentStatus{}
	}
	return s, changed
}

// verdict says why the route is not accepted there. That a port belongs to others
// its listener tells, a name is the route's.
func (a *attachment) verdict(became func(string) Outcome) verdict {
	if a.refused.said() || a.route.Kind != TLSRoute {
		return a.refused
	}
	if o, _ := outcome(a.wishes, became); o.unavailable().said() {
		return verdict{conflictedRoute, o.unavailable().message}
	}
	return verdict{}
}

func (a *attachment) status(us string, there []Condition, became func(string) Outcome, now time.Time) ParentStatus {
	o, _ := outcome(a.wishes, became)
	why := a.verdict(became)
	notes := slices.Clone(a.lost)
	notes = append(notes, o.Refused...)
	ok := why.or(accepted, yes(accepted, accepted, ""))
	if ok.Status == conditionTrue && len(notes) > 0 {
		ok.Message = "but for this: " + strings.Join(notes, "; ")
	}
	said := []Condition{ok, a.route.problem.or(resolvedRefs, yes(resolvedRefs, resolvedRefs, ""))}
	if rules := len(a.route.Spec.Rules); rules > 1 && ok.Status == conditionTrue {
		said = append(said, yes(partiallyInvalid, unsupportedValue, "Dropped Rule 2 and following: the first one takes all connections"))
	} else {
		there = without(there, partiallyInvalid)
	}
	return ParentStatus{ParentRef: *a.ref, ControllerName: us, Conditions: settle(there, said, a.route.Generation, now)}
}

func sameGatewayStatus(a, b GatewayStatus) bool {
	return sameConditions(a.Conditions, b.Conditions) &&
		slices.EqualFunc(a.Addresses, b.Addresses, func(x, y Address) bool { return equal(x.Type, y.Type) && x.Value == y.Value }) &&
		slices.EqualFunc(a.Listeners, b.Listeners, func(x, y ListenerStatus) bool {
			return x.Name == y.Name && x.AttachedRoutes == y.AttachedRoutes && sameConditions(x.Conditions, y.Conditions) &&
				slices.EqualFunc(x.SupportedKinds, y.SupportedKinds, func(k, l GroupKind) bool {
					return or(k.Group, Group) == or(l.Group, Group) && k.Kind == l.Kind
				})
		})
}
