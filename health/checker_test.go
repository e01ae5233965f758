package health

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"haslohas.com/elbow/pool"
)

func TestFirstRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.kill(two)
		h := build(t, w, Options{})
		defer h.stop()
		synctest.Wait()
		if g := h.table.Load().Generation; g != 0 {
			t.Fatalf("generation %d before there was a set", g)
		}
		began := time.Now()
		h.Update(setOf(serviceOf("web", one, two)))
		<-h.Ready()
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("the first round took %s", took)
		}
		if g := h.table.Load().Generation; g != 1 {
			t.Errorf("ready in generation %d, want 1", g)
		}
		if b := h.wantState(one, pool.Up); b.Reason != "tcp connect ok" || !b.RampFrom.IsZero() || b.Flip != 0 {
			t.Errorf("got %+v", b)
		}
		if b := h.wantState(two, pool.Down); b.Reason != "connect refused" || b.Flip == 0 {
			t.Errorf("got %+v", b)
		}
		if n := h.out.count(`level=WARN msg="backend is down" service=web backend=10.0.0.2:80`); n != 1 {
			t.Errorf("%d lines about the one that is down, want 1", n)
		}
	})
}

func TestFirstRoundIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.hang(two)
		slow := serviceOf("web", one, two)
		slow.Probe.Timeout = time.Minute
		h := build(t, w, Options{StartTimeout: 7 * time.Second})
		defer h.stop()
		began := time.Now()
		h.Update(setOf(slow))
		<-h.Ready()
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("ready after %s, want 7s", took)
		}
		h.wantState(one, pool.Up)
		h.wantState(two, pool.Unknown)
	})
}

func TestEmptySetIsReadyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, &pool.Set{})
		defer h.stop()
		if g := h.table.Load().Generation; g != 1 {
			t.Errorf("generation %d, want 1", g)
		}
	})
}

func TestThePaceOfProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one)))
		defer h.stop()
		time.Sleep(time.Minute)
		probes := h.probes(one)
		for i := range probes[2:] { // the second one is spread over the interval
			if gap := probes[i+2].Sub(probes[i+1]); gap < 1800*time.Millisecond || gap > 2200*time.Millisecond {
				t.Errorf("probe %d came %s after the one before, want 2s within a tenth", i+2, gap)
			}
		}
		h.kill(one)
		h.becomes(one, pool.Down, 4*time.Second)
		before := len(h.probes(one))
		time.Sleep(50 * time.Second)
		if n := len(h.probes(one)) - before; n < 9 || n > 12 {
			t.Errorf("%d probes in 50s while it is down, want one in 5s", n)
		}
	})
}

func TestServicesShareAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := serviceOf("other", one)
		other.Probe.Path = "/another"
		h := start(t, newWorld(), Options{}, setOf(serviceOf("api", one), serviceOf("web", one, two)))
		defer h.stop()
		time.Sleep(20 * time.Second)
		shared := len(h.probes(one))
		if shared < 9 || shared > 13 {
			t.Errorf("%d probes of an address that two services share, want one in 2s", shared)
		}
		h.kill(one)
		h.becomes(one, pool.Down, 4*time.Second)
		if b := h.backend("api", one); b.State != pool.Down {
			t.Errorf("the other service has it %s", b.State)
		}
		// A service that joins later knows what is known, without a probe.
		before := len(h.probes(one))
		h.Update(setOf(serviceOf("api", one), serviceOf("late", one), serviceOf("web", one, two)))
		synctest.Wait()
		if b := h.backend("late", one); b.State != pool.Down || len(h.probes(one)) != before {
			t.Errorf("the new service has it %s after %d probes more", b.State, len(h.probes(one))-before)
		}
		// The probe ends with the last service that has it.
		h.Update(setOf(serviceOf("web", two)))
		synctest.Wait()
		before = len(h.probes(one))
		time.Sleep(time.Minute)
		if n := len(h.probes(one)) - before; n != 0 {
			t.Errorf("%d probes of an address that nobody has", n)
		}
	})
}

func TestFallAndRise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one, two)))
		defer h.stop()
		time.Sleep(30 * time.Second)
		began := h.wantState(one, pool.Up).Since
		h.kill(one)
		doubted := h.eventually("a TTL in doubt", 3*time.Second, func() bool { return h.backend("web", one).Flip > 0 })
		b := h.wantState(one, pool.Up)
		if b.Flip != time.Second || b.Reason != "1 of 3 failures that take it down: connect refused" || !b.Since.Equal(began) {
			t.Errorf("after one failure: %+v", b)
		}
		if took := h.becomes(one, pool.Down, 4*time.Second); doubted > 2300*time.Millisecond || took > 1150*time.Millisecond {
			t.Errorf("in doubt after %s, down %s later", doubted, took)
		}
		if b = h.backend("web", one); b.Reason != "3 probes failed: connect refused" || time.Since(b.Since) > time.Second {
			t.Errorf("got %+v", b)
		}
		h.wantMetric(0, "elbow_backend_up", "10.0.0.1:80", "web")
		h.wantMetric(1, "elbow_service_backends", "web", "down")
		h.wantMetric(1, "elbow_service_backends", "web", "up")
		h.wantMetric(1, "elbow_backend_transitions_total", "10.0.0.1:80", "web", "down")

		time.Sleep(time.Minute)
		h.revive(one)
		h.eventually("one success", 6*time.Second, func() bool { return h.backend("web", one).Flip == 500*time.Millisecond })
		if b = h.wantState(one, pool.Down); !strings.HasPrefix(b.Reason, "1 of 2 successes that bring it up: tcp connect ok; it went down because: 3 probes") {
			t.Errorf("got %+v", b)
		}
		h.becomes(one, pool.Up, time.Second)
		if b = h.backend("web", one); b.RampFrom.IsZero() || !b.RampFrom.Equal(b.Since) || b.Reason != "tcp connect ok" {
			t.Errorf("got %+v", b)
		}
		h.wantMetric(1, "elbow_backend_up", "10.0.0.1:80", "web")
		for _, line := range []string{"backend is down", "backend is up"} {
			if n := h.out.count(`"` + line + `" service=web backend=10.0.0.1:80 node=node1`); n != map[string]int{"backend is down": 1, "backend is up": 2}[line] {
				t.Errorf("%d lines %q", n, line)
			}
		}
	})
}

func TestFailOpenIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one)))
		defer h.stop()
		h.wantMetric(0, "elbow_service_fail_open", "web")
		h.kill(one)
		h.becomes(one, pool.Down, 5*time.Second)
		h.wantMetric(1, "elbow_service_fail_open", "web")
		h.revive(one)
		h.becomes(one, pool.Up, 10*time.Second)
		h.wantMetric(0, "elbow_service_fail_open", "web")
		if a, b := h.out.count(servesAll), h.out.count(servesWell); a != 1 || b != 1 {
			t.Errorf("%d and %d lines, want one each", a, b)
		}
	})
}

func TestPassiveDownWithinASecond(t *testing.T) {
	for _, age := range []time.Duration{0, 300 * time.Millisecond, 900 * time.Millisecond, 1700 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one, two)))
			defer h.stop()
			time.Sleep(30*time.Second + age) // at any moment between two probes
			h.kill(one)
			h.ConnectFailed("web", one, "connect refused")
			synctest.Wait()
			b := h.wantState(one, pool.Up)
			traffic := h.table.Load().Service("web").Traffic.Index
			if !b.Suspect || len(traffic) != 1 {
				t.Fatalf("not passed over at once: %+v, traffic %v", b, traffic)
			}
			if took := h.becomes(one, pool.Down, time.Second); took > time.Second {
				t.Errorf("down after %s", took)
			}
			want := "connect refused on live traffic, then 2 probes failed: connect refused"
			if b := h.backend("web", one); b.Reason != want || b.Suspect {
				t.Errorf("reason %q, want %q", b.Reason, want)
			}
			h.ConnectFailed("web", one, "connect refused") // fail-open traffic
			synctest.Wait()
			h.wantState(one, pool.Down)
			h.wantMetric(2, "elbow_passive_connect_failures_total", "10.0.0.1:80", "web")
		})
	}
}

func TestSuspectUntilAProbeHasDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.took = 100 * time.Millisecond
		h := start(t, w, Options{}, setOf(serviceOf("web", one, two)))
		defer h.stop()
		since := h.backend("web", one).Since
		time.Sleep(30 * time.Second)
		n := len(h.probes(one))
		h.eventually("a probe on its way", 3*time.Second, func() bool { return len(h.probes(one)) > n })
		// The probe that is under way began before the failure: its success is no answer.
		h.ConnectFailed("web", one, "connect timed out")
		synctest.Wait()
		b := h.wantState(one, pool.Up)
		if !b.Suspect || b.Flip != 500*time.Millisecond || b.Reason != "connect timed out on live traffic, a probe decides" {
			t.Fatalf("got %+v", b)
		}
		took := h.eventually("the suspicion is cleared", time.Second, func() bool { return !h.backend("web", one).Suspect })
		if took < 150*time.Millisecond || took > 250*time.Millisecond {
			t.Errorf("cleared after %s, want two probes of 100ms", took)
		}
		if b := h.wantState(one, pool.Up); b.Flip != 0 || b.Reason != "tcp connect ok" || !b.Since.Equal(since) {
			t.Errorf("got %+v", b)
		}
	})
}

func TestStormOfReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.took = 10 * time.Millisecond
		h := start(t, w, Options{}, setOf(serviceOf("web", one, two, three)))
		defer h.stop()
		time.Sleep(30 * time.Second)
		generation, before := h.table.Load().Generation, len(h.probes(one))
		const each = 5000
		done := make(chan struct{})
		for range 4 {
			go func() {
				for range each {
					h.ConnectFailed("web", one, "connect refused")
					h.SessionReset("web", two)
					h.ConnectFailed("web", netip.MustParseAddrPort("192.0.2.1:1"), "an address of an old table")
				}
				done <- struct{}{}
			}()
		}
		for range 4 {
			<-done
		}
		h.ConnectFailed("web", three, "connect refused") // is not drowned
		synctest.Wait()
		if b := h.wantState(three, pool.Up); !b.Suspect {
			t.Error("the report about another backend was lost")
		}
		if b := h.wantState(one, pool.Up); !b.Suspect {
			t.Errorf("a storm counts as one failure, got %+v", b)
		}
		time.Sleep(400 * time.Millisecond)
		h.wantState(one, pool.Up)
		if n := len(h.probes(one)) - before; n < 1 || n > 2 {
			t.Errorf("%d probes, want one out of turn", n)
		}
		if g := h.table.Load().Generation - generation; g > 6 {
			t.Errorf("%d tables", g)
		}
		h.wantMetric(4*each, "elbow_passive_connect_failures_total", "10.0.0.1:80", "web")
		h.wantMetric(4*each, "elbow_passive_resets_total", "10.0.0.2:80", "web")
	})
}

func TestAProbeThatSucceedsWhileClientsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one, two)))
		defer h.stop()
		time.Sleep(30 * time.Second)
		before, generation := len(h.probes(one)), h.table.Load().Generation
		passed, looks := 0, 0
		for range 1000 { // 10 s
			h.ConnectFailed("web", one, "connect refused")
			time.Sleep(10 * time.Millisecond)
			looks++
			if h.backend("web", one).Suspect {
				passed++
			}
		}
		if n := len(h.probes(one)) - before; n > 40 {
			t.Errorf("%d probes in 10s, want at most two in each fastInterval", n)
		}
		if g := h.table.Load().Generation - generation; g > 90 {
			t.Errorf("%d tables in 10s", g)
		}
		if passed < looks*9/10 {
			t.Errorf("passed over at %d of %d looks", passed, looks)
		}
		if n := h.out.count("passed over"); n != 1 {
			t.Errorf("%d lines, want 1", n)
		}
	})
}

func TestSessionResetOnlyProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one)))
		defer h.stop()
		time.Sleep(30 * time.Second)
		before, generation := len(h.probes(one)), h.table.Load().Generation
		h.SessionReset("web", one)
		synctest.Wait()
		if n := len(h.probes(one)) - before; n != 1 {
			t.Errorf("%d probes at once, want 1", n)
		}
		for range 100 {
			h.SessionReset("web", one)
			time.Sleep(50 * time.Millisecond)
		}
		if n := len(h.probes(one)) - before; n < 9 || n > 14 {
			t.Errorf("%d probes in 5s of resets, want one in each 500ms", n)
		}
		if h.table.Load().Generation != generation {
			t.Error("resets alone changed the table")
		}
	})
}

func TestReloadLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one, two)))
		defer h.stop()
		began := h.backend("web", one)
		reload := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
				h.Update(setOf(serviceOf("web", one, two)))
			}
		}
		reload(20 * time.Second)
		if n := len(h.probes(one)); n < 9 || n > 13 {
			t.Errorf("%d probes in 20s of reloads, want one in 2s", n)
		}
		if b := h.wantState(one, pool.Up); !b.Since.Equal(began.Since) {
			t.Errorf("since %s, want %s", b.Since, began.Since)
		}
		h.kill(one)
		reload(3500 * time.Millisecond) // an interval and two fastIntervals
		h.wantState(one, pool.Down)
	})
}

func TestNewProbeKeepsTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.kill(two)
		h := start(t, w, Options{}, setOf(serviceOf("web", one, two)))
		defer h.stop()
		time.Sleep(time.Minute)
		up, down := h.backend("web", one), h.backend("web", two)
		h.revive(two)
		changed := serviceOf("web", one, two)
		changed.Probe.Path = "/healthz"
		before := len(h.probes(two))
		h.Update(setOf(changed))
		h.eventually("a probe by the new rule", time.Second, func() bool { return len(h.probes(two)) == before+1 })
		synctest.Wait()
		if b := h.wantState(one, pool.Up); !b.Since.Equal(up.Since) {
			t.Errorf("got %+v", b)
		}
		if b := h.wantState(two, pool.Down); !b.Since.Equal(down.Since) {
			t.Errorf("one success brought it up: %+v", b)
		}
		h.becomes(two, pool.Up, time.Second)
		time.Sleep(20 * time.Second)
		if n := len(h.probes(one)); n > 50 {
			t.Errorf("%d probes: the old one goes on", n)
		}
	})
}

func TestEndpointThatAppears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one)))
		defer h.stop()
		time.Sleep(30 * time.Second)
		h.Update(setOf(serviceOf("web", one, two)))
		synctest.Wait()
		if b := h.backend("web", two); b.State != pool.Unknown || b.Flip != 2*time.Second || b.Reason != "not probed yet" {
			t.Errorf("got %+v", b)
		}
		h.becomes(two, pool.Up, 50*time.Millisecond)
		if b := h.backend("web", two); b.RampFrom.IsZero() {
			t.Error("no slow start for a backend that came while the daemon runs")
		}
	})
}

func TestEndpointThatGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("api", one), serviceOf("web", one, two)))
		defer h.stop()
		h.ConnectFailed("web", one, "connect refused")
		synctest.Wait()
		h.Update(setOf(serviceOf("web", two)))
		synctest.Wait()
		h.ConnectFailed("web", one, "connect refused")
		h.SessionReset("web", one)
		time.Sleep(10 * time.Second)
		families, err := h.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if s := m.String(); strings.Contains(s, "10.0.0.1:80") || strings.Contains(s, `"api"`) {
					t.Errorf("%s still has %s", f.GetName(), s)
				}
			}
		}
		if n := len(h.table.Load().Pools); n != 1 {
			t.Errorf("%d pools", n)
		}
	})
}

func TestEndpointFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one)))
		defer h.stop()
		heavier := serviceOf("web", one)
		heavier.Endpoints[0].Weight = 7
		h.Update(setOf(heavier))
		synctest.Wait()
		if b := h.backend("web", one); b.Weight != 7 || b.State != pool.Up {
			t.Errorf("got %+v", b)
		}
	})
}

func TestLocalFaultIsChargedToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one, two)))
		defer h.stop()
		time.Sleep(10 * time.Second)
		before := h.table.Load()
		h.fail(one, errLocal)
		h.fail(two, errLocal)
		time.Sleep(time.Minute)
		if h.table.Load() != before {
			t.Errorf("the table changed: %+v", h.backend("web", one))
		}
		if n := h.out.count("probes cannot be sent"); n != 1 {
			t.Errorf("%d lines, want 1", n)
		}
		if n, _ := h.metric("elbow_probes_total", "10.0.0.1:80", "local", "web"); n < 50 {
			t.Errorf("counted %v", n)
		}
		h.revive(one)
		h.revive(two)
		time.Sleep(time.Minute)
		if n := h.out.count("probes run again"); n != 1 {
			t.Errorf("%d lines, want 1", n)
		}
	})
}

func TestTenThousandSilentBackends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.took = 10 * time.Millisecond
		var services []*pool.Service
		for i := range 40 {
			var addresses []netip.AddrPort
			for j := range 250 {
				addresses = append(addresses, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), byte(j)}), 80))
			}
			services = append(services, serviceOf(fmt.Sprintf("s%02d", i), addresses...))
		}
		h := start(t, w, Options{}, setOf(services...))
		defer h.stop()
		if w.most > maxProbes {
			t.Errorf("%d probes at the same time, want at most %d", w.most, maxProbes)
		}
		for _, p := range h.table.Load().Pools {
			for i := range p.Backends {
				if p.Backends[i].State != pool.Up {
					t.Fatalf("%s is %s: waiting for its turn was held against it", p.Backends[i].Address, p.Backends[i].State)
				}
			}
		}
		if g := h.table.Load().Generation; g != 1 {
			t.Errorf("the first round made %d tables", g)
		}
	})
}

func TestResultsThatAreThereGoInOneTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, newWorld(), Options{}, setOf(serviceOf("web", one, two, three)))
		defer h.stop()
		generation := h.table.Load().Generation
		h.Update(setOf(serviceOf("web", one)))
		h.Update(setOf(serviceOf("web", one, two)))
		h.Update(setOf(serviceOf("web", two)))
		synctest.Wait()
		if g := h.table.Load().Generation - generation; g > 2 {
			t.Errorf("%d tables of three sets at once", g)
		}
		if n := len(h.table.Load().Service("web").Backends); n != 1 {
			t.Errorf("%d backends, want those of the last set", n)
		}
	})
}

func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.hang(one)
		slow := serviceOf("web", one, two)
		slow.Probe.Timeout = time.Hour
		h := build(t, w, Options{})
		h.Update(setOf(slow))
		time.Sleep(time.Second)
		began := time.Now()
		h.stop() // and the bubble fails if a goroutine is left
		if took := time.Since(began); took != 0 {
			t.Errorf("Run took %s to end", took)
		}
		h.Update(setOf(slow))
		h.ConnectFailed("web", one, "connect refused")
		if _, err := h.Drain("node1"); !errors.Is(err, errNotRunning) {
			t.Errorf("got %v", err)
		}
	})
}

// TestRealBackend: the whole way with a real server and a real clock.
func TestRealBackend(t *testing.T) {
	server := listenForever(t)
	table := new(pool.Publisher)
	c := New(Options{Publisher: table})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	s := serviceOf("web", server.address)
	s.Probe.Interval, s.Probe.FastInterval, s.Probe.DownInterval = 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	changed, stop := table.Watch()
	defer stop()
	await := func(want pool.State) {
		t.Helper()
		limit := time.After(10 * time.Second)
		for {
			if p := table.Load().Service("web"); p != nil && p.Backends[0].State == want {
				return
			}
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("never %s", want)
			}
		}
	}
	c.Update(setOf(s))
	<-c.Ready()
	await(pool.Up)
	server.close()
	await(pool.Down)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := serviceOf("web", one, two, three)
		spec.Endpoints[1].Priority, spec.Endpoints[2].Priority = 1, 1
		h := start(t, newWorld(), Options{}, setOf(spec))
		defer h.stop()
		serves := func(priority float64, want ...int) {
			t.Helper()
			p := h.table.Load().Service("web")
			if !slices.Equal(p.Traffic.Index, want) || !slices.Equal(p.Names.Index, want) {
				t.Errorf("traffic %v, names %v, want %v", p.Traffic.Index, p.Names.Index, want)
			}
			h.wantMetric(priority, "elbow_service_priority", "web")
		}
		serves(0, 0)
		h.kill(one)
		h.becomes(one, pool.Down, 10*time.Second)
		serves(1, 1, 2)
		h.kill(two)
		h.kill(three)
		h.becomes(three, pool.Down, 10*time.Second)
		h.becomes(two, pool.Down, 10*time.Second)
		serves(0, 0) // as in calm
		h.wantMetric(1, "elbow_service_fail_open", "web")
		h.revive(two)
		h.becomes(two, pool.Up, 10*time.Second)
		serves(1, 1)
		h.revive(one)
		h.becomes(one, pool.Up, 20*time.Second)
		serves(0, 0)
		if over, back := h.out.count(failsOver), h.out.count(failsBack); over != 2 || back != 1 {
			t.Errorf("%d and %d lines, want 2 and 1", over, back)
		}
	})
}
