package dnsserver

import (
	"slices"
	"sync"
	"testing"
)

// What several goroutines put arrives once and in the order of each, or
// counts as lost.
func TestRing(t *testing.T) {
	const writers, each = 4, 50_000
	q := newQueue[[2]int](2)
	var putting sync.WaitGroup
	for w := range writers {
		putting.Go(func() {
			for i := range each {
				if s := q.claim(w); s != nil {
					s.value = [2]int{w, i}
					q.commit(s)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { putting.Wait(); close(done) }()
	last := [writers]int{-1, -1, -1, -1}
	got := 0
	read := func() {
		got += q.drain(func(v *[2]int) {
			if v[1] <= last[v[0]] {
				t.Errorf("writer %d: %d after %d", v[0], v[1], last[v[0]])
			}
			last[v[0]] = v[1]
		})
	}
	for ending := false; !ending; {
		select {
		case <-q.wake:
		case <-done:
			ending = true
		}
		read()
	}
	read()
	if lost := int(q.takeLost()); got+lost != writers*each || got == 0 {
		t.Errorf("%d arrived and %d were lost of %d", got, lost, writers*each)
	}
}

// A full ring loses what is new, and goes on once it is read.
func TestRingFull(t *testing.T) {
	q := newQueue[int](1)
	put := func(v int) bool {
		s := q.claim(0)
		if s == nil {
			return false
		}
		s.value = v
		q.commit(s)
		return true
	}
	for round := range 3 {
		for i := range ringSize {
			if !put(i) {
				t.Fatalf("round %d: no room for value %d", round, i)
			}
		}
		for range 2 {
			if put(-1) {
				t.Fatal("there is room for more than a ring holds")
			}
		}
		select {
		case <-q.wake:
		default:
			t.Error("nobody is told that the ring is full")
		}
		var got []int
		q.drain(func(v *int) { got = append(got, *v) })
		if len(got) != ringSize || !slices.IsSorted(got) || q.takeLost() != 2 || q.takeLost() != 0 {
			t.Errorf("round %d: %d values", round, len(got))
		}
	}
}
