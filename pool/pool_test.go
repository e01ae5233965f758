package pool_test

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"haslohas.com/elbow/pool"
)

// The vocabulary of the tests: a pool is written as a list of backends, each
// as words such as "up weight=2 suspect". Backends stand at 172.31.8.1:80,
// 172.31.8.2:80 and so on.

var now = time.Date(2026, 11, 22, 20, 0, 0, 0, time.UTC)

func address(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 31, byte(8 + n>>8), byte(n)}), 80)
}

func backend(n int, words string) pool.Backend {
	b := pool.Backend{Endpoint: pool.Endpoint{Address: address(n), Weight: 1}}
	for word := range strings.FieldsSeq(words) {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "weight":
			_, err = fmt.Sscan(value, &b.Weight)
		case "priority":
			_, err = fmt.Sscan(value, &b.Priority)
		case "zone":
			b.Zone = value
		case "suspect":
			b.Suspect = true
		case "leaving-dns":
			b.Drain = pool.LeavingDNS
		case "finishing":
			b.Drain = pool.Finishing
		case "drained":
			b.Drain = pool.Drained
		case "public":
			for a := range strings.SplitSeq(value, ",") {
				b.Public = append(b.Public, netip.MustParseAddr(a))
			}
		case "flip":
			b.Flip, err = time.ParseDuration(value)
		case "ramping":
			var age time.Duration
			age, err = time.ParseDuration(value)
			b.RampFrom = now.Add(-age)
		default:
			b.State, err = pool.ParseState(key)
		}
		if err != nil {
			panic(fmt.Sprintf("backend %q: %v", words, err))
		}
	}
	return b
}

func newPool(s pool.Service, backends ...string) *pool.Pool {
	all := make([]pool.Backend, len(backends))
	for i, words := range backends {
		all[i] = backend(i+1, words)
		s.Endpoints = append(s.Endpoints, all[i].Endpoint)
	}
	return pool.NewPool(&s, all)
}

// many are n backends, all as words says.
func many(n int, words string) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = words
	}
	return all
}

// active are the connections of backends by position; a missing one has none.
type active []int

func (a active) Active(i int) int {
	if i < len(a) {
		return a[i]
	}
	return 0
}

func client(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)})
}
