package dnsserver

import "testing"

// TestFetch: whatever a batch holds, what the answers lie in is found, nothing is for
// what is no question, and nothing is allocated.
func TestFetch(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	snap := h.snapshot.Load()
	packets := [][]byte{
		must(question(t, "WWW.example.com A").Pack()), nil, make([]byte, headerLen), {0xff}, must(question(t, "nothing.example.com A").Pack()),
		must(question(t, "www.example.net A").Pack()),
	}
	b := newBatch(-1, false)
	for i := range b.in {
		b.in[i].size = uint32(copy(b.queries[i][:], packets[i%len(packets)]))
	}
	fetch := func() {
		for i := range b.received {
			b.verdicts[i] = b.asked[i].read(b.packet(i))
		}
		b.fetch(snap)
	}
	fetch()
	www := snap.zones.get(mustName(t, "example.com")).node(mustName(t, "www.example.com"))
	for i, n := range b.ahead {
		if want := map[bool]*node{true: www}[i%len(packets) == 0]; n != want {
			t.Errorf("packet %d: %v, want %v", i, n, want)
		}
	}
	if www == nil {
		t.Error("there is no www.example.com")
	}
	if n := testing.AllocsPerRun(10, fetch); n > 0 {
		t.Errorf("%v allocations", n)
	}
	b.received = 1
	b.in[0].size = uint32(copy(b.queries[0][:], packets[4]))
	if fetch(); b.ahead[0] != nil {
		t.Error("what was fetched for the batch before is left")
	}
}
