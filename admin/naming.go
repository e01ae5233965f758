package admin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"haslohas.com/elbow/pool"
)

// fewRules bounds how many rules for clients, or names, are explained.
const fewRules = 8

// naming says how the hostnames of p in a zone are answered, as far as that is not
// what every service does.
func (w *explainer) naming(p *pool.Pool, z *pool.Zone) {
	n := &p.Naming
	switch {
	case n.Policy == pool.AnswerWeighted:
		w.say("an answer names at most %s, drawn in proportion to the weights", addresses(n.MaxAddresses()))
	case n.Limit > 0:
		w.say("an answer names at most %s", addresses(n.Limit))
	}
	if n.TTL != (pool.ZoneTTL{}) {
		ttl := p.TTL(z.TTL)
		w.say("the service has TTLs of its own: %s in calm, %s while a state could flip, %s where there is no address", ttl.Normal, ttl.Degraded, ttl.Negative)
	}
	if p.FailedOver() {
		w.say("it has failed over to priority %d: none of a lower one is well", p.Traffic.Priority)
	}
	w.clients(p)
	if n.HTTPS != nil {
		w.say("each hostname has an HTTPS record")
	}
	var beside []string
	for _, o := range p.OwnNames() {
		if o.Kind == pool.Hostname {
			continue
		}
		if len(beside) == fewRules {
			beside = append(beside, "…")
			break
		}
		beside = append(beside, fmt.Sprintf("%s (%s)", o.Name, o.Kind))
	}
	if len(beside) > 0 {
		w.say("the service has other names: %s", strings.Join(beside, ", "))
	}
}

func addresses(n int) string {
	if n == 1 {
		return "1 address"
	}
	return fmt.Sprintf("%d addresses", n)
}

// clients says which clients are answered with what.
func (w *explainer) clients(p *pool.Pool) {
	m := p.Naming.Clients
	if m == nil {
		return
	}
	views := make(map[string][]netip.Addr)
	for _, v := range p.Views() {
		for _, a := range v.Addresses {
			views[v.Zone] = append(views[v.Zone], a.Addr)
		}
	}
	for i, r := range m.Rules() {
		if i == fewRules {
			w.say("and %s for clients", number(len(m.Rules())-fewRules, "more rule"))
			break
		}
		who := r.Subnets[0].String()
		if more := len(r.Subnets) - 1; more > 0 {
			who += fmt.Sprintf(" and %s", number(more, "more subnet"))
		}
		nearest := slices.IndexFunc(r.Zones, func(zone string) bool { return len(views[zone]) > 0 })
		switch zones := strings.Join(r.Zones, ", "); nearest {
		case -1:
			w.say("clients in %s are answered with all addresses: nobody is eligible in %s", who, zones)
		case 0:
			w.say("clients in %s are answered with zone %s: %s", who, r.Zones[0], addressList(views[r.Zones[0]]))
		default:
			w.say("clients in %s are answered with zone %s: %s; nobody is eligible in %s", who, r.Zones[nearest],
				addressList(views[r.Zones[nearest]]), strings.Join(r.Zones[:nearest], ", "))
		}
	}
	w.say("all other clients are answered with all addresses; a subnet that a resolver tells counts as the client (dns.ecs)")
}

// owner returns the service that a name belongs to as something else than its
// hostname, nil if none does.
func (w *explainer) owner(name string) (*pool.Pool, pool.NameKind) {
	for _, p := range w.t.Pools {
		for _, o := range p.OwnNames() {
			if o.Name == name && o.Kind != pool.Hostname {
				return p, o.Kind
			}
		}
	}
	return nil, 0
}

// ownName explains such a name.
func (w *explainer) ownName(p *pool.Pool, kind pool.NameKind, name string, z *pool.Zone) {
	a := w.out.Answer
	w.out.Name, w.out.Kind = name, "name"
	w.out.Summary = fmt.Sprintf("%s is the %s of service %s", name, kind, p.Name)
	if len(a.Records) == 0 {
		w.out.Summary += ", and has no record now (NODATA)"
		w.say("that is cached for %s", p.TTL(z.TTL).Negative)
	}
	life := p.Lifetime(z.TTL)
	switch kind {
	case pool.StatusName:
		w.say("the TTL is %s, always the degraded one", p.TTL(z.TTL).Degraded)
	case pool.TargetName:
		w.say("SRV records of the service lead to it; it has an address while its backend is answered")
		fallthrough
	default:
		w.say("the TTL is %s because %s", life.TTL, life.Reason)
	}
	st := w.s.service(w.t, p, w.listeners)
	w.verdictOf(&st)
}
