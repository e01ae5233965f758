package dnsserver

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"haslohas.com/elbow/pool"
)

// ask makes the Server answer a question, so that caches hold the answer.
func (h *house) ask(t testing.TB, line string) {
	t.Helper()
	h.exchange(t, question(t, line))
}

func TestExpires(t *testing.T) {
	one, two := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{down: map[netip.Addr]bool{}}
		f.zone(&pool.Zone{Name: "example.com", Records: "@ NS ns.example.net.\nalias 3600 CNAME web\n"})
		f.direct("web.example.com", one.String(), two.String())
		f.direct("other.example.com", one.String())
		h := newHouse(t, nil)

		check := func(what string, addr netip.Addr, generation uint64, want time.Duration, wantOK bool) {
			t.Helper()
			until, ok := h.Expires(addr, generation)
			if ok != wantOK || ok && want == 0 && !until.IsZero() || want > 0 && !until.Equal(time.Now().Add(want)) {
				t.Errorf("%s: %v %v, want %v %v", what, time.Until(until), ok, want, wantOK)
			}
		}
		check("before any table", one, 1, 0, false)
		h.publish(f) // 1
		check("nothing was answered", one, 1, 0, true)
		check("a table that is not there yet", one, 2, 0, false)

		f.down[one] = true
		f.services[1].WhenAllDown = pool.ServeAll // other goes on to name it
		h.publish(f)                              // 2
		check("left without an answer: one may be on its way", one, 2, grace, true)
		check("the other left with it, in the same answer", two, 2, grace, true)
		time.Sleep(2 * grace)
		h.publish(f) // 3
		check("it was not", one, 3, 0, true)

		h.ask(t, "web.example.com A")
		f.down[one] = false
		h.publish(f) // 4
		check("answered alone", two, 4, 30*time.Second+grace, true)
		check("as it asks for an older table", two, 3, 0, true)
		time.Sleep(10 * time.Second)
		h.publish(f) // 5
		check("ten seconds later", two, 5, 21*time.Second, true)

		h.ask(t, "alias.example.com A")
		f.down[two] = true
		f.suspense = map[string]bool{"web-example-com": true}
		h.publish(f) // 6
		check("answered through an alias", two, 6, 31*time.Second, true)

		h.ask(t, "web.example.com A")
		f.down[one], f.down[two] = true, false
		h.publish(f) // 7
		check("the longer TTL before counts", one, 7, 31*time.Second, true)
		time.Sleep(40 * time.Second)
		h.publish(f) // 8
		check("everything has run out", one, 8, 0, true)
		check("an address that was never answered", netip.MustParseAddr("192.0.2.1"), 8, 0, true)
		if len(h.handedOut.retired) != 0 {
			t.Errorf("%d addresses are still remembered", len(h.handedOut.retired))
		}

		h.Explain("web.example.com")
		f.down[two] = true
		h.publish(f) // 9
		check("explaining is no answer", two, 9, grace, true)
	})
}

// TestExpiresAfterTheChange: a reader that still had the old snapshot.
func TestExpiresAfterTheChange(t *testing.T) {
	one := netip.MustParseAddr("198.51.100.1")
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{down: map[netip.Addr]bool{}}
		f.zone(&pool.Zone{Name: "example.com", Records: "@ NS ns.example.net.\n"})
		f.direct("web.example.com", one.String())
		h := newHouse(t, nil)
		h.publish(f)
		before := h.snapshot.Load()
		f.down[one] = true
		h.publish(f)
		if until, _ := h.Expires(one, 2); !until.Equal(time.Now().Add(grace)) {
			t.Errorf("before the late answer: %s", time.Until(until))
		}
		packet, err := question(t, "web.example.com A").Pack()
		if err != nil {
			t.Fatal(err)
		}
		h.r.answer(nil, before, h.r.read(packet), conversation{})
		if until, _ := h.Expires(one, 2); !until.Equal(time.Now().Add(30*time.Second + grace)) {
			t.Errorf("after the late answer: %s", time.Until(until))
		}
	})
}

// TestExpiresAfterARestart: what an earlier process has answered counts.
func TestExpiresAfterARestart(t *testing.T) {
	one := netip.MustParseAddr("198.51.100.1")
	f := &fixture{down: map[netip.Addr]bool{}}
	f.zone(&pool.Zone{Name: "example.com", Records: "@ NS ns.example.net.\n"})
	f.direct("web.example.com", one.String())
	store := &memory{}
	h := newHouse(t, store)
	h.publish(f)
	h.builder.end()

	h = newHouse(t, store)
	h.publish(f)
	f.down[one] = true
	h.publish(f)
	if until, ok := h.Expires(one, h.table.Load().Generation); !ok || time.Until(until) < 25*time.Second {
		t.Errorf("%v %v, want half a minute from now", until, ok)
	}
	h.builder.end()
}
