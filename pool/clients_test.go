package pool_test

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"haslohas.com/elbow/pool"
)

// clientMap makes a map of rules such as "10.0.0.0/8 2001:db8::/32: a b".
func clientMap(rules ...string) *pool.ClientMap {
	var all []pool.ClientRule
	for _, text := range rules {
		subnets, zones, _ := strings.Cut(text, ": ")
		r := pool.ClientRule{Zones: strings.Fields(zones)}
		for p := range strings.FieldsSeq(subnets) {
			r.Subnets = append(r.Subnets, netip.MustParsePrefix(p))
		}
		all = append(all, r)
	}
	return pool.NewClientMap(all)
}

func TestClientMap(t *testing.T) {
	m := clientMap("10.0.0.0/8: wide", "10.1.2.0/24 192.0.2.7/32: narrow", "10.1.0.0/16: middle", "2001:db8::/32: six", "2001:db8:0:1::/64: deep", "10.1.0.0/16: late")
	tests := []struct {
		client string
		rule   int
		scope  int
	}{
		{"10.200.0.0/24", 0, 9},    // 10.128.0.0/9 has nothing else in it
		{"10.200.0.1/32", 0, 9},    // the same for one host
		{"10.0.0.0/24", 0, 16},     // 10.1.0.0/16 begins beside it
		{"10.1.2.0/24", 1, 24},     // the rule itself
		{"10.1.2.9/32", 1, 24},     // a host in it
		{"10.1.3.0/24", 2, 24},     // beside it
		{"10.1.128.0/24", 2, 17},   // in the other half
		{"10.1.0.0/16", 2, 23},     // parts of it have another rule: scope beyond source
		{"10.0.0.0/8", 0, 16},      // likewise
		{"0.0.0.0/1", -1, 5},       // no rule holds all of it
		{"11.0.0.0/8", -1, 8},      // beside 10.0.0.0/8
		{"198.51.100.0/24", -1, 6}, // 192.0.2.7 is six bits away
		{"192.0.2.7/32", 1, 32},
		{"192.0.2.6/32", -1, 32},
		{"128.0.0.0/8", -1, 2},
		{"2001:db8:ffff::/48", 3, 33},
		{"2001:db8::/64", 3, 64},
		{"2001:db8:0:1::/64", 4, 64},
		{"2001:db8:0:1::5/128", 4, 64},
		{"2002::/16", -1, 15},
	}
	for _, test := range tests {
		p := netip.MustParsePrefix(test.client)
		if rule, scope := m.Find(p.Addr(), p.Bits()); rule != test.rule || scope != test.scope {
			t.Errorf("%s: rule %d scope /%d, want %d /%d", p, rule, scope, test.rule, test.scope)
		}
	}
	if rule, scope := m.Find(netip.Addr{}, 0); rule != -1 || scope != 0 {
		t.Errorf("nobody: rule %d scope %d", rule, scope)
	}
	only4 := clientMap("10.0.0.0/8: a")
	if rule, scope := only4.Find(netip.MustParseAddr("2001:db8::1"), 56); rule != -1 || scope != 0 {
		t.Errorf("no rule is for IPv6: rule %d scope %d", rule, scope)
	}
	everybody := clientMap("0.0.0.0/0: a")
	if rule, scope := everybody.Find(client(1), 24); rule != 0 || scope != 0 {
		t.Errorf("one rule for all: rule %d scope %d", rule, scope)
	}
}

// Against the definition: the rule is that of the longest prefix which holds the
// whole network, and every host within the scope has that of the address.
func TestClientMapByDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func() netip.Addr { // few bits, so that prefixes often lie in each other
		return netip.AddrFrom4([4]byte{byte(r.Uint32N(4)) << 6, byte(r.Uint32N(3)), byte(r.Uint32N(2)) * 255, byte(r.Uint32N(3))})
	}
	for range 50 {
		var rules []pool.ClientRule
		for range r.IntN(20) {
			p, _ := random().Prefix(int(r.Uint32N(33)))
			rules = append(rules, pool.ClientRule{Subnets: []netip.Prefix{p}, Zones: []string{"z"}})
		}
		m := pool.NewClientMap(rules)
		longest := func(a netip.Addr, length int) int {
			best, bits := -1, -1
			for i, rule := range rules {
				if p := rule.Subnets[0]; p.Contains(a) && p.Bits() <= length && p.Bits() > bits {
					best, bits = i, p.Bits()
				}
			}
			return best
		}
		for range 200 {
			a, length := random(), int(r.Uint32N(33))
			p, _ := a.Prefix(length)
			a = p.Addr()
			rule, scope := m.Find(a, length)
			if want := longest(a, length); rule != want {
				t.Fatalf("%v: %s has rule %d, want %d", rules, p, rule, want)
			}
			within, _ := a.Prefix(scope)
			for range 50 {
				if b := random(); within.Contains(b) && longest(b, 32) != longest(a, 32) {
					t.Fatalf("%v: the scope /%d of %s holds %s, which has another rule", rules, scope, p, b)
				}
			}
			if scope > 0 { // and it is no longer than it must be
				wider, _ := a.Prefix(scope - 1)
				other := false
				for _, rule := range rules {
					other = other || wider.Overlaps(rule.Subnets[0]) && rule.Subnets[0].Bits() >= scope
				}
				if !other {
					t.Fatalf("%v: the scope /%d of %s could be wider", rules, scope, p)
				}
			}
		}
	}
}

func TestClientMapAllocatesNothing(t *testing.T) {
	m := clientMap("10.0.0.0/8: a", "10.1.0.0/16: b", "2001:db8::/32: c")
	for _, a := range []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8::1")} {
		if n := testing.AllocsPerRun(100, func() { m.Find(a, a.BitLen()) }); n > 0 {
			t.Errorf("%v allocations for %s", n, a)
		}
	}
}
