package discovery

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"haslohas.com/elbow/pool"
)

func TestConflicts(t *testing.T) {
	const here, there = "0.0.0.0:80", "0.0.0.0:81"
	inWorld(t, nil, func(w *world) {
		web := service("web", fixed(endpoints(1)), listening(here), answering("web.example"))
		api := service("api", fixed(endpoints(2)), listening(here), listening(there), answering("web.example"), answering("api.example"))

		// Where none held it, the order in Want decides.
		w.apply(web, api)
		w.wantSets("api: 0.0.0.0:81 api.example 2; web: 0.0.0.0:80 web.example 1")
		w.wantStatus(SourceStatus{"web/test", 1, w.begin, ""},
			SourceStatus{"api/test", 1, w.begin, `listener 0.0.0.0:80 belongs to service "web"; name web.example belongs to service "web"`})
		w.wantLogged(2, "conflict, the claim is refused")
		w.wantGauge("elbow_discovery_conflicts", 2)

		// Afterwards the one that holds it keeps it, and nothing is said twice.
		w.apply(api, web)
		if w.count() != 1 {
			t.Errorf("a change of order moved something: %s", describe(w.last()))
		}
		w.wantLogged(2, "conflict, the claim is refused")

		// What its holder gives up goes to the one who still asks.
		web.Listen = nil
		w.apply(api, web)
		if got, want := describe(w.last()), "api: 0.0.0.0:80 0.0.0.0:81 api.example 2; web: web.example 1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		w.wantLogged(1, "conflict is gone")
		w.wantGauge("elbow_discovery_conflicts", 1)

		w.apply(api)
		if got, want := describe(w.last()), "api: 0.0.0.0:80 0.0.0.0:81 web.example api.example 2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		w.wantGauge("elbow_discovery_conflicts", 0)
	})
}

// The same port is another claim for UDP than for TCP.
func TestConflictsOfUDP(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.apply(service("a", fixed(endpoints(1)), listening("udp/0.0.0.0:53")),
			service("b", fixed(endpoints(2)), listening("0.0.0.0:53"), listening("udp/0.0.0.0:53"), listening("udp/0.0.0.0:54")))
		w.wantSets("a: udp/0.0.0.0:53 1; b: 0.0.0.0:53 udp/0.0.0.0:54 2")
		w.wantStatus(SourceStatus{"a/test", 1, w.begin, ""},
			SourceStatus{"b/test", 1, w.begin, `listener udp/0.0.0.0:53 belongs to service "a"`})
		w.wantLogged(1, "conflict, the claim is refused")
	})
}

// All addresses and one of them are the same port.
func TestConflictsOfOverlappingListeners(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		web := service("web", fixed(endpoints(1)), listening("192.0.2.1:80"), listening("192.0.2.2:80"))
		all := service("all", fixed(endpoints(2)), listening("0.0.0.0:80"), listening("0.0.0.0:81"), listening("[::]:80"), listening("udp/0.0.0.0:80"))
		w.apply(web, all)
		w.wantSets("all: 0.0.0.0:81 [::]:80 udp/0.0.0.0:80 2; web: 192.0.2.1:80 192.0.2.2:80 1")
		w.wantStatus(SourceStatus{"web/test", 1, w.begin, ""},
			SourceStatus{"all/test", 1, w.begin, `listener 0.0.0.0:80 belongs to service "web"`})
		w.apply(all, web)
		if w.count() != 1 {
			t.Errorf("a change of order moved something: %s", describe(w.last()))
		}
		w.apply(all)
		if got, want := describe(w.last()), "all: 0.0.0.0:80 0.0.0.0:81 [::]:80 udp/0.0.0.0:80 2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		w.apply(all, web)
		if got, want := describe(w.last()), "all: 0.0.0.0:80 0.0.0.0:81 [::]:80 udp/0.0.0.0:80 2; web: 1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		w.wantGauge("elbow_discovery_conflicts", 2)
	})
}

// A name beside the hostnames belongs to one service too, whatever is answered
// there.
func TestConflictsOfServiceNames(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		web := service("web", fixed(endpoints(1)), answering("web.example"))
		web.Naming.SRV = []pool.ServiceName{{Name: "_http._tcp.example"}}
		web.Naming.Status = []string{"status.example"}
		api := service("api", fixed(endpoints(2)), answering("status.example"))
		api.Naming.SRV = []pool.ServiceName{{Name: "_http._tcp.example"}, {Name: "_api._tcp.example"}}
		api.Naming.SVCB = []pool.ServiceName{{Name: "_8443._https.example"}}
		api.Naming.Status = []string{"web.example"}
		w.apply(web, api)
		w.wantSets("api: 2; web: web.example 1")
		w.wantStatus(SourceStatus{"web/test", 1, w.begin, ""},
			SourceStatus{"api/test", 1, w.begin, `name status.example belongs to service "web"; name _http._tcp.example belongs to service "web"; name web.example belongs to service "web"`})
		for _, s := range w.last().Services {
			var names []string
			for _, n := range s.OwnNames() {
				names = append(names, n.Name)
			}
			want := map[string][]string{
				"web": {"web.example", "_http._tcp.example", "status.example"},
				"api": {"_api._tcp.example", "_8443._https.example"},
			}
			if diff := cmp.Diff(want[s.Name], names); diff != "" {
				t.Errorf("names of %s, -want +got:\n%s", s.Name, diff)
			}
		}
		w.wantGauge("elbow_discovery_conflicts", 3)
	})
}

func TestTwoServicesOfOneName(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.apply(service("web", fixed(endpoints(1))), service("web", fixed(endpoints(2))))
		w.wantSets("web: 1")
		w.wantStatus(SourceStatus{"web/test", 1, w.begin, "another service of this name is left out"})
		w.wantGauge("elbow_discovery_conflicts", 1)
	})
}

// Services share a listener by what they match; each name there has one owner.
func TestConflictsOnASharedListener(t *testing.T) {
	const one, two = "0.0.0.0:443", "0.0.0.0:8443"
	inWorld(t, nil, func(w *world) {
		matching := func(m pool.Match) func(*Service) { return func(s *Service) { s.Match = m } }
		rest := service("rest", fixed(endpoints(1)), listening(one))
		web := service("web", fixed(endpoints(2)), listening(one), listening(two), matching(pool.Match{SNI: []string{"a.test", "b.test"}, Host: []string{"a.test"}}))
		api := service("api", fixed(endpoints(3)), listening(one), matching(pool.Match{SNI: []string{"b.test", "c.test"}, Host: []string{"b.test"}}))
		h2 := service("h2", fixed(endpoints(4)), listening(one), matching(pool.Match{SNI: []string{"b.test"}, ALPN: []string{"h2"}}))
		w.apply(rest, web, api, h2)
		w.wantSets("api: 0.0.0.0:443 3; h2: 0.0.0.0:443 4; rest: 0.0.0.0:443 1; web: 0.0.0.0:443 0.0.0.0:8443 2")
		match := func(name string) pool.Match {
			for _, s := range w.last().Services {
				if s.Name == name {
					return s.Match
				}
			}
			return pool.Match{}
		}
		if diff := cmp.Diff(pool.Match{SNI: []string{"c.test"}, Host: []string{"b.test"}}, match("api")); diff != "" {
			t.Errorf("api -want +got:\n%s", diff)
		}
		w.wantStatus(SourceStatus{"rest/test", 1, w.begin, ""}, SourceStatus{"web/test", 1, w.begin, ""},
			SourceStatus{"api/test", 1, w.begin, `sni b.test on listener 0.0.0.0:443 belongs to service "web"`},
			SourceStatus{"h2/test", 1, w.begin, ""})
		w.wantGauge("elbow_discovery_conflicts", 1)

		// Who is left with no name at all does not become the default, and one
		// that loses its names does not match by protocol alone.
		late := service("late", fixed(endpoints(5)), listening(one), listening(two), matching(pool.Match{SNI: []string{"b.test"}, ALPN: []string{"h2", "h3"}}))
		w.apply(late, rest, web, api, h2)
		if got, want := describe(w.last()), "api: 0.0.0.0:443 3; h2: 0.0.0.0:443 4; late: 5; rest: 0.0.0.0:443 1; web: 0.0.0.0:443 0.0.0.0:8443 2"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if m := match("late"); !m.IsZero() {
			t.Errorf("late matches %+v", m)
		}

		// What its holder gives up goes to the one who still asks.
		web.Match.SNI = []string{"a.test"}
		w.apply(rest, web, api, h2)
		if diff := cmp.Diff(pool.Match{SNI: []string{"b.test", "c.test"}, Host: []string{"b.test"}}, match("api")); diff != "" {
			t.Errorf("api -want +got:\n%s", diff)
		}
		w.wantGauge("elbow_discovery_conflicts", 0)
	})
}
