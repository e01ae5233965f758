package dnsserver

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A validator accepts what a validating resolver would, by RFC 4035 section 5.
// It shares no code with what it judges but the codec.
type validator struct {
	zone string // with the final dot
	keys []*dns.DNSKEY
	now  time.Time

	negative uint32 // the TTL of its negative answers, s
}

// judge returns what is wrong with the response to a question about the zone.
func (v *validator) judge(m *dns.Msg) error {
	if m.AuthenticatedData {
		return fmt.Errorf("AD is set by an authority")
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		if err := v.signed(section); err != nil {
			return err
		}
	}
	q := m.Question[0]
	cur, found, err := v.follow(m, q)
	if err != nil || found {
		return err
	}
	nsecs := v.nsecs(m.Ns)
	if ns := only[*dns.NS](m.Ns); len(ns) > 0 && len(only[*dns.SOA](m.Ns)) == 0 {
		return v.referral(ns[0].Hdr.Name, nsecs, m)
	}
	if !dns.IsSubDomain(v.zone, cur) || len(only[*dns.SOA](m.Ns)) == 0 {
		if len(m.Answer) > 0 && m.Rcode == dns.RcodeSuccess {
			return nil // the chain has left the zone, is too long or goes round
		}
		return fmt.Errorf("no SOA")
	}
	if m.Rcode == dns.RcodeNameError {
		return v.missing(cur, nsecs)
	}
	return v.noData(cur, q.Qtype, nsecs)
}

// signed checks that every RRset of a section that should is signed.
func (v *validator) signed(section []dns.RR) error {
	sets := make(map[string][]dns.RR)
	var order []string
	sigs := make(map[string][]*dns.RRSIG)
	for _, rr := range section {
		h := rr.Header()
		if sig, ok := rr.(*dns.RRSIG); ok {
			id := fmt.Sprint(strings.ToLower(h.Name), sig.TypeCovered)
			sigs[id] = append(sigs[id], sig)
			continue
		}
		id := fmt.Sprint(strings.ToLower(h.Name), h.Rrtype)
		if sets[id] == nil {
			order = append(order, id)
		}
		sets[id] = append(sets[id], rr)
	}
	for _, id := range order {
		set := sets[id]
		h := set[0].Header()
		if h.Rrtype == dns.TypeCNAME && v.synthesized(set[0].(*dns.CNAME), section) {
			continue
		}
		if h.Rrtype == dns.TypeNS && !strings.EqualFold(h.Name, v.zone) {
			if len(sigs[id]) > 0 {
				return fmt.Errorf("the NS of a delegation is signed: %v", set[0])
			}
			continue
		}
		if len(sigs[id]) == 0 {
			return fmt.Errorf("%v is not signed", set[0])
		}
		for _, sig := range sigs[id] {
			if err := v.verify(sig, set); err != nil {
				return fmt.Errorf("%w: %v over %v", err, sig, set)
			}
		}
		if rr, ok := set[0].(*dns.NSEC); ok && h.Ttl > v.negative {
			return fmt.Errorf("the TTL is above that of negative answers: %v", rr)
		}
	}
	return nil
}

func (v *validator) verify(sig *dns.RRSIG, set []dns.RR) error {
	if !sig.ValidityPeriod(v.now) {
		return fmt.Errorf("it is not valid now")
	}
	for _, rr := range set {
		if ttl := rr.Header().Ttl; ttl > sig.OrigTtl || ttl != sig.Hdr.Ttl {
			return fmt.Errorf("TTL %d, of the signature %d, signed %d", ttl, sig.Hdr.Ttl, sig.OrigTtl)
		}
	}
	for _, k := range v.keys {
		if k.KeyTag() == sig.KeyTag && k.Algorithm == sig.Algorithm {
			same := make([]dns.RR, len(set))
			for i, rr := range set { // the case of the question is kept in the owner
				same[i] = dns.Copy(rr)
				same[i].Header().Name = sig.Hdr.Name
			}
			return sig.Verify(k, same)
		}
	}
	return fmt.Errorf("no key of the zone has made it")
}

// synthesized reports whether a CNAME follows from a DNAME of the section.
func (v *validator) synthesized(c *dns.CNAME, section []dns.RR) bool {
	return slices.ContainsFunc(only[*dns.DNAME](section), func(d *dns.DNAME) bool {
		prefix, ok := strings.CutSuffix(strings.ToLower(c.Hdr.Name), "."+strings.ToLower(d.Hdr.Name))
		return ok && strings.EqualFold(prefix+"."+strings.TrimPrefix(d.Target, "."), c.Target)
	})
}

// follow walks the chain of aliases and proves what wildcards were expanded. It
// returns where the chain leads and whether the answer is there.
func (v *validator) follow(m *dns.Msg, q dns.Question) (string, bool, error) {
	nsecs := v.nsecs(m.Ns)
	for _, sig := range only[*dns.RRSIG](m.Answer) {
		if labels := dns.CountLabel(sig.Hdr.Name); int(sig.Labels) < labels && !strings.HasPrefix(sig.Hdr.Name, "*.") {
			if !slices.ContainsFunc(nsecs, func(n *dns.NSEC) bool { return covers(n, sig.Hdr.Name) }) {
				return "", false, fmt.Errorf("nothing proves that %s itself does not exist", sig.Hdr.Name)
			}
		}
	}
	cur := strings.ToLower(q.Name)
	for range 2 * maxChain {
		next := ""
		for _, rr := range m.Answer {
			if !strings.EqualFold(rr.Header().Name, cur) {
				continue
			}
			if t := rr.Header().Rrtype; t == q.Qtype || q.Qtype == dns.TypeANY && t != dns.TypeRRSIG {
				return cur, true, nil
			}
			if c, ok := rr.(*dns.CNAME); ok {
				next = strings.ToLower(c.Target)
			}
		}
		if next == "" {
			break
		}
		cur = next
	}
	return cur, false, nil
}

func (v *validator) referral(cut string, nsecs []*dns.NSEC, m *dns.Msg) error {
	if slices.ContainsFunc(only[*dns.DS](m.Ns), func(ds *dns.DS) bool { return ds.Hdr.Name == cut }) {
		return nil
	}
	for _, n := range nsecs {
		if n.Hdr.Name == cut && has(n, dns.TypeNS) && !has(n, dns.TypeDS) && !has(n, dns.TypeSOA) {
			return nil
		}
	}
	return fmt.Errorf("neither DS nor a proof that there is none for %s", cut)
}

func (v *validator) missing(cur string, nsecs []*dns.NSEC) error {
	n := v.covering(cur, nsecs)
	if n == nil {
		return fmt.Errorf("no NSEC covers %s", cur)
	}
	if below(n.NextDomain, cur) {
		return fmt.Errorf("%s is an empty non-terminal", cur)
	}
	if w := "*." + encloser(cur, n); v.covering(w, nsecs) == nil {
		return fmt.Errorf("no NSEC covers %s", w)
	}
	return nil
}

func (v *validator) noData(cur string, qtype uint16, nsecs []*dns.NSEC) error {
	if v.owns(cur, qtype, nsecs) {
		return nil
	}
	n := v.covering(cur, nsecs)
	if n == nil {
		return fmt.Errorf("no NSEC is about %s", cur)
	}
	if below(n.NextDomain, cur) {
		return nil // an empty non-terminal
	}
	w := "*." + encloser(cur, n)
	if v.owns(w, qtype, nsecs) {
		return nil
	}
	if n := v.covering(w, nsecs); n != nil && below(n.NextDomain, w) {
		return nil
	}
	return fmt.Errorf("no NSEC says that %s has no %s", w, dns.Type(qtype))
}

// owns reports whether an NSEC says that a name exists and lacks a type.
func (v *validator) owns(owner string, qtype uint16, nsecs []*dns.NSEC) bool {
	return slices.ContainsFunc(nsecs, func(n *dns.NSEC) bool {
		parent := has(n, dns.TypeNS) && !has(n, dns.TypeSOA)
		return strings.EqualFold(n.Hdr.Name, owner) && !has(n, qtype) && !has(n, dns.TypeCNAME) && (!parent || qtype == dns.TypeDS)
	})
}

func (v *validator) covering(owner string, nsecs []*dns.NSEC) *dns.NSEC {
	i := slices.IndexFunc(nsecs, func(n *dns.NSEC) bool { return covers(n, owner) })
	if i < 0 {
		return nil
	}
	return nsecs[i]
}

func (v *validator) nsecs(section []dns.RR) []*dns.NSEC { return only[*dns.NSEC](section) }

func only[T dns.RR](section []dns.RR) (out []T) {
	for _, rr := range section {
		if t, ok := rr.(T); ok {
			out = append(out, t)
		}
	}
	return out
}

func has(n *dns.NSEC, typ uint16) bool { return slices.Contains(n.TypeBitMap, typ) }

// covers reports whether owner lies between the names of n, RFC 4034 section 4.
// What lies below a delegation or DNAME is not covered, RFC 6840 section 4.1.
func covers(n *dns.NSEC, owner string) bool {
	if below(owner, n.Hdr.Name) && (has(n, dns.TypeDNAME) || has(n, dns.TypeNS) && !has(n, dns.TypeSOA)) {
		return false
	}
	after := compareNames(owner, n.Hdr.Name) > 0
	before := compareNames(owner, n.NextDomain) < 0
	if compareNames(n.NextDomain, n.Hdr.Name) <= 0 { // the last one
		return after || before
	}
	return after && before
}

func below(n, above string) bool {
	return !strings.EqualFold(n, above) && dns.IsSubDomain(strings.ToLower(above), strings.ToLower(n))
}

// encloser is the closest name above owner that exists by what n says.
func encloser(owner string, n *dns.NSEC) string {
	a, b := dns.CompareDomainName(owner, n.Hdr.Name), dns.CompareDomainName(owner, n.NextDomain)
	labels := dns.SplitDomainName(owner)
	return dns.Fqdn(strings.Join(labels[len(labels)-max(a, b):], "."))
}

// compareNames is the canonical order, label by label.
func compareNames(a, b string) int {
	as, bs := wireLabels(a), wireLabels(b)
	for i := 1; i <= min(len(as), len(bs)); i++ {
		if c := strings.Compare(as[len(as)-i], bs[len(bs)-i]); c != 0 {
			return c
		}
	}
	return len(as) - len(bs)
}

func wireLabels(text string) (labels []string) {
	buf := make([]byte, 2*maxName)
	if _, err := dns.PackDomainName(strings.ToLower(text), buf, 0, nil, false); err != nil {
		return nil
	}
	for at := 0; buf[at] != 0; at += 1 + int(buf[at]) {
		labels = append(labels, string(buf[at+1:at+1+int(buf[at])]))
	}
	return labels
}

// validatorOf makes a validator of the keys that the zone answers with.
func (h *house) validatorOf(t testing.TB, zone string) *validator {
	t.Helper()
	m := h.askSigned(t, zone, dns.TypeDNSKEY)
	v := &validator{zone: dns.Fqdn(zone), keys: only[*dns.DNSKEY](m.Answer), now: time.Now()}
	if len(v.keys) == 0 {
		t.Fatalf("%s has no keys: %v", zone, m)
	}
	for _, soa := range only[*dns.SOA](h.askSigned(t, zone, dns.TypeSOA).Answer) {
		v.negative = min(soa.Hdr.Ttl, soa.Minttl) // RFC 9077
	}
	return v
}

// askSigned asks by TCP and with DO.
func (h *house) askSigned(t testing.TB, owner string, typ uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(owner), typ)
	m.SetEdns0(1232, true)
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return h.send(t, packet, true)
}
