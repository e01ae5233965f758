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
	if w.client.IsValid() {
		w.oneClient(p)
	} else {
		w.clients(p)
	}
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
	for i, r := range m.Rules() {
		if i == fewRules {
			w.say("and %s for clients", number(len(m.Rules())-fewRules, "more rule"))
			break
		}
		who := r.Subnets[0].String()
		if more := len(r.Subnets) - 1; more > 0 {
			who += fmt.Sprintf(" and %s", number(more, "more subnet"))
		}
		w.say("clients in %s are answered with %s", who, viewed(p, r))
	}
	w.say("all other clients are answered with all addresses; a subnet that a resolver tells counts as the client (dns.ecs)")
}

// oneClient says what w.client is answered.
func (w *explainer) oneClient(p *pool.Pool) {
	m := p.Naming.Clients
	if m == nil {
		w.say("a client in %s is answered as everybody: the service has no dns.clients", w.client)
		return
	}
	rule, scope := m.Find(w.client.Addr(), w.client.Bits())
	if rule < 0 {
		w.say("a client in %s is answered with all addresses: no rule is for it (scope /%d)", w.client, scope)
	} else {
		w.say("a client in %s is answered with %s (rule %d, scope /%d)", w.client, viewed(p, m.Rules()[rule]), rule+1, scope)
	}
	if scope > w.client.Bits() {
		w.say("parts of %s may be answered otherwise", w.client)
	}
}

// parseClient reads an address or subnet; empty: the zero value.
func parseClient(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("client: %.64q is neither an IP address nor a subnet like 10.1.0.0/16", s)
	}
	return p.Masked(), nil
}

// viewed says what the clients of a rule are answered with. Where the service
// has addresses of both families, each goes its own way.
func viewed(p *pool.Pool, r pool.ClientRule) string {
	var v4, v6 bool
	for _, a := range p.Addresses(nil) {
		v4, v6 = v4 || a.Unmap().Is4(), v6 || !a.Unmap().Is4()
	}
	views := p.Views()
	of := func(is func(netip.Addr) bool) string {
		for i, zone := range r.Zones {
			var near []netip.Addr
			for _, a := range views[slices.IndexFunc(views, func(v pool.View) bool { return v.Zone == zone })].Addresses {
				if is(a.Addr) {
					near = append(near, a.Addr)
				}
			}
			if len(near) == 0 {
				continue
			}
			out := fmt.Sprintf("zone %s: %s", zone, addressList(near))
			if i > 0 {
				out += "; nobody is eligible in " + strings.Join(r.Zones[:i], ", ")
			}
			return out
		}
		return "all addresses: nobody is eligible in " + strings.Join(r.Zones, ", ")
	}
	if v4 && v6 {
		return "by IPv4 " + of(netip.Addr.Is4) + ", by IPv6 " + of(netip.Addr.Is6)
	}
	return of(netip.Addr.IsValid)
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
