package pool_test

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

func TestFailover(t *testing.T) {
	tests := []struct {
		name           string
		backends       string // separated by commas
		traffic, names []int
		priority       int
		standby        []int
	}{
		{"the first are well: the second stand by", "up, up, up priority=1, up priority=1", []int{0, 1}, []int{0, 1}, 0, []int{2, 3}},
		{"one of the first is enough", "down, up, up priority=1", []int{1}, []int{1}, 0, []int{2}},
		{"none of the first is well", "down, forced-down, up priority=1, up priority=2", []int{2}, []int{2}, 1, []int{3}},
		{"a gap in the numbers", "down priority=7, up priority=200", []int{1}, []int{1}, 200, nil},
		{"the first is back", "up, up priority=1", []int{0}, []int{0}, 0, []int{1}},
		{"a suspect is no verdict: nothing fails over", "up suspect, up priority=1", []int{0}, []int{0}, 0, []int{1}},
		{"a suspect gives way to one of its own priority", "up suspect, up, up priority=1", []int{1}, []int{1}, 0, []int{2}},
		{"weight 0 is as if it were not there", "up weight=0, up priority=1", []int{1}, []int{1}, 1, nil},
		{"the last of the first is drained: both move", "draining leaving-dns, up priority=1", []int{1}, []int{1}, 1, nil},
		{"one of the first is drained: connections of cached answers go on", "draining leaving-dns, up, up priority=1", []int{0, 1}, []int{1}, 0, []int{2}},
		{"a drained standby", "down, draining leaving-dns priority=1, up priority=1", []int{1, 2}, []int{2}, 1, nil},
		{"an operator forces a standby up", "up, forced-up priority=1", []int{0}, []int{0}, 0, []int{1}},
		{"an operator forces the first up", "forced-up, up priority=1", []int{0}, []int{0}, 0, []int{1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPool(pool.Service{}, strings.Split(test.backends, ",")...)
			if !slices.Equal(p.Traffic.Index, test.traffic) || !slices.Equal(p.Names.Index, test.names) {
				t.Errorf("traffic %v, names %v; want %v, %v", p.Traffic.Index, p.Names.Index, test.traffic, test.names)
			}
			if p.Traffic.Priority != test.priority || p.Names.Priority != test.priority || p.Traffic.FailOpen {
				t.Errorf("traffic %+v, names %+v, want priority %d", p.Traffic, p.Names, test.priority)
			}
			var standby []int
			for i := range p.Backends {
				if p.Standby(&p.Backends[i]) {
					standby = append(standby, i)
				}
			}
			if !slices.Equal(standby, test.standby) {
				t.Errorf("standby %v, want %v", standby, test.standby)
			}
			if over := test.priority > p.FirstPriority(); p.FailedOver() != over {
				t.Errorf("failed over is %v", !over)
			}
		})
	}
}

// When all are down the first priority is tried, as in calm; none where the
// service refuses.
func TestFailoverWhenAllAreDown(t *testing.T) {
	backends := []string{"down", "forced-down", "unknown", "down priority=1"}
	all := newPool(pool.Service{WhenAllDown: pool.ServeAll}, backends...)
	if !slices.Equal(all.Traffic.Index, []int{0, 2}) || !all.Traffic.FailOpen || all.FailedOver() {
		t.Errorf("all: %+v", all.Traffic)
	}
	if got := all.Lifetime(pool.ZoneTTL{Normal: time.Minute, Degraded: time.Second}).Reason; got != "every backend is down; all of priority 0 are tried" {
		t.Errorf("got %q", got)
	}
	refuse := newPool(pool.Service{WhenAllDown: pool.Refuse}, backends...)
	if len(refuse.Traffic.Index) != 0 || refuse.Traffic.FailOpen {
		t.Errorf("refuse: %+v", refuse.Traffic)
	}
	// The first ones are taken out by an operator: then the next are tried.
	next := newPool(pool.Service{}, "forced-down", "down priority=1", "down priority=2")
	if !slices.Equal(next.Names.Index, []int{1}) || !next.Names.FailOpen {
		t.Errorf("next: %+v", next.Names)
	}
}

// A standby that flaps changes no answer, and so shortens no TTL.
func TestStandbyAndTTL(t *testing.T) {
	ttl := pool.ZoneTTL{Normal: time.Minute, Degraded: time.Second}
	for backends, want := range map[string]time.Duration{
		"up, down flip=2s priority=1":                time.Minute,
		"up flip=2s, up priority=1":                  time.Second,
		"down flip=2s, up priority=1":                time.Second, // the first may be back soon
		"down, up priority=1, up flip=2s priority=2": time.Minute,
		"down, up priority=1, up flip=2s priority=1": time.Second,
		"forced-down flip=2s, up priority=1":         time.Second,
	} {
		if got := newPool(pool.Service{}, strings.Split(backends, ",")...).Lifetime(ttl).TTL; got != want {
			t.Errorf("%s: got %s, want %s", backends, got, want)
		}
	}
}

func TestServiceTTL(t *testing.T) {
	zone := pool.ZoneTTL{Normal: 30 * time.Second, Degraded: 5 * time.Second, Negative: 4 * time.Second}
	for _, test := range []struct{ own, want pool.ZoneTTL }{
		{pool.ZoneTTL{}, zone},
		{pool.ZoneTTL{Normal: time.Minute}, pool.ZoneTTL{Normal: time.Minute, Degraded: 5 * time.Second, Negative: 4 * time.Second}},
		{pool.ZoneTTL{Normal: 2 * time.Second}, pool.ZoneTTL{Normal: 2 * time.Second, Degraded: 2 * time.Second, Negative: 4 * time.Second}},
		{pool.ZoneTTL{Degraded: time.Second, Negative: time.Hour}, pool.ZoneTTL{Normal: 30 * time.Second, Degraded: time.Second, Negative: time.Hour}},
	} {
		s := pool.Service{Naming: pool.Naming{TTL: test.own}}
		if got := s.TTL(zone); got != test.want {
			t.Errorf("%+v: got %+v, want %+v", test.own, got, test.want)
		}
	}
}

// Every position is in the answers in proportion to its weight, and an answer
// has as many as it may.
func TestDraws(t *testing.T) {
	tests := []struct {
		weights []int
		limit   int
		draws   int // at most
		want    string
	}{
		{[]int{1, 1, 1}, 1, 3, "0.333 0.333 0.333"},
		{[]int{3, 1}, 1, 2, "0.750 0.250"},
		{[]int{3, 0, 1}, 1, 2, "0.750 0.000 0.250"},
		{[]int{1, 1, 1, 1, 1}, 2, 5, "0.400 0.400 0.400 0.400 0.400"},
		{[]int{1, 1, 1, 1}, 2, 4, "0.500 0.500 0.500 0.500"},
		{[]int{10, 1, 1}, 2, 2, "1.000 0.500 0.500"}, // due in more than every answer: in every one
		{[]int{10, 10, 1, 1, 2}, 3, 3, "1.000 1.000 0.250 0.250 0.500"},
		{[]int{2, 3, 4}, 2, 3, "0.444 0.667 0.889"},
		{[]int{5, 1}, 2, 1, "1.000 1.000"},
		{[]int{5, 1}, 8, 1, "1.000 1.000"},
		{[]int{0, 7}, 1, 1, "0.000 1.000"},
		{[]int{256, 256, 1}, 1, 3, "0.499 0.499 0.002"},
		{[]int{0, 0}, 1, 0, "0.000 0.000"},
		{nil, 1, 0, ""},
	}
	for _, test := range tests {
		draws := pool.Draws(test.weights, test.limit)
		if len(draws) > test.draws {
			t.Errorf("%v by %d: %d draws", test.weights, test.limit, len(draws))
		}
		var total uint64
		share := make([]uint64, len(test.weights))
		positive := 0
		for _, w := range test.weights {
			if w > 0 {
				positive++
			}
		}
		for _, d := range draws {
			total += d.Share
			if !slices.IsSorted(d.Members) || len(d.Members) != min(test.limit, positive) || d.Share == 0 {
				t.Errorf("%v by %d: draw %+v", test.weights, test.limit, d)
			}
			for _, i := range d.Members {
				share[i] += d.Share
			}
		}
		var words []string
		for _, s := range share {
			words = append(words, fmt.Sprintf("%.3f", float64(s)/math.Max(1, float64(total))))
		}
		if got := strings.Join(words, " "); got != test.want {
			t.Errorf("%v by %d: got %s, want %s", test.weights, test.limit, got, test.want)
		}
	}
}

func TestTargetNames(t *testing.T) {
	tests := []struct {
		name  string
		nodes string // one for each endpoint: NODE@ADDRESS>PUBLIC
		want  string
	}{
		{"nodes", "minion1@10.0.0.1:80 Minion_2@10.0.0.2:80", "minion1 minion-2"},
		{"two ports of one node", "minion1@10.0.0.1:80 minion1@10.0.0.1:81", "minion1 minion1"},
		{"pods of one node", "minion1@10.0.0.1:80 minion1@10.0.0.2:80", "ip-10-0-0-1 ip-10-0-0-2"},
		{"pods behind the address of their node", "minion1@10.0.0.1:80>192.0.2.1 minion1@10.0.0.2:80>192.0.2.1", "minion1 minion1"},
		{"two nodes that look alike", "a.b@10.0.0.1:80 a-b@10.0.0.2:80", "ip-10-0-0-1 ip-10-0-0-2"},
		{"no node", "@10.0.0.1:80 @[2001:db8::1]:80", "ip-10-0-0-1 ip-2001-0db8-0000-0000-0000-0000-0000-0001"},
		{"one address that stands for two", "@10.0.0.1:80>192.0.2.1 @10.0.0.1:81>192.0.2.2", "ip-10-0-0-1-80 ip-10-0-0-1-81"},
		{"a node that is called like the address of another", "ip-10-0-0-2@10.0.0.1:80 @10.0.0.2:80", "ip-10-0-0-2 ip-10-0-0-2-80"},
		{"a node that makes no label", strings.Repeat("x", 64) + "@10.0.0.1:80 ---@10.0.0.2:80", "ip-10-0-0-1 ip-10-0-0-2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := pool.Service{Answer: pool.Direct, Hostnames: []string{"web.test"}, Naming: pool.Naming{SRV: []pool.ServiceName{{Name: "_http._tcp.test"}}}}
			for word := range strings.FieldsSeq(test.nodes) {
				node, address, _ := strings.Cut(word, "@")
				address, public, ok := strings.Cut(address, ">")
				e := pool.Endpoint{Node: node, Address: netip.MustParseAddrPort(address)}
				if ok {
					e.Public = []netip.Addr{netip.MustParseAddr(public)}
				}
				s.Endpoints = append(s.Endpoints, e)
			}
			var want []string
			for w := range strings.FieldsSeq(test.want) {
				want = append(want, w+".web.test")
			}
			if got := s.TargetNames(); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			s.Answer = pool.Proxied
			if got := s.TargetNames(); got != nil {
				t.Errorf("proxied: %v", got)
			}
		})
	}
}

func TestViews(t *testing.T) {
	p := newPool(pool.Service{Answer: pool.Direct, Naming: pool.Naming{Clients: clientMap("10.0.0.0/8: a b", "10.1.0.0/16: c")}},
		"up zone=a weight=3", "down zone=a", "up zone=a public=172.31.8.1 weight=2", "up zone=b", "down zone=c", "up zone=b priority=1")
	var got []string
	for _, v := range p.Views() {
		got = append(got, fmt.Sprint(v.Zone, v.Addresses))
	}
	if want := "[a[{172.31.8.1 5}] b[{172.31.8.4 1}] c[]]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if got := fmt.Sprint(p.Weighted(nil)); got != "[{172.31.8.1 5} {172.31.8.4 1}]" {
		t.Errorf("everybody: %s", got)
	}
}
