package pool_test

import (
	"net/netip"
	"strings"
	"testing"

	"haslohas.com/elbow/pool"
)

// sharing is a listener of these services. Each is a name and what it matches:
// "web sni=a.example,*.b.example host=a.example alpn=h2".
func sharing(services ...string) *pool.Listener {
	address := netip.MustParseAddrPort("0.0.0.0:443")
	var pools []*pool.Pool
	for _, words := range services {
		s := pool.Service{Listen: []netip.AddrPort{address}}
		for i, word := range strings.Fields(words) {
			key, value, _ := strings.Cut(word, "=")
			list := strings.Split(value, ",")
			switch {
			case i == 0:
				s.Name = word
			case key == "sni":
				s.Match.SNI = list
			case key == "host":
				s.Match.Host = list
			case key == "alpn":
				s.Match.ALPN = list
			}
		}
		pools = append(pools, newPool(s))
	}
	return pool.NewTable(1, now, &pool.Set{}, pools).Listener(address)
}

// tls is the hello of a client that asks for name and offers protocols.
func tls(name string, protocols ...string) pool.Hello {
	h := pool.Hello{TLS: true, Name: []byte(name)}
	for _, p := range protocols {
		h.Protocols = append(append(h.Protocols, byte(len(p))), p...)
	}
	return h
}

func http(host string) pool.Hello { return pool.Hello{Name: []byte(host)} }

func routed(l *pool.Listener, h pool.Hello) string {
	if p := l.Route(h); p != nil {
		return p.Name
	}
	return "nobody"
}

func TestRoute(t *testing.T) {
	l := sharing(
		"exact sni=a.example,www.b.example host=a.example,192.0.2.1,::1",
		"wide sni=*.example host=*.example",
		"closer sni=*.b.example host=*.b.example",
		"exact-h2 sni=a.example alpn=h2,h3",
		"only-h2 sni=c.example alpn=h2",
		"challenge alpn=acme-tls/1",
		"rest",
	)
	for _, c := range []struct {
		name  string
		hello pool.Hello
		want  string
	}{
		{"the name itself", tls("a.example"), "exact"},
		{"in another case", tls("A.eXample"), "exact"},
		{"with a final dot", tls("a.example."), "exact"},
		{"with two", tls("a.example.."), "nobody"},
		{"the name before a wildcard", tls("www.b.example"), "exact"},
		{"the longer wildcard", tls("x.b.example"), "closer"},
		{"two labels below", tls("x.y.b.example"), "closer"},
		{"the shorter wildcard", tls("x.c.d.example"), "wide"},
		{"a wildcard is not the name above it", tls("b.example"), "wide"},
		{"nor that of the top", tls("example"), "nobody"},
		{"nor a label of nothing", tls(".example"), "nobody"},
		{"nor the end of a label", tls("xexample"), "nobody"},
		{"no name", tls(""), "nobody"},
		{"a dot", tls("."), "nobody"},
		{"as long as can be", tls(strings.Repeat("x.", 123) + "example"), "wide"},
		{"too long", tls(strings.Repeat("x.", 124) + "example"), "nobody"},
		{"endless", tls(strings.Repeat("x.", 8000) + "example"), "nobody"},

		{"a protocol beats none for the same name", tls("a.example", "http/1.1", "h2"), "exact-h2"},
		{"another protocol does not", tls("a.example", "http/1.1"), "exact"},
		{"a name for another protocol leaves it to the wildcard", tls("c.example", "http/1.1"), "wide"},
		{"and so does one for some where none is offered", tls("c.example"), "wide"},
		{"the protocol alone, for a name of nobody", tls("z.test", "acme-tls/1"), "challenge"},
		{"the protocol alone, without a name", tls("", "acme-tls/1"), "challenge"},
		{"a name comes before the protocol alone", tls("a.example", "acme-tls/1"), "exact"},
		{"a part of a protocol", tls("", "acme-tls/11"), "nobody"},
		{"a list cut short", pool.Hello{TLS: true, Protocols: []byte{20, 'h', '2'}}, "nobody"},

		{"a host", http("a.example"), "exact"},
		{"a host is no server name", http("c.example"), "wide"},
		{"below", http("x.b.example"), "closer"},
		{"an address", http("192.0.2.1"), "exact"},
		{"an IPv6 address", http("::1"), "exact"},
		{"another address", http("192.0.2.2"), "nobody"},
		{"no host", http(""), "nobody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := routed(l, c.hello); got != c.want {
				t.Errorf("%q leads to %s, want %s", c.hello.Name, got, c.want)
			}
		})
	}
	if l.Default == nil || l.Default.Name != "rest" || !l.Routes() || len(l.Pools) != 7 {
		t.Errorf("default %v of %d", l.Default, len(l.Pools))
	}
	hello := tls("x.y.z.b.example", "http/1.1", "h2")
	if n := testing.AllocsPerRun(100, func() { l.Route(hello) }); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}

// The client's order of protocols decides, not ours.
func TestRouteByTheProtocolTheClientLikesBest(t *testing.T) {
	l := sharing("one sni=a.example alpn=http/1.1", "two sni=a.example alpn=h2")
	if got := routed(l, tls("a.example", "h2", "http/1.1")); got != "two" {
		t.Error(got)
	}
	if got := routed(l, tls("a.example", "http/1.1", "h2")); got != "one" {
		t.Error(got)
	}
}

// Where two ask for the same, the first in the Table has it.
func TestRouteOfTwoClaims(t *testing.T) {
	l := sharing("first sni=a.example", "second sni=a.example,b.example", "third", "fourth")
	if got := routed(l, tls("a.example")); got != "first" {
		t.Error(got)
	}
	if got := routed(l, tls("b.example")); got != "second" {
		t.Error(got)
	}
	if l.Default.Name != "third" {
		t.Error(l.Default.Name)
	}
}

func TestListenerOfOneService(t *testing.T) {
	if l := sharing("web"); l.Routes() || l.Default.Name != "web" {
		t.Errorf("%+v", l)
	}
	if l := sharing("web sni=a.example"); !l.Routes() || l.Default != nil {
		t.Errorf("%+v", l)
	}
}

func TestListenerTrustsWhomAnyServiceTrusts(t *testing.T) {
	address := netip.MustParseAddrPort("0.0.0.0:443")
	web := newPool(pool.Service{Name: "web", Listen: []netip.AddrPort{address}})
	api := newPool(pool.Service{Name: "api", Listen: []netip.AddrPort{address}, ProxyProtocol: pool.ProxyProtocol{Accept: []netip.Prefix{netip.MustParsePrefix("fe80::/10")}}})
	l := pool.NewTable(1, now, &pool.Set{}, []*pool.Pool{api, web}).Listener(address)
	if !l.Trusts(netip.MustParseAddr("fe80::1%eth0")) || l.Trusts(netip.MustParseAddr("10.0.0.1")) {
		t.Error("wrong peers")
	}
}

func TestMatchKeys(t *testing.T) {
	for _, c := range []struct {
		match pool.Match
		want  string
	}{
		{pool.Match{}, "all that no other service matches"},
		{pool.Match{SNI: []string{"a", "*.b"}}, "sni a; sni *.b"},
		{pool.Match{SNI: []string{"a"}, ALPN: []string{"h2", "h3"}}, "sni a with alpn h2; sni a with alpn h3"},
		{pool.Match{ALPN: []string{"h2"}}, "alpn h2"},
		{pool.Match{Host: []string{"a"}, ALPN: []string{"h2"}}, "alpn h2; host a"},
	} {
		var got []string
		for _, k := range c.match.Keys() {
			got = append(got, k.String())
		}
		if got := strings.Join(got, "; "); got != c.want {
			t.Errorf("%+v asks for %s, want %s", c.match, got, c.want)
		}
	}
}
