package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"haslohas.com/elbow/pool"
)

func TestWhy(t *testing.T) {
	h := server(degraded(7), nil).handler(false)
	for _, test := range []struct {
		name, kind, summary string
		lines               []string
	}{
		{"web.public.haslohas.com", "hostname", "web.public.haslohas.com is answered with 54.93.167.95 for 5s",
			[]string{"the TTL is 5s because 172.31.8.18:80 is down and could change within 2s", "service web: 1 of 2 up, serving, balanced by leastconn"}},
		{"WEB.public.haslohas.com.", "hostname", "web.public.haslohas.com is answered", nil},
		{"web", "service", "service web: 1 of 2 up, serving", []string{"0.0.0.0:80 has 12 connections"}},
		{"0.0.0.0:80", "listener", "0.0.0.0:80 belongs to service web and has 12 connections", nil},
		{"54.93.167.95:80", "listener", "0.0.0.0:80 belongs to service web", []string{"54.93.167.95:80 is open as 0.0.0.0:80, on every address of this host"}},
		{"172.31.8.233:80", "backend", "172.31.8.233:80 takes new connections", []string{"in service web it takes new connections: it is up"}},
		{"web/172.31.8.18:80", "backend", "web/172.31.8.18:80 takes no new connections",
			[]string{"in service web, 172.31.8.18:80 is down: tcp connect: connection refused", "in service web it takes no new connections: it is down, and others are well"}},
		{"172.31.8.18", "backend", "172.31.8.18 takes no new connections", nil},
		{"minion1", "node", "minion1 takes new connections", nil},
		{"public.haslohas.com", "zone", "public.haslohas.com is a zone of this elbow, serial 2026112207",
			[]string{"its static records come from /etc/elbow/public.zone", "TTLs: 30s in calm, 5s while a state could flip, 7s for what does not exist"}},
		{"wbe.public.haslohas.com", "name", "wbe.public.haslohas.com does not exist in zone public.haslohas.com (NXDOMAIN, cached for 7s)",
			[]string{"names like it that exist: web.public.haslohas.com, public.haslohas.com"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := ask(h, "GET", "/api/v1/why?name="+url.QueryEscape(test.name), "")
			var got Why
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if got.Kind != test.kind || got.Generation != 7 || !strings.HasPrefix(got.Summary, test.summary) {
				t.Errorf("got %s %q of generation %d, want %s %q", got.Kind, got.Summary, got.Generation, test.kind, test.summary)
			}
			for _, l := range test.lines {
				if !slices.Contains(got.Lines, l) {
					t.Errorf("no line %q in %q", l, got.Lines)
				}
			}
		})
	}
}

func TestWhyOfNothing(t *testing.T) {
	h := server(calm(7), nil).handler(false)
	for query, want := range map[string]struct {
		code int
		says string
	}{
		"":                                  {400, "name: it is missing"},
		"?name=":                            {400, "name: it is missing"},
		"?name=" + strings.Repeat("x", 600): {400, "at most 512"},
		"?name=www.example.com":             {404, "no hostname, service"},
		"?name=web&client=10.0.0.0%2F33":    {400, `client: \"10.0.0.0/33\" is neither an IP address nor a subnet`},
		"?name=minion3":                     {404, `"minion1"`},
		"?name=webb":                        {404, `"web"`},
		"?name=172.31.8.233%3A81":           {404, `"172.31.8.233:80"`},
		"?name=api%2F172.31.8.233%3A80":     {404, `"172.31.8.233:80"`},
	} {
		w := ask(h, "GET", "/api/v1/why"+query, "")
		if w.Code != want.code {
			t.Errorf("%.40s: %d, want %d", query, w.Code, want.code)
		}
		contains(t, query, w.Body.String(), want.says)
	}
}

func TestWhySaysThatDNSLagsBehind(t *testing.T) {
	out, ok := server(degraded(9), nil).why(degraded(9), "web.public.haslohas.com", netip.Prefix{})
	if !ok || !slices.Contains(out.Lines, "DNS answers from generation 7, the newest is 9") {
		t.Errorf("%v %q", ok, out.Lines)
	}
}

func FuzzWhy(f *testing.F) {
	for _, seed := range []string{"web", "0.0.0.0:80", "[::]:80", "web/172.31.8.18:80", "/", "a/b/c", "....", "\x00", "::1%eth0", "ü.public.haslohas.com"} {
		f.Add(seed)
	}
	h := server(degraded(7), nil).handler(false)
	f.Fuzz(func(t *testing.T, name string) {
		w := ask(h, "GET", "/api/v1/why?name="+url.QueryEscape(name), "")
		if !json.Valid(w.Body.Bytes()) || w.Code != http.StatusOK && w.Code != http.StatusNotFound && w.Code != http.StatusBadRequest {
			t.Errorf("%q: %d %s", name, w.Code, w.Body)
		}
	})
}

// TestEveryStateHasItsReason: each backend says why it takes connections or not.
func TestEveryStateHasItsReason(t *testing.T) {
	up := backend(minion2, "minion2", pool.Up, "")
	for _, test := range []struct {
		name   string
		change func(*pool.Backend)
		rule   pool.WhenAllDown
		alone  bool
		takes  bool
		why    string
	}{
		{"up", func(b *pool.Backend) {}, pool.ServeAll, false, true, "it is up"},
		{"forced up", func(b *pool.Backend) { b.State = pool.ForcedUp }, pool.ServeAll, false, true, "an operator forced it up"},
		{"forced down", func(b *pool.Backend) { b.State = pool.ForcedDown }, pool.ServeAll, true, false, "an operator forced it down"},
		{"weight 0", func(b *pool.Backend) { b.Weight = 0 }, pool.ServeAll, true, false, "its weight is 0"},
		{"suspect", func(b *pool.Backend) { b.Suspect = true }, pool.ServeAll, false, false, "passed over"},
		{"suspect, alone", func(b *pool.Backend) { b.Suspect = true }, pool.ServeAll, true, true, "no other backend is well"},
		{"down", func(b *pool.Backend) { b.State = pool.Down }, pool.ServeAll, false, false, "others are well"},
		{"down, all", func(b *pool.Backend) { b.State = pool.Down }, pool.ServeAll, true, true, "whenAllDown is all"},
		{"down, refuse", func(b *pool.Backend) { b.State = pool.Down }, pool.Refuse, true, false, "it is down, and whenAllDown is refuse"},
		{"unknown", func(b *pool.Backend) { b.State = pool.Unknown }, pool.ServeAll, false, false, "not probed yet"},
		{"leaving DNS", func(b *pool.Backend) { b.State, b.Drain = pool.Draining, pool.LeavingDNS }, pool.ServeAll, false, true, "cached DNS answers may still"},
		{"finishing", func(b *pool.Backend) { b.State, b.Drain = pool.Draining, pool.Finishing }, pool.ServeAll, false, false, "established connections finish"},
		{"drained", func(b *pool.Backend) { b.State, b.Drain = pool.Draining, pool.Drained }, pool.ServeAll, false, false, "safe to power off"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := backend(minion1, "minion1", pool.Up, "")
			test.change(&b)
			backends := []pool.Backend{b}
			if !test.alone {
				backends = append(backends, up)
			}
			p := pool.NewPool(&pool.Service{Name: "web", WhenAllDown: test.rule}, backends)
			got := server(table(1, p), nil).status().Services[0].Backends[0]
			if got.Eligible != test.takes || !strings.Contains(got.Why, test.why) {
				t.Errorf("eligible %v, %q; want %v, %q", got.Eligible, got.Why, test.takes, test.why)
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	up, down := backend(minion1, "a", pool.Up, ""), backend(minion2, "b", pool.Down, "")
	drain, off, unknown := down, down, down
	drain.State, drain.Drain = pool.Draining, pool.Finishing
	off.State, unknown.State = pool.ForcedDown, pool.Unknown
	other := func(name string, rule pool.WhenAllDown, backends ...pool.Backend) *pool.Pool {
		return pool.NewPool(&pool.Service{Name: name, WhenAllDown: rule}, backends)
	}
	for _, test := range []struct {
		name  string
		pools []*pool.Pool
		level Level
		text  string
	}{
		{"none", nil, OK, "No services are configured"},
		{"calm", []*pool.Pool{web(up, up)}, OK, "All 2 backends of 1 service are up"},
		{"one", []*pool.Pool{web(up)}, OK, "The one backend of 1 service is up"},
		{"calm, two services", []*pool.Pool{web(up, up), other("api", pool.ServeAll, up)}, OK, "All 3 backends of 2 services are up"},
		{"one down", []*pool.Pool{web(up, down)}, Warn, "web: 1 of 2 up, serving"},
		{"draining", []*pool.Pool{web(up, drain)}, Warn, "web: 1 of 2 up, 1 draining, serving"},
		{"forced down", []*pool.Pool{web(up, off)}, Warn, "web: 1 of 2 up, 1 forced down, serving"},
		{"fail open", []*pool.Pool{web(down, down)}, Bad, "web: none of 2 backends up, all are tried"},
		{"refused", []*pool.Pool{other("web", pool.Refuse, down)}, Bad, "web: none of 1 backend up, refusing"},
		{"empty", []*pool.Pool{web()}, Bad, "web: no backends"},
		{"not probed", []*pool.Pool{web(unknown)}, Starting, "web: not probed yet"},
		{"the worst first", []*pool.Pool{web(up, down), other("api", pool.Refuse, down), other("db", pool.ServeAll, up, down)}, Bad,
			"api: none of 1 backend up, refusing; web: 1 of 2 up, serving; and 1 more"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := server(table(3, test.pools...), nil).status().Verdict; got != (Verdict{test.level, test.text}) {
				t.Errorf("%s %q, want %s %q", got.Level, got.Text, test.level, test.text)
			}
		})
	}
	t.Run("port not open", func(t *testing.T) {
		s := server(calm(3), func(o *Options) {
			o.Listeners = func() []Listener { return []Listener{{Address: every80, Err: errors.New("in use")}} }
		})
		if got := s.status().Verdict; got != (Verdict{Bad, "web: port 0.0.0.0:80 is not open"}) {
			t.Errorf("%+v", got)
		}
	})
	t.Run("source in trouble", func(t *testing.T) {
		s := server(calm(3), func(o *Options) {
			o.Sources = func() []Source { return []Source{{Name: "web/file", Err: "no such file", Updated: time.Now()}} }
		})
		if got := s.status().Verdict; got != (Verdict{Warn, "All backends are up, but source web/file has an error"}) {
			t.Errorf("%+v", got)
		}
	})
}

// Of a listener that services share, it is said who takes what.
func TestWhySharedListener(t *testing.T) {
	shop := pool.NewPool(&pool.Service{Name: "shop", Listen: []netip.AddrPort{every80}, Match: pool.Match{
		SNI: []string{"shop.example", "*.shop.example"}, Host: []string{"shop.example"},
	}}, []pool.Backend{backend(minion1, "minion1", pool.Up, "tcp connect ok")})
	blog := pool.NewPool(&pool.Service{Name: "blog", Listen: []netip.AddrPort{every80}, Match: pool.Match{
		SNI: []string{"1.example", "2.example", "3.example", "4.example", "5.example", "6.example", "7.example", "8.example", "9.example"},
	}}, []pool.Backend{backend(minion2, "minion2", pool.Up, "tcp connect ok")})
	rest := web(backend(minion2, "minion2", pool.Up, "tcp connect ok"))

	got, ok := server(nil, nil).why(table(3, blog, shop, rest), "54.93.167.95:80", netip.Prefix{})
	want := []string{
		"54.93.167.95:80 is open as 0.0.0.0:80, on every address of this host",
		"service blog takes sni 1.example, sni 2.example, sni 3.example, sni 4.example, sni 5.example, sni 6.example, sni 7.example, sni 8.example, …",
		"service blog: its backend is up, balanced by leastconn",
		"service shop takes sni shop.example, sni *.shop.example, host shop.example",
		"service shop: its backend is up, balanced by leastconn",
		"service web takes all that no other service matches",
		"service web: its backend is up, balanced by leastconn",
	}
	if diff := cmp.Diff(want, got.Lines); !ok || diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got.Summary != "0.0.0.0:80 belongs to 3 services and has 12 connections" || len(got.Backends) != 3 {
		t.Errorf("%s, with %d backends", got.Summary, len(got.Backends))
	}

	got, _ = server(nil, nil).why(table(3, blog, shop), "0.0.0.0:80", netip.Prefix{})
	if last := got.Lines[len(got.Lines)-1]; last != "what no service matches is refused" {
		t.Errorf("without a default: %s", last)
	}

	got, _ = server(nil, nil).why(table(3, shop, rest), "shop", netip.Prefix{})
	want = []string{
		"0.0.0.0:80 is shared with web",
		"0.0.0.0:80 has 12 connections",
		"of the connections there it takes sni shop.example, sni *.shop.example, host shop.example",
		"service shop: its backend is up, balanced by leastconn",
	}
	if diff := cmp.Diff(want, got.Lines); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// The connections of a shared listener are of all its services, so what one of
// them has is counted at its backends.
func TestStatusOfASharedListener(t *testing.T) {
	shop := pool.NewPool(&pool.Service{Name: "shop", Listen: []netip.AddrPort{every80}, Match: pool.Match{Host: []string{"shop.example"}}},
		[]pool.Backend{backend(minion1, "minion1", pool.Up, "tcp connect ok")})
	rest := web(backend(minion2, "minion2", pool.Up, "tcp connect ok"))
	s := server(table(3, shop, rest), nil)
	st := s.status()
	want := []ListenerStatus{{Address: "0.0.0.0:80", Connections: 12, SharedWith: []string{"web"}}}
	if diff := cmp.Diff(want, st.Services[0].Listeners); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"shop": 7, "web": 5}, s.connections(s.opts.Table.Load())); diff != "" {
		t.Errorf("connections -want +got:\n%s", diff)
	}
	var text strings.Builder
	if err := WriteStatus(&text, st, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	if want := "0.0.0.0:80: 12 connections, shared with web"; !strings.Contains(text.String(), want) {
		t.Errorf("%q is not in\n%s", want, text.String())
	}
}

// A service with everything that a dns section can say is explained.
func TestWhyOfPolicies(t *testing.T) {
	at := func(address, node, zone string, priority int, state pool.State) pool.Backend {
		b := backend(netip.MustParseAddrPort(address), node, state, "tcp connect ok")
		b.Zone, b.Priority, b.Weight = zone, priority, 2
		return b
	}
	p := pool.NewPool(&pool.Service{
		Name: "site", Hostnames: []string{"site.public.haslohas.com"}, Answer: pool.Direct,
		Endpoints: []pool.Endpoint{{Address: netip.MustParseAddrPort("10.0.0.1:80"), Node: "a1"}},
		Naming: pool.Naming{
			Policy: pool.AnswerWeighted,
			TTL:    pool.ZoneTTL{Normal: time.Minute},
			HTTPS:  &pool.Parameters{},
			SRV:    []pool.ServiceName{{Name: "_http._tcp.public.haslohas.com"}},
			Status: []string{"_status.public.haslohas.com"},
			Clients: pool.NewClientMap([]pool.ClientRule{
				{Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.9.0.0/16")}, Zones: []string{"a", "b"}},
				{Subnets: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}, Zones: []string{"c", "b"}},
				{Subnets: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")}, Zones: []string{"c"}},
			}),
		},
	}, []pool.Backend{
		at("10.0.0.1:80", "a1", "a", 1, pool.Up), at("10.0.0.2:80", "b1", "b", 1, pool.Up),
		at("10.0.0.3:80", "c1", "c", 2, pool.Up), at("10.0.0.4:80", "first", "a", 0, pool.Down),
	})
	h := server(table(7, p), func(o *Options) {
		o.Explain = func(name string) (Explanation, bool) {
			return Explanation{Zone: zone.Name, Name: name, Kind: "service", Generation: 7, Records: []string{"x"}}, true
		}
	}).handler(false)
	for name, want := range map[string][]string{
		"site.public.haslohas.com": {
			"site.public.haslohas.com is answered with 1 of 10.0.0.1, 10.0.0.2 for 60s",
			"an answer names at most 1 address, drawn in proportion to the weights",
			"the service has TTLs of its own: 1m0s in calm, 5s while a state could flip, 7s where there is no address",
			"it has failed over to priority 1: none of a lower one is well",
			"clients in 10.0.0.0/8 and 1 more subnet are answered with zone a: 10.0.0.1",
			"clients in 10.1.0.0/16 are answered with zone b: 10.0.0.2; nobody is eligible in c",
			"clients in 10.2.0.0/16 are answered with all addresses: nobody is eligible in c",
			"the service has other names: _http._tcp.public.haslohas.com (SRV name), _status.public.haslohas.com (status name), a1.site.public.haslohas.com (target name)",
			"service site: 3 of 4 up, failed over to priority 1, balanced by leastconn",
		},
		"site.public.haslohas.com&client=10.1.2.3":      {"a client in 10.1.2.3/32 is answered with zone b: 10.0.0.2; nobody is eligible in c (rule 2, scope /16)"},
		"site.public.haslohas.com&client=10.0.0.0/8":    {"a client in 10.0.0.0/8 is answered with zone a: 10.0.0.1 (rule 1, scope /16)", "parts of 10.0.0.0/8 may be answered otherwise"},
		"site.public.haslohas.com&client=2001:db8::/32": {"a client in 2001:db8::/32 is answered with all addresses: no rule is for it (scope /0)"},
		"10.0.0.3:80": {"in service site it takes no new connections: standby, priority 2: 2 of priority 1 are up"},
		"10.0.0.4:80": {"in service site it takes no new connections: it is down, and others are well"},
		"_http._tcp.public.haslohas.com": {
			"_http._tcp.public.haslohas.com is the SRV name of service site",
			"the TTL is 1m0s because no state could change soon",
		},
		"_status.public.haslohas.com": {"the TTL is 5s, always the degraded one"},
		"a1.site.public.haslohas.com": {"SRV records of the service lead to it; it has an address while its backend is answered"},
	} {
		w := ask(h, "GET", "/api/v1/why?name="+name, "")
		var got Why
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		for _, l := range want {
			if !slices.Contains(got.Lines, l) && got.Summary != l {
				t.Errorf("%s: no line %q in %q, %q", name, l, got.Summary, got.Lines)
			}
		}
	}
}
