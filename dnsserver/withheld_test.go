package dnsserver

import (
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// A host whose address may be another's says that it cannot say, to questions
// about the names of its proxied services and to no others; and answers as
// before once the address is its own again.
func TestWithheld(t *testing.T) {
	f := namedFixture(t)
	h := newHouse(t, nil)
	own := f.host
	for _, withheld := range []bool{false, true, false} {
		f.host, f.withheld = own, nil
		if withheld {
			f.host, f.withheld = nil, own
		}
		h.publish(f)
		for ask, silent := range map[string]bool{
			"shop.example.com A":               true,
			"shop.example.com AAAA":            true,
			"shop.example.com HTTPS":           true,
			"shop.example.com ANY":             true,
			"shop.example.com MX":              false,
			"web.example.com A":                false, // direct
			"example.com SOA":                  false,
			"nothing.example.com A":            false,
			"_https._tcp.shop.example.com SRV": false,
		} {
			m := question(t, ask)
			m.SetEdns0(1232, true)
			a := h.exchange(t, m)
			said := slices.ContainsFunc(a.IsEdns0().Option, func(o dns.EDNS0) bool {
				e, ok := o.(*dns.EDNS0_EDE)
				return ok && e.ExtraText == whySilent
			})
			want := withheld && silent
			if got := a.Rcode == dns.RcodeServerFailure; got != want || said != want || want && len(a.Answer)+len(a.Ns) > 0 {
				t.Errorf("withheld %v, %s: %v", withheld, ask, a)
			}
		}
	}
	// One address of two is another's: the answer has the rest.
	f.host, f.withheld = own[:1], own[1:]
	h.publish(f)
	for ask, want := range map[string]int{"shop.example.com A": 1, "shop.example.com AAAA": 0} {
		if a := h.exchange(t, question(t, ask)); a.Rcode != dns.RcodeSuccess || len(a.Answer) != want {
			t.Errorf("%s: %v", ask, a)
		}
	}
}
