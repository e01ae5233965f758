package admin

import (
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"haslohas.com/elbow/pool"
)

func TestHistory(t *testing.T) {
	draining := backend(minion1, "minion1", pool.Draining, "drained by an operator")
	draining.Drain = pool.LeavingDNS
	var h history
	h.observe(calm(1))
	h.observe(calm(1)) // the same again
	h.observe(degraded(2))
	h.observe(degraded(3)) // nothing changed for a backend
	h.observe(table(4, web(draining)))
	want := []Transition{
		{Generation: 4, Service: "web", Backend: "172.31.8.18:80", Node: "minion2", From: "down", Reason: "its source no longer names it"},
		{Generation: 4, Service: "web", Backend: "172.31.8.233:80", Node: "minion1", From: "up", To: "draining, leaving DNS", Reason: "drained by an operator"},
		{Generation: 2, Service: "web", Backend: "172.31.8.18:80", Node: "minion2", From: "up", To: "down", Reason: "tcp connect: connection refused"},
		{Generation: 1, Service: "web", Backend: "172.31.8.18:80", Node: "minion2", To: "up", Reason: "tcp connect ok"},
		{Generation: 1, Service: "web", Backend: "172.31.8.233:80", Node: "minion1", To: "up", Reason: "tcp connect ok"},
	}
	if diff := cmp.Diff(want, h.list(), cmpopts.IgnoreFields(Transition{}, "Time")); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	for g := range uint64(200) {
		if g%2 == 0 {
			h.observe(calm(10 + g))
		} else {
			h.observe(degraded(10 + g))
		}
	}
	if got := h.list(); len(got) != remembered || got[0].Generation != 209 {
		t.Errorf("%d kept, the newest of generation %d", len(got), got[0].Generation)
	}
}

// TestWatch: what happens while the server runs is remembered, and the number
// of connections is sampled.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pool.Publisher
		s := New(options(&p))
		stop := start(t, s)
		synctest.Wait()
		p.Publish(calm(1))
		synctest.Wait()
		p.Publish(degraded(2))
		synctest.Wait()
		if got := s.status().Transitions; len(got) != 3 || got[0].To != "down" {
			t.Errorf("transitions: %+v", got)
		}
		<-afterSamples(3)
		synctest.Wait()
		if got := s.load.of("web"); !cmp.Equal(got, []int{12, 12, 12}) {
			t.Errorf("samples %v", got)
		}
		if err := stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestLoadIsBounded(t *testing.T) {
	var l load
	at := func(service string, n int) map[string]int { return map[string]int{service: n} }
	for i := range 3 * samples {
		l.sample(at("web", i))
	}
	if got := l.of("web"); len(got) != samples || got[samples-1] != 3*samples-1 {
		t.Errorf("%d samples: %v", len(got), got)
	}
	l.sample(at("api", 1))
	if len(l.rings) != 1 {
		t.Errorf("a service that has gone is remembered: %v", l.rings)
	}
}
