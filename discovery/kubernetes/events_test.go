package kubernetes

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"haslohas.com/elbow/pool"
)

// Somebody who reads the Events of an object does not drown in them, and one
// object does not take the word from the others.
func TestEventsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder("master", nil)
		web, api := Subject{Kind: "Service", Name: "web"}, Subject{Kind: "Service", Name: "api"}
		tell := func(s Subject, times int) int {
			for range times {
				r.Tell(s, true, "BackendDown", "it is down")
			}
			n := len(r.queue)
			for range n {
				<-r.queue
			}
			return n
		}
		if n := tell(web, 1); n != 0 {
			t.Errorf("%d Events without a cluster", n)
		}
		r.Use(New(Options{}))
		if n := tell(web, 100); n != eventBurst {
			t.Errorf("%d Events at once, want %d", n, eventBurst)
		}
		if n := tell(api, 1); n != 1 {
			t.Errorf("%d Events about another object, want 1", n)
		}
		time.Sleep(2*eventInterval + time.Second)
		if n := tell(web, 100); n != 2 {
			t.Errorf("%d Events after two intervals, want 2", n)
		}
		time.Sleep(24 * time.Hour)
		if n := tell(web, 100); n != eventBurst {
			t.Errorf("%d Events a day later, want %d", n, eventBurst)
		}
		all := 0
		for i := range 1000 {
			all += tell(Subject{Kind: "Node", Name: string(rune('a' + i))}, 1)
		}
		if all > allBurst {
			t.Errorf("%d Events about a thousand objects, want at most %d", all, allBurst)
		}
		time.Sleep(24 * time.Hour)
		tell(Subject{Name: "new"}, 1)
		if n := len(r.buckets); n != 1 {
			t.Errorf("%d objects are remembered", n)
		}
	})
}

func TestTurns(t *testing.T) {
	table := func(states ...pool.State) *pool.Table {
		s := &pool.Service{Name: "web"}
		var backends []pool.Backend
		for i, state := range states {
			e := pool.Endpoint{Address: address(10, 0, 0, byte(i), 80), Weight: 1}
			s.Endpoints = append(s.Endpoints, e)
			backends = append(backends, pool.Backend{Endpoint: e, State: state, Reason: "tcp"})
		}
		return &pool.Table{Pools: []*pool.Pool{pool.NewPool(s, backends)}}
	}
	for _, test := range []struct {
		before, after []pool.State
		want          string
	}{
		{[]pool.State{pool.Up, pool.Up}, []pool.State{pool.Up, pool.Down}, "10.0.0.1:80 down"},
		{[]pool.State{pool.Down}, []pool.State{pool.Up}, "10.0.0.0:80 up"},
		{[]pool.State{pool.Unknown}, []pool.State{pool.Up}, ""},
		{[]pool.State{pool.Unknown}, []pool.State{pool.Down}, ""},
		{[]pool.State{pool.Up}, []pool.State{pool.Draining}, ""},
		{nil, []pool.State{pool.Down}, ""},
		{[]pool.State{pool.Up}, nil, ""},
	} {
		got := ""
		for _, turn := range turns(table(test.before...), table(test.after...)) {
			got += turn.backend.Address.String() + map[bool]string{true: " up", false: " down"}[turn.up]
		}
		if got != test.want {
			t.Errorf("%v to %v: %q, want %q", test.before, test.after, got, test.want)
		}
	}
}

func address(a, b, c, d byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{a, b, c, d}), port)
}
