package delegation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// VerifyTimeout bounds the look at one zone.
const VerifyTimeout = 30 * time.Second

// A Verifier looks at delegations as resolvers see them. The zero value asks the
// servers that the system's resolver finds. It may be used by several goroutines.
type Verifier struct {
	ParentZone    string           // empty: the closest zone around that has name servers
	ParentServers []netip.AddrPort // empty: those of the parent zone
	Private       bool             // addresses of name servers may be private
	Resolver      Resolver         // nil: that of the system
	Port          uint16           // that our name servers are asked at; 0: 53, which resolvers ask
}

// A referral is what one server of the parent says about a zone.
type referral struct {
	from      string // name and address
	err       error
	answered  bool // it is one of the parent's servers, and works
	nxdomain  bool
	servers   []string // lower case, without the final dot, sorted
	addresses map[string][]netip.Addr
	ttl       uint32 // of the NS records
	ds        []*dns.DS
	dsKnown   bool
}

// A look is one at one zone.
type look struct {
	*Verifier
	zone   Zone
	report Report
	limit  chan struct{}
}

// Verify looks at the delegation of z, for half a minute at most. All that it
// finds out is in the report: there is no error but that of ctx.
func (v *Verifier) Verify(ctx context.Context, z Zone) (Report, error) {
	bounded, cancel := context.WithTimeout(ctx, VerifyTimeout)
	defer cancel()
	l := &look{
		Verifier: v,
		zone:     z,
		report:   Report{Zone: z.Name, At: time.Now().UTC().Truncate(time.Second), Findings: []Finding{}},
		limit:    make(chan struct{}, maxAtOnce),
	}
	r := l.parent(bounded)
	l.servers(bounded, r)
	l.report.sort()
	return l.report, ctx.Err()
}

// each runs f for every item side by side, a few at a time.
func each[T any](limit chan struct{}, items []T, f func(i int, item T)) {
	var wg sync.WaitGroup
	for i, item := range items {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			f(i, item)
		})
	}
	wg.Wait()
}

// A server is one that is asked.
type server struct {
	name    string
	address netip.AddrPort
}

func (s server) String() string {
	if s.name == "" {
		return s.address.String()
	}
	return fmt.Sprintf("%s (%s)", s.name, s.address.Addr())
}

func (l *look) resolver() Resolver {
	if l.Resolver == nil {
		return net.DefaultResolver
	}
	return l.Resolver
}

// parent asks the servers of the parent zone and returns what they say, nil
// where nobody says anything.
func (l *look) parent(ctx context.Context) *referral {
	servers := l.parentServers(ctx)
	if len(servers) == 0 {
		return nil
	}
	referrals := make([]*referral, len(servers))
	each(l.limit, servers, func(i int, s server) { referrals[i] = l.refer(ctx, s) })
	var good []*referral
	var failures []string
	for _, r := range referrals {
		switch {
		case r.answered:
			good = append(good, r)
		case r.err != nil && noRoute(r.err):
			l.report.note("%s was not asked: this host has no way to it", r.from)
		case r.err != nil:
			failures = append(failures, r.from+": "+said(r.err))
		}
	}
	slices.Sort(failures)
	if len(good) == 0 {
		text := "there is no way from here to any of them"
		if len(failures) > 0 {
			text = "none answers: " + strings.Join(failures, ", ")
		}
		l.report.add(ParentUnreachable, l.parentName(), text, "may this host send DNS queries to anybody, by UDP and TCP port 53?")
		return nil
	}
	for _, f := range failures {
		l.report.note("of the servers of %s, %s", l.parentName(), f)
	}
	for _, r := range good[1:] {
		if what := r.differs(good[0]); what != "" {
			l.report.add(ParentsDiffer, l.parentName(), fmt.Sprintf("%s and %s do not say the same: %s", good[0].from, r.from, what),
				"a change takes up to a minute in Route 53; if it stays so, servers of the parent zone do not follow each other")
			break
		}
	}
	l.judge(good[0])
	return good[0]
}

func (l *look) parentName() string { return cmp.Or(l.report.Parent, "the parent zone") }

// parentServers returns who is asked for the delegation.
func (l *look) parentServers(ctx context.Context) []server {
	l.report.Parent = l.ParentZone
	if len(l.ParentServers) > 0 {
		if l.report.Parent == "" {
			_, l.report.Parent, _ = strings.Cut(l.zone.Name, ".")
		}
		var out []server
		for _, a := range l.ParentServers {
			out = append(out, server{address: a})
		}
		return out
	}
	name, hosts, err := l.findParent(ctx)
	if err != nil {
		l.report.add(ParentUnknown, l.zone.Name, fmt.Sprintf("the servers of its parent zone are not found: %v", err),
			"does this host resolve names? Else say which to ask: --parent-server, aws.delegation.parentServers")
		return nil
	}
	l.report.Parent = name
	found := make([][]server, len(hosts))
	each(l.limit, hosts, func(i int, host string) {
		addresses, err := l.resolver().LookupNetIP(ctx, "ip", host)
		if err != nil {
			return
		}
		// One of each is enough: they are asked about the zone, not judged.
		for _, a := range first(addresses)[:min(1, len(first(addresses)))] {
			found[i] = append(found[i], server{host, netip.AddrPortFrom(a, 53)})
		}
	})
	out := slices.Concat(found...)
	if len(out) == 0 {
		l.report.add(ParentUnknown, name, "no address is found of its name servers "+strings.Join(hosts, ", "),
			"does this host resolve names? Else say which to ask: --parent-server, aws.delegation.parentServers")
	}
	return out
}

// findParent returns the parent zone and its name servers.
func (l *look) findParent(ctx context.Context) (name string, hosts []string, err error) {
	for name = cmp.Or(l.ParentZone, l.zone.Name); ; {
		if l.ParentZone == "" {
			if _, name, _ = strings.Cut(name, "."); name == "" {
				return "", nil, cmp.Or(err, fmt.Errorf("no zone around it has name servers"))
			}
		}
		var found []*net.NS
		found, err = l.resolver().LookupNS(ctx, name+".")
		for _, ns := range found {
			hosts = append(hosts, strings.ToLower(strings.TrimSuffix(ns.Host, ".")))
		}
		if slices.Sort(hosts); len(hosts) > 0 {
			return name, hosts, nil
		}
		failed, ok := errors.AsType[*net.DNSError](err)
		if l.ParentZone != "" || ctx.Err() != nil || ok && !failed.IsNotFound {
			return name, nil, cmp.Or(err, fmt.Errorf("%s has no name servers", name))
		}
	}
}

// refer asks one server of the parent zone.
func (l *look) refer(ctx context.Context, s server) *referral {
	out := &referral{from: s.String(), addresses: make(map[string][]netip.Addr)}
	r, err := ask(ctx, s.address, "udp", question{name: l.zone.Name, typ: dns.TypeNS})
	if err != nil {
		out.err = err
		return out
	}
	if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		out.err = fmt.Errorf("it answers %s", dns.RcodeToString[r.Rcode])
		return out
	}
	out.answered, out.nxdomain = true, r.Rcode == dns.RcodeNameError
	apex := dns.Fqdn(l.zone.Name)
	for _, rr := range slices.Concat(r.Answer, r.Ns) {
		if ns, ok := rr.(*dns.NS); ok && strings.EqualFold(ns.Hdr.Name, apex) {
			out.servers = append(out.servers, strings.ToLower(strings.TrimSuffix(ns.Ns, ".")))
			out.ttl = ns.Hdr.Ttl
		}
	}
	slices.Sort(out.servers)
	out.servers = slices.Compact(out.servers)
	for _, rr := range r.Extra {
		name := strings.ToLower(strings.TrimSuffix(rr.Header().Name, "."))
		if a, ok := addressOf(rr); ok && slices.Contains(out.servers, name) {
			out.addresses[name] = append(out.addresses[name], a)
		}
	}
	for name, addresses := range out.addresses {
		out.addresses[name] = sortedAddrs(addresses)
	}
	if len(out.servers) > 0 {
		r, err := ask(ctx, s.address, "udp", question{name: l.zone.Name, typ: dns.TypeDS})
		if err == nil && r.Rcode == dns.RcodeSuccess {
			out.dsKnown = true
			for _, rr := range r.Answer {
				if ds, ok := rr.(*dns.DS); ok {
					out.ds = append(out.ds, ds)
				}
			}
		}
	}
	return out
}

func addressOf(rr dns.RR) (netip.Addr, bool) {
	switch rr := rr.(type) {
	case *dns.A:
		a, ok := netip.AddrFromSlice(rr.A.To4())
		return a, ok
	case *dns.AAAA:
		a, ok := netip.AddrFromSlice(rr.AAAA.To16())
		return a.Unmap(), ok
	}
	return netip.Addr{}, false
}

// differs says in what two servers of the parent do; empty: in nothing.
func (r *referral) differs(other *referral) string {
	switch {
	case !slices.Equal(r.servers, other.servers):
		return fmt.Sprintf("NS %s and %s", list(other.servers), list(r.servers))
	case !maps.EqualFunc(r.addresses, other.addresses, slices.Equal):
		return "the addresses of name servers"
	case r.dsKnown && other.dsKnown && !slices.Equal(r.dsTexts(), other.dsTexts()):
		return "the DS records"
	}
	return ""
}

func (r *referral) dsTexts() []string {
	var out []string
	for _, ds := range r.ds {
		out = append(out, dsText(ds))
	}
	slices.Sort(out)
	return out
}

func list[T any](items []T) string {
	if len(items) == 0 {
		return "none"
	}
	var out []string
	for _, i := range items {
		out = append(out, fmt.Sprint(i))
	}
	return strings.Join(out, ", ")
}

const cureApply = "elbow delegation plan shows what the parent zone must hold, elbow delegation apply puts it there"

// judge compares what the parent says with what it must say.
func (l *look) judge(r *referral) {
	z := &l.zone
	if len(r.servers) == 0 {
		what := "has no NS records of it"
		if r.nxdomain {
			what = "does not know the name"
		}
		l.report.add(NotDelegated, z.Name, fmt.Sprintf("%s %s: nobody is led to this name server", l.parentName(), what), cureApply)
		return
	}
	var want []string
	for _, n := range z.NameServers {
		want = append(want, n.Name)
	}
	for _, n := range want {
		if !slices.Contains(r.servers, n) {
			l.report.add(NSMissing, n, "the parent zone does not name this name server", cureApply)
		}
	}
	for _, n := range r.servers {
		if !slices.Contains(want, n) {
			l.report.add(NSExtra, n, "the parent zone names this name server, the configuration does not", "add it to nameservers of the zone, or take it out of the parent zone; "+cureApply)
		}
	}
	if ttl := uint32(z.TTL / time.Second); r.ttl != ttl && ttl > 0 {
		l.report.add(TTLDiffers, z.Name, fmt.Sprintf("the TTL of its NS records in the parent zone is %ds, not %ds", r.ttl, ttl), cureApply+"; or set aws.delegation.ttl")
	}
	for _, n := range z.NameServers {
		if below(n.Name, z.Name) && slices.Contains(r.servers, n.Name) {
			l.glue(n.Name, sortedAddrs(n.Addresses), r.addresses[n.Name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.addresses)) {
		for _, a := range r.addresses[name] {
			l.reach(name, a)
		}
	}
}

// glue compares the addresses of a name server inside the zone.
func (l *look) glue(name string, want, have []netip.Addr) {
	switch {
	case len(have) == 0:
		l.report.add(GlueMissing, name, "the parent zone has no address of it, and it lies inside the zone: nobody can find it", cureApply)
	case len(want) > 0 && !slices.Equal(want, have):
		l.report.add(GlueWrong, name, fmt.Sprintf("its address in the parent zone is %s, in the configuration %s", list(have), list(want)), cureApply)
	}
}

// reach reports an address that clients elsewhere cannot reach.
func (l *look) reach(name string, a netip.Addr) {
	if what := private(a); what != "" && !l.Private {
		l.report.add(AddressPrivate, name, fmt.Sprintf("its address %s is %s: clients elsewhere do not reach it", a, what),
			"an instance does not see its Elastic IP on its interfaces: name the public address in nameservers of the zone; where all clients are in the same network, set aws.delegation.private")
	}
}
