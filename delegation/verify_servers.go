package delegation

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// A state is what one of our name servers says.
type state struct {
	server
	unasked bool // this host has no way to it
	udp     bool // it answers with authority, by UDP
	tcp     bool
	serial  uint32
	ns      []string
	nsKnown bool
	keys    []*dns.DNSKEY
	keyed   bool // keys are known
}

// maxServers bounds how many addresses of name servers are asked.
const maxServers = 64

// servers looks at the name servers that the parent leads to, and at those of
// the configuration that it does not name yet.
func (l *look) servers(ctx context.Context, r *referral) {
	all := l.targets(ctx, r)
	states := make([]*state, len(all))
	found := make([]Report, len(all)) // each goroutine has its own
	each(l.limit, all, func(i int, s server) { states[i] = l.examine(ctx, s, &found[i]) })
	for i := range found {
		for _, f := range found[i].Findings {
			l.report.add(f.Code, f.Where, f.Text, f.Cure)
		}
		l.report.Notes = append(l.report.Notes, found[i].Notes...)
	}
	l.serials(ctx, states)
	l.signed(r, states)
}

// targets returns whom to ask: each address once.
func (l *look) targets(ctx context.Context, r *referral) []server {
	port := l.Port
	if port == 0 {
		port = 53
	}
	var out []server
	add := func(name string, a netip.Addr) {
		s := server{name, netip.AddrPortFrom(a.Unmap(), port)}
		if !slices.ContainsFunc(out, func(o server) bool { return o.address == s.address }) {
			out = append(out, s)
		}
	}
	names := make(map[string]bool)
	if r != nil {
		for _, n := range r.servers {
			names[n] = true
			for _, a := range r.addresses[n] {
				add(n, a)
			}
		}
	}
	for _, n := range l.zone.NameServers {
		names[n.Name] = true
		if below(n.Name, l.zone.Name) {
			for _, a := range n.Addresses {
				add(n.Name, a)
			}
		}
	}
	for n := range names {
		if !below(n, l.zone.Name) {
			l.outside(ctx, n, add)
		}
	}
	for _, n := range l.zone.NameServers {
		for _, a := range n.Addresses {
			l.reach(n.Name, a)
		}
	}
	slices.SortFunc(out, func(a, b server) int { return a.address.Compare(b.address) })
	if len(out) > maxServers { // a parent may say what it likes
		l.report.note("of %d addresses of name servers, %d were asked", len(out), maxServers)
		out = out[:maxServers]
	}
	return out
}

// outside finds the addresses of a name server that lies in another zone.
func (l *look) outside(ctx context.Context, name string, add func(string, netip.Addr)) {
	found, err := l.resolver().LookupNetIP(ctx, "ip", name+".")
	if err != nil {
		l.report.add(AddressWrong, name, fmt.Sprintf("no address of it is found: %v", err), "it needs A or AAAA records in the zone that it lies in")
		return
	}
	found = sortedAddrs(found)
	for _, a := range found {
		add(name, a)
		l.reach(name, a)
	}
	i := slices.IndexFunc(l.zone.NameServers, func(n pool.NameServer) bool { return n.Name == name })
	if i < 0 || len(l.zone.NameServers[i].Addresses) == 0 {
		return
	}
	if want := sortedAddrs(l.zone.NameServers[i].Addresses); !slices.Equal(want, found) {
		l.report.add(AddressWrong, name, fmt.Sprintf("it resolves to %s, the configuration has %s", list(found), list(want)), "change its records in the zone that it lies in, or nameservers of this one")
	}
}

const cureReach = "does the security group let port 53 through from everywhere, UDP and TCP, and is the address that of a living host that listens on it (dns.listen)?"

// examine asks one of our servers.
func (l *look) examine(ctx context.Context, s server, report *Report) *state {
	out := &state{server: s}
	soa := question{name: l.zone.Name, typ: dns.TypeSOA}
	for _, network := range []string{"udp", "tcp"} {
		r, err := ask(ctx, s.address, network, soa)
		if err != nil && noRoute(err) {
			report.note("%s was not asked: this host has no way to it", s)
			out.unasked = true
			return out
		}
		if err != nil {
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				report.note("%s was not asked to the end: time is up", s)
			}
			code, text := NoUDP, "it does not answer by UDP: "
			if network == "tcp" {
				code, text = NoTCP, "it does not answer by TCP, which long answers need: "
			}
			report.add(code, s.String(), text+said(err), cureReach)
			continue
		}
		serial, why := authoritative(r, l.zone.Name)
		if why != "" {
			report.add(Lame, s.String(), "it does not serve the zone: "+why,
				"is the zone in dns.zones there, and the address that of this elbow or of a secondary that has the zone?")
			continue
		}
		out.serial = serial
		if network == "udp" {
			out.udp = true
		} else {
			out.tcp = true
		}
	}
	network := "tcp"
	switch {
	case !out.udp && !out.tcp:
		return out
	case !out.tcp:
		network = "udp"
	}
	l.records(ctx, out, network, report)
	l.recursion(ctx, out, network, report)
	return out
}

// authoritative returns the serial of an answer for SOA, or why it is no answer
// of a server that has the zone.
func authoritative(r *dns.Msg, zone string) (serial uint32, why string) {
	switch {
	case r.Rcode != dns.RcodeSuccess:
		return 0, "it answers " + dns.RcodeToString[r.Rcode]
	case !r.Authoritative:
		return 0, "it answers without authority (no AA)"
	}
	for _, rr := range r.Answer {
		if soa, ok := rr.(*dns.SOA); ok && strings.EqualFold(soa.Hdr.Name, dns.Fqdn(zone)) {
			return soa.Serial, ""
		}
	}
	return 0, "it answers without an SOA"
}

// records asks for what the zone says about itself.
func (l *look) records(ctx context.Context, s *state, network string, report *Report) {
	if r, err := ask(ctx, s.address, network, question{name: l.zone.Name, typ: dns.TypeNS}); err == nil && r.Rcode == dns.RcodeSuccess {
		s.nsKnown = true
		for _, rr := range r.Answer {
			if ns, ok := rr.(*dns.NS); ok {
				s.ns = append(s.ns, strings.ToLower(strings.TrimSuffix(ns.Ns, ".")))
			}
		}
		slices.Sort(s.ns)
		var want []string
		for _, n := range l.zone.NameServers {
			want = append(want, n.Name)
		}
		slices.Sort(want)
		if !slices.Equal(s.ns, slices.Compact(want)) {
			report.add(NSDiffers, s.String(), fmt.Sprintf("the zone it serves has the NS records %s, the configuration %s", list(s.ns), list(want)),
				"does it run with this configuration, or is it a secondary that does not follow?")
		}
	}
	if r, err := ask(ctx, s.address, network, question{name: l.zone.Name, typ: dns.TypeDNSKEY}); err == nil && r.Rcode == dns.RcodeSuccess {
		s.keyed = true
		for _, rr := range r.Answer {
			if k, ok := rr.(*dns.DNSKEY); ok {
				s.keys = append(s.keys, k)
			}
		}
	}
}

// recursion finds out whether a server resolves other names for anybody.
func (l *look) recursion(ctx context.Context, s *state, network string, report *Report) {
	r, err := ask(ctx, s.address, network, question{name: ".", typ: dns.TypeNS, recurse: true})
	if err == nil && r.Rcode == dns.RcodeSuccess && r.RecursionAvailable && len(r.Answer) > 0 {
		report.add(OpenRecursion, s.String(), "it resolves names of other zones for anybody: it will be used to attack others",
			"allow recursion there to your own clients alone; elbow never does it")
	}
}

const (
	serialRounds = 3
	serialPause  = time.Second // a change may be on its way to a secondary
)

// serials compares the serials of all that answer, and looks again before it
// calls them different.
func (l *look) serials(ctx context.Context, states []*state) {
	var live []*state
	for _, s := range states {
		if s.udp || s.tcp {
			live = append(live, s)
		}
	}
	for round := range serialRounds {
		if !slices.ContainsFunc(live, func(s *state) bool { return s.serial != live[0].serial }) {
			return
		}
		if round == serialRounds-1 {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(serialPause):
		}
		each(l.limit, live, func(_ int, s *state) {
			network := "udp"
			if !s.udp {
				network = "tcp"
			}
			if r, err := ask(ctx, s.address, network, question{name: l.zone.Name, typ: dns.TypeSOA}); err == nil {
				if serial, why := authoritative(r, l.zone.Name); why == "" {
					s.serial = serial
				}
			}
		})
	}
	var parts []string
	for _, s := range live {
		parts = append(parts, fmt.Sprintf("%s has %d", s.server, s.serial))
	}
	l.report.add(SerialDiffers, l.zone.Name, "its servers do not serve the same state: "+strings.Join(parts, ", "),
		"do secondaries hear of changes (transfer.notify), may they copy the zone (transfer.allow)?")
}

// CheckKeys returns nil if every DS record that z is to have in the parent zone
// is of a key which its name servers serve, as far as they answer. One that is not
// would take the whole zone away from those who validate.
func (v *Verifier) CheckKeys(ctx context.Context, z Zone) error {
	ctx, cancel := context.WithTimeout(ctx, VerifyTimeout)
	defer cancel()
	l := &look{Verifier: v, zone: z, report: Report{Zone: z.Name}, limit: make(chan struct{}, maxAtOnce)}
	targets := l.targets(ctx, nil)
	served := make([]error, len(targets))
	asked := make([]bool, len(targets))
	each(l.limit, targets, func(i int, s server) {
		r, err := ask(ctx, s.address, "tcp", question{name: z.Name, typ: dns.TypeDNSKEY})
		if err != nil || r.Rcode != dns.RcodeSuccess || !r.Authoritative {
			return
		}
		asked[i] = true
		for _, ds := range z.Keys.DS {
			if !keyServed(r, ds) {
				served[i] = fmt.Errorf("%s does not serve the key of the DS record %s", s, ds)
			}
		}
	})
	if !slices.Contains(asked, true) {
		return fmt.Errorf("no name server of %s answers for its keys, so that its DS records could not be checked", z.Name)
	}
	return errors.Join(served...)
}

// keyServed reports whether an answer has the key of a DS record.
func keyServed(r *dns.Msg, ds string) bool {
	for _, rr := range r.Answer {
		if k, ok := rr.(*dns.DNSKEY); ok {
			for _, digest := range []uint8{dns.SHA1, dns.SHA256, dns.SHA384} {
				if made := k.ToDS(digest); made != nil && dsText(made) == ds {
					return true
				}
			}
		}
	}
	return false
}

// signed compares the DS records in the parent zone with the keys that are
// served.
func (l *look) signed(r *referral, states []*state) {
	if r == nil || !r.dsKnown {
		return
	}
	var keys []*dns.DNSKEY
	known := false
	for _, s := range states {
		if known = known || s.keyed; len(s.keys) > 0 && len(keys) == 0 {
			keys = s.keys
		}
	}
	if !known {
		return
	}
	name := l.zone.Name
	matches := func(ds *dns.DS) bool {
		return slices.ContainsFunc(keys, func(k *dns.DNSKEY) bool {
			made := k.ToDS(ds.DigestType)
			return made != nil && made.KeyTag == ds.KeyTag && made.Algorithm == ds.Algorithm && strings.EqualFold(made.Digest, ds.Digest)
		})
	}
	switch {
	case len(r.ds) > 0 && len(keys) == 0:
		l.report.add(DSUnsigned, name, "the parent zone has DS records of it, and it is not signed: resolvers that validate answer none of its names",
			"take the DS records out of the parent zone, or sign the zone (dnssec)")
	case len(r.ds) > 0 && !slices.ContainsFunc(r.ds, matches):
		l.report.add(DSWrong, name, fmt.Sprintf("no DS record in the parent zone (%s) is of a key of the zone: resolvers that validate answer none of its names", list(r.dsTexts())),
			"elbow dnssec ds shows those of its keys; "+cureApply)
	case len(r.ds) == 0 && len(keys) > 0 && len(l.zone.Keys.DS) > 0:
		l.report.add(DSMissing, name, "it is signed, and the parent zone has no DS record of it: nobody validates it", cureApply)
	case len(r.ds) > 0 && !slices.Equal(r.dsTexts(), l.zone.Keys.DS) && !l.zone.Keys.ByHand:
		l.report.add(DSStale, name, fmt.Sprintf("the DS records in the parent zone are %s, those of its keys %s", list(r.dsTexts()), list(l.zone.Keys.DS)), cureApply)
	}
}
