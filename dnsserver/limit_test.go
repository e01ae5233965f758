package dnsserver

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

func TestLimit(t *testing.T) {
	l := newLimiter()
	lim := newLimit(pool.RateLimit{PerSecond: 100, Exempt: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}})
	at := l.start
	ask := func(client string, n int) (passed int) {
		for range n {
			if !l.over(&lim, netip.MustParseAddr(client), at) {
				passed++
			}
		}
		return passed
	}
	for _, c := range []struct {
		name   string
		after  time.Duration
		client string
		asked  int
		least  int
		most   int
	}{
		{"a burst of a second", 0, "192.0.2.1", 1000, 100, 101},
		{"nothing is left for the neighbour", 0, "192.0.2.200", 10, 0, 0},
		{"another prefix", 0, "192.0.3.1", 50, 50, 50},
		{"half a second gives half", 500 * time.Millisecond, "192.0.2.1", 1000, 50, 51},
		{"a tenth", 100 * time.Millisecond, "192.0.2.1", 1000, 9, 11},
		{"after a long time no more than a second's", time.Hour, "192.0.2.1", 1000, 100, 101},
		{"exempt", 0, "127.1.2.3", 1000, 1000, 1000},
		{"exempt IPv6", 0, "::1", 1000, 1000, 1000},
		{"IPv6", 0, "2001:db8:1:100::1", 1000, 100, 101},
		{"the same /56", 0, "2001:db8:1:1ff::2", 10, 0, 0},
		{"another /56", 0, "2001:db8:1:200::1", 50, 50, 50},
	} {
		at = at.Add(c.after)
		if passed := ask(c.client, c.asked); passed < c.least || passed > c.most {
			t.Errorf("%s: %d of %d passed, want %d to %d", c.name, passed, c.asked, c.least, c.most)
		}
	}
}

func TestLimitOff(t *testing.T) {
	l := newLimiter()
	for _, lim := range []limit{newLimit(pool.RateLimit{}), newLimit(pool.RateLimit{PerSecond: -1})} {
		for range 1000 {
			if l.over(&lim, client, l.start) {
				t.Fatal("limited")
			}
		}
	}
}

// TestLimitHoldsWithManyClients: a flood from everywhere lets nobody over his limit.
func TestLimitHoldsWithManyClients(t *testing.T) {
	l := newLimiter()
	lim := newLimit(pool.RateLimit{PerSecond: 10})
	heavy := netip.MustParseAddr("192.0.2.1")
	passed := 0
	for i := range 200_000 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(i)<<8|1)
		l.over(&lim, netip.AddrFrom4(b), l.start)
		if i%100 == 0 && !l.over(&lim, heavy, l.start) {
			passed++
		}
	}
	// A place may be given to another now and then, not at will.
	if passed > 30 {
		t.Errorf("%d of 2000 passed at a limit of 10", passed)
	}
}

func TestLimitIsShared(t *testing.T) {
	l := newLimiter()
	lim := newLimit(pool.RateLimit{PerSecond: 1000})
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				if !l.over(&lim, client, l.start) {
					passed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := passed.Load(); n < 1000 || n > 1020 {
		t.Errorf("%d of 4000 passed, want 1000", n)
	}
}

func TestSlip(t *testing.T) {
	for _, slip := range []int{0, 1, 2} {
		t.Run(fmt.Sprint(slip), func(t *testing.T) {
			f := example(t)
			f.dns.RateLimit = pool.RateLimit{PerSecond: 10, Slip: slip}
			h := newHouse(t, nil)
			h.publish(f)
			m := question(t, "www.example.com TXT")
			m.SetEdns0(1232, false)
			whole, truncated, none := 0, 0, 0
			for range 1000 {
				switch a := h.exchange(t, m); {
				case a == nil:
					none++
				case a.Truncated:
					truncated++
					if len(a.Answer)+len(a.Ns) > 0 || a.IsEdns0() == nil || len(a.Question) != 1 {
						t.Fatalf("not the least answer: %v", a)
					}
				default:
					whole++
				}
			}
			least, most := 0, 0
			switch slip {
			case 1:
				least, most = 1000-whole, 1000-whole
			case 2:
				least, most = 400, 600
			}
			if whole < 10 || whole > 30 || truncated < least || truncated > most {
				t.Errorf("%d answered, %d truncated, %d dropped", whole, truncated, none)
			}
			if got := h.counts.shards[0].limited.Load(); got != uint64(1000-whole) {
				t.Errorf("%d were counted as limited, want %d", got, 1000-whole)
			}
			packet, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			if a := h.send(t, packet, true); a == nil || a.Truncated {
				t.Errorf("TCP is limited too: %v", a)
			}
		})
	}
}
