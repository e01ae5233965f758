package dnsserver

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

// largeText is records that make a zone a large one, though of few names.
func largeText() string {
	var b strings.Builder
	b.WriteString(ns + "www A 192.0.2.1\n")
	for i := range largeZone / 200 {
		fmt.Fprintf(&b, "text%d TXT %s\n", i, strings.Repeat("x", 200))
	}
	return b.String()
}

// A building is a large zone and a small one, each with a service, whose changes
// a test takes step by step.
type building struct {
	*house
	t    *testing.T
	f    *fixture
	keys []pool.KeyFile
}

func newBuilding(t *testing.T) *building {
	b := &building{house: newHouse(t, nil), t: t, f: &fixture{down: make(map[netip.Addr]bool)}}
	b.keys = oneKey(t, dnssec.ECDSAP256)()
	b.f.zone(&pool.Zone{Name: "small.example", Records: ns})
	b.f.direct("web.example.com", "198.51.100.1", "198.51.100.2")
	b.f.direct("web.small.example", "198.51.100.1", "198.51.100.2")
	return b
}

// set has the large zone be the given records; empty: it is not served.
func (b *building) set(records string, signed bool) {
	b.f.dns.Zones = b.f.dns.Zones[:1]
	if records == "" {
		return
	}
	z := b.f.zone(&pool.Zone{Name: "example.com", Records: records})
	if signed {
		z.DNSSEC = pool.DNSSEC{Folder: "keys", Keys: b.keys}
	}
}

// addresses is how many a service has by its answers, -1: it has none.
func (b *building) addresses(hostname string) int {
	m := b.exchange(b.t, question(b.t, hostname+" A"))
	if m.Rcode != dns.RcodeSuccess {
		return -1
	}
	return len(m.Answer)
}

// has reports whether the large zone has a TXT record.
func (b *building) has(owner string) bool {
	return len(b.exchange(b.t, question(b.t, owner+".example.com TXT")).Answer) > 0
}

// finish waits for what is ready and brings it into force.
func (b *building) finish() {
	b.t.Helper()
	select {
	case do := <-b.requests:
		do(&b.builder)
	case <-time.After(30 * time.Second):
		b.t.Fatalf("nothing gets ready\n%s", b.log.String())
	}
}

// TestLargeZoneIsPrepared: a large zone that is new or changed delays nothing, and is
// what it was until it is ready.
func TestLargeZoneIsPrepared(t *testing.T) {
	const absent, plain, signed = "absent", "plain", "signed"
	for _, test := range []struct{ before, after string }{
		{absent, plain}, {absent, signed}, {plain, plain}, {plain, signed}, {signed, signed}, {signed, plain},
	} {
		t.Run(test.before+" to "+test.after, func(t *testing.T) {
			b := newBuilding(t)
			if test.before != absent {
				b.set(largeText(), test.before == signed)
			}
			b.publish(b.f)
			b.set(largeText()+"new TXT new\n", test.after == signed)
			b.publish(b.f)
			if b.has("new") {
				t.Fatal("the change is there at once")
			}
			if err := b.Serving(); err != nil {
				t.Errorf("while a zone is prepared: %v", err)
			}
			// Health is followed meanwhile, in this zone and in others.
			b.f.down[netip.MustParseAddr("198.51.100.1")] = true
			b.publish(b.f)
			want := 1
			if test.before == absent {
				want = -1
			}
			if large, small := b.addresses("web.example.com"), b.addresses("web.small.example"); large != want || small != 1 {
				t.Errorf("with one backend down, there are %d and %d addresses, want %d and 1", large, small, want)
			}
			if test.before == signed {
				b.validates("web.example.com", "www.example.com", "new.example.com")
			}
			b.finish()
			if !b.has("new") || !b.has("text1") || b.addresses("web.example.com") != 1 || b.addresses("www.example.com") != 1 {
				t.Errorf("the new zone does not answer\n%s", b.log.String())
			}
			if len(b.builder.preparations) > 0 || b.loadings.newest.Load() != nil {
				t.Error("something is left of the preparation")
			}
			z := b.snapshot.Load().zones.get(mustName(t, "example.com"))
			if (z.signed != nil) != (test.after == signed) {
				t.Errorf("it is signed: %t", z.signed != nil)
			}
			if z.signed != nil {
				b.validates("web.example.com", "www.example.com", "new.example.com", "text7.example.com", "nothing.example.com")
				if z.signed.made > 3 {
					t.Errorf("%d signatures were made where everything waits for them", z.signed.made)
				}
			}
			// What comes next needs no preparation.
			b.f.down[netip.MustParseAddr("198.51.100.1")] = false
			b.publish(b.f)
			if got := b.addresses("web.example.com"); got != 2 || len(b.builder.preparations) > 0 {
				t.Errorf("with both backends up there are %d addresses, %d preparations", got, len(b.builder.preparations))
			}
		})
	}
}

// validates checks the signatures of answers about names.
func (b *building) validates(names ...string) {
	b.t.Helper()
	v := b.validatorOf(b.t, "example.com")
	for _, owner := range names {
		if m := b.askSigned(b.t, owner, dns.TypeA); v.judge(m) != nil {
			b.t.Errorf("%s: %v\n%v", owner, v.judge(m), m)
		}
	}
}

// TestPreparationIsSuperseded: of two changes that follow each other the second
// counts, and of one that is taken back nothing is left.
func TestPreparationIsSuperseded(t *testing.T) {
	b := newBuilding(t)
	b.set(largeText(), true)
	b.publish(b.f)
	b.builder.turn.Lock() // nothing gets ready
	b.set(largeText()+"first TXT x\n", true)
	b.publish(b.f)
	b.set(largeText()+"second TXT x\n", true)
	b.publish(b.f)
	second := b.builder.preparations[mustName(t, "example.com")]
	b.set(largeText()+"second TXT x\n", true) // as it is, read anew
	b.publish(b.f)
	if b.builder.preparations[mustName(t, "example.com")] != second {
		t.Error("what is being prepared is prepared once more")
	}
	b.builder.turn.Unlock()
	for !b.has("second") {
		b.finish()
		if b.has("first") {
			t.Fatal("the change that no longer counts came into force")
		}
	}
	b.builder.turn.Lock()
	b.set(largeText()+"third TXT x\n", true)
	b.publish(b.f)
	b.set(largeText()+"second TXT x\n", true)
	b.publish(b.f)
	if n := len(b.builder.preparations); n > 0 {
		t.Errorf("%d preparations of a change that was taken back", n)
	}
	b.set("", false)
	b.publish(b.f)
	b.set(largeText(), true)
	b.publish(b.f)
	b.set("", false)
	b.publish(b.f)
	if n := len(b.builder.preparations); n > 0 {
		t.Errorf("%d preparations of a zone that is gone", n)
	}
	b.builder.turn.Unlock()
	b.builder.renewing.Wait() // who was told to stop does not wait for anybody
}

// TestPreparedInError: a change with an error in it is told, and the zone stays as
// it is, without another try.
func TestPreparedInError(t *testing.T) {
	b := newBuilding(t)
	b.set(largeText(), true)
	b.publish(b.f)
	b.set(largeText()+"new TXT new\nwrong A 1.2.3\n", true)
	b.publish(b.f)
	b.finish()
	if b.has("new") || !b.has("text1") || b.addresses("web.example.com") != 2 {
		t.Error("the zone is not what it was")
	}
	for range 3 {
		b.publish(b.f)
	}
	if n := len(b.builder.preparations); n > 0 {
		t.Errorf("%d preparations", n)
	}
	for _, want := range []string{"zone has an error", "served on with the records it had"} {
		if n := strings.Count(b.log.String(), want); n != 1 {
			t.Errorf("%q was said %d times\n%s", want, n, b.log.String())
		}
	}
}

// TestLoadingIsTold: who waits for the first snapshot learns what it takes, and how
// far it is.
func TestLoadingIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBuilding(t)
		b.set(largeText(), true)
		if err := b.Serving(); err == nil || errors.Is(err, ErrLoading) {
			t.Errorf("without a table: %v", err)
		}
		b.table.Publish(b.f.table())
		if err := b.Serving(); !errors.Is(err, ErrLoading) {
			t.Errorf("with a table: %v", err)
		}
		now := b.loadings.begin(b.f.dns.Zones[1])
		says := func(want string) {
			t.Helper()
			if err := b.Serving(); !errors.Is(err, ErrLoading) || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %s", err, want)
			}
		}
		says("example.com: reading its records")
		time.Sleep(firstWord - 1)
		synctest.Wait()
		if strings.Contains(b.log.String(), "being loaded") {
			t.Error("the log tells of a zone that is there soon")
		}
		now.expect(300)
		now.signed()
		says("1 of 300 signatures")
		time.Sleep(1 + 2*nextWord)
		synctest.Wait()
		if n := strings.Count(b.log.String(), "1 of 300 signatures"); n != 3 {
			t.Errorf("it was told %d times, want 3\n%s", n, b.log.String())
		}
		now.end()
		synctest.Wait()
		if b.loadings.newest.Load() != nil {
			t.Error("it never ends")
		}
	})
}

// TestPrepared: zones that were prepared before there was a Server are served as if
// they had not been, without their signatures being made again; what has changed
// since is loaded.
func TestPrepared(t *testing.T) {
	b := newBuilding(t)
	b.set(largeText(), true)
	wrong := &pool.Zone{Name: "wrong.example", Records: largeText(), DNSSEC: pool.DNSSEC{Folder: "keys"}}
	changed := &pool.Zone{Name: "changed.example", Records: largeText()}
	prepared := Prepare(t.Context(), append(b.f.dns.Zones, wrong, changed), slog.New(slog.DiscardHandler))
	if len(prepared.zones) != 2 {
		t.Fatalf("%d zones are prepared, want example.com and changed.example", len(prepared.zones))
	}
	b.builder.preparations = prepared.zones
	b.set(largeText(), true) // read again
	b.f.zone(&pool.Zone{Name: "changed.example", Records: largeText() + "new TXT new\n"})
	b.publish(b.f)
	z := b.snapshot.Load().zones.get(mustName(t, "example.com"))
	if z == nil || z.signed == nil || b.addresses("web.example.com") != 2 {
		t.Fatalf("example.com is not served\n%s", b.log.String())
	}
	if all := 2 * z.nodes.len(); z.signed.made > all/20 {
		t.Errorf("%d of %d signatures were made again", z.signed.made, all)
	}
	b.validates("web.example.com", "www.example.com", "text7.example.com", "nothing.example.com")
	if m := b.exchange(t, question(t, "new.changed.example TXT")); len(m.Answer) != 1 {
		t.Errorf("the zone that has changed is not loaded anew: %v", m)
	}
	if n := len(b.builder.preparations); n > 0 {
		t.Errorf("%d preparations are left", n)
	}
}
