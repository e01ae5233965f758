package health

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"haslohas.com/elbow/pool"
)

func must(t *testing.T) func([]Affected, error) []Affected {
	return func(a []Affected, err error) []Affected {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}

func TestForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one, two)))
		defer h.stop()
		got := must(t)(h.Force("10.0.0.1:80", false, 0))
		if len(got) != 1 || got[0] != (Affected{Service: "web", Backend: "10.0.0.1:80", Node: "node1", State: "forced-down"}) {
			t.Errorf("got %+v", got)
		}
		if b := h.backend("web", one); b.State != pool.ForcedDown || b.Reason != "forced down by the operator" || b.Flip != 0 {
			t.Errorf("in the table when Force returns: %+v", b)
		}
		h.kill(one) // underneath
		time.Sleep(10 * time.Second)
		h.wantState(one, pool.ForcedDown)
		must(t)(h.Unforce("10.0.0.1:80"))
		h.wantState(one, pool.Down)

		must(t)(h.Force("web/10.0.0.1:80", true, 0))
		h.wantState(one, pool.ForcedUp)
		h.wantMetric(1, "elbow_backend_up", "10.0.0.1:80", "web")
		must(t)(h.Unforce("node1")) // the wider covers it
		h.wantState(one, pool.Down)
		must(t)(h.Unforce("node1")) // again
	})
}

func TestForceRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := setOf(serviceOf("web", one, two))
		s.DNS.Zones = append(s.DNS.Zones, &pool.Zone{Name: "other.example", TTL: pool.ZoneTTL{Normal: 10 * time.Second}})
		h := start(t, newWorld(), Options{}, s)
		defer h.stop()
		until := time.Now().Add(time.Hour)
		must(t)(h.Force("node1", false, time.Hour))
		p := h.table.Load()
		if b := h.backend("web", one); b.Reason != "forced down by the operator until "+until.UTC().Format(time.RFC3339) || b.Flip != 0 {
			t.Errorf("got %+v", b)
		}
		degraded := func(ttl time.Duration) bool {
			synctest.Wait()
			return h.table.Load().Service("web").Lifetime(pool.ZoneTTL{Normal: ttl}).Degraded
		}
		time.Sleep(time.Until(until) - 31*time.Second)
		if h.table.Load() != p {
			t.Error("a table was made for nothing")
		}
		time.Sleep(1500 * time.Millisecond) // 29.5 s left
		if !degraded(30*time.Second) || degraded(10*time.Second) {
			t.Error("29.5s left: want the TTL of 30s degraded, that of 10s not")
		}
		time.Sleep(20 * time.Second)
		if !degraded(30*time.Second) || !degraded(10*time.Second) {
			t.Error("9.5s left: want both TTLs degraded")
		}
		time.Sleep(9 * time.Second)
		h.wantState(one, pool.ForcedDown)
		time.Sleep(600 * time.Millisecond)
		h.wantState(one, pool.Up)
		if g := h.table.Load().Generation - p.Generation; g != 3 {
			t.Errorf("%d tables, want one for each step and the end", g)
		}
		if _, err := h.Force("node1", true, -time.Second); err == nil {
			t.Error("a negative duration is accepted")
		}
	})
}

func TestWhichOrderWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("api", one), serviceOf("web", one, two)))
		defer h.stop()
		state := func() string {
			return fmt.Sprint(h.backend("api", one).State, " ", h.backend("web", one).State)
		}
		want := func(when, want string) {
			t.Helper()
			if got := state(); got != want {
				t.Errorf("%s: %s, want %s", when, got, want)
			}
		}
		must(t)(h.Force("node1", false, 0))
		must(t)(h.Force("web/10.0.0.1:80", true, 0))
		want("the narrower order wins", "forced-down forced-up")
		_, err := h.Unforce("10.0.0.1:80")
		want("unforcing the address covers node and service", "up up")
		if err != nil {
			t.Error(err)
		}
		must(t)(h.Force("web/10.0.0.1:80", true, 0))
		must(t)(h.Force("node1", false, 0))
		want("a later, wider order replaces it", "forced-down forced-down")
		if _, err := h.Unforce("web/10.0.0.1:80"); err == nil || err.Error() != `10.0.0.1:80 is still forced down by the order for "node1": unforce that` {
			t.Errorf("got %v", err)
		}
		must(t)(h.Drain("node1"))
		want("forced down is stronger than a drain", "forced-down forced-down")
		must(t)(h.Force("node1", true, 0))
		want("a drain is stronger than forced up", "draining draining")
		if _, err := h.Undrain("api/10.0.0.1:80"); err == nil || !strings.Contains(err.Error(), `still draining by the order for "node1"`) {
			t.Errorf("got %v", err)
		}
		must(t)(h.Undrain("node1"))
		want("undrained", "forced-up forced-up")
	})
}

func TestUnknownTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one)))
		defer h.stop()
		for _, target := range []string{"", "web", "10.0.0.9:80", "10.0.0.1", "web/", "api/10.0.0.1:80", "\x00"} {
			for what, err := range map[string]error{
				"drain":    second(h.Drain(target)),
				"undrain":  second(h.Undrain(target)),
				"force":    second(h.Force(target, true, 0)),
				"unforce":  second(h.Unforce(target)),
				"affected": second(h.Affected(target)),
			} {
				if unknown, ok := errors.AsType[*UnknownTargetError](err); !ok || unknown.Target != target {
					t.Errorf("%s %q: %v", what, target, err)
				}
			}
		}
	})
}

func second(_ []Affected, err error) error { return err }

func TestOrdersOutliveEndpointsAndRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(memory)
		h := start(t, newWorld(), Options{Store: store}, setOf(serviceOf("web", one, two)))
		must(t)(h.Force("node1", false, time.Hour))
		must(t)(h.Drain("web/10.0.0.2:80"))
		h.Update(setOf(serviceOf("web", two)))
		synctest.Wait()
		h.Update(setOf(serviceOf("web", one, two)))
		h.wantState(one, pool.ForcedDown)
		h.stop()

		h = start(t, newWorld(), Options{Store: store}, setOf(serviceOf("web", one, two)))
		h.wantState(one, pool.ForcedDown)
		h.wantState(two, pool.Draining)
		h.Update(setOf())
		synctest.Wait()
		must(t)(h.Undrain("web/10.0.0.2:80")) // of an endpoint that is not there
		h.Update(setOf(serviceOf("web", one, two)))
		h.becomes(two, pool.Up, time.Second)
		h.stop()

		time.Sleep(time.Hour) // it runs out while nobody looks
		h = start(t, newWorld(), Options{Store: store}, setOf(serviceOf("web", one, two)))
		defer h.stop()
		h.wantState(one, pool.Up)
		h.wantState(two, pool.Up)
	})
}

func TestOrderThatCannotBeSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := errors.New("no space left on device")
		store := new(memory)
		h := start(t, newWorld(), Options{Store: store}, setOf(serviceOf("web", one)))
		defer h.stop()
		store.breakWith(full)
		got, err := h.Force("node1", false, 0)
		if !errors.Is(err, full) || !strings.Contains(err.Error(), "is in force, but a restart will forget it") || len(got) != 1 {
			t.Errorf("got %v, %v", got, err)
		}
		h.wantState(one, pool.ForcedDown)
		time.Sleep(time.Minute)
		if n := h.out.count("health states cannot be saved"); n != 1 {
			t.Errorf("%d lines, want 1", n)
		}
	})
}

func TestOrdersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one)))
		defer h.stop()
		if err := h.ask(func(l *loop) {
			for i := range maxOrders {
				l.orders[fmt.Sprint("gone", i)] = order{Drain: true}
			}
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Drain("node1"); err == nil || !strings.Contains(err.Error(), "take back") {
			t.Errorf("got %v", err)
		}
	})
}

// A cache knows which DNS answers were given, as the DNS server would.
type cache struct {
	mu    sync.Mutex
	until map[netip.Addr]time.Time
	after uint64 // the generation DNS has got to
}

func (c *cache) Expires(a netip.Addr, generation uint64) (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.until[a], c.after >= generation
}

func (c *cache) reach(generation uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after = generation
}

// A load is how many connections the first backend of web has.
type load struct{ atomic.Int64 }

func (l *load) Active(service string, a netip.AddrPort) int {
	if service == "web" && a == one {
		return int(l.Load())
	}
	return 0
}

func TestDrainOfADirectService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		expiry := time.Now().Add(24 * time.Second)
		answers := &cache{until: map[netip.Addr]time.Time{one.Addr(): expiry}}
		connections := new(load)
		connections.Store(3)
		web := serviceOf("web", one, two)
		web.Answer, web.Hostnames = pool.Direct, []string{"web.public.example"}
		h := start(t, newWorld(), Options{Answered: answers, Load: connections}, setOf(web))
		defer h.stop()
		affected := func() Affected { t.Helper(); synctest.Wait(); return must(t)(h.Affected("node1"))[0] }

		got := must(t)(h.Drain("node1"))
		b := h.backend("web", one)
		if b.State != pool.Draining || b.Drain != pool.LeavingDNS || b.Flip == 0 ||
			b.Reason != "draining: waiting until DNS has stopped naming it" || got[0].State != "draining" || got[0].Connections != 3 {
			t.Errorf("at once: %+v, %+v", b, got)
		}
		p := h.table.Load().Service("web")
		if !p.Traffic.Has(0) || p.Names.Has(0) {
			t.Error("it must take connections and not be named")
		}
		time.Sleep(4 * time.Second)
		if a := affected(); a.Drain != "leaving-dns" || !a.Until.IsZero() {
			t.Errorf("while DNS is behind: %+v", a)
		}
		answers.reach(h.table.Load().Generation)
		time.Sleep(time.Second)
		if a := affected(); a.Drain != "leaving-dns" || !a.Until.Equal(expiry) {
			t.Errorf("got %+v", a)
		}
		time.Sleep(2 * time.Second)
		if r := h.backend("web", one).Reason; !strings.HasPrefix(r, "draining: cached DNS answers run out in 1") {
			t.Errorf("got %q", r)
		}
		time.Sleep(18 * time.Second)
		b = h.wantState(one, pool.Draining)
		if b.Drain != pool.Finishing || b.Reason != "draining: 3 connections left" {
			t.Errorf("when the TTL has run out: %+v", b)
		}
		if h.table.Load().Service("web").Traffic.Has(0) {
			t.Error("it still takes connections")
		}
		connections.Store(1)
		time.Sleep(3 * time.Second)
		if a := affected(); a.Drain != "finishing" || a.Connections != 1 {
			t.Errorf("got %+v", a)
		}
		connections.Store(0)
		time.Sleep(time.Second)
		b = h.wantState(one, pool.Draining)
		if b.Drain != pool.Drained || b.Flip != 0 || !strings.HasPrefix(b.Reason, "drained: safe to power off") {
			t.Errorf("at the end: %+v", b)
		}
		calm := h.table.Load()
		time.Sleep(time.Minute)
		if h.table.Load() != calm {
			t.Error("a finished drain goes on making tables")
		}
		must(t)(h.Undrain("node1"))
		h.wantState(one, pool.Up)
	})
}

func TestDrainOfAProxiedService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		connections := new(load)
		connections.Store(2)
		web := serviceOf("web", one, two)
		web.Hostnames, web.DrainTimeout = []string{"web.public.example"}, 30*time.Second
		h := start(t, newWorld(), Options{Answered: &cache{}, Load: connections}, setOf(web))
		defer h.stop()
		must(t)(h.Drain("10.0.0.1:80"))
		if b := h.backend("web", one); b.Drain != pool.Finishing || b.Reason != "draining: 2 connections left" {
			t.Errorf("it never was in DNS: %+v", b)
		}
		time.Sleep(31 * time.Second)
		if b := h.wantState(one, pool.Draining); b.Drain != pool.Finishing {
			t.Errorf("the proxy is still resetting what is left: %+v", b)
		}
		time.Sleep(2 * time.Second)
		if b := h.wantState(one, pool.Draining); b.Drain != pool.Drained || b.Reason != "drained: safe to power off" {
			t.Errorf("after the drain timeout: %+v", b)
		}
		// Idle from the beginning: drained, but not before the proxy has seen it.
		must(t)(h.Drain("10.0.0.2:80"))
		if b := h.backend("web", two); b.Drain != pool.Finishing {
			t.Errorf("got %+v", b)
		}
		time.Sleep(600 * time.Millisecond)
		if b := h.wantState(two, pool.Draining); b.Drain != pool.Drained {
			t.Errorf("got %+v", b)
		}
	})
}

func TestDrainingBackendThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := &cache{until: map[netip.Addr]time.Time{one.Addr(): time.Now().Add(time.Hour)}, after: 99}
		web := serviceOf("web", one, two)
		web.Answer, web.Hostnames = pool.Direct, []string{"web.public.example"}
		h := start(t, newWorld(), Options{Answered: answers}, setOf(web))
		defer h.stop()
		must(t)(h.Drain("node1"))
		h.kill(one)
		h.ConnectFailed("web", one, "connect refused")
		time.Sleep(500 * time.Millisecond)
		if b := h.wantState(one, pool.Draining); b.Drain == pool.LeavingDNS {
			t.Errorf("it still takes connections after one was refused: %+v", b)
		}
		time.Sleep(10 * time.Second)
		if b := h.wantState(one, pool.Draining); b.Drain != pool.Drained {
			t.Errorf("a dead backend has nothing to wait for: %+v", b)
		}
	})
}

func TestDrainUnderneathAForcedState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := &cache{until: map[netip.Addr]time.Time{one.Addr(): time.Now().Add(20 * time.Second)}, after: 99}
		web := serviceOf("web", one, two)
		web.Answer, web.Hostnames = pool.Direct, []string{"web.public.example"}
		h := start(t, newWorld(), Options{Answered: answers}, setOf(web))
		defer h.stop()
		must(t)(h.Force("node1", false, 0))
		if got := must(t)(h.Drain("node1")); got[0].State != "forced-down" || got[0].Drain != "leaving-dns" {
			t.Errorf("got %+v", got)
		}
		time.Sleep(time.Second)
		if got := must(t)(h.Affected("node1")); got[0].Drain != "leaving-dns" || got[0].Until.IsZero() {
			t.Errorf("got %+v", got)
		}
		time.Sleep(20 * time.Second)
		must(t)(h.Unforce("node1"))
		if b := h.wantState(one, pool.Draining); b.Drain != pool.Drained {
			t.Errorf("got %+v", b)
		}
	})
}

func TestTerminatingEndpointDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one, two)))
		defer h.stop()
		must(t)(h.Force("node1", true, 0))
		leaving := serviceOf("web", one, two)
		leaving.Endpoints[0].Phase = pool.Terminating
		h.Update(setOf(leaving))
		if b := h.wantState(one, pool.Draining); b.Drain != pool.Finishing {
			t.Errorf("got %+v", b)
		}
		time.Sleep(time.Second)
		if b := h.wantState(one, pool.Draining); b.Drain != pool.Drained {
			t.Errorf("got %+v", b)
		}
		must(t)(h.Undrain("node1")) // an operator cannot keep a pod alive, and it is no error
		h.wantState(one, pool.Draining)
		h.Update(setOf(serviceOf("web", one, two)))
		h.wantState(one, pool.ForcedUp)
	})
}
