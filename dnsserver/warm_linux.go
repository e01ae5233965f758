package dnsserver

import "encoding/binary"

// warmFrom is from how many names in the zones on a batch is warmed. What fewer
// take is in the processor's cache as it is.
const warmFrom = 8192

// recentPlaces is how many questions a batch remembers having fetched for. What was asked
// so shortly ago is in the cache still.
const recentPlaces = 4096

// Where three of four in a batch were asked of late, so many batches are not
// looked at: where the questions are few, looking costs more than it can save.
const warmRest = 15

// A warming fetches what the answers to a batch lie in: one after the other, each
// answer would wait for memory three times, and meanwhile nothing is done.
// Here each way is taken for all packets, and the processor waits for all of them
// together. Nothing of it is an answer yet, and no packet is judged.
type warming struct {
	asked [batchSize]struct {
		nodes  *table[*node]
		hash   uint64
		length int
		node   *node // nil: not there
	}
	recent [recentPlaces]uint32 // of the questions of late, some bits of their hash
	rest   int                  // how many batches are not looked at from now on
	sink   byte                 // of what is read for nothing else, lest the compiler leaves it out
}

// warm does that for what was received last. It uses the query of r.
func (b *batch) warm(r *responder, s *snapshot) {
	w := &b.warming
	if w.rest > 0 {
		w.rest--
		return
	}
	count, late := 0, 0
	for i := range b.received {
		packet := b.queries[i][:min(b.in[i].size, maxQuery)]
		if len(packet) < headerLen {
			continue
		}
		if w.askedOfLate(packet[headerLen:]) {
			late++
			continue
		}
		if _, ok := r.readQuestion(packet); !ok {
			continue
		}
		if z, _ := s.zoneOf(&r.query); z != nil {
			a := &w.asked[count]
			a.nodes, a.hash, a.length = z.nodes, r.hashes[0], r.nameLen
			count++
		}
	}
	if 4*late >= 3*b.received {
		w.rest = warmRest
	}
	asked := w.asked[:count]
	for i := range asked {
		a := &asked[i]
		a.node = nil
		if slot := a.nodes.guess(a.hash, a.length); slot != nil {
			a.node = slot.value
			w.sink += *slot.first
		}
	}
	for i := range asked {
		if n := asked[i].node; n != nil && len(n.sets) > 0 && len(n.sets[0].wire) > 0 {
			w.sink += n.sets[0].wire[0]
		}
	}
}

// askedOfLate reports whether a question was seen not long ago, and takes it for seen
// from now on. It is no more than a guess by how the question begins.
func (w *warming) askedOfLate(question []byte) bool {
	if len(question) < 2*wordLen {
		return false
	}
	h := hashWord(rootHash, binary.LittleEndian.Uint64(question))
	h = hashWord(h, binary.LittleEndian.Uint64(question[wordLen:]))
	h = hashWord(h, binary.LittleEndian.Uint64(question[min(2*wordLen, len(question)-wordLen):]))
	place := &w.recent[h%recentPlaces]
	seen := *place == uint32(h>>32)
	*place = uint32(h >> 32)
	return seen
}
