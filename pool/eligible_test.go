package pool_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"haslohas.com/elbow/pool"
)

// Every state that a backend can be in, alone and beside one that is up.
func TestEligible(t *testing.T) {
	const nobody = ""
	tests := []struct {
		backend string
		// Who takes connections and who is answered where the backend is the
		// only one: "it" or nobody, with "all" for whenAllDown: all.
		traffic, trafficAll string
		names, namesAll     string
		// Whether it serves beside a backend that is up.
		besideTraffic, besideNames bool
	}{
		{"unknown", nobody, "fail-open", nobody, "fail-open", false, false},
		{"up", "it", "it", "it", "it", true, true},
		{"down", nobody, "fail-open", nobody, "fail-open", false, false},
		{"forced-up", "it", "it", "it", "it", true, true},
		{"forced-down", nobody, nobody, nobody, nobody, false, false},
		{"draining leaving-dns", "it", "it", nobody, nobody, true, false},
		{"draining finishing", nobody, nobody, nobody, nobody, false, false},
		{"draining drained", nobody, nobody, nobody, nobody, false, false},

		{"up suspect", "it", "it", "it", "it", false, false},
		{"forced-up suspect", "it", "it", "it", "it", false, false},
		{"down suspect", nobody, "fail-open", nobody, "fail-open", false, false},
		{"unknown suspect", nobody, "fail-open", nobody, "fail-open", false, false},
		{"forced-down suspect", nobody, nobody, nobody, nobody, false, false},
		{"draining leaving-dns suspect", "it", "it", nobody, nobody, false, false},
		{"draining finishing suspect", nobody, nobody, nobody, nobody, false, false},

		{"up weight=0", nobody, nobody, nobody, nobody, false, false},
		{"up suspect weight=0", nobody, nobody, nobody, nobody, false, false},
		{"down weight=0", nobody, nobody, nobody, nobody, false, false},
		{"unknown weight=0", nobody, nobody, nobody, nobody, false, false},
		{"forced-up weight=0", nobody, nobody, nobody, nobody, false, false},
		{"draining leaving-dns weight=0", nobody, nobody, nobody, nobody, false, false},
		{"up weight=256", "it", "it", "it", "it", true, true},
	}
	say := func(e *pool.Eligible) string {
		switch {
		case len(e.Index) == 0 && !e.FailOpen:
			return nobody
		case e.FailOpen && slices.Equal(e.Index, []int{0}):
			return "fail-open"
		case slices.Equal(e.Index, []int{0}):
			return "it"
		}
		return fmt.Sprint(*e)
	}
	for _, test := range tests {
		t.Run(test.backend, func(t *testing.T) {
			refuse := newPool(pool.Service{WhenAllDown: pool.Refuse}, test.backend)
			all := newPool(pool.Service{WhenAllDown: pool.ServeAll}, test.backend)
			beside := newPool(pool.Service{}, test.backend, "up")
			for _, c := range []struct {
				what      string
				got, want any
			}{
				{"alone, refuse: traffic", say(&refuse.Traffic), test.traffic},
				{"alone, all: traffic", say(&all.Traffic), test.trafficAll},
				{"alone, refuse: names", say(&refuse.Names), test.names},
				{"alone, all: names", say(&all.Names), test.namesAll},
				{"beside one that is up: traffic", beside.Traffic.Has(0), test.besideTraffic},
				{"beside one that is up: names", beside.Names.Has(0), test.besideNames},
				{"the one that is up: traffic", beside.Traffic.Has(1), true},
				{"the one that is up: names", beside.Names.Has(1), true},
			} {
				if c.got != c.want {
					t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
				}
			}
		})
	}
}

func TestEligibleTogether(t *testing.T) {
	tests := []struct {
		name           string
		backends       []string
		traffic, names []int
		failOpen       bool
	}{
		{"nobody at all", nil, nil, nil, false},
		{"suspects only serve where nobody is well", []string{"up suspect", "up", "forced-up suspect"}, []int{1}, []int{1}, false},
		{"suspects before those that are down", []string{"down", "up suspect", "unknown", "up suspect"}, []int{1, 3}, []int{1, 3}, false},
		{"all down: all that nobody forbade", []string{"down", "unknown", "forced-down", "down weight=0", "draining finishing", "down suspect"}, []int{0, 1, 5}, []int{0, 1, 5}, true},
		{"what is drained does not come back because the rest is down", []string{"draining drained", "down"}, []int{1}, []int{1}, true},
		{"while the last good one leaves DNS, names fail open, connections do not", []string{"draining leaving-dns", "down"}, []int{0}, []int{1}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPool(pool.Service{WhenAllDown: pool.ServeAll}, test.backends...)
			if !slices.Equal(p.Traffic.Index, test.traffic) || !slices.Equal(p.Names.Index, test.names) {
				t.Errorf("traffic %v, names %v; want %v, %v", p.Traffic.Index, p.Names.Index, test.traffic, test.names)
			}
			if p.Traffic.FailOpen != test.failOpen {
				t.Errorf("fail-open of traffic is %v", p.Traffic.FailOpen)
			}
			for i := range test.backends {
				if got, want := p.Traffic.Has(i), slices.Contains(test.traffic, i); got != want {
					t.Errorf("Has(%d) = %v", i, got)
				}
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	host := []netip.Addr{netip.MustParseAddr("54.93.167.95"), netip.MustParseAddr("2001:db8::95")}
	const both = "[54.93.167.95 2001:db8::95]"
	tests := []struct {
		name     string
		service  pool.Service
		backends []string
		want     string
	}{
		{"proxied: the host's", pool.Service{}, []string{"up public=3.120.1.1"}, both},
		{"proxied, all down, all", pool.Service{}, []string{"down"}, both},
		{"proxied, all down, refuse", pool.Service{WhenAllDown: pool.Refuse}, []string{"down"}, "[]"},
		{"proxied, no backend, all", pool.Service{}, nil, both},
		{"proxied, no backend, refuse", pool.Service{WhenAllDown: pool.Refuse}, nil, "[]"},
		{"proxied, the only one leaves DNS, refuse", pool.Service{WhenAllDown: pool.Refuse}, []string{"draining leaving-dns"}, "[]"},

		{"direct: the healthy ones' public addresses", pool.Service{Answer: pool.Direct},
			[]string{"up public=3.120.1.1", "down public=3.120.1.2", "up public=3.120.1.3,2001:db8::3"}, "[3.120.1.1 3.120.1.3 2001:db8::3]"},
		{"direct: where no public one is known, the one that is dialled", pool.Service{Answer: pool.Direct}, []string{"up", "up"}, "[172.31.8.1 172.31.8.2]"},
		{"direct: each once", pool.Service{Answer: pool.Direct},
			[]string{"up public=3.120.1.2", "up public=3.120.1.1,3.120.1.2", "up public=3.120.1.1"}, "[3.120.1.2 3.120.1.1]"},
		{"direct, all down, all", pool.Service{Answer: pool.Direct}, []string{"down", "forced-down", "down"}, "[172.31.8.1 172.31.8.3]"},
		{"direct, all down, refuse", pool.Service{Answer: pool.Direct, WhenAllDown: pool.Refuse}, []string{"down"}, "[]"},
		{"direct: what drains is gone at once", pool.Service{Answer: pool.Direct}, []string{"draining leaving-dns", "up"}, "[172.31.8.2]"},
		{"direct: weight 0", pool.Service{Answer: pool.Direct}, []string{"up weight=0", "up"}, "[172.31.8.2]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := fmt.Sprint(newPool(test.service, test.backends...).Addresses(host)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestReachableIsPlainIPv4(t *testing.T) {
	e := pool.Endpoint{Address: netip.MustParseAddrPort("[::ffff:172.31.8.1]:80")}
	if got := e.Reachable(); len(got) != 1 || got[0] != netip.MustParseAddr("172.31.8.1") {
		t.Errorf("got %v", got)
	}
}
