package dnsserver

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

// BenchmarkAnswer is everything between reading a packet and writing one.
func BenchmarkAnswer(b *testing.B) {
	plain, signed := newHouse(b, nil), newHouse(b, nil)
	plain.publish(example(b))
	signed.publish(signedExample(b, dnssec.ECDSAP256))
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
		for _, kind := range []string{"", "+EDNS", "+signed"} {
			name, h := c.name+kind, plain
			m := question(b, c.ask)
			if kind != "" {
				m.SetEdns0(1232, true)
			}
			if kind == "+signed" {
				h = signed
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
	for _, f := range []*fixture{example(t), signedExample(t, dnssec.ECDSAP256)} {
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
		var packets [][]byte
		for _, owner := range h.names("example.com") {
			m := new(dns.Msg).SetQuestion(owner, dns.TypeA)
			m.SetEdns0(maxPayload, true)
			packets = append(packets, must(m.Pack()))
		}
		n := testing.AllocsPerRun(1, func() {
			for _, packet := range packets {
				h.respond(&h.r, out, packet, client, 0, false)
			}
		})
		if n > 0 {
			t.Errorf("%v allocations for %d questions with DO", n, len(packets))
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

// BenchmarkFlap is a change of the health of one backend in a signed zone of
// 10,000 static names: signed anew, and with states that come back.
func BenchmarkFlap(b *testing.B) {
	for _, again := range []bool{false, true} {
		name := "new"
		if again {
			name = "back"
		}
		b.Run(name, func(b *testing.B) {
			f := &fixture{down: make(map[netip.Addr]bool)}
			z := f.zone(&pool.Zone{Name: "example.com", Records: ns + "$GENERATE 1-10000 a$ A 192.0.2.1\n"})
			z.DNSSEC = pool.DNSSEC{Folder: "keys", Keys: []pool.KeyFile{keyFile(b, z.Name, dnssec.ECDSAP256, nil)}}
			s := f.direct("web.example.com", "198.51.100.1", "198.51.100.2")
			h := newHouse(b, nil)
			h.publish(f)
			counts := h.snapshot.Load().sorted[0].counts
			begun := counts.signed.Load()
			down, next := netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("10.0.0.1")
			for b.Loop() {
				if again {
					f.down[down] = !f.down[down]
				} else {
					s.Endpoints[0].Address = netip.AddrPortFrom(next, 80)
					next = next.Next()
				}
				h.publish(f)
			}
			b.ReportMetric(float64(counts.signed.Load()-begun)/float64(b.N), "signatures/op")
		})
	}
}

// BenchmarkSignZone is the first load of a zone.
func BenchmarkSignZone(b *testing.B) {
	f := &fixture{}
	z := f.zone(&pool.Zone{Name: "example.com", Records: ns + "$GENERATE 1-10000 a$ A 192.0.2.1\n"})
	z.DNSSEC = pool.DNSSEC{Folder: "keys", Keys: []pool.KeyFile{keyFile(b, z.Name, dnssec.ECDSAP256, nil)}}
	for b.Loop() {
		h := newHouse(b, nil)
		h.publish(f)
		b.ReportMetric(float64(h.snapshot.Load().sorted[0].counts.signed.Load()), "signatures/op")
	}
}

// BenchmarkSign makes and verifies one signature.
func BenchmarkSign(b *testing.B) {
	for _, a := range []dnssec.Algorithm{dnssec.ECDSAP256, dnssec.Ed25519} {
		b.Run(a.String(), func(b *testing.B) {
			conf := pool.DNSSEC{Folder: "keys", Keys: []pool.KeyFile{keyFile(b, "example.com", a, nil)}}
			owner := mustName(b, "example.com")
			ring, findings := newKeyring(owner, &conf, nil, time.Now())
			if len(findings) > 0 {
				b.Fatal(findings)
			}
			set := newSet(typeA, 30, []byte{192, 0, 2, 1}, []byte{192, 0, 2, 2})
			for b.Loop() {
				if _, err := ring.sign(owner, &set, time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWatched is BenchmarkAnswer of one query, with those who look on.
func BenchmarkWatched(b *testing.B) {
	h := newHouse(b, nil)
	h.publish(example(b))
	packet := must(question(b, "www.example.com A").Pack())
	logOf := func(sample int) *watch {
		return &watch{log: newQueryLog(pool.QueryLog{File: "stdout", Sample: sample}, h.Server)}
	}
	withTap := &watch{tap: newTap(pool.Dnstap{Network: "unix", Queries: true, Responses: true, Sample: 1}, h.Server)}
	withTap.tap.open.Store(true)
	withTop := &watch{top: newTop(1)}
	for _, c := range []struct {
		name string
		*watch
	}{
		{"off", nil}, {"top", withTop}, {"log/100", logOf(100)}, {"log", logOf(1)}, {"dnstap", withTap},
	} {
		b.Run(c.name, func(b *testing.B) {
			if c.watch != nil {
				c.watch.complete()
			}
			h.watch.Store(c.watch)
			defer h.watch.Store(nil)
			out := make([]byte, 0, maxPayload)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				h.respond(&h.r, out, packet, client, 0, false)
				if c.watch == nil || i%(ringSize/2) != 0 {
					continue
				}
				// Else the rings were full, which costs less. What the reader does is
				// not what a query waits for.
				b.StopTimer()
				if c.log != nil {
					c.log.queue.drain(func(*sighting) {})
				}
				if c.tap != nil {
					c.tap.queue.drain(func(*tapped) {})
				}
				if c.top != nil {
					c.top.count(time.Now())
				}
				b.StartTimer()
			}
		})
	}
}
