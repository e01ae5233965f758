package pool_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

var balances = []pool.Balance{pool.LeastConn, pool.RoundRobin, pool.Source}

// picks counts who is picked in n requests of as many clients.
func picks(t *testing.T, p *pool.Pool, n int, load pool.Load, at time.Time, tried ...int) []int {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	counts := make([]int, len(p.Backends))
	for turn := range n {
		i, choice := p.Pick(pool.Request{Client: client(turn), Random: random.Uint64(), Turn: uint64(turn), Now: at, Tried: tried}, load)
		if choice != pool.Picked {
			t.Fatalf("request %d: choice %d", turn, choice)
		}
		counts[i]++
	}
	return counts
}

// wantShares compares counts with shares of their sum, each within a part of
// its share.
func wantShares(t *testing.T, counts []int, within float64, shares ...float64) {
	t.Helper()
	var all, whole float64
	for i, c := range counts {
		all += float64(c)
		whole += shares[i]
	}
	for i, c := range counts {
		got, want := float64(c)/all, shares[i]/whole
		if math.Abs(got-want) > within*want {
			t.Errorf("backend %d got a share of %.4f, want %.4f: %v", i, got, want, counts)
		}
	}
}

// What holds for every balance: who is eligible, tried and full.
func TestChoice(t *testing.T) {
	limit := pool.Service{MaxConnectionsPerBackend: 10}
	ramp := pool.Service{SlowStart: time.Minute}
	limitedRamp := pool.Service{MaxConnectionsPerBackend: 10, SlowStart: time.Minute}
	tests := []struct {
		name     string
		service  pool.Service
		backends []string
		load     active
		tried    []int
		choice   pool.Choice
		among    []int // who may be picked, each is at one time or another
	}{
		{"nobody at all", pool.Service{}, nil, nil, nil, pool.NobodyUp, nil},
		{"nobody is up", pool.Service{WhenAllDown: pool.Refuse}, many(3, "down"), nil, nil, pool.NobodyUp, nil},
		{"all are down and all are tried out", pool.Service{}, many(3, "down"), nil, nil, pool.Picked, []int{0, 1, 2}},
		{"one", pool.Service{}, many(1, "up"), nil, nil, pool.Picked, []int{0}},
		{"two", pool.Service{}, many(2, "up"), nil, nil, pool.Picked, []int{0, 1}},
		{"only the eligible", pool.Service{}, []string{"down", "up", "forced-down", "up", "up weight=0", "up suspect"}, nil, nil, pool.Picked, []int{1, 3}},

		{"not the one that was tried", pool.Service{}, many(3, "up"), nil, []int{1}, pool.Picked, []int{0, 2}},
		{"the last that was not tried", pool.Service{}, many(3, "up"), nil, []int{2, 0}, pool.Picked, []int{1}},
		{"all were tried", pool.Service{}, many(3, "up"), nil, []int{2, 0, 1}, pool.AllTried, nil},
		{"the only one was tried", pool.Service{}, many(1, "up"), nil, []int{0}, pool.AllTried, nil},
		{"all were tried, full or not", limit, many(2, "up"), active{10, 0}, []int{0, 1}, pool.AllTried, nil},
		{"one was tried that is no longer eligible", pool.Service{}, []string{"down", "up"}, nil, []int{0}, pool.Picked, []int{1}},

		{"room for one more", limit, many(2, "up"), active{9, 10}, nil, pool.Picked, []int{0}},
		{"not the full ones", limit, many(5, "up"), active{10, 9, 10, 11, 9}, nil, pool.Picked, []int{1, 4}},
		{"all full", limit, many(3, "up"), active{10, 10, 12}, nil, pool.AllFull, nil},
		{"the only one full", limit, many(1, "up"), active{10}, nil, pool.AllFull, nil},
		{"tried or full", limit, many(3, "up"), active{0, 10, 10}, []int{0}, pool.AllFull, nil},
		{"no limit", pool.Service{}, many(1, "up"), active{1 << 30}, nil, pool.Picked, []int{0}},

		{"the only one starts slowly", ramp, []string{"up ramping=0s"}, nil, nil, pool.Picked, []int{0}},
		{"all start slowly", ramp, many(3, "up ramping=0s"), nil, nil, pool.Picked, []int{0, 1, 2}},
		{"who starts slowly is there when the other is full", limitedRamp, []string{"up ramping=0s", "up"}, active{0, 10}, nil, pool.Picked, []int{0}},
		{"who starts slowly is there when the other was tried", ramp, []string{"up ramping=0s", "up"}, nil, []int{1}, pool.Picked, []int{0}},
	}
	for _, test := range tests {
		for _, balance := range balances {
			t.Run(fmt.Sprint(test.name, "/", balance), func(t *testing.T) {
				test.service.Balance = balance
				p := newPool(test.service, test.backends...)
				random := rand.New(rand.NewPCG(3, 4))
				picked := make(map[int]bool)
				for turn := range 300 {
					i, choice := p.Pick(pool.Request{Client: client(turn), Random: random.Uint64(), Turn: uint64(turn), Now: now, Tried: test.tried}, test.load)
					if choice != test.choice {
						t.Fatalf("choice %d, want %d", choice, test.choice)
					}
					if choice != pool.Picked && i != -1 {
						t.Fatalf("picked %d though there is none", i)
					}
					if choice == pool.Picked {
						picked[i] = true
					}
				}
				for i := range test.backends {
					if picked[i] != slices.Contains(test.among, i) {
						t.Errorf("picked %v, want each of %v", picked, test.among)
						break
					}
				}
			})
		}
	}
}

func TestWeights(t *testing.T) {
	for _, balance := range balances {
		for _, weights := range [][]float64{{1, 1, 1}, {1, 2, 3}, {1, 1, 1, 7}, {256, 64, 64}, {100, 200}} {
			t.Run(fmt.Sprint(balance, weights), func(t *testing.T) {
				var backends []string
				for _, w := range weights {
					backends = append(backends, fmt.Sprintf("up weight=%v", w))
				}
				p := newPool(pool.Service{Balance: balance}, backends...)
				const n = 20000
				if balance == pool.LeastConn {
					// Connections that stay: the weights tell where they lie.
					load := make(active, len(backends))
					random := rand.New(rand.NewPCG(5, 6))
					for range n {
						i, _ := p.Pick(pool.Request{Random: random.Uint64(), Now: now}, load)
						load[i]++
					}
					wantShares(t, load, 0.01, weights...)
					return
				}
				wantShares(t, picks(t, p, n, active{}, now), 0.1, weights...)
			})
		}
	}
}

// Without connections that last, leastconn spreads by weight alone.
func TestLeastConnIdle(t *testing.T) {
	for _, weights := range [][]float64{{1, 1, 1, 1, 1}, {3, 1}, {1, 2, 3}, {1, 1, 1, 7}} {
		var backends []string
		for _, w := range weights {
			backends = append(backends, fmt.Sprintf("up weight=%v", w))
		}
		p := newPool(pool.Service{}, backends...)
		wantShares(t, picks(t, p, 30_000, make(active, len(weights)), now), 0.06, weights...)
	}
}

// Both draws are fair: the one backend that is busier than the others loses
// every comparison, and the others share what it loses alike.
func TestLeastConnComparesAllAlike(t *testing.T) {
	for busy := range 4 {
		load := make(active, 4)
		load[busy] = 1
		p := newPool(pool.Service{}, many(4, "up")...)
		shares := []float64{1, 1, 1, 1}
		shares[busy] = 0
		wantShares(t, picks(t, p, 30_000, load, now), 0.03, shares...)
	}
	// The one that is idle wins every comparison it is in: 1 - (3/4 * 2/3).
	for idle := range 4 {
		load := active{1, 1, 1, 1}
		load[idle] = 0
		p := newPool(pool.Service{}, many(4, "up")...)
		shares := []float64{1, 1, 1, 1}
		shares[idle] = 3
		wantShares(t, picks(t, p, 30_000, load, now), 0.05, shares...)
	}
}

func TestLeastConnLevels(t *testing.T) {
	p := newPool(pool.Service{}, many(10, "up")...)
	load := active{500, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	random := rand.New(rand.NewPCG(7, 8))
	for range 4500 {
		i, _ := p.Pick(pool.Request{Random: random.Uint64(), Now: now}, load)
		load[i]++
	}
	if most, least := slices.Max(load), slices.Min(load); most-least > 12 {
		t.Errorf("not level: %v", load)
	}
}

func TestRoundRobinIsEven(t *testing.T) {
	tests := []struct {
		backends []string
		round    int
		follow   int // how often one may be picked in a row
	}{
		{many(3, "up"), 3, 1},
		{[]string{"up", "down", "up", "up"}, 3, 1},
		{[]string{"up weight=5", "up", "up"}, 7, 4},
		{[]string{"up weight=10", "up weight=20"}, 3, 2},
		{[]string{"up weight=3", "up weight=3", "up weight=2", "up weight=2"}, 10, 2},
		{many(200, "up weight=256"), 200, 1},
	}
	for _, test := range tests {
		t.Run(fmt.Sprint(len(test.backends), " as ", test.backends[0]), func(t *testing.T) {
			p := newPool(pool.Service{Balance: pool.RoundRobin}, test.backends...)
			var turns []int
			for turn := range 3 * test.round {
				i, _ := p.Pick(pool.Request{Turn: uint64(turn)}, active{})
				turns = append(turns, i)
			}
			if !slices.Equal(turns[:test.round], turns[test.round:2*test.round]) {
				t.Errorf("one round is not as the next: %v", turns)
			}
			counts := make([]int, len(test.backends))
			for _, i := range turns[:test.round] {
				counts[i]++
			}
			var shares []float64
			for i, b := range p.Backends {
				shares = append(shares, 0)
				if p.Traffic.Has(i) {
					shares[i] = float64(b.Weight)
				}
			}
			wantShares(t, counts, 1e-9, shares...)
			follow := 1
			for n := 1; n < len(turns); n++ {
				if turns[n] != turns[n-1] {
					follow = 1
				} else if follow++; follow > test.follow {
					t.Fatalf("more than %d turns of one in a row: %v", test.follow, turns)
				}
			}
		})
	}
}

// However many backends there are, a round is laid out in no time and gives
// each at least one turn.
func TestRoundRobinOfVeryMany(t *testing.T) {
	const n = 20_000
	backends := make([]pool.Backend, n)
	for i := range backends {
		backends[i] = backend(1, "up")
		backends[i].Address = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 80)
		backends[i].Weight = 1 + i%256
	}
	begin := time.Now()
	p := pool.NewPool(&pool.Service{Balance: pool.RoundRobin}, backends)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	picked := make([]bool, n)
	for turn := range n {
		i, _ := p.Pick(pool.Request{Turn: uint64(turn)}, active{})
		picked[i] = true
	}
	if i := slices.Index(picked, false); i >= 0 {
		t.Errorf("backend %d has no turn", i)
	}
}

// A backend that leaves moves its own clients and nobody else's.
func TestSourceMovesNobodyElse(t *testing.T) {
	const clients = 3000
	before := []string{"up", "up weight=3", "up", "up weight=2"}
	where := func(backends []string) (picked [clients]int) {
		p := newPool(pool.Service{Balance: pool.Source}, backends...)
		for c := range clients {
			picked[c], _ = p.Pick(pool.Request{Client: client(c)}, active{})
		}
		return picked
	}
	was := where(before)
	for leaves := range before {
		after := slices.Clone(before)
		after[leaves] = "down"
		is := where(after)
		counts := make([]int, len(before))
		for c := range clients {
			if was[c] != leaves && is[c] != was[c] {
				t.Fatalf("backend %d left, and client %d moved from %d to %d", leaves, c, was[c], is[c])
			}
			if was[c] == leaves {
				counts[is[c]]++
			}
		}
		// Its clients go to all the others, by weight.
		shares := []float64{1, 3, 1, 2}
		shares[leaves] = 0
		wantShares(t, counts, 0.2, shares...)
	}
}

func TestSourceKnowsAClientAgain(t *testing.T) {
	p := newPool(pool.Service{Balance: pool.Source, SlowStart: time.Minute}, "up", "up ramping=0s", "up")
	q := newPool(pool.Service{Balance: pool.Source}, "up", "up", "up")
	for c := range 500 {
		first, _ := p.Pick(pool.Request{Client: client(c), Random: 1, Turn: 1, Now: now}, active{1, 2, 3})
		again, _ := q.Pick(pool.Request{Client: netip.AddrFrom16(client(c).As16()), Random: 2, Turn: 2}, active{3, 2, 1})
		if first != again {
			t.Fatalf("client %d went to %d, then to %d", c, first, again)
		}
		// The second choice is stable as well.
		second, _ := p.Pick(pool.Request{Client: client(c), Tried: []int{first}}, active{})
		other, _ := q.Pick(pool.Request{Client: client(c), Tried: []int{first}}, active{})
		if second != other || second == first {
			t.Fatalf("client %d has the second choices %d and %d after %d", c, second, other, first)
		}
	}
	if i, choice := p.Pick(pool.Request{}, active{}); choice != pool.Picked {
		t.Errorf("a client without an address: %d, %d", i, choice)
	}
}

// The share of a backend that came up grows from nothing to its weight.
func TestSlowStart(t *testing.T) {
	for _, test := range []struct {
		age  string
		part float64 // of its weight
	}{
		{"-5s", 0}, // the clock was set back
		{"0s", 0}, {"6s", 0.1}, {"30s", 0.5}, {"54s", 0.9}, {"60s", 1}, {"1h", 1},
	} {
		for _, balance := range []pool.Balance{pool.LeastConn, pool.RoundRobin} {
			t.Run(fmt.Sprint(balance, " after ", test.age), func(t *testing.T) {
				p := newPool(pool.Service{Balance: balance, SlowStart: time.Minute}, "up weight=10", "up weight=10 ramping="+test.age, "up weight=10")
				var counts []int
				if balance == pool.RoundRobin {
					counts = picks(t, p, 10_000, active{}, now)
				} else {
					load := make(active, 3)
					random := rand.New(rand.NewPCG(9, 10))
					for range 10_000 {
						i, _ := p.Pick(pool.Request{Random: random.Uint64(), Now: now}, load)
						load[i]++
					}
					counts = load
				}
				got := 2 * float64(counts[1]) / float64(counts[0]+counts[2])
				if math.Abs(got-test.part) > 0.03 {
					t.Errorf("a part of %.3f of the others', want %.1f: %v", got, test.part, counts)
				}
			})
		}
	}
	t.Run("is over for requests that come later", func(t *testing.T) {
		p := newPool(pool.Service{Balance: pool.RoundRobin, SlowStart: time.Minute}, "up", "up ramping=0s")
		wantShares(t, picks(t, p, 1000, active{}, now.Add(time.Minute)), 1e-9, 1, 1)
	})
	t.Run("is not asked for", func(t *testing.T) {
		p := newPool(pool.Service{Balance: pool.RoundRobin}, "up", "up ramping=0s")
		wantShares(t, picks(t, p, 1000, active{}, now), 1e-9, 1, 1)
	})
}

// pickCases are the ways through Pick that differ in cost.
var pickCases = []struct {
	name     string
	service  pool.Service
	backends []string
	tried    []int
}{
	{"leastconn", pool.Service{}, many(10, "up"), nil},
	{"leastconn limited", pool.Service{MaxConnectionsPerBackend: 100}, many(10, "up"), nil},
	{"leastconn again", pool.Service{}, many(10, "up"), []int{3}},
	{"leastconn slow start", pool.Service{SlowStart: time.Minute}, append(many(9, "up"), "up ramping=30s"), nil},
	{"roundrobin", pool.Service{Balance: pool.RoundRobin}, many(10, "up"), nil},
	{"roundrobin slow start", pool.Service{Balance: pool.RoundRobin, SlowStart: time.Minute}, append(many(9, "up"), "up ramping=30s"), nil},
	{"source", pool.Service{Balance: pool.Source}, many(10, "up"), nil},
	{"nobody up", pool.Service{WhenAllDown: pool.Refuse}, many(10, "down"), nil},
	{"all tried", pool.Service{}, many(2, "up"), []int{0, 1}},
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, c := range pickCases {
		p := newPool(c.service, c.backends...)
		var load pool.Load = active{1, 2, 3}
		random := rand.New(rand.NewPCG(11, 12))
		n := 0
		if got := testing.AllocsPerRun(1000, func() {
			n++
			p.Pick(pool.Request{Client: client(n), Random: random.Uint64(), Turn: uint64(n), Now: now, Tried: c.tried}, load)
		}); got != 0 {
			t.Errorf("%s: %v allocations", c.name, got)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, c := range pickCases {
		b.Run(c.name, func(b *testing.B) {
			p := newPool(c.service, c.backends...)
			var load pool.Load = active{1, 2, 3}
			random := rand.New(rand.NewPCG(13, 14))
			b.ReportAllocs()
			turn := uint64(0)
			for b.Loop() {
				turn++
				p.Pick(pool.Request{Client: client(int(turn)), Random: random.Uint64(), Turn: turn, Now: now, Tried: c.tried}, load)
			}
		})
	}
}
