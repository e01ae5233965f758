package dnsserver

// fetchFrom is from how many names in the zones on a batch is fetched for. What
// fewer take is in the processor's cache as it is.
const fetchFrom = 8192

// fetch fetches what the answers to a batch lie in: one after the other, each
// answer would wait for memory three times, and meanwhile nothing is done. Here
// each way is taken for all queries, and the processor waits for all of them
// together. Nothing of it is an answer yet.
func (b *batch) fetch(s *snapshot) {
	for i := range b.received {
		b.ahead[i] = nil
		q := &b.asked[i]
		if b.verdicts[i] != resolve {
			continue
		}
		z, _ := s.zoneOf(q)
		if z == nil {
			continue
		}
		if slot := z.nodes.guess(q.hashes[0], q.nameLen); slot != nil {
			b.ahead[i] = slot.value
			b.sink += *slot.first
		}
	}
	for _, n := range b.ahead[:b.received] {
		if n != nil && len(n.sets) > 0 && len(n.sets[0].wire) > 0 {
			b.sink += n.sets[0].wire[0]
		}
	}
}
