package delegation

import (
	"context"
	"crypto"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

func TestVerify(t *testing.T) {
	key, _ := newKey(t)
	other, _ := newKey(t)
	tests := map[string]struct {
		make func(w *world)
		want []string // code and where
	}{
		"all is well": {func(*world) {}, nil},
		"not delegated": {func(w *world) {
			w.edit(w.parents, "-public.haslohas.com. 3600 NS ns1.public.haslohas.com.", "-public.haslohas.com. 3600 NS ns2.public.haslohas.com.",
				"-ns1.public.haslohas.com. 3600 A 127.0.0.2", "-ns2.public.haslohas.com. 3600 A 127.0.0.3")
		}, []string{"not-delegated public.haslohas.com"}},
		"a name server is missing": {func(w *world) { w.edit(w.parents, "-public.haslohas.com. 3600 NS ns2.public.haslohas.com.") },
			[]string{"ns-missing ns2.public.haslohas.com"}},
		"a name server too much": {func(w *world) {
			w.names["ns.old.test"] = []netip.Addr{ip("127.0.0.2")}
			w.edit(w.parents, "+public.haslohas.com. 3600 NS ns.old.test.")
		}, []string{"ns-extra ns.old.test"}},
		"glue is missing": {func(w *world) { w.edit(w.parents, "-ns2.public.haslohas.com. 3600 A 127.0.0.3") },
			[]string{"glue-missing ns2.public.haslohas.com"}},
		"glue is wrong": {func(w *world) {
			w.edit(w.parents, "-ns2.public.haslohas.com. 3600 A 127.0.0.3", "+ns2.public.haslohas.com. 3600 A 127.0.0.2")
		}, []string{"glue-wrong ns2.public.haslohas.com"}},
		"glue leads to nobody": {func(w *world) {
			w.edit(w.parents, "-ns2.public.haslohas.com. 3600 A 127.0.0.3", "+ns2.public.haslohas.com. 3600 A 127.0.0.4")
		}, []string{"glue-wrong ns2.public.haslohas.com", "no-udp ns2.public.haslohas.com (127.0.0.4)", "no-tcp ns2.public.haslohas.com (127.0.0.4)"}},
		"another TTL": {func(w *world) {
			for _, p := range w.parents {
				for _, rr := range p.records {
					rr.Header().Ttl = 300
				}
			}
		}, []string{"ttl-differs public.haslohas.com"}},
		"parents differ": {func(w *world) { w.edit(w.parents[1:], "-public.haslohas.com. 3600 NS ns2.public.haslohas.com.") },
			[]string{"parents-differ haslohas.com"}},
		"a parent is broken": {func(w *world) { w.parents[1].rcode = dns.RcodeServerFailure }, nil},
		"all parents are broken": {func(w *world) {
			w.parents[0].rcode, w.parents[1].rcode = dns.RcodeServerFailure, dns.RcodeRefused
		}, []string{"parent-unreachable haslohas.com"}},
		"no UDP": {func(w *world) { w.servers[1].noUDP = true }, []string{"no-udp ns2.public.haslohas.com (127.0.0.3)"}},
		"no TCP": {func(w *world) { w.servers[1].noTCP = true }, []string{"no-tcp ns2.public.haslohas.com (127.0.0.3)"}},
		"lame: another zone": {func(w *world) { w.servers[1].apex = "other.test." },
			[]string{"lame ns2.public.haslohas.com (127.0.0.3)"}},
		"lame: no authority": {func(w *world) { w.servers[0].noAA = true },
			[]string{"lame ns1.public.haslohas.com (127.0.0.2)"}},
		"the zone names others": {func(w *world) { w.edit(w.servers[1:], "+public.haslohas.com. 60 NS ns3.public.haslohas.com.") },
			[]string{"ns-differs ns2.public.haslohas.com (127.0.0.3)"}},
		"serials":             {func(w *world) { w.servers[1].records[0].(*dns.SOA).Serial = 6 }, []string{"serial-differs public.haslohas.com"}},
		"recursion":           {func(w *world) { w.servers[1].recurse = true }, []string{"open-recursion ns2.public.haslohas.com (127.0.0.3)"}},
		"signed":              {func(w *world) { w.sign(key, key) }, nil},
		"signed, no DS":       {func(w *world) { w.sign(key, nil) }, []string{"ds-missing public.haslohas.com"}},
		"a DS of another key": {func(w *world) { w.sign(key, other) }, []string{"ds-wrong public.haslohas.com"}},
		"a DS too much": {func(w *world) {
			w.sign(key, key)
			w.edit(w.parents, "+"+other.ToDS(dns.SHA256).String())
		}, []string{"ds-stale public.haslohas.com"}},
		"a DS without a key": {func(w *world) { w.edit(w.parents, "+"+other.ToDS(dns.SHA256).String()) }, []string{"ds-unsigned public.haslohas.com"}},
		"outside": {func(w *world) {
			w.zone.NameServers[1] = pool.NameServer{Name: "ns.other.test", Addresses: []netip.Addr{ip("127.0.0.3")}}
			w.names["ns.other.test"] = []netip.Addr{ip("127.0.0.3")}
			for _, all := range [][]*nameServer{w.parents, w.servers} {
				ttl := 3600
				w.edit(all, fmt.Sprintf("-public.haslohas.com. %d NS ns2.public.haslohas.com.", ttl), fmt.Sprintf("+public.haslohas.com. %d NS ns.other.test.", ttl))
			}
		}, nil},
		"outside, another address": {func(w *world) {
			w.zone.NameServers[1] = pool.NameServer{Name: "ns.other.test", Addresses: []netip.Addr{ip("127.0.0.9")}}
			w.names["ns.other.test"] = []netip.Addr{ip("127.0.0.3")}
			for _, all := range [][]*nameServer{w.parents, w.servers} {
				w.edit(all, "-public.haslohas.com. 3600 NS ns2.public.haslohas.com.", "+public.haslohas.com. 3600 NS ns.other.test.")
			}
		}, []string{"address-wrong ns.other.test"}},
		"outside, no address": {func(w *world) {
			w.zone.NameServers[1] = pool.NameServer{Name: "ns.other.test"}
			for _, all := range [][]*nameServer{w.parents, w.servers} {
				w.edit(all, "-public.haslohas.com. 3600 NS ns2.public.haslohas.com.", "+public.haslohas.com. 3600 NS ns.other.test.")
			}
		}, []string{"address-wrong ns.other.test"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			test.make(w)
			r := w.verify()
			var got []string
			for _, f := range r.Findings {
				got = append(got, string(f.Code)+" "+f.Where)
				if f.Text == "" || f.Cure == "" {
					t.Errorf("%s says nothing, or not what to do", f)
				}
			}
			slices.Sort(got)
			slices.Sort(test.want)
			if !slices.Equal(got, test.want) {
				t.Errorf("found\n%s\nwant %q", reportText(r), test.want)
			}
		})
	}
}

func reportText(r Report) string {
	var b strings.Builder
	_ = WriteReports(&b, []Report{r})
	return b.String()
}

func newKey(t *testing.T) (*dns.DNSKEY, crypto.PrivateKey) {
	t.Helper()
	k := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: "public.haslohas.com.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600},
		Flags: 257, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	private, err := k.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	return k, private
}

// sign gives the zone a key, and the parent a DS of one.
func (w *world) sign(key, ds *dns.DNSKEY) {
	w.edit(w.servers, "+"+key.String())
	w.zone.Keys.DS = []string{dsText(key.ToDS(dns.SHA256))}
	if ds != nil {
		w.edit(w.parents, "+"+ds.ToDS(dns.SHA256).String())
	}
}

// A private address is named, wherever it stands.
func TestPrivate(t *testing.T) {
	for address, want := range map[string]string{
		"172.31.8.233": "a private address", "127.0.0.1": "loopback", "169.254.0.1": "link-local", "100.64.1.1": "NAT",
		"fd00::1": "a private address", "fe80::1": "link-local", "::1": "loopback", "192.0.2.1": "examples",
		"54.93.167.95": "", "2a05:d014::1": "",
	} {
		if got := private(ip(address)); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s is %q, want %q", address, got, want)
		}
	}
	w := newWorld(t)
	w.parents = w.parents[:1]
	w.servers = w.servers[:1]
	w.servers[0].start(t)
	w.parents[0].start(t)
	v := &Verifier{ParentZone: "haslohas.com", ParentServers: []netip.AddrPort{w.parents[0].addr}, Resolver: w, Port: w.servers[0].addr.Port()}
	r, err := v.Verify(t.Context(), w.zone)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range r.Findings {
		if f.Code == AddressPrivate {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d findings of private addresses, want 2, one for each:\n%s", n, reportText(r))
	}
}

// The servers of the parent zone are found by resolving.
func TestFindParentServers(t *testing.T) {
	r := resolver{
		ns:    map[string][]string{"haslohas.com.": {"ns-1.awsdns-01.org.", "ns-2.awsdns-02.org."}},
		names: map[string][]netip.Addr{"ns-1.awsdns-01.org": {ip("2600::1"), ip("205.251.192.1")}, "ns-2.awsdns-02.org": {ip("2600::2")}},
	}
	l := &look{Verifier: &Verifier{Resolver: r}, zone: Zone{Name: "a.public.haslohas.com"}, limit: make(chan struct{}, 4)}
	var got []string
	for _, s := range l.parentServers(t.Context()) {
		got = append(got, s.address.String())
	}
	if want := []string{"205.251.192.1:53", "[2600::2]:53"}; !slices.Equal(got, want) || l.report.Parent != "haslohas.com" {
		t.Errorf("servers %v of %q, want %v", got, l.report.Parent, want)
	}
	for name, zone := range map[string]string{"no zone around": "x.nowhere.test", "the resolver is away": "x.away.test"} {
		l := &look{Verifier: &Verifier{Resolver: r}, zone: Zone{Name: zone}, limit: make(chan struct{}, 4)}
		if s := l.parentServers(t.Context()); len(s) != 0 || len(l.report.Findings) != 1 || l.report.Findings[0].Code != ParentUnknown {
			t.Errorf("%s: %v, %v", name, s, l.report.Findings)
		}
	}
}

type resolver struct {
	ns    map[string][]string
	names map[string][]netip.Addr
}

func (r resolver) LookupNS(_ context.Context, name string) (out []*net.NS, err error) {
	for _, h := range r.ns[name] {
		out = append(out, &net.NS{Host: h})
	}
	if strings.Contains(name, "away") {
		return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	}
	if len(out) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return out, nil
}

func (r resolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a := r.names[host]; len(a) > 0 {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// DS records are written only when their keys are served.
func TestCheckKeys(t *testing.T) {
	w := newWorld(t)
	key, _ := newKey(t)
	w.zone.Keys.DS = []string{dsText(key.ToDS(dns.SHA256))}
	w.parents = w.parents[:1]
	w.verify()
	v := &Verifier{Port: w.servers[0].addr.Port(), Resolver: w}
	if err := v.CheckKeys(t.Context(), w.zone); err == nil || !strings.Contains(err.Error(), "does not serve the key") {
		t.Error(err)
	}
	for _, s := range w.servers {
		s.records = append(slices.Clone(s.records), key)
	}
	if err := v.CheckKeys(t.Context(), w.zone); err != nil {
		t.Error(err)
	}
	v.Port = 1
	if err := v.CheckKeys(t.Context(), w.zone); err == nil || !strings.Contains(err.Error(), "no name server") {
		t.Error(err)
	}
}
