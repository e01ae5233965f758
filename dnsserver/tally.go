package dnsserver

import (
	"math/bits"
	"sync/atomic"
)

// typeNames are the label values by what is asked for. Everything else is
// "other", so that no client can make up series.
var typeNames = [...]string{
	"other", "none", "A", "NS", "CNAME", "SOA", "PTR", "MX", "TXT", "AAAA", "SRV", "NAPTR", "DS", "DNSKEY", "RRSIG", "NSEC",
	"CDS", "CDNSKEY", "TLSA", "SVCB", "HTTPS", "CAA", "SPF", "ANY", "AXFR", "IXFR",
}

// typePlaces are the places in typeNames of the types below 257.
var typePlaces = [...]uint8{
	1: 2, 2: 3, 5: 4, 6: 5, 12: 6, 15: 7, 16: 8, 28: 9, 33: 10, 35: 11, 43: 12, 48: 13, 46: 14, 47: 15,
	59: 16, 60: 17, 52: 18, 64: 19, 65: 20, 257: 21, 99: 22, 255: 23, 252: 24, 251: 25,
}

// A tally is what a worker has counted and not told yet. A worker tells after
// each batch: a query costs no atomic operation for it, where there are many.
// Each of those would also keep the processor from reading ahead.
type tally struct {
	zone      *zoneCounts // that responses is about
	responses [rcodes]uint32
	seen      uint32 // a bit for each of responses that is not 0

	types   [len(typeNames)]uint32
	touched uint32 // a bit for each of types that is not 0

	edns, do, slipped uint32
	in, out           uint64 // octets of queries and responses
}

// add takes down a query that got a response.
func (t *tally) add(q *query, in, out int) {
	place := uint8(1)
	if q.question != nil {
		place = 0
		if int(q.qtype) < len(typePlaces) {
			place = typePlaces[q.qtype]
		}
	}
	t.types[place]++
	t.touched |= 1 << place
	if q.edns {
		t.edns++
		if q.do {
			t.do++
		}
	}
	t.in += uint64(in)
	t.out += uint64(out)
}

// respond takes down a response by UDP that counts for c.
func (t *tally) respond(c *zoneCounts, rcode uint16, shard int) {
	if t.zone != c {
		t.tellZone(shard)
		t.zone = c
	}
	t.responses[rcode]++
	t.seen |= 1 << rcode
}

// tellZone adds the responses to what is known, and forgets them.
func (t *tally) tellZone(shard int) {
	for left := t.seen; left != 0; left &= left - 1 {
		rcode := bits.TrailingZeros32(left)
		t.zone.shards[shard%shards].responses[0][rcode].Add(uint64(t.responses[rcode]))
		t.responses[rcode] = 0
	}
	t.zone, t.seen = nil, 0
}

// A tallyCounts is what all workers of a shard have told.
type tallyCounts struct {
	types             [len(typeNames)]atomic.Uint64
	edns, do, slipped atomic.Uint64
	in, out           [len(transports)]atomic.Uint64
}

// tell adds t to what is known, and empties it.
func (t *tally) tell(c *tallyCounts, tcp bool) {
	if t.touched == 0 {
		return
	}
	for left := t.touched; left != 0; left &= left - 1 {
		place := bits.TrailingZeros32(left)
		c.types[place].Add(uint64(t.types[place]))
		t.types[place] = 0
	}
	transport := 0
	if tcp {
		transport = 1
	}
	c.in[transport].Add(t.in)
	c.out[transport].Add(t.out)
	if t.edns > 0 {
		c.edns.Add(uint64(t.edns))
	}
	if t.do > 0 {
		c.do.Add(uint64(t.do))
	}
	if t.slipped > 0 {
		c.slipped.Add(uint64(t.slipped))
	}
	t.touched, t.edns, t.do, t.slipped, t.in, t.out = 0, 0, 0, 0, 0, 0
}
