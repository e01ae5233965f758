package discovery

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"haslohas.com/elbow/pool"
)

func TestSetIsSortedAndUnique(t *testing.T) {
	terminating := endpoints(82)[0]
	terminating.Phase = pool.Terminating
	mapped := endpoints(83)[0]
	mapped.Address = netip.MustParseAddrPort("[::ffff:172.31.8.233]:83")
	inWorld(t, nil, func(w *world) {
		found := slices.Concat(endpoints(84), []pool.Endpoint{terminating, mapped}, endpoints(82, 81, 83))
		w.apply(service("web", fixed(found)), service("api", fixed(endpoints(90))))
		w.wantSets("api: 90; web: 81 82 83 84")
		if e := w.last().Services[1].Endpoints[1]; e.Phase != pool.Serving {
			t.Errorf("of two at one place, the terminating one was taken: %+v", e)
		}
		if found[0].Address.Port() != 84 {
			t.Error("the slice of the source was changed")
		}
	})
}

func TestInvalidEndpointsAreAnError(t *testing.T) {
	weighted := func(w int) []pool.Endpoint {
		e := endpoints(80, 81)
		e[1].Weight = w
		return e
	}
	tests := []struct {
		name      string
		endpoints []pool.Endpoint
		want      string
	}{
		{"no address", make([]pool.Endpoint, 1), `endpoint "invalid AddrPort": not an address and port to connect to`},
		{"port 0", endpoints(80, 0), `endpoint "172.31.8.233:0": not an address and port to connect to`},
		{"any address", []pool.Endpoint{{Address: netip.MustParseAddrPort("[::]:80")}}, `endpoint "[::]:80": not an address and port to connect to`},
		{"weight too large", weighted(257), "endpoint 172.31.8.233:81: weight 257 is not in 0 to 256"},
		{"priority too large", []pool.Endpoint{{Address: netip.MustParseAddrPort("172.31.8.233:81"), Weight: 1, Priority: 256}},
			"endpoint 172.31.8.233:81: priority 256 is not in 0 to 255"},
		{"weight negative", weighted(-1), "endpoint 172.31.8.233:81: weight -1 is not in 0 to 256"},
		{"too many", make([]pool.Endpoint, maxEndpoints+1), "100001 endpoints, the limit is 100000"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				s := newSaid()
				w.apply(service("web", s))
				s.finds(70)
				w.settle()
				found := w.catalog.Sources()[0].Updated
				s.updates <- Update{Endpoints: test.endpoints}
				w.settle()
				w.wantSets("web: 70")
				w.wantStatus(SourceStatus{"web/test", 1, found, test.want})
			})
		})
	}
}

func TestBurstIsOneSet(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		s := newSaid()
		w.apply(service("web", s))
		s.finds(1)
		w.settle()
		for n := range uint16(100) {
			s.finds(1, n+2)
		}
		before := time.Since(w.begin)
		w.settle()
		w.wantSets("web: 1", "web: 1 101")
		if late := w.when(1) - before; late > window {
			t.Errorf("delivered %s after the first of the burst", late)
		}
		// A source that never rests does not keep others from being seen.
		for n := range uint16(40) {
			s.finds(1, n+200)
			time.Sleep(window / 4)
		}
		synctest.Wait()
		if n := w.count(); n < 10 || n > 14 {
			t.Errorf("%d sets after 10 windows of steady updates", n)
		}
	})
}

func TestErrorInABurstDoesNotLoseTheSet(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		s := newSaid()
		w.apply(service("web", s))
		s.finds(1)
		s.fails("gone")
		w.settle()
		w.wantSets("web: 1")
		w.wantStatus(SourceStatus{"web/test", 1, w.begin.Add(window), "gone"})
	})
}

func TestEqualSetIsNotDelivered(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		s := newSaid()
		w.apply(service("web", s))
		s.finds(2, 1)
		w.settle()
		s.finds(1, 2)
		w.settle()
		w.apply(service("web", newSaid()))
		w.wantSets("web: 1 2")

		changed := service("web", newSaid())
		changed.IdleTimeout = time.Minute
		w.apply(changed)
		w.wantSets("web: 1 2", "web: 1 2")
		w.catalog.Apply(Want{Services: []Service{changed}, Host: pool.Host{Name: "master"}})
		w.settle()
		w.wantSets("web: 1 2", "web: 1 2", "web: 1 2")
		if s.begun.Load() != 1 {
			t.Errorf("the source ran %d times", s.begun.Load())
		}
	})
}

func TestEqualZonesAndServicesKeepTheirPointers(t *testing.T) {
	zone := func(name, records string) *pool.Zone { return &pool.Zone{Name: name, Records: records} }
	inWorld(t, nil, func(w *world) {
		a, b := zone("a.example", "1"), zone("b.example", "1")
		web, api := service("web", fixed(endpoints(1))), service("api", fixed(endpoints(2)))
		w.catalog.Apply(Want{DNS: pool.DNS{Zones: []*pool.Zone{b, a}}, Services: []Service{web, api}})
		w.settle()
		first := w.last()
		if got := first.DNS.Zones; got[0] != a || got[1] != b {
			t.Error("zones are not the wanted ones, sorted by name")
		}

		b2 := zone("b.example", "2")
		web.IdleTimeout = time.Minute
		w.catalog.Apply(Want{DNS: pool.DNS{Zones: []*pool.Zone{zone("a.example", "1"), b2}}, Services: []Service{web, api}})
		w.settle()
		second := w.last()
		if second == first || second.DNS.Zones[0] != a || second.DNS.Zones[1] != b2 {
			t.Error("want the equal zone by its old pointer, the changed one by its new")
		}
		if second.Services[0] != first.Services[0] || second.Services[1] == first.Services[1] {
			t.Error("want the equal service by its old pointer, the changed one by its new")
		}
	})
}

func TestStartWaitsForSilentSources(t *testing.T) {
	t.Run("until they deliver", func(t *testing.T) {
		inWorld(t, nil, func(w *world) {
			slow := newSaid()
			w.apply(service("web", slow), service("api", fixed(endpoints(9))))
			w.after(time.Second)
			w.wantSets()
			slow.finds(1)
			w.settle()
			w.wantSets("api: 9; web: 1")
		})
	})
	t.Run("until they fail", func(t *testing.T) {
		inWorld(t, nil, func(w *world) {
			broken := newSaid()
			w.apply(service("web", broken), service("api", fixed(endpoints(9))))
			broken.fails("no such file")
			w.settle()
			w.wantSets("api: 9; web:")
			w.wantStatus(SourceStatus{Name: "web/test", Err: "no such file"}, SourceStatus{"api/test", 1, w.begin, ""})
		})
	})
	t.Run("no longer than patience lasts", func(t *testing.T) {
		inWorld(t, nil, func(w *world) {
			slow := newSaid()
			w.apply(service("web", slow), service("api", fixed(endpoints(9))))
			w.after(patience + window)
			w.wantSets("api: 9; web:")
			if late := w.when(0); late > patience+window {
				t.Errorf("the first set came after %s", late)
			}
			slow.finds(1)
			w.settle()
			w.wantSets("api: 9; web:", "api: 9; web: 1")
		})
	})
	t.Run("but not where the last good set is known", func(t *testing.T) {
		store := &memory{values: map[string]map[string]savedSet{storeName: {"web": {Endpoints: []savedEndpoint{
			{Address: netip.MustParseAddrPort("172.31.8.233:7"), Weight: 2, Terminating: true},
		}}}}}
		inWorld(t, store, func(w *world) {
			slow := newSaid()
			w.apply(service("web", slow))
			w.wantSets("web: 7")
			if e := w.last().Services[0].Endpoints[0]; e.Weight != 2 || e.Phase != pool.Terminating {
				t.Errorf("restored %+v", e)
			}
			slow.finds(1)
			w.settle()
			w.wantSets("web: 7", "web: 1")
		})
	})
}

func TestReloadDoesNotWait(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		web := newSaid()
		w.apply(service("web", web))
		web.finds(1)
		w.settle()

		// A new service is left out while its source is silent; others go on.
		slow := newSaid()
		w.apply(service("web", web), service("new", slow))
		web.finds(2)
		w.settle()
		w.wantSets("web: 1", "web: 2")
		w.after(patience)
		w.wantSets("web: 1", "web: 2", "new:; web: 2")

		// A service that changes its source keeps what it had until the new one delivers.
		other := newSaid()
		w.apply(service("web", other, key("other")), service("new", slow))
		other.fails("not there")
		w.after(2 * patience)
		if web.ended.Load() != 1 {
			t.Error("the source that is no longer wanted still runs")
		}
		w.wantSets("web: 1", "web: 2", "new:; web: 2")
		other.finds(3)
		w.settle()
		w.wantSets("web: 1", "web: 2", "new:; web: 2", "new:; web: 3")

		w.apply(service("web", other, key("other")))
		w.wantSets("web: 1", "web: 2", "new:; web: 2", "new:; web: 3", "web: 3")
	})
}

func TestProbeThatASourceKnows(t *testing.T) {
	known := Probe{Port: 32000, Path: "/healthz"}
	store := new(memory)
	own := service("own", newSaid(), key("k"))
	own.OwnProbe = true
	both := func(s *said) []Service {
		web := service("web", s, key("k"))
		web.Probe = pool.Probe{Type: pool.ProbeTCP, Interval: time.Second, Proxy: pool.ProxyV2}
		return []Service{web, own}
	}
	want := pool.Probe{Type: pool.ProbeHTTP, Port: 32000, Path: "/healthz", Interval: time.Second,
		Status: pool.StatusRanges{{First: 200, Last: 399}}}
	inWorld(t, store, func(w *world) {
		s := newSaid()
		w.apply(both(s)...)
		s.finds(1)
		w.settle()
		if got := w.last().Services[1].Probe; got.Type != pool.ProbeTCP || got.Proxy != pool.ProxyV2 {
			t.Errorf("the source knows nothing, probe %+v", got)
		}
		s.updates <- Update{Endpoints: endpoints(1), Probe: known}
		w.settle()
		if got := w.last().Services; got[1].Probe != want || got[0].Probe != (pool.Probe{}) {
			t.Errorf("probes %+v of web, %+v of who has its own", got[1].Probe, got[0].Probe)
		}
	})
	inWorld(t, store, func(w *world) { // after a restart, the source is silent
		w.apply(both(newSaid())...)
		if got := w.last().Services[1].Probe; got != want {
			t.Errorf("probe %+v after a restart", got)
		}
	})
}

func TestServicesShareASource(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		first, second := newSaid(), newSaid()
		w.apply(service("a", first, key("k")), service("b", second, key("k")))
		first.finds(1)
		w.settle()
		w.wantSets("a: 1; b: 1")
		w.apply(service("b", second, key("k")))
		first.finds(2)
		w.settle()
		w.wantSets("a: 1; b: 1", "b: 1", "b: 2")
		if second.begun.Load() != 0 {
			t.Error("a second source of one key ran")
		}
	})
}

func TestSourceFailsAndWorksAgain(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		s := newSaid()
		w.apply(service("web", s))
		s.finds(1)
		w.settle()
		found := w.catalog.Sources()[0].Updated
		for range 3 {
			s.fails("the API is gone")
			w.settle()
		}
		s.fails("the API is still gone")
		w.settle()
		w.wantSets("web: 1")
		w.wantStatus(SourceStatus{"web/test", 1, found, "the API is still gone"})
		w.wantLogged(1, `its last good set stays in force" source=web/test err="the API is gone"`)
		w.wantLogged(2, "source fails")

		w.after(time.Minute)
		s.finds(1)
		at := time.Now()
		w.settle()
		w.wantSets("web: 1")
		w.wantStatus(SourceStatus{"web/test", 1, at, ""})
		w.wantLogged(1, "source works again")
	})
}

func TestSourceThatEndsIsRunAgain(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		s := newSaid()
		w.apply(service("web", s))
		s.finds(1)
		w.settle()
		for n, pause := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			n := int64(n)
			s.ends <- errors.New("broken pipe")
			w.after(pause*time.Second - time.Millisecond)
			if s.begun.Load() != n+1 {
				t.Fatalf("run %d times before the pause of %d s was over, want %d", s.begun.Load(), pause, n+1)
			}
			w.after(time.Millisecond)
			if s.begun.Load() != n+2 {
				t.Fatalf("run %d times after a pause of %d s, want %d", s.begun.Load(), pause, n+2)
			}
		}
		w.wantLogged(1, `err="broken pipe"`)

		// After a long good run the pause is short again.
		w.after(maxPause)
		s.ends <- nil
		w.settle()
		if got := w.catalog.Sources()[0].Err; got != errReturned.Error() {
			t.Errorf("status %q", got)
		}
		w.after(minPause)
		if s.begun.Load() != 9 {
			t.Errorf("run %d times, want 9", s.begun.Load())
		}
		w.wantSets("web: 1")
	})
}

func TestMetrics(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		s := newSaid()
		w.apply(service("web", s), service("api", fixed(endpoints(9))))
		s.finds(1, 2)
		s.fails("gone")
		s.fails("gone")
		w.settle()
		want := `
# HELP elbow_discovery_conflicts Listeners, hostnames and names that a service claims and another one has.
# TYPE elbow_discovery_conflicts gauge
elbow_discovery_conflicts 0
# HELP elbow_discovery_endpoints Endpoints in the set of a source that is in force.
# TYPE elbow_discovery_endpoints gauge
elbow_discovery_endpoints{source="api/test"} 1
elbow_discovery_endpoints{source="web/test"} 2
# HELP elbow_discovery_errors_total Errors that a source delivered or returned.
# TYPE elbow_discovery_errors_total counter
elbow_discovery_errors_total{source="api/test"} 0
elbow_discovery_errors_total{source="web/test"} 2
# HELP elbow_discovery_last_update_timestamp_seconds When a source delivered the set that is in force.
# TYPE elbow_discovery_last_update_timestamp_seconds gauge
elbow_discovery_last_update_timestamp_seconds{source="api/test"} 9.466848e+08
elbow_discovery_last_update_timestamp_seconds{source="web/test"} 9.4668480001e+08
`
		if err := testutil.GatherAndCompare(w.metrics, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
		w.apply(service("api", fixed(endpoints(9))))
		if n := testutil.CollectAndCount(w.catalog.metrics.errors); n != 1 {
			t.Errorf("%d series of errors after a source has gone, want 1", n)
		}
		if n := testutil.CollectAndCount(w.catalog.metrics.updated); n != 1 {
			t.Errorf("%d series of updates after a source has gone, want 1", n)
		}
	})
}

func TestApplyBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		delivered := make(chan *pool.Set, 1)
		c := New(Options{Deliver: func(s *pool.Set) { delivered <- s }})
		if c.Sources() != nil {
			t.Error("sources before anything was wanted")
		}
		c.Apply(Want{Services: []Service{service("old", fixed(nil))}})
		c.Apply(Want{Services: []Service{service("web", fixed(endpoints(1)))}})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = c.Run(ctx) })
		if got := describe(<-delivered); got != "web: 1" {
			t.Errorf("delivered %s", got)
		}
		cancel()
		running.Wait()
	})
}
