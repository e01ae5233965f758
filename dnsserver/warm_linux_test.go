package dnsserver

import "testing"

// TestWarm: whatever a batch holds, warming it finds what the answers lie in, keeps
// off what is no question, and allocates nothing.
func TestWarm(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	snap := h.snapshot.Load()
	packets := [][]byte{must(question(t, "www.example.com A").Pack()), nil, make([]byte, headerLen), {0xff}, must(question(t, "nothing.example.com A").Pack())}
	b := newBatch(-1, false)
	for i := range b.in {
		b.in[i].size = uint32(copy(b.queries[i][:], packets[i%len(packets)]))
	}
	b.warm(&h.r, snap)
	if want := snap.zones.get(mustName(t, "example.com")).node(mustName(t, "www.example.com")); b.warming.asked[0].node != want || want == nil {
		t.Errorf("www.example.com: %v, want %v", b.warming.asked[0].node, want)
	}
	if n := b.warming.asked[1].node; n != nil {
		t.Errorf("nothing.example.com: %v", n)
	}
	again := b.warming.asked[0]
	b.warming.asked[0].node = nil
	b.warm(&h.r, snap)
	if b.warming.asked[0].node != nil {
		t.Errorf("what was asked of late is fetched again: %v", again)
	}
	if n := testing.AllocsPerRun(10, func() {
		b.warming.recent = [recentPlaces]uint32{}
		b.warm(&h.r, snap)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestWarmRests: where the same is asked again and again, most batches are answered
// without a look ahead, and it begins again after some time.
func TestWarmRests(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	snap := h.snapshot.Load()
	ask := func(b *batch, name string) {
		packet := must(question(t, name+" A").Pack())
		for i := range b.in {
			b.in[i].size = uint32(copy(b.queries[i][:], packet))
		}
	}
	b := newBatch(-1, false)
	ask(b, "www.example.com")
	b.warm(&h.r, snap)
	b.warming.asked[0].node = nil
	ask(b, "other.example.com")
	for range warmRest {
		b.warm(&h.r, snap)
	}
	if b.warming.asked[0].nodes == nil || b.warming.asked[0].hash == hashName(mustName(t, "other.example.com")) {
		t.Error("it does not rest")
	}
	b.warm(&h.r, snap)
	if b.warming.asked[0].hash != hashName(mustName(t, "other.example.com")) {
		t.Error("it rests forever")
	}
}
