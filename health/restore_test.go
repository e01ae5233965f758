package health

import (
	"encoding/json"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"haslohas.com/elbow/pool"
)

func (m *memory) saved(t *testing.T) saved {
	t.Helper()
	var s saved
	if ok, err := m.Load(statesName, &s); !ok || err != nil {
		t.Fatalf("saved: %v, %v", ok, err)
	}
	return s
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, w := new(memory), newWorld()
		w.kill(two)
		h := start(t, w, Options{Store: store}, setOf(serviceOf("web", one, two)))
		up, down, generation := h.backend("web", one).Since, h.backend("web", two).Since, h.table.Load().Generation
		time.Sleep(time.Minute)
		h.stop()
		if s := store.saved(t); s.Generation != generation || !s.Clean || len(s.Backends) != 2 {
			t.Errorf("got %+v", s)
		}

		// The states are the same: so is since. Nothing is logged as a change.
		time.Sleep(time.Minute)
		h = start(t, w, Options{Store: store}, setOf(serviceOf("web", one, two)))
		if g := h.table.Load().Generation; g != generation+1 {
			t.Errorf("generation %d after %d", g, generation)
		}
		if b := h.wantState(one, pool.Up); !b.Since.Equal(up) || !b.RampFrom.IsZero() || b.Reason != "tcp connect ok" {
			t.Errorf("got %+v", b)
		}
		if b := h.wantState(two, pool.Down); !b.Since.Equal(down) {
			t.Errorf("got %+v", b)
		}
		h.stop()

		// One success is enough to correct it, without a slow start.
		w.revive(two)
		h = start(t, w, Options{Store: store}, setOf(serviceOf("web", one, two)))
		if b := h.wantState(two, pool.Up); !b.RampFrom.IsZero() || !b.Since.After(down) {
			t.Errorf("got %+v", b)
		}
		h.stop()
	})
}

func TestRestoredStateStandsInForAMissingResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, w := new(memory), newWorld()
		slow := serviceOf("web", one, two)
		slow.Probe.Timeout = time.Hour
		h := start(t, w, Options{Store: store}, setOf(slow))
		h.stop()
		w.hang(one)
		h = start(t, w, Options{Store: store}, setOf(slow))
		b := h.wantState(one, pool.Up)
		if b.Reason != "not probed since the restart; before it: tcp connect ok" || b.Flip == 0 {
			t.Errorf("got %+v", b)
		}
		h.stop()
		time.Sleep(maxAge)
		h = start(t, w, Options{Store: store}, setOf(slow))
		defer h.stop()
		h.wantState(one, pool.Unknown) // too old to be worth anything
		h.wantState(two, pool.Up)
	})
}

func TestCrashAndGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, w := new(memory), newWorld()
		h := start(t, w, Options{Store: store}, setOf(serviceOf("web", one)))
		time.Sleep(time.Minute)
		s := store.saved(t)
		h.stop()
		if s.Clean || s.Generation != 1 {
			t.Fatalf("while it runs: %+v", s)
		}
		if err := store.Save(statesName, s); err != nil { // as a crash leaves it
			t.Fatal(err)
		}
		h = start(t, w, Options{Store: store}, setOf(serviceOf("web", one)))
		defer h.stop()
		if g := h.table.Load().Generation; g != 1+generationGap+1 {
			t.Errorf("generation %d", g)
		}
	})
}

func TestSavesAreCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &counting{}
		h := start(t, newWorld(), Options{Store: store}, setOf(serviceOf("web", one)))
		for range 300 { // a minute of a reload five times a second
			h.Update(setOf(serviceOf("web", one)))
			time.Sleep(200 * time.Millisecond)
		}
		h.stop()
		if store.saves > 22 {
			t.Errorf("%d saves in a minute, want one in 3s", store.saves)
		}
	})
}

type counting struct {
	memory
	saves int
}

func (c *counting) Save(name string, v any) error {
	c.saves++
	return c.memory.Save(name, v)
}

func TestEndBeforeTheFirstTableKeepsWhatWasSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory)
		h := start(t, newWorld(), Options{Store: store}, setOf(serviceOf("web", one)))
		h.stop()
		before := string(store.values[statesName])
		h = build(t, newWorld(), Options{Store: store})
		synctest.Wait()
		h.stop()
		if got := string(store.values[statesName]); got != before {
			t.Errorf("got %s, want %s", got, before)
		}
	})
}

func TestBrokenStateCostsNoStart(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":        `{`,
		"another type":    `{"generation":"many","backends":7}`,
		"bad address":     `{"backends":[{"service":"web","address":"nowhere","state":"up"}]}`,
		"unknown state":   `{"at":"2000-01-01T00:00:00Z","backends":[{"service":"web","address":"10.0.0.1:80","state":"glowing","since":"9999-01-01T00:00:00Z"}]}`,
		"huge generation": `{"generation":18446744073709551615}`,
		"future":          `{"at":"2999-01-01T00:00:00Z","backends":[{"service":"web","address":"10.0.0.1:80","state":"down","drain":"drained","drainUntil":"2999-01-01T00:00:00Z"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &memory{values: map[string][]byte{
					statesName: []byte(text),
					ordersName: []byte(`{"node1":{"force":"sideways"},"":{},"node2":{"drain":true,"until":"0001-01-01T00:00:00Z"}}`),
				}}
				h := start(t, newWorld(), Options{Store: store}, setOf(serviceOf("web", one)))
				defer h.stop()
				h.wantState(one, pool.Up)
				if g := h.table.Load().Generation; g == 0 || g > 2*generationGap {
					t.Errorf("generation %d", g)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		store := &memory{values: map[string][]byte{ordersName: []byte(`[]`)}}
		h := start(t, newWorld(), Options{Store: store}, setOf(serviceOf("web", one)))
		defer h.stop()
		if n := h.out.count("orders are lost"); n != 1 {
			t.Errorf("%d lines, want 1", n)
		}
	})
}

// TestRestartDuringADrain: what was drained may be switched off by now, so it
// must not get a connection after a restart, while what was leaving DNS
// waits for the answers that were given before.
func TestRestartDuringADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := &cache{until: map[netip.Addr]time.Time{one.Addr(): time.Now().Add(20 * time.Second)}, after: 1 << 40}
		store := new(memory)
		web := serviceOf("web", one, two, three)
		web.Answer, web.Hostnames = pool.Direct, []string{"web.public.example"}
		h := start(t, newWorld(), Options{Store: store, Answered: answers}, setOf(web))
		must(t)(h.Drain("node1"))
		must(t)(h.Drain("node2"))
		since := h.backend("web", two).Since
		time.Sleep(5 * time.Second)
		if b := h.wantState(two, pool.Draining); b.Drain != pool.Drained {
			t.Fatalf("got %+v", b)
		}
		h.stop()
		answers.until = nil // the DNS server has forgotten
		h = start(t, newWorld(), Options{Store: store, Answered: answers}, setOf(web))
		defer h.stop()
		if b := h.wantState(one, pool.Draining); b.Drain != pool.LeavingDNS {
			t.Errorf("got %+v", b)
		}
		if b := h.wantState(two, pool.Draining); b.Drain != pool.Finishing || !b.Since.Equal(since) {
			t.Errorf("got %+v", b)
		}
		time.Sleep(14 * time.Second)
		if b := h.wantState(one, pool.Draining); b.Drain != pool.LeavingDNS {
			t.Errorf("got %+v", b)
		}
		time.Sleep(2 * time.Second)
		if b := h.wantState(one, pool.Draining); b.Drain != pool.Drained {
			t.Errorf("got %+v", b)
		}
	})
}

func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"generation":3,"at":"2000-01-01T00:00:00Z","backends":[{"service":"web","address":"10.0.0.1:80","state":"up"}]}`), []byte(`{"node1":{"force":"up","until":"2000-01-01T01:00:00Z"}}`))
	f.Add([]byte(`{}`), []byte(`{"node1":{"drain":true}}`))
	f.Fuzz(func(t *testing.T, states, orders []byte) {
		if !json.Valid(states) || !json.Valid(orders) {
			t.Skip("no state file: Load reports it and changes nothing")
		}
		c := New(Options{Publisher: new(pool.Publisher), Store: &memory{values: map[string][]byte{statesName: states, ordersName: orders}}})
		l := newLoop(c)
		l.saver.close()
		if len(l.orders) > maxOrders || l.generation > 1<<63 {
			t.Errorf("%d orders, generation %d", len(l.orders), l.generation)
		}
	})
}

// A process that takes over goes on where this one stops: the same states
// since the same moments for the same reasons, without a probe, and the results so far count.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.kill(two)
		set := setOf(serviceOf("web", one, two))
		h := start(t, w, Options{}, set)
		time.Sleep(time.Minute)
		if _, err := h.Force(one.String(), true, time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Drain(two.String()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)

		// It stays where it is while the other one has not taken over.
		given := new(memory)
		if err := h.HandOver(given, func() bool { return false }); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Unforce(one.String()); err != nil {
			t.Errorf("it does not go on: %v", err)
		}
		if _, err := h.Force(one.String(), true, time.Hour); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		before := *h.table.Load()

		late := make(chan error, 1)
		if err := h.HandOver(given, func() bool {
			go func() {
				_, err := h.Undrain(two.String())
				late <- err
			}()
			time.Sleep(time.Second)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if err := <-late; err == nil {
			t.Error("an order was carried out that nobody will know of")
		}
		h.stop()
		if g := h.table.Load().Generation; g != before.Generation {
			t.Errorf("generation %d was published after the hand-over of %d", g, before.Generation)
		}

		w.hang(one) // whoever waits for a probe waits long
		w.hang(two)
		began := time.Now()
		next := start(t, w, Options{Store: given}, set)
		defer next.stop()
		if took := time.Since(began); took != 0 {
			t.Errorf("the first table took %s", took)
		}
		after := next.table.Load()
		if after.Generation != before.Generation+1 {
			t.Errorf("generation %d after %d", after.Generation, before.Generation)
		}
		for i, b := range before.Service("web").Backends {
			a := after.Service("web").Backends[i]
			if !sameBackend(a, b) {
				t.Errorf("before\n%+v\nafter\n%+v", b, a)
			}
		}
		if n := next.out.count("backend is"); n != 0 {
			t.Errorf("%d changes are logged, and there was none", n)
		}
	})
}

// No backend is drained while a process has connections that nobody here counts.
func TestDrainWaitsForOtherProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var elsewhere atomic.Bool
		elsewhere.Store(true)
		w := newWorld()
		h := start(t, w, Options{Elsewhere: elsewhere.Load}, setOf(serviceOf("web", one, two)))
		defer h.stop()
		if _, err := h.Drain(one.String()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if b := h.wantState(one, pool.Draining); b.Drain != pool.Finishing {
			t.Errorf("got %+v", b)
		}
		elsewhere.Store(false)
		h.eventually("drained", time.Second, func() bool { return h.backend("web", one).Drain == pool.Drained })
	})
}
