//go:build scale

package dnsserver

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

// TestScale tells what much data takes:
//
//	go test -tags scale -run TestScale -v ./dnsserver
func TestScale(t *testing.T) {
	for _, c := range []struct{ zones, names int }{{1, 100_000}, {1000, 1000}, {1, 999_999}} {
		t.Run(fmt.Sprintf("%d zones of %d records", c.zones, c.names), func(t *testing.T) {
			h, f := scaled(t, c.zones, c.names)
			if got := len(h.Zones()); got != c.zones {
				t.Fatalf("%d zones are served", got)
			}
			var flap time.Duration
			allocated := allocatedIn(func() { flap = flaps(h, f, 100) }) / 100
			t.Logf("a flap: %s, %d bytes", flap/100, allocated)
			if allocated > 200<<10 {
				t.Errorf("a flap allocates %d bytes: it copies what did not change", allocated)
			}
		})
	}
}

// scaled serves zones with records and one service, and logs what that took.
func scaled(t *testing.T, zones, names int) (*house, *fixture) {
	before := inUse()
	f := &fixture{down: make(map[netip.Addr]bool)}
	text := 0
	for z := range zones {
		var b strings.Builder
		b.WriteString("@ NS ns.example.net.\n")
		for i := range names {
			fmt.Fprintf(&b, "host%d A 10.%d.%d.%d\n", i, i>>16&0xff, i>>8&0xff, i&0xff)
		}
		text += b.Len()
		f.zone(&pool.Zone{Name: fmt.Sprintf("zone%d.example", z), Records: b.String()})
	}
	f.direct("web.zone0.example", "198.51.100.1", "198.51.100.2")
	h := newHouse(t, nil)
	begun := time.Now()
	h.publish(f)
	took := time.Since(begun)
	used := inUse() - before
	t.Logf("loaded in %s; in use %d MiB (of them %d MiB text), %d bytes a record", took.Round(time.Millisecond), used>>20, text>>20, used/(zones*names))
	return h, f
}

func flaps(h *house, f *fixture, count int) time.Duration {
	tables := make([]*pool.Table, count)
	for i := range tables {
		f.down[netip.MustParseAddr("198.51.100.1")] = i%2 == 0
		tables[i] = f.table()
	}
	begun := time.Now()
	for _, table := range tables {
		h.table.Publish(table)
		h.builder.build(context.Background(), table)
	}
	return time.Since(begun)
}

func inUse() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

func allocatedIn(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
