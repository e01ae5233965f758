package discovery

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

func TestLastGoodSetsOutliveARestart(t *testing.T) {
	store := new(memory)
	full := endpoints(1)
	full[0].Node, full[0].Zone, full[0].Public = "minion1", "eu-central-1a", []netip.Addr{netip.MustParseAddr("3.120.1.1")}
	var found time.Time
	inWorld(t, store, func(w *world) {
		found = time.Now()
		w.apply(service("web", fixed(full)), service("empty", fixed(nil)), service("old", fixed(endpoints(3))))
		w.apply(service("web", fixed(full)), service("empty", fixed(nil)))
	})
	inWorld(t, store, func(w *world) {
		silent := newSaid()
		w.apply(service("web", silent), service("empty", newSaid()))
		w.wantSets("empty:; web: 1")
		if got := w.last().Services[1].Endpoints[0]; !sameEndpoint(got, full[0]) {
			t.Errorf("restored %+v, want %+v", got, full[0])
		}
		// The age tells how old the set is, not the process.
		if got := w.catalog.Sources()[0].Updated; !got.Equal(found) {
			t.Errorf("updated %s, want %s", got, found)
		}
	})
	if len(store.saved()) != 2 {
		t.Errorf("saved %v, want web and empty", store.saved())
	}
}

func TestRestoredSetNeedsTheSameSource(t *testing.T) {
	store := new(memory)
	inWorld(t, store, func(w *world) { w.apply(service("web", fixed(endpoints(1)))) })
	inWorld(t, store, func(w *world) {
		w.apply(service("web", newSaid(), key("another")))
		w.after(patience + window)
		w.wantSets("web:")
	})
}

func TestSavesAreGathered(t *testing.T) {
	store := new(memory)
	inWorld(t, store, func(w *world) {
		s := newSaid()
		w.apply(service("web", s))
		for n := range uint16(20) {
			s.finds(n + 1)
			w.settle()
		}
		w.after(saveDelay)
		if w.count() != 20 || store.saves() != 1 {
			t.Errorf("%d sets, %d saves; want 20 and 1", w.count(), store.saves())
		}
		w.after(time.Hour)
		if store.saves() != 1 {
			t.Errorf("%d saves without a change, want 1", store.saves())
		}
	})
}

func TestStoreThatFails(t *testing.T) {
	store := &memory{err: errors.New("disk is gone")}
	inWorld(t, store, func(w *world) {
		s := newSaid()
		w.apply(service("web", s))
		s.finds(1)
		w.settle()
		w.wantSets("web: 1") // the disk costs no start
		w.wantLogged(1, "starting without the last good sets")
		w.after(5 * saveRetry)
		s.finds(2)
		w.after(saveRetry)
		w.wantLogged(1, "would not outlive a restart")
		if n := store.saves(); n < 5 || n > 7 { // six pauses of saveRetry
			t.Errorf("tried %d times", n)
		}

		store.fail(nil)
		w.after(saveRetry)
		w.wantLogged(1, "are saved again")
		if got := store.saved()["web"].Endpoints; len(got) != 1 || got[0].Address.Port() != 2 {
			t.Errorf("saved %v", got)
		}
	})
}

func TestSavedNonsenseIsNotUsed(t *testing.T) {
	store := &memory{values: map[string]map[string]savedSet{storeName: {"web": {Endpoints: []savedEndpoint{{Weight: 1}}}}}}
	inWorld(t, store, func(w *world) {
		w.apply(service("web", newSaid()))
		w.after(patience + window)
		w.wantSets("web:")
		w.wantLogged(1, "a last good set of endpoints is not used")
	})
}

func TestSavedSetIsWhole(t *testing.T) {
	e := pool.Endpoint{
		Address: netip.MustParseAddrPort("172.31.8.233:80"), Node: "minion1", Public: []netip.Addr{netip.MustParseAddr("3.120.1.1")},
		Zone: "eu-central-1a", Weight: 3, Priority: 2, Phase: pool.Terminating,
	}
	text, err := json.Marshal(save(&goodSet{endpoints: []pool.Endpoint{e}}))
	if err != nil {
		t.Fatal(err)
	}
	var s savedSet
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	if got := s.restore(); len(got) != 1 || !sameEndpoint(got[0], e) {
		t.Errorf("got %+v, want %+v", got, e)
	}
}
