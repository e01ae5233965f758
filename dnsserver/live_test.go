package dnsserver

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// ownNames are two services of example.com with names beside their hostnames.
func ownNames(t testing.TB) []*pool.Service {
	t.Helper()
	at := func(address, node string, weight, priority int, public ...string) pool.Endpoint {
		e := pool.Endpoint{Address: netip.MustParseAddrPort(address), Node: node, Weight: weight, Priority: priority}
		for _, p := range public {
			e.Public = append(e.Public, netip.MustParseAddr(p))
		}
		return e
	}
	web := &pool.Service{
		Name: "web", Hostnames: []string{"web.example.com", "www.example.com"}, Answer: pool.Direct, WhenAllDown: pool.Refuse,
		Endpoints: []pool.Endpoint{
			at("10.0.0.1:8080", "minion1", 3, 0, "198.51.100.1", "2001:db8::1"),
			at("10.0.0.2:8081", "minion2", 1, 0, "198.51.100.2"),
			at("10.0.0.3:8082", "spare", 1, 2, "198.51.100.3"),
		},
		Naming: pool.Naming{
			TTL:    pool.ZoneTTL{Normal: 60 * time.Second, Degraded: 3 * time.Second, Negative: 2 * time.Second},
			HTTPS:  &pool.Parameters{ALPN: []string{"h2", "http/1.1"}, Port: 8443},
			SRV:    []pool.ServiceName{{Name: "_http._tcp.example.com"}, {Name: "_admin._tcp.example.com", Port: 9000}},
			SVCB:   []pool.ServiceName{{Name: "_8443._foo.example.com", ALPN: []string{"foo"}, Port: 8443}},
			Status: []string{"_status.example.com"},
		},
	}
	shop := &pool.Service{
		Name: "shop", Hostnames: []string{"shop.example.com"}, Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:443")},
		Endpoints: []pool.Endpoint{at("10.0.0.9:80", "", 1, 0)},
		Naming: pool.Naming{
			HTTPS: &pool.Parameters{},
			SRV:   []pool.ServiceName{{Name: "_https._tcp.shop.example.com", Port: 443}},
		},
	}
	return []*pool.Service{web, shop}
}

func namedFixture(t testing.TB) *fixture {
	f := &fixture{down: make(map[netip.Addr]bool), host: []netip.Addr{netip.MustParseAddr("192.0.2.80"), netip.MustParseAddr("2001:db8::80")}, suspense: make(map[string]bool)}
	f.zone(&pool.Zone{Name: "example.com", Records: ns + "_status TXT mine\nwww MX 10 ns.example.net.\nother HTTPS 1 . alpn=h3\n"})
	f.services = ownNames(t)
	return f
}

func TestServiceNames(t *testing.T) {
	tests := []struct {
		ask, down, want string
	}{
		{"_http._tcp.example.com SRV", "", `_http._tcp.example.com. 60 IN SRV 0 3 8080 minion1.web.example.com.
_http._tcp.example.com. 60 IN SRV 0 1 8081 minion2.web.example.com.`},
		{"_http._tcp.example.com SRV", "1", `_http._tcp.example.com. 60 IN SRV 0 1 8081 minion2.web.example.com.`},
		{"_http._tcp.example.com SRV", "1 2", `_http._tcp.example.com. 60 IN SRV 2 1 8082 spare.web.example.com.`},
		{"_http._tcp.example.com SRV", "1 2 3", `SOA 2`},
		{"_admin._tcp.example.com SRV", "2", `_admin._tcp.example.com. 60 IN SRV 0 3 9000 minion1.web.example.com.`},
		{"minion1.web.example.com A", "", `minion1.web.example.com. 60 IN A 198.51.100.1`},
		{"minion1.web.example.com AAAA", "", `minion1.web.example.com. 60 IN AAAA 2001:db8::1`},
		{"minion1.web.example.com A", "1", `SOA 2`}, // it stays a name
		{"spare.web.example.com A", "", `SOA 2`},
		{"spare.web.example.com A", "1 2", `spare.web.example.com. 60 IN A 198.51.100.3`},
		{"minion1.www.example.com A", "", `NXDOMAIN SOA 5`},
		{"web.example.com HTTPS", "", `web.example.com. 60 IN HTTPS 1 . alpn="h2,http/1.1" port="8443" ipv4hint="198.51.100.1,198.51.100.2" ipv6hint="2001:db8::1"`},
		{"www.example.com HTTPS", "1", `www.example.com. 60 IN HTTPS 1 . alpn="h2,http/1.1" port="8443" ipv4hint="198.51.100.2"`},
		{"www.example.com HTTPS", "1 2 3", `SOA 2`},
		{"www.example.com MX", "1 2 3", `www.example.com. 30 IN MX 10 ns.example.net.`},
		{"other.example.com HTTPS", "", `other.example.com. 30 IN HTTPS 1 . alpn="h3"`},
		{"_8443._foo.example.com SVCB", "", `_8443._foo.example.com. 60 IN SVCB 1 web.example.com. alpn="foo" port="8443" ipv4hint="198.51.100.1,198.51.100.2" ipv6hint="2001:db8::1"`},
		{"_status.example.com TXT", "", `_status.example.com. 3 IN TXT "state=serving" "up=3/3" "priority=0" "generation=1"`},
		{"_status.example.com TXT", "2", `_status.example.com. 3 IN TXT "state=serving" "up=2/3" "priority=0" "generation=1"`},
		{"_status.example.com TXT", "1 2", `_status.example.com. 3 IN TXT "state=failed-over" "up=1/3" "priority=2" "generation=1"`},
		{"_status.example.com TXT", "1 2 3", `_status.example.com. 3 IN TXT "state=down" "up=0/3" "priority=0" "generation=1"`},
		{"_https._tcp.shop.example.com SRV", "", `_https._tcp.shop.example.com. 30 IN SRV 0 0 443 shop.example.com.`},
		{"shop.example.com HTTPS", "", `shop.example.com. 30 IN HTTPS 1 . ipv4hint="192.0.2.80" ipv6hint="2001:db8::80"`},
		{"_tcp.example.com SRV", "", `SOA 5`}, // an empty non-terminal
	}
	for _, test := range tests {
		t.Run(test.ask+" down "+test.down, func(t *testing.T) {
			f := namedFixture(t)
			for n := range strings.FieldsSeq(test.down) {
				f.down[netip.MustParseAddr("10.0.0."+n)] = true
			}
			h := newHouse(t, nil)
			h.publish(f)
			a := h.exchange(t, question(t, test.ask))
			var got []string
			if a.Rcode != dns.RcodeSuccess {
				got = append(got, dns.RcodeToString[a.Rcode])
			}
			for _, rr := range a.Ns {
				got = append(got, fmt.Sprintf("%s %d", dns.Type(rr.Header().Rrtype), rr.Header().Ttl))
			}
			text := strings.Join(got, " ")
			var records []string
			for _, rr := range a.Answer {
				records = append(records, strings.ReplaceAll(rr.String(), "\t", " "))
			}
			if diff := cmp.Diff(test.want, text+strings.Join(records, "\n")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The generation in a status is that since which it is so: another service that
// changes does not touch it.
func TestStatusGeneration(t *testing.T) {
	f := namedFixture(t)
	h := newHouse(t, nil)
	status := func() string {
		h.publish(f)
		return strings.Join(h.exchange(t, question(t, "_status.example.com TXT")).Answer[0].(*dns.TXT).Txt, " ")
	}
	if got := status(); got != "state=serving up=3/3 priority=0 generation=1" {
		t.Error(got)
	}
	f.down[netip.MustParseAddr("10.0.0.9")] = true
	if got := status(); got != "state=serving up=3/3 priority=0 generation=1" {
		t.Error(got)
	}
	f.down[netip.MustParseAddr("10.0.0.2")] = true
	if got := status(); got != "state=serving up=2/3 priority=0 generation=3" {
		t.Error(got)
	}
}

// The parameters stand on the wire in the order of their keys, RFC 9460 section
// 2.2, and nothing is compressed.
func TestHTTPSWire(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(namedFixture(t))
	a := h.exchange(t, question(t, "web.example.com HTTPS"))
	rr := a.Answer[0].(*dns.HTTPS)
	var keys []dns.SVCBKey
	for _, kv := range rr.Value {
		keys = append(keys, kv.Key())
	}
	if want := []dns.SVCBKey{dns.SVCB_ALPN, dns.SVCB_PORT, dns.SVCB_IPV4HINT, dns.SVCB_IPV6HINT}; !slices.Equal(keys, want) {
		t.Errorf("keys %v, want %v", keys, want)
	}
	want := "0001" + "00" +
		"0001000c" + "026832" + "08687474702f312e31" +
		"00030002" + "20fb" +
		"00040008" + "c6336401" + "c6336402" +
		"00060010" + "20010db8000000000000000000000001"
	buf := make([]byte, 512)
	end := must(dns.PackRR(rr, buf, 0, nil, false))
	if got := hexOf(buf[:end]); !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want ...%s", got, want)
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for _, c := range b {
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

// What drains has left every cache only when the hints have, too.
func TestHintsAreHandedOut(t *testing.T) {
	f := namedFixture(t)
	h := newHouse(t, nil)
	h.publish(f)
	h.exchange(t, question(t, "web.example.com HTTPS"))
	f.down[netip.MustParseAddr("10.0.0.1")] = true
	now := time.Now()
	h.publish(f)
	until, ok := h.Expires(netip.MustParseAddr("198.51.100.1"), h.snapshot.Load().generation)
	if !ok || until.Before(now.Add(55*time.Second)) {
		t.Errorf("%v, %s", ok, until.Sub(now))
	}
}

func TestNamesInConflict(t *testing.T) {
	var names []pool.OwnName
	for _, s := range ownNames(t) {
		for i := range s.Endpoints { // target names follow from what is known
			s.Endpoints[i].Weight = 1
		}
		names = append(names, s.OwnNames()...)
	}
	z := &pool.Zone{Name: "example.com", File: "zone.db", Records: ns + `web HTTPS 1 . alpn=h3
www AAAA 2001:db8::1
minion1.web A 192.0.2.1
_http._tcp SRV 0 0 80 other
_status TXT free text
_admin._tcp CNAME other
_8443._foo HTTPS 1 .
ok.web A 192.0.2.1
shop MX 0 .
`}
	var got []string
	for _, e := range CheckZone(z, names) {
		got = append(got, e.Error())
	}
	want := []string{
		"zone.db:2:1: web.example.com. is the hostname of a service: its HTTPS cannot stand here",
		"zone.db:3:1: www.example.com. is the hostname of a service: its AAAA cannot stand here",
		"zone.db:4:1: minion1.web.example.com. is the target name of a service: its A cannot stand here",
		"zone.db:5:1: _http._tcp.example.com. is the SRV name of a service: its SRV cannot stand here",
		"zone.db:6:1: _status.example.com. is the status name of a service: its TXT cannot stand here",
		"zone.db:7:1: _admin._tcp.example.com. is the SRV name of a service: its CNAME cannot stand here",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

// A service that has not changed is not looked at again.
func TestRollKeepsWhatIsTheSame(t *testing.T) {
	f := namedFixture(t)
	h := newHouse(t, nil)
	h.publish(f)
	first := h.table.Load()
	again := pool.NewTable(first.Generation+1, time.Now(), &pool.Set{Host: first.Host, DNS: first.DNS, Services: f.services}, first.Pools)
	r := newRoll(again, h.snapshot.Load())
	for _, p := range first.Pools {
		a, b := h.snapshot.Load().roll.pools[p], r.pools[p]
		if len(a) == 0 || &a[0] != &b[0] {
			t.Errorf("%s was made again", p.Name)
		}
	}
	other := again.Host
	other.Addresses = other.Addresses[:1]
	again = pool.NewTable(again.Generation+1, time.Now(), &pool.Set{Host: other, DNS: first.DNS, Services: f.services}, first.Pools)
	r = newRoll(again, h.snapshot.Load())
	if claims := r.pools[first.Service("shop")]; len(claims[0].live.addresses) != 1 {
		t.Error("another address of this host was not seen")
	}
}

// TestFollow: of many zones, a change of a service makes its own anew, and no other is
// looked at; zones that come and go are seen.
func TestFollow(t *testing.T) {
	f := &fixture{down: make(map[netip.Addr]bool)}
	for _, zone := range []string{"a.example", "b.example", "c.example", "sub.b.example"} {
		f.zone(&pool.Zone{Name: zone, Records: ns + "www A 192.0.2.1\n"})
	}
	f.direct("web.b.example", "198.51.100.1", "198.51.100.2")
	f.direct("web.sub.b.example", "198.51.100.3", "198.51.100.4")
	h := newHouse(t, nil)
	h.publish(f)
	change := func(do func(), want ...string) {
		t.Helper()
		before := h.snapshot.Load()
		do()
		h.publish(f)
		now := h.snapshot.Load()
		var changed []string
		for _, z := range now.without(before) {
			changed = append(changed, z.conf.Name)
		}
		if !slices.Equal(changed, want) {
			t.Errorf("%v are new, want %v", changed, want)
		}
		names, maxLabels := 0, 0
		for i, z := range now.sorted {
			if now.zones.get(z.apex) != z || now.transfers[z.apex] == nil || z.conf.Name != f.dns.Zones[i].Name {
				t.Errorf("%s is not what is found", z.conf.Name)
			}
			names += z.size()
			maxLabels = max(maxLabels, z.apexLabels)
		}
		if now.zones.len() != len(f.dns.Zones) || now.names != names || now.maxLabels != maxLabels {
			t.Errorf("%d zones, %d names, at most %d labels, want %d, %d, %d", now.zones.len(), now.names, now.maxLabels, len(f.dns.Zones), names, maxLabels)
		}
	}
	first := netip.MustParseAddr("198.51.100.1")
	change(func() {})
	change(func() { f.down[first] = true }, "b.example")
	change(func() { f.down[netip.MustParseAddr("198.51.100.3")] = true; delete(f.down, first) }, "b.example", "sub.b.example")
	old := h.snapshot.Load().zones
	change(func() { f.direct("web.elsewhere.example", "198.51.100.9") })
	if h.snapshot.Load().zones != old {
		t.Error("the table of zones was made again")
	}
	change(func() { f.direct("new.c.example", "198.51.100.5") }, "c.example")
	change(func() { f.services = f.services[:2] }, "c.example")
	change(func() {
		z := *f.dns.Zones[0]
		z.Records += "new A 192.0.2.2\n"
		f.dns.Zones[0] = &z
	}, "a.example")
	change(func() { f.dns.Zones = f.dns.Zones[:3] }, "b.example") // has the service of the one that is gone
	change(func() { f.zone(&pool.Zone{Name: "d.example", Records: ns}) }, "d.example")
	change(func() { f.down[first] = true }, "b.example")
}

// Endpoints are not known when the configuration is checked: where a target would
// have the name of another service, that one keeps it. A service that was
// refused its hostnames claims nothing.
func TestTargetsGiveWay(t *testing.T) {
	f := namedFixture(t)
	other := f.direct("minion1.web.example.com", "192.0.2.99")
	other.Name = "zzz" // the last, and still before a target
	bare := *f.services[0]
	bare.Name, bare.Hostnames = "bare", nil
	f.services = append(f.services, &bare)
	h := newHouse(t, nil)
	h.publish(f)
	a := h.exchange(t, question(t, "minion1.web.example.com A"))
	if len(a.Answer) != 1 || a.Answer[0].(*dns.A).A.String() != "192.0.2.99" {
		t.Errorf("got %v", a)
	}
	if claims := h.snapshot.Load().roll.pools[h.table.Load().Service("bare")]; len(claims) != 0 {
		t.Errorf("%d claims without a hostname", len(claims))
	}
}
