package dnsserver

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

// policies is a zone with services that are answered in every way there is.
// Endpoints are written ADDRESS@ZONE*WEIGHT/PRIORITY.
func policies(t testing.TB, sign bool) *fixture {
	t.Helper()
	f := &fixture{down: make(map[netip.Addr]bool)}
	z := &pool.Zone{Name: "example.com", Records: ns + "static A 192.0.2.9\nalias CNAME mapped\n@ NS weighted\n"}
	if sign {
		z.DNSSEC = pool.DNSSEC{Folder: "keys", Keys: []pool.KeyFile{keyFile(t, z.Name, dnssec.ECDSAP256, nil)}}
	}
	f.zone(z)
	service := func(name string, endpoints ...string) *pool.Service {
		s := f.direct(name + ".example.com")
		s.Name = name
		for _, text := range endpoints {
			e := pool.Endpoint{Weight: 1}
			text, e.Priority = number(text, "/", 0)
			text, e.Weight = number(text, "*", 1)
			address, zone, _ := strings.Cut(text, "@")
			e.Address, e.Zone = netip.AddrPortFrom(netip.MustParseAddr(address), 80), zone
			s.Endpoints = append(s.Endpoints, e)
		}
		return s
	}
	service("weighted", "192.0.2.1*3", "192.0.2.2", "192.0.2.3*0", "2001:db8::1").Naming.Policy = pool.AnswerWeighted
	three := service("three", "192.0.2.11*2", "192.0.2.12", "192.0.2.13", "192.0.2.14", "192.0.2.15")
	three.Naming = pool.Naming{Policy: pool.AnswerWeighted, Limit: 3}
	service("two", "192.0.2.21", "192.0.2.22", "192.0.2.23", "192.0.2.24", "192.0.2.25").Naming.Limit = 2
	service("over", "192.0.2.31", "192.0.2.32/1", "192.0.2.33/1")
	service("mapped", "192.0.2.41@a", "192.0.2.42@b*3", "192.0.2.43@b", "192.0.2.44@c", "2001:db8::44@c").Naming = pool.Naming{
		Clients: pool.NewClientMap([]pool.ClientRule{
			{Subnets: prefixes("10.0.0.0/8", "2001:db8:1::/48"), Zones: []string{"a", "b"}},
			{Subnets: prefixes("10.1.2.0/24"), Zones: []string{"b", "a"}},
			{Subnets: prefixes("203.0.113.0/24"), Zones: []string{"c"}},
			{Subnets: prefixes("192.168.0.0/16"), Zones: []string{"nowhere"}},
		}),
		HTTPS: &pool.Parameters{ALPN: []string{"h2"}},
	}
	both := service("both", "192.0.2.51@a*3", "192.0.2.52@a", "192.0.2.53@b")
	both.Naming = pool.Naming{Policy: pool.AnswerWeighted, Clients: pool.NewClientMap([]pool.ClientRule{{Subnets: prefixes("10.0.0.0/8"), Zones: []string{"a"}}})}
	return f
}

func number(text, mark string, byDefault int) (string, int) {
	rest, digits, ok := strings.Cut(text, mark)
	if !ok {
		return text, byDefault
	}
	var n int
	_ = must(fmt.Sscan(digits, &n))
	return rest, n
}

func prefixes(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range all {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// ecs puts a client subnet option into a query.
func ecs(m *dns.Msg, subnet string) *dns.Msg {
	p := netip.MustParsePrefix(subnet)
	e := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: net.IP(p.Addr().AsSlice())}
	if p.Addr().Is6() {
		e.Family = 2
	}
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = append(m.IsEdns0().Option, e)
	return m
}

// addressesOf are the addresses of an answer, sorted, without the network
// 192.0.2.0/24 that most have in common.
func addressesOf(m *dns.Msg) string {
	var all []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			all = append(all, strings.TrimPrefix(rr.A.String(), "192.0.2."))
		case *dns.AAAA:
			all = append(all, rr.AAAA.String())
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// scopeOf is what an answer says of its scope; -1: nothing.
func scopeOf(m *dns.Msg) int {
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if s, ok := o.(*dns.EDNS0_SUBNET); ok {
				return int(s.SourceScope)
			}
		}
	}
	return -1
}

// TestWeightedAnswers: the addresses are answered in proportion, as many as the
// limit says, signed or not.
func TestWeightedAnswers(t *testing.T) {
	tests := []struct {
		ask    string
		client string
		size   int
		share  map[string]float64 // of the answers that have it
	}{
		{"weighted.example.com A", "198.51.100.1", 1, map[string]float64{"1": .75, "2": .25}},
		{"weighted.example.com AAAA", "198.51.100.1", 1, map[string]float64{"2001:db8::1": 1}},
		{"three.example.com A", "198.51.100.1", 3, map[string]float64{"11": 1, "12": .5, "13": .5, "14": .5, "15": .5}},
		{"two.example.com A", "198.51.100.1", 2, map[string]float64{"21": .4, "22": .4, "23": .4, "24": .4, "25": .4}},
		{"both.example.com A", "198.51.100.1", 1, map[string]float64{"51": .6, "52": .2, "53": .2}},
		{"both.example.com A", "10.0.0.1", 1, map[string]float64{"51": .75, "52": .25}},
	}
	for _, signed := range []bool{false, true} {
		f := policies(t, signed)
		h := newHouse(t, nil)
		h.publish(f)
		v := &validator{zone: "example.com.", now: time.Now(), negative: 600}
		if signed {
			v.keys = keysOf(t, h, "example.com")
		}
		for _, test := range tests {
			const answers = 4000
			seen := make(map[string]int)
			for i := range answers {
				m := question(t, test.ask)
				m.SetEdns0(1232, signed)
				a := h.from(t, m, test.client)
				got := strings.Fields(addressesOf(a))
				if len(got) != test.size {
					t.Fatalf("signed %t: %s: %v, want %d addresses", signed, test.ask, got, test.size)
				}
				for _, one := range got {
					seen[one]++
				}
				if signed && i < 50 {
					if err := v.judge(a); err != nil {
						t.Fatalf("%s: %v\n%v", test.ask, err, a)
					}
				}
			}
			for one, n := range seen {
				if got, want := float64(n)/answers, test.share[one]; math.Abs(got-want) > .05 {
					t.Errorf("signed %t: %s from %s: %s is in %.3f of the answers, want %.3f", signed, test.ask, test.client, one, got, want)
				}
			}
			if len(seen) != len(test.share) {
				t.Errorf("signed %t: %s: %v was answered", signed, test.ask, seen)
			}
		}
	}
}

// from is exchange for another client.
func (h *house) from(t testing.TB, m *dns.Msg, client string) *dns.Msg {
	t.Helper()
	out := h.respond(&h.r, nil, must(m.Pack()), netip.MustParseAddr(client), 0, false)
	a := new(dns.Msg)
	if err := a.Unpack(out); err != nil {
		t.Fatal(err)
	}
	return a
}

// keysOf are the keys that a zone shows.
func keysOf(t testing.TB, h *house, zone string) []*dns.DNSKEY {
	t.Helper()
	m := question(t, zone+" DNSKEY")
	m.SetEdns0(1232, true)
	return only[*dns.DNSKEY](h.exchange(t, m).Answer)
}

// TestMappedAnswers: who asks, or for whom, and what is answered; -1 stands for
// no option in the answer.
func TestMappedAnswers(t *testing.T) {
	const elsewhere = "198.51.100.1"
	tests := []struct {
		name, client, subnet, ask string
		down                      string
		want                      string
		scope                     int
	}{
		{"a client that no rule is for", elsewhere, "", "mapped.example.com A", "", "41 42 43 44", -1},
		{"by its own address", "10.9.9.9", "", "mapped.example.com A", "", "41", -1},
		{"the longest prefix decides", "10.1.2.3", "", "mapped.example.com A", "", "42 43", -1},
		{"beside it", "10.1.3.3", "", "mapped.example.com A", "", "41", -1},
		{"by IPv6", "2001:db8:1::7", "", "mapped.example.com A", "", "41", -1},
		{"by its subnet", elsewhere, "10.9.9.0/24", "mapped.example.com A", "", "41", 13},
		{"the subnet before the address", "203.0.113.1", "10.9.9.0/24", "mapped.example.com A", "", "41", 13},
		{"the longest prefix by subnet", elsewhere, "10.1.2.0/24", "mapped.example.com A", "", "42 43", 24},
		{"a subnet around two rules", elsewhere, "10.1.0.0/16", "mapped.example.com A", "", "41", 23},
		{"a subnet that no rule is for", "10.1.2.3", "198.51.100.0/24", "mapped.example.com A", "", "41 42 43 44", 6},
		{"a subnet of IPv6", elsewhere, "2001:db8:1:2::/64", "mapped.example.com A", "", "41", 48},
		{"a client that keeps its subnet back: the resolver counts", "10.1.2.3", "0.0.0.0/0", "mapped.example.com A", "", "42 43", 0},
		{"the first zone is down: the next", "10.9.9.9", "", "mapped.example.com A", "192.0.2.41", "42 43", -1},
		{"all its zones are down: everybody", "10.9.9.9", "", "mapped.example.com A", "192.0.2.41 192.0.2.42 192.0.2.43", "44", -1},
		{"a zone that nobody is in: everybody", "192.168.1.1", "", "mapped.example.com A", "", "41 42 43 44", -1},
		{"no zone of it has IPv6: everybody's", "10.9.9.9", "10.9.9.0/24", "mapped.example.com AAAA", "", "2001:db8::44", 13},
		{"NODATA is for all, RFC 7871 section 7.4", elsewhere, "10.9.9.0/24", "mapped.example.com TXT", "", "", 0},
		{"through an alias", elsewhere, "10.9.9.0/24", "alias.example.com A", "", "41", 13},
		{"a name without a map", elsewhere, "10.9.9.0/24", "over.example.com A", "", "31", 0},
		{"a static name", elsewhere, "10.9.9.0/24", "static.example.com A", "", "9", 0},
		{"failover by priority", elsewhere, "", "over.example.com A", "192.0.2.31", "32 33", -1},
		{"a resolver that is not trusted", "172.16.0.1", "10.9.9.0/24", "mapped.example.com A", "", "41 42 43 44", -1},
	}
	for _, signed := range []bool{false, true} {
		for _, test := range tests {
			t.Run(fmt.Sprintf("signed %t: %s", signed, test.name), func(t *testing.T) {
				f := policies(t, signed)
				f.dns.TrustECS = prefixes("198.51.100.0/24", "203.0.113.0/24", "10.0.0.0/8")
				for a := range strings.FieldsSeq(test.down) {
					f.down[netip.MustParseAddr(a)] = true
				}
				h := newHouse(t, nil)
				h.publish(f)
				m := question(t, test.ask)
				if test.subnet != "" {
					ecs(m, test.subnet)
				} else {
					m.SetEdns0(1232, false)
				}
				if signed {
					m.IsEdns0().SetDo()
				}
				a := h.from(t, m, test.client)
				if got := addressesOf(a); got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
				if got := scopeOf(a); got != test.scope {
					t.Errorf("scope %d, want %d", got, test.scope)
				}
				if signed {
					v := &validator{zone: "example.com.", now: time.Now(), keys: keysOf(t, h, "example.com"), negative: 600}
					if err := v.judge(a); err != nil {
						t.Errorf("%v\n%v", err, a)
					}
				}
			})
		}
	}
}

// A cache that obeys the scope is never wrong: what it holds for a subnet is what
// each host in it would have been answered.
func TestScopeIsTrue(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(policies(t, false))
	cache := make(map[netip.Prefix]string)
	ask := func(subnet string) *dns.Msg {
		return h.from(t, ecs(question(t, "mapped.example.com A"), subnet), "198.51.100.1")
	}
	for _, high := range []int{9, 10, 11, 192, 203} {
		for _, middle := range []int{0, 1, 2, 168} {
			for _, low := range []int{0, 1, 2, 3, 113} {
				a := ask(fmt.Sprintf("%d.%d.%d.0/24", high, middle, low))
				within := must(netip.AddrFrom4([4]byte{byte(high), byte(middle), byte(low)}).Prefix(min(scopeOf(a), 24)))
				cache[within] = addressesOf(a)
			}
		}
	}
	for _, high := range []int{9, 10, 11, 192, 203} {
		for _, middle := range []int{0, 1, 2, 168, 200} {
			for _, low := range []int{0, 1, 2, 3, 113, 255} {
				host := netip.AddrFrom4([4]byte{byte(high), byte(middle), byte(low), 77})
				for within, held := range cache {
					if within.Contains(host) && addressesOf(ask(host.String()+"/32")) != held {
						t.Fatalf("a cache holds %q for %s, but %s is answered %q", held, within, host, addressesOf(ask(host.String()+"/32")))
					}
				}
			}
		}
	}
}

// TestECSByUDP is a resolver of its own, by real sockets.
func TestECSByUDP(t *testing.T) {
	r := start(t, policies(t, true), "127.0.0.53:0")
	for subnet, want := range map[string]string{"10.9.9.0/24": "41 /13", "10.1.2.0/24": "42 43 /24", "198.51.100.0/24": "41 42 43 44 /6"} {
		for _, network := range []string{"udp", "tcp"} {
			c := dns.Client{Net: network}
			a, _, err := c.ExchangeContext(t.Context(), ecs(question(t, "mapped.example.com A"), subnet), r.Addrs()[0].String())
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%s /%d", addressesOf(a), scopeOf(a)); got != want {
				t.Errorf("%s by %s: got %s, want %s", subnet, network, got, want)
			}
		}
	}
}

// A query leaves nothing to the garbage collector whatever the policy.
func TestChoicesAllocateNothing(t *testing.T) {
	for _, signed := range []bool{false, true} {
		h := newHouse(t, nil)
		f := policies(t, signed)
		f.services = append(f.services, ownNames(t)...)
		f.host = []netip.Addr{netip.MustParseAddr("192.0.2.80")}
		h.publish(f)
		out := make([]byte, 0, maxPayload)
		for _, ask := range []string{"weighted.example.com A", "three.example.com A", "two.example.com A", "over.example.com A", "mapped.example.com A",
			"mapped.example.com AAAA", "both.example.com A", "mapped.example.com HTTPS", "alias.example.com A", "example.com NS",
			"_http._tcp.example.com SRV", "shop.example.com HTTPS", "_status.example.com TXT", "minion1.web.example.com A"} {
			m := ecs(question(t, ask), "10.1.2.0/24")
			if signed {
				m.IsEdns0().SetDo()
			}
			packet := must(m.Pack())
			if n := testing.AllocsPerRun(100, func() { h.respond(&h.r, out, packet, client, 0, false) }); n > 0 {
				t.Errorf("signed %t: %s: %v allocations", signed, ask, n)
			}
		}
	}
}

// Secondaries get one truth: every address that somebody is answered.
func TestTransferOfChoices(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(policies(t, true))
	z := h.snapshot.Load().sorted[0]
	count := make(map[string]int)
	for owner, set := range z.each() {
		if set.typ == typeA {
			count[owner.String()] += int(set.count)
		}
	}
	for owner, want := range map[string]int{"weighted.example.com.": 2, "three.example.com.": 5, "two.example.com.": 5, "mapped.example.com.": 4, "over.example.com.": 1} {
		if count[owner] != want {
			t.Errorf("%s has %d addresses, want %d", owner, count[owner], want)
		}
	}
}

// What changes nobody's answer changes no serial, and signs nothing; a weight
// changes one.
func TestSerialOfChoices(t *testing.T) {
	f := policies(t, true)
	h := newHouse(t, nil)
	h.publish(f)
	before, made := h.serialOf(t, "example.com"), h.snapshot.Load().sorted[0].signed.made
	rules := f.services[4].Naming.Clients.Rules()
	s := *f.services[4]
	s.Naming.Clients = pool.NewClientMap(rules) // a reload
	f.services[4] = &s
	h.publish(f)
	if got := h.serialOf(t, "example.com"); got != before {
		t.Errorf("a reload has changed the serial")
	}
	w := *f.services[0]
	w.Endpoints = slices.Clone(w.Endpoints)
	w.Endpoints[0].Weight = 4
	f.services[0] = &w
	h.publish(f)
	if got := h.serialOf(t, "example.com"); got == before {
		t.Error("another weight has not changed the serial")
	}
	if again := h.snapshot.Load().sorted[0].signed.made; again != 1 {
		t.Errorf("another weight has made %d signatures (at first there were %d), want that of the SOA alone", again, made)
	}
}

// Signatures of parts are renewed with the others.
func TestRenewalOfChoices(t *testing.T) {
	f := policies(t, true)
	h := newHouse(t, nil)
	h.publish(f)
	z := h.snapshot.Load().sorted[0]
	ready, err := z.renewals(t.Context(), z.signed.ring, time.Now().Add(30*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	sets := 0
	for _, owner := range z.signed.chain.names {
		for s := range z.node(owner).every {
			sets++
			if s.sig == nil || ready[idOf(owner, s)] == nil {
				t.Errorf("%s %s: signed %t, renewed %t", owner, dns.Type(s.typ), s.sig != nil, ready[idOf(owner, s)] != nil)
			}
		}
	}
	if sets < 40 {
		t.Errorf("only %d sets", sets)
	}
}

// More addresses than are drawn from are bounded.
func TestManyChoices(t *testing.T) {
	for _, signed := range []bool{false, true} {
		f := policies(t, signed)
		s := f.direct("crowd.example.com")
		s.Naming = pool.Naming{Policy: pool.AnswerWeighted, Limit: 8}
		for i := range 1000 {
			s.Endpoints = append(s.Endpoints, pool.Endpoint{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80), Weight: 1 + i%256})
		}
		h := newHouse(t, nil)
		h.publish(f)
		set := h.snapshot.Load().sorted[0].live.get(mustName(t, "crowd.example.com")).set(typeA)
		most := maxDrawn
		if signed {
			most = maxSigned
		}
		if n := len(set.choice.parts); n == 0 || n > most {
			t.Errorf("signed %t: %d parts", signed, n)
		}
		a := h.from(t, question(t, "crowd.example.com A"), "198.51.100.1")
		if len(a.Answer) != 8 {
			t.Errorf("signed %t: %d addresses", signed, len(a.Answer))
		}
	}
}

// everything is policies with names of services beside.
func everything(t testing.TB) *fixture {
	t.Helper()
	f := policies(t, true)
	f.host = []netip.Addr{netip.MustParseAddr("192.0.2.80")}
	f.services = append(f.services, ownNames(t)...)
	return f
}

// TestEveryChoiceValidates asks for every name of services, and others beside
// them, as several clients and while backends come and go.
func TestEveryChoiceValidates(t *testing.T) {
	f := everything(t)
	h := newHouse(t, nil)
	types := append(slices.Clone(askedTypes), dns.TypeSRV, dns.TypeSVCB)
	asked := 0
	for _, down := range []string{"192.0.2.1 192.0.2.41 10.0.0.1", "192.0.2.31 192.0.2.42 192.0.2.43 192.0.2.21 10.0.0.1 10.0.0.2"} {
		clear(f.down)
		for a := range strings.FieldsSeq(down) {
			f.down[netip.MustParseAddr(a)] = true
		}
		h.publish(f)
		v := h.validatorOf(t, "example.com")
		for _, owner := range h.names("example.com") {
			for _, typ := range types {
				for _, client := range []string{"198.51.100.1", "10.1.2.3"} {
					m := new(dns.Msg).SetQuestion(owner, typ)
					m.SetEdns0(1232, true)
					a := h.from(t, m, client)
					asked++
					if err := v.judge(a); err != nil {
						t.Fatalf("%s %s from %s while %q is down: %v\n%v", owner, dns.Type(typ), client, down, err, a)
					}
				}
			}
		}
	}
	if asked < 8000 {
		t.Errorf("only %d questions were asked", asked)
	}
	if strings.Contains(h.log.String(), "level=ERROR") {
		t.Error(h.log.String())
	}
}

func TestToolsVerifyChoices(t *testing.T) {
	f := everything(t)
	f.down[netip.MustParseAddr("10.0.0.1")] = true
	h := newHouse(t, nil)
	h.publish(f)
	verifyByTools(t, h)
}

// Explain shows everything that somebody may be answered.
func TestExplainChoices(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(policies(t, true))
	for name, want := range map[string]int{"weighted.example.com": 3, "mapped.example.com": 6, "two.example.com": 5} {
		e, ok := h.Explain(name)
		if !ok || e.Kind != KindService || len(e.Records) != want {
			t.Errorf("%s: %+v, want %d records", name, e, want)
		}
	}
}

func BenchmarkChoice(b *testing.B) {
	h := newHouse(b, nil)
	h.publish(policies(b, false))
	for _, c := range []struct{ name, ask, subnet string }{
		{"weighted", "weighted.example.com A", ""},
		{"weighted3", "three.example.com A", ""},
		{"mapped", "mapped.example.com A", ""},
		{"mapped+ECS", "mapped.example.com A", "10.1.2.0/24"},
	} {
		m := question(b, c.ask)
		if c.subnet != "" {
			ecs(m, c.subnet)
		}
		packet := must(m.Pack())
		b.Run(c.name, func(b *testing.B) {
			out := make([]byte, 0, maxPayload)
			b.ReportAllocs()
			for b.Loop() {
				h.respond(&h.r, out, packet, client, 0, false)
			}
		})
	}
}
