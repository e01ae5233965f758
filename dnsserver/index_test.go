package dnsserver

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// FuzzTable holds a table against a map, with names that share labels and hardly
// differ.
func FuzzTable(f *testing.F) {
	f.Add([]byte("\x03www\x07example\x03com\x00"))
	f.Add([]byte("abcdefghijklmnopqrstuvwxyz"))
	f.Add(bytes.Repeat([]byte{0xff, 0, 8, 9}, 100))
	f.Fuzz(func(t *testing.T, seed []byte) {
		var have table[int]
		want := make(map[name]int)
		owner := root
		for i, c := range seed {
			label := strings.Repeat(string(rune('a'+c%26)), 1+int(c)%20)
			if owner = name([]byte{byte(len(label))}) + name(label) + owner; len(owner) > maxName {
				owner = root
			}
			have.set(owner, i+1)
			want[owner] = i + 1
		}
		have.fit()
		if got := maps.Collect(have.all()); !maps.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
		var q qname
		for owner, v := range want {
			if n, ok := q.take([]byte(owner)); !ok || n != len(owner) {
				t.Fatalf("%q is taken for %d octets, %t", owner, n, ok)
			}
			for i := range q.labels + 1 {
				above := name(q.suffix(i))
				if got := have.find(q.hashes[i], q.suffix(i)); got != want[above] {
					t.Errorf("%q has %d, want %d", above, got, want[above])
				}
				if got := have.get(above); got != want[above] {
					t.Errorf("%q has %d by its name, want %d", above, got, want[above])
				}
				if w := above.wildcard(); len(w) > maxName {
					if have.get(w) != 0 {
						t.Errorf("%q is found", w)
					}
				} else if hashWildcard(q.hashes[i]) != hashName(w) {
					t.Errorf("the hash of %q does not follow from that of %q", w, above)
				}
			}
			if longer := "\x01!" + owner; have.get(longer) != 0 {
				t.Errorf("%q is found", longer)
			}
			if have.get(owner) != v {
				t.Errorf("%q has %d, want %d", owner, have.get(owner), v)
			}
		}
	})
}

// TestTableEmpty: nil and the zero value are empty tables.
func TestTableEmpty(t *testing.T) {
	for _, table := range []*table[int]{nil, {}, newTable[int](0)} {
		if table.get(root) != 0 || table.find(rootHash, []byte(root)) != 0 || table.len() != 0 || len(slices.Collect(table.names())) != 0 {
			t.Errorf("%v is not empty", table)
		}
	}
	grown := newTable[int](0)
	grown.set(root, 1)
	if grown.get(root) != 1 {
		t.Error("the root is not found")
	}
}

// TestTableChangesWhileWalked: what belongs to a name may change on the way through
// a table, however full that is.
func TestTableChangesWhileWalked(t *testing.T) {
	for names := range 50 {
		tab := newTable[int](names)
		for i := range names {
			tab.set(mustName(t, fmt.Sprintf("host%d.example", i)), i)
		}
		tab.fit()
		seen := 0
		for owner, v := range tab.all() {
			tab.set(owner, v+1000)
			seen++
		}
		for i := range names {
			if got := tab.get(mustName(t, fmt.Sprintf("host%d.example", i))); got != i+1000 || seen != names || tab.len() != names {
				t.Fatalf("host%d of %d has %d; %d were seen, %d are there", i, names, got, seen, tab.len())
			}
		}
	}
}

// TestTableSpread: names as people number them do not crowd into a few slots.
func TestTableSpread(t *testing.T) {
	const names = 100_000
	tab := newTable[int](names)
	for i := range names {
		tab.set(mustName(t, fmt.Sprintf("host%d.large.example", i)), i)
	}
	tab.fit()
	steps := 0
	for owner := range tab.names() {
		for at, end := tab.place(hashName(owner)), tab.search(hashName(owner), owner); at != end; at = tab.next(at) {
			steps++
		}
	}
	// By linear probing, with one of two slots taken, (1+1/(1-1/2))/2 = 1.5 are looked at.
	if mean := 1 + float64(steps)/names; mean > 1.65 {
		t.Errorf("%.2f slots are looked at for a name, want about 1.5", mean)
	}
}

// TestLower holds lower for eight octets against the one for each.
func TestLower(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		w := random.Uint64()
		var got, want [wordLen]byte
		for i := range wordLen {
			want[i] = byte(w >> (8 * i))
			got[i] = byte(lowerWord(w) >> (8 * i))
		}
		if lower(want[:]); got != want {
			t.Fatalf("%x becomes % x, want % x", w, got, want)
		}
	}
}
