package dnsserver

import (
	"testing"

	"haslohas.com/elbow/pool"
)

// BenchmarkAnswer is everything between reading a packet and writing one.
func BenchmarkAnswer(b *testing.B) {
	h := newHouse(b, nil)
	h.publish(example(b))
	for _, c := range []struct{ name, ask string }{
		{"A", "web.example.com A"},
		{"static", "www.example.com A"},
		{"NXDOMAIN", "nothing.example.com A"},
		{"NODATA", "web.example.com AAAA"},
		{"CNAME", "chain.example.com A"},
		{"wildcard", "any.wild.example.com A"},
		{"referral", "host.sub.example.com A"},
		{"DNAME", "x.old.example.com A"},
		{"REFUSED", "www.example.net A"},
	} {
		for _, edns := range []bool{false, true} {
			name := c.name
			m := question(b, c.ask)
			if edns {
				name += "+EDNS"
				m.SetEdns0(1232, true)
			}
			packet, err := m.Pack()
			if err != nil {
				b.Fatal(err)
			}
			b.Run(name, func(b *testing.B) {
				out := make([]byte, 0, maxPayload)
				b.ReportAllocs()
				for b.Loop() {
					h.respond(&h.r, out, packet, client, 0, false)
				}
			})
		}
	}
}

// TestNoAllocations: a query leaves nothing to the garbage collector, unless
// it is signed.
func TestNoAllocations(t *testing.T) {
	f := example(t)
	f.dns.RateLimit = pool.RateLimit{PerSecond: 60_000, Slip: 2}
	h := newHouse(t, nil)
	h.publish(f)
	out := make([]byte, 0, maxPayload)
	for _, packet := range seeds(t) {
		if h.r.read(packet) == special {
			continue
		}
		if n := testing.AllocsPerRun(100, func() { h.respond(&h.r, out, packet, client, 0, false) }); n > 0 {
			t.Errorf("%v allocations for % x", n, packet)
		}
	}
}

func BenchmarkLimiter(b *testing.B) {
	l := newLimiter()
	lim := newLimit(pool.RateLimit{PerSecond: 1000})
	for b.Loop() {
		l.over(&lim, client, l.start)
	}
}

func BenchmarkLoadZone(b *testing.B) {
	z := &pool.Zone{Name: "example.com", Records: ns + "$GENERATE 1-10000 a$ A 192.0.2.1\n"}
	b.ReportAllocs()
	for b.Loop() {
		loadZone(z)
	}
}
