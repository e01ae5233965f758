package dnsserver

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"haslohas.com/elbow/pool"
)

func TestSerialOrder(t *testing.T) {
	for _, c := range []struct {
		a, b  uint32
		after bool // a comes after b
	}{
		{2, 1, true}, {1, 2, false}, {1, 1, false},
		{0, 0xffffffff, true}, {0xffffffff, 0, false},
		{1 << 31, 1, true}, {1<<31 + 1, 1, false},
		{2026112301, 2026112300, true}, {2026112300, 4000000000, false},
	} {
		if got := serialAfter(c.a, c.b); got != c.after {
			t.Errorf("%d after %d: %v", c.a, c.b, got)
		}
	}
	if nextSerial(0xffffffff) != 1 || nextSerial(5) != 6 {
		t.Error("0 is no serial")
	}
}

func TestDateSerial(t *testing.T) {
	for text, want := range map[string]uint32{
		"2026-11-23T00:00:00Z":      2026112300,
		"2026-11-23T12:00:00Z":      2026112350,
		"2026-11-23T23:59:59Z":      2026112399,
		"2026-11-23T01:00:00+02:00": 2026112295,
	} {
		now, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := dateSerial(now); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}

func TestFirstSerial(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		saved *savedSerial
		file  uint32
		want  uint32
	}{
		{"fresh zone", nil, 0, 2026112350},
		{"fresh zone, the file is behind", nil, 7, 2026112350},
		{"fresh zone, the file is ahead", nil, 3000000000, 3000000000},
		{"unchanged", &savedSerial{2026110101, "same"}, 0, 2026110101},
		{"unchanged and ahead of the date", &savedSerial{2030010101, "same"}, 0, 2030010101},
		{"unchanged but the file is ahead", &savedSerial{2026110101, "same"}, 3000000000, 3000000000},
		{"changed", &savedSerial{2026110101, "other"}, 0, 2026112350},
		{"changed and ahead of the date", &savedSerial{2030010101, "other"}, 0, 2030010102},
		{"after a crash", &savedSerial{2026112450, ""}, 0, 2026112451},
		{"after a crash long ago", &savedSerial{2026010101, ""}, 0, 2026112350},
		{"at the end of the circle", &savedSerial{0xffffffff, "other"}, 0, 2026112350},
	} {
		s := newSerials(nil, slog.New(slog.DiscardHandler))
		if c.saved != nil {
			s.saved["z"] = *c.saved
		}
		if got := s.begin("z", "same", c.file, noon); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// TestSerialOverRestarts: whatever happens, an answer that differs has a later
// serial, and one that does not has the same.
func TestSerialOverRestarts(t *testing.T) {
	store := &memory{}
	f := &fixture{down: map[netip.Addr]bool{}}
	f.zone(&pool.Zone{Name: "child.example.com", Records: "@ NS ns.example.net.\n"})
	f.zone(&pool.Zone{Name: "example.com", Records: "@ NS ns.example.net.\n"})
	f.direct("web.example.com", "198.51.100.1", "198.51.100.2")
	var h *house
	last := uint32(0)
	for _, step := range []struct {
		name   string
		do     func()
		change bool
	}{
		{"first start", func() { h = newHouse(t, store); h.publish(f) }, true},
		{"same table", func() { h.publish(f) }, false},
		{"backend down", func() { f.down[netip.MustParseAddr("198.51.100.1")] = true; h.publish(f) }, true},
		{"a service in no zone", func() { f.direct("web.example.org", "198.51.100.9"); h.publish(f) }, false},
		{"TTL", func() { f.suspense = map[string]bool{"web-example-com": true}; h.publish(f) }, true},
		{"static record", func() {
			z := *f.dns.Zones[1]
			z.Records += "new A 192.0.2.1\n"
			f.dns.Zones[1] = &z
			h.publish(f)
		}, true},
		{"the zone file is broken: the zone stays as it was", func() {
			z := *f.dns.Zones[1]
			z.Records += "new A\n"
			good := f.dns.Zones[1]
			f.dns.Zones[1] = &z
			h.publish(f)
			f.dns.Zones[1] = good
		}, false},
		{"new pointer, same zone", func() { z := *f.dns.Zones[1]; f.dns.Zones[1] = &z; h.publish(f) }, false},
		{"clean restart", func() { h.builder.end(); h = newHouse(t, store); h.publish(f) }, false},
		{"crash", func() { h.settle(t); h = newHouse(t, store); h.publish(f) }, true},
		{"another change", func() { delete(f.down, netip.MustParseAddr("198.51.100.1")); h.publish(f) }, true},
		{"restart with another address", func() {
			h.builder.end()
			f.down[netip.MustParseAddr("198.51.100.2")] = true
			h = newHouse(t, store)
			h.publish(f)
		}, true},
		{"zone goes", func() { f.dns.Zones = f.dns.Zones[:1]; h.publish(f); f.dns.Zones = f.dns.Zones[:2]; h.publish(f) }, true},
	} {
		step.do()
		serial := h.serialOf(t, "example.com")
		if step.change != serialAfter(serial, last) || !step.change && serial != last {
			t.Errorf("%s: serial %d after %d", step.name, serial, last)
		}
		last = serial
	}
	if saved := h.builder.serials.saved["example.com"]; !serialAfter(saved.Serial, last) || saved.Content != "" {
		t.Errorf("the serial %d is not reserved: %+v", last, saved)
	}
	h.builder.end()
	if saved := store.saved[serialStore]["example.com"]; saved.Serial != last || saved.Content == "" {
		t.Errorf("the serial %d was not kept: %+v", last, saved)
	}
}

// settle waits until everything is on the disk, as a crash finds it.
func (h *house) settle(t *testing.T) {
	t.Helper()
	h.builder.serials.save(t.Context(), true)
}

// TestNeverTwice: thousands of changes, a crash after any of them.
func TestNeverTwice(t *testing.T) {
	store := &memory{}
	log := slog.New(slog.DiscardHandler)
	used := make(map[uint32]bool)
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for crash := range 40 {
		s := newSerials(store, log)
		serial := s.begin("z", "content", 0, now)
		s.reserve(t.Context(), true)
		for range 1 + crash*7 {
			if used[serial] {
				t.Fatalf("%d was used before the crash", serial)
			}
			used[serial] = true
			serial = s.advance("z", serial, 0)
			s.reserve(t.Context(), true)
		}
		used[serial] = true
		close(s.requests) // the process is gone
		<-s.ended
	}
}

func TestStoreTroubleStopsNothing(t *testing.T) {
	h := newHouse(t, &memory{err: errors.New("disk is gone")})
	f := example(t)
	h.publish(f)
	first := h.serialOf(t, "example.com")
	f.down[netip.MustParseAddr("198.51.100.1")] = true
	h.publish(f)
	if second := h.serialOf(t, "example.com"); second != first+1 {
		t.Errorf("serial %d after %d", second, first)
	}
	h.builder.end()
	for _, want := range []string{"zone serials are not known from before", "after a crash they may go back", "disk is gone"} {
		if !strings.Contains(h.log.String(), want) {
			t.Errorf("not logged: %q\n%s", want, h.log.String())
		}
	}
}

// A hung is a Store whose disk hangs.
type hung struct{ release chan struct{} }

func (h *hung) Load(string, any) (bool, error) { return false, nil }
func (h *hung) Save(string, any) error         { <-h.release; return nil }

func TestHungDiskStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &hung{make(chan struct{})}
		s := newSerials(disk, slog.New(slog.DiscardHandler))
		begun := time.Now()
		serial := s.begin("z", "x", 0, begun)
		s.reserve(context.Background(), true)
		for range 1000 {
			serial = s.advance("z", serial, 0)
			s.reserve(context.Background(), false)
		}
		s.end(map[string]string{"z": "x"})
		if took := time.Since(begun); took != 2*storePatience {
			t.Errorf("it took %s, want the patience at the start and at the end", took)
		}
		close(disk.release)
		<-s.ended
	})
}

func TestConfiguredSOA(t *testing.T) {
	for mailbox, want := range map[string]string{
		"hostmaster@example.org": "hostmaster.example.org.",
		"first.last@example.org": `first\.last.example.org.`,
		"":                       "hostmaster.example.com.",
		"a@b@example.org":        `a\@b.example.org.`,
	} {
		got, err := mailboxName(mailbox, mustName(t, "example.com"))
		if err != nil || got.String() != want {
			t.Errorf("%q: %s, %v, want %s", mailbox, got, err, want)
		}
	}
	for _, bad := range []string{"nobody", "@example.org", strings.Repeat("a", 64) + "@example.org", "a@" + strings.Repeat("b.", 127)} {
		if got, err := mailboxName(bad, mustName(t, "example.com")); err == nil {
			t.Errorf("%q was taken for %s", bad, got)
		}
	}
}

func TestFileSerialLeads(t *testing.T) {
	f := &fixture{}
	z := f.zone(&pool.Zone{Name: "example.com", Records: "@ SOA a b 4000000000 2 3 4 5\n@ NS ns.example.net.\n"})
	h := newHouse(t, nil)
	h.publish(f)
	var got []uint32
	for _, serial := range []string{"4000000000", "4000000007", "3"} {
		next := *z
		next.Records = strings.Replace(z.Records, "4000000000", serial, 1)
		f.dns.Zones[0] = &next
		h.publish(f)
		got = append(got, h.serialOf(t, "example.com"))
	}
	// 3 comes after 4000000007 on the circle.
	if diff := cmp.Diff([]uint32{4000000000, 4000000007, 3}, got); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}
