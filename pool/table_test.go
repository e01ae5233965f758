package pool_test

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

func TestLifetime(t *testing.T) {
	ttl := pool.ZoneTTL{Normal: 30 * time.Second, Degraded: 5 * time.Second, Negative: time.Second}
	tests := []struct {
		name     string
		service  pool.Service
		backends []string
		degraded bool
		reason   string
	}{
		{"calm", pool.Service{}, []string{"up", "up"}, false, "no state could change soon"},
		{"one is down for good, for all that is known", pool.Service{}, []string{"up", "down"}, false, "no state could change soon"},
		{"one could change soon", pool.Service{}, []string{"up", "up flip=4s"}, true, "172.31.8.2:80 is up and could change within 4s"},
		{"one that is down could come up soon", pool.Service{}, []string{"up", "down flip=4s"}, true, "172.31.8.2:80 is down and could change within 4s"},
		{"a moment before the normal TTL", pool.Service{}, []string{"up flip=29.999s"}, true, "could change within"},
		{"not before the normal TTL", pool.Service{}, []string{"up flip=30s"}, false, "no state could change soon"},
		{"nobody", pool.Service{}, nil, true, "no backend is eligible"},
		{"nobody is up, refuse", pool.Service{WhenAllDown: pool.Refuse}, []string{"down"}, true, "no backend is eligible"},
		{"nobody is up, all", pool.Service{}, []string{"down"}, true, "every backend is down; all are tried"},
		{"the only one leaves DNS", pool.Service{}, []string{"draining leaving-dns"}, true, "no backend is eligible"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := newPool(test.service, test.backends...).Lifetime(ttl)
			want := ttl.Normal
			if test.degraded {
				want = ttl.Degraded
			}
			if got.TTL != want || got.Degraded != test.degraded || !strings.Contains(got.Reason, test.reason) {
				t.Errorf("got %+v, want %s because %s", got, want, test.reason)
			}
		})
	}
}

func TestZoneIsTheLongestThatHoldsTheName(t *testing.T) {
	dns := pool.DNS{Zones: []*pool.Zone{
		{Name: "haslohas.com"}, {Name: "a.public.haslohas.com"}, {Name: "public.haslohas.com"}, {Name: "example"},
	}}
	for name, want := range map[string]string{
		"haslohas.com":                 "haslohas.com",
		"www.haslohas.com":             "haslohas.com",
		"public.haslohas.com":          "public.haslohas.com",
		"web.public.haslohas.com":      "public.haslohas.com",
		"a.b.web.public.haslohas.com":  "public.haslohas.com",
		"a.public.haslohas.com":        "a.public.haslohas.com",
		"x.a.public.haslohas.com":      "a.public.haslohas.com",
		"xa.public.haslohas.com":       "public.haslohas.com",
		"xpublic.haslohas.com":         "haslohas.com",
		"xhaslohas.com":                "",
		"com":                          "",
		"":                             "",
		"example":                      "example",
		"web.example":                  "example",
		"haslohas.com.example":         "example",
		"public.haslohas.com.evil.com": "",
	} {
		got := ""
		if z := dns.Zone(name); z != nil {
			got = z.Name
		}
		if got != want {
			t.Errorf("zone of %q is %q, want %q", name, got, want)
		}
	}
	root := pool.DNS{Zones: []*pool.Zone{{Name: ""}, {Name: "example"}}}
	if got := root.Zone("web.haslohas.com"); got != root.Zones[0] {
		t.Errorf("the root zone does not hold every name: %v", got)
	}
	if got := root.Zone("web.example"); got != root.Zones[1] {
		t.Errorf("the root zone hides one below: %v", got)
	}
}

func TestTableFindsPools(t *testing.T) {
	web := pool.Service{Name: "web", Hostnames: []string{"web.example", "www.example"}, Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")}}
	api := pool.Service{Name: "api", Hostnames: []string{"api.example"}}
	set := &pool.Set{Host: pool.Host{Name: "master"}, Services: []*pool.Service{&api, &web}}
	table := pool.NewTable(7, now, set, []*pool.Pool{newPool(api), newPool(web)})
	name := func(p *pool.Pool) string {
		if p == nil {
			return "none"
		}
		return p.Name
	}
	for _, c := range []struct{ what, got, want string }{
		{"hostname", name(table.Hostname("www.example")), "web"},
		{"unknown hostname", name(table.Hostname("example")), "none"},
		{"listener", name(table.Listener(netip.MustParseAddrPort("0.0.0.0:80")).Default), "web"},
		{"service", name(table.Service("api")), "api"},
		{"unknown service", name(table.Service("mail")), "none"},
		{"host", table.Host.Name, "master"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.what, c.got, c.want)
		}
	}
	if l := table.Listener(netip.MustParseAddrPort("0.0.0.0:81")); l != nil {
		t.Errorf("an unknown listener is %+v", l)
	}
	if table.Generation != 7 || !table.Published.Equal(now) {
		t.Errorf("generation %d of %s", table.Generation, table.Published)
	}
}

func table(generation uint64) *pool.Table {
	return pool.NewTable(generation, now, &pool.Set{}, nil)
}

func TestPublisher(t *testing.T) {
	var p pool.Publisher
	if got := p.Load(); got == nil || got.Generation != 0 || got.Hostname("web.example") != nil {
		t.Fatalf("before the first Publish: %+v", got)
	}
	changed, stop := p.Watch()
	other, stopOther := p.Watch()
	defer stopOther()
	woken := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	if woken(changed) {
		t.Error("woken before anything was published")
	}
	for g := range uint64(3) {
		p.Publish(table(g + 1))
	}
	if !woken(changed) || woken(changed) {
		t.Error("three publications that nobody took in are not one wake-up")
	}
	if got := p.Load().Generation; got != 3 {
		t.Errorf("generation %d, want 3", got)
	}
	p.Publish(table(4))
	if !woken(changed) {
		t.Error("not woken again")
	}
	stop()
	stop() // does no harm
	p.Publish(table(5))
	if woken(changed) {
		t.Error("woken after stop")
	}
	if !woken(other) {
		t.Error("stop of one stopped another")
	}
}

// Whoever watches sees the last Table, and never an older one after a newer.
func TestPublisherForMany(t *testing.T) {
	const last = 1000
	var p pool.Publisher
	var watching sync.WaitGroup
	for range 4 {
		changed, stop := p.Watch()
		watching.Go(func() {
			defer stop()
			for seen := uint64(0); seen < last; {
				<-changed
				got := p.Load().Generation
				if got < seen {
					t.Errorf("generation %d after %d", got, seen)
				}
				seen = got
			}
		})
	}
	for g := range uint64(last) {
		p.Publish(table(g + 1))
	}
	watching.Wait()
}

func TestLoadAllocatesNothing(t *testing.T) {
	var p pool.Publisher
	for range 2 {
		if got := testing.AllocsPerRun(100, func() { p.Load() }); got != 0 {
			t.Errorf("%v allocations", got)
		}
		p.Publish(table(1))
	}
}
