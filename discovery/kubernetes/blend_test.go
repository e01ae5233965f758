package kubernetes

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"haslohas.com/elbow/pool"
)

// TestBlend: a share is written SHARE:WEIGHTS, with a letter for each endpoint and "~"
// after one that terminates.
func TestBlend(t *testing.T) {
	tests := []struct{ name, shares, want string }{
		{"equal shares, one each", "1:a1 1:b1", "a1 b1"},
		{"equal shares, two and one", "1:a1,b1 1:c1", "a1 b1 c2"},
		{"nine to one", "9:a1 1:b1", "a9 b1"},
		{"nine to one, many and few", "9:a1,b1,c1 1:d1", "a3 b3 c3 d1"},
		{"three sizes", "1:a1 1:b1,c1 1:d1,e1,f1", "a6 b3 c3 d2 e2 f2"},
		{"own weights", "1:a3,b1 1:c1", "a3 b1 c4"},
		{"as well as 256 steps allow", "1000000:a1 1:b1", "a256 b1"},
		{"close to it", "1000:a1 333:b1", "a256 b85"},
		{"nobody serves for one", "5:a1~ 1:b1", "a1~ b1"},
		{"one is empty", "5: 1:b1", "b1"},
		{"all are", "5: 1:", ""},
		{"no new connections", "1:a0 1:b1", "a0 b1"},
		{"none at all", "1:a0 1:b0", "a0 b0"},
		{"one that drains has no share", "1:a1,b1~ 1:c1", "a1 b1~ c1"},
		{"the same endpoint behind two", "1:a1 1:a1,b1", "a2 b1"},
		{"weights that have little in common", "7:a251,b241 3:c239,d233", "a256 b246 c109 d106"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var shares []Share
			var sets [][]pool.Endpoint
			for text := range strings.FieldsSeq(test.shares) {
				var s Share
				weight, list, _ := strings.Cut(text, ":")
				if _, err := fmt.Sscan(weight, &s.Weight); err != nil {
					t.Fatal(err)
				}
				var set []pool.Endpoint
				for one := range strings.SplitSeq(list, ",") {
					if one == "" {
						continue
					}
					e := pool.Endpoint{Address: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(one[0]))}
					if strings.HasSuffix(one, "~") {
						e.Phase = pool.Terminating
					}
					if _, err := fmt.Sscan(strings.TrimSuffix(one[1:], "~"), &e.Weight); err != nil {
						t.Fatal(err)
					}
					set = append(set, e)
				}
				shares, sets = append(shares, s), append(sets, set)
			}
			var got []string
			for _, e := range blend(shares, sets) {
				text := fmt.Sprintf("%c%d", e.Address.Port(), e.Weight)
				if e.Phase == pool.Terminating {
					text += "~"
				}
				got = append(got, text)
			}
			if text := strings.Join(got, " "); text != test.want {
				t.Errorf("%s: got %s, want %s", test.shares, text, test.want)
			}
		})
	}
}
