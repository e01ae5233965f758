package discovery

import (
	"testing"
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
			SourceStatus{"api/test", 1, w.begin, `listener 0.0.0.0:80 belongs to service "web"; hostname web.example belongs to service "web"`})
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

func TestTwoServicesOfOneName(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.apply(service("web", fixed(endpoints(1))), service("web", fixed(endpoints(2))))
		w.wantSets("web: 1")
		w.wantStatus(SourceStatus{"web/test", 1, w.begin, "another service of this name is left out"})
		w.wantGauge("elbow_discovery_conflicts", 1)
	})
}
