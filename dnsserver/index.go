package dnsserver

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"slices"
	"unsafe"
)

const (
	wordLen  = 8                  // octets that are hashed at once
	rootHash = 0x9e3779b97f4a7c15 // of the root
	hashStep = 0xa0761d6478bd642f // an odd number with as many ones as zeros
)

// A qname is a name that is looked up, taken apart so that it and every name
// above it can be found without being read again.
type qname struct {
	name    [maxName + wordLen - 1]byte // in lower case; what stands behind nameLen is of no account
	nameLen int
	offsets [maxLabels + 1]uint8 // where each label of name begins; the last one is the root
	labels  int
	hashes  [maxLabels + 1]uint64 // of the name from each label on
}

// wire is the name.
func (q *qname) wire() []byte { return q.name[:q.nameLen] }

// suffix is the name from the label i on.
func (q *qname) suffix(i int) []byte { return q.name[q.offsets[i]:q.nameLen] }

// take makes the name that wire begins with the one of q and returns how long it
// is. It reports false, and changes of q what nobody reads, where that is no whole name.
func (q *qname) take(wire []byte) (int, bool) {
	n, labels := 0, 0
	for {
		if n >= len(wire) {
			return 0, false
		}
		size := int(wire[n])
		// A pointer could only lead into the header.
		if size > maxLabel || n+1+size > maxName {
			return 0, false
		}
		q.offsets[labels] = uint8(n)
		n += 1 + size
		if size == 0 {
			break
		}
		labels++
	}
	copy(q.name[:], wire[:n])
	for at := 0; at < n; at += wordLen {
		word := q.name[at:][:wordLen]
		binary.LittleEndian.PutUint64(word, lowerWord(binary.LittleEndian.Uint64(word)))
	}
	q.nameLen, q.labels = n, labels
	q.hash()
	return n, true
}

// hash fills in the hashes. It goes from the root down, so that the hash of a
// name is also a step to that of each name below it.
func (q *qname) hash() {
	h, end := uint64(rootHash), q.nameLen-1
	q.hashes[q.labels] = h
	for i := q.labels - 1; i >= 0; i-- {
		begin := int(q.offsets[i])
		h = hashLabel(h, &q.name, begin, end)
		q.hashes[i] = h
		end = begin
	}
}

// hashLabel is the hash of a name from that of its parent and its first label,
// which lies in wire from begin to end.
func hashLabel(h uint64, wire *[maxName + wordLen - 1]byte, begin, end int) uint64 {
	for ; end-begin > wordLen; begin += wordLen {
		h = hashWord(h, binary.LittleEndian.Uint64(wire[begin:]))
	}
	rest := uint64(1)<<(8*(end-begin)) - 1 // all ones for a whole word
	return hashWord(h, binary.LittleEndian.Uint64(wire[begin:])&rest)
}

func hashWord(h, word uint64) uint64 {
	high, low := bits.Mul64(h^word, hashStep)
	return high ^ low
}

var wildcardLabel = [maxName + wordLen - 1]byte{1, '*'}

// hashWildcard is the hash of the name *.n, where h is that of n.
func hashWildcard(h uint64) uint64 { return hashLabel(h, &wildcardLabel, 0, 2) }

// hashName is the hash of n, which has maxName octets at most.
func hashName(n name) uint64 {
	var q qname
	q.nameLen = copy(q.name[:], n)
	for at := 0; q.name[at] != 0; at += 1 + int(q.name[at]) {
		q.offsets[q.labels] = uint8(at)
		q.labels++
	}
	q.hash()
	return q.hashes[0]
}

// lowerWord is lower for eight octets at once.
func lowerWord(w uint64) uint64 {
	const ones = 0x0101010101010101
	low := w &^ (0x80 * ones)
	// The highest bit of each octet says whether that is at least A, or more than Z.
	fromA, pastZ := low+(0x80-'A')*ones, low+(0x7f-'Z')*ones
	capital := (fromA ^ pastZ) &^ w & (0x80 * ones)
	return w | capital>>2
}

// A table finds what belongs to a name. Its zero value and nil are empty. Whoever
// reads it sees no change: set is for its maker.
//
// To find a name takes one way to memory, which depends on nothing but the hash,
// and one to compare the name: see batch.fetch.
type table[V any] struct {
	slots []tableSlot[V] // half of them free, so that a search ends soon
	count int
}

// A tableSlot has a name and what belongs to it.
type tableSlot[V any] struct {
	first *byte  // of the name; nil: the slot is free
	tag   uint64 // see tagOf
	value V
}

// tagOf tells names apart that may be in the same slot: by their hash and, the
// lowest octet, their length.
func tagOf(hash uint64, length int) uint64 { return hash<<8 | uint64(length) }

// owner is the name in a slot that is not free.
func (s *tableSlot[V]) owner() name { return name(unsafe.String(s.first, s.tag&0xff)) }

// find returns what belongs to the name with that hash, the zero value if there is
// nothing.
func (t *table[V]) find(hash uint64, wire []byte) (v V) {
	if t == nil || len(t.slots) == 0 {
		return v
	}
	tag := tagOf(hash, len(wire))
	for at := t.place(hash); ; at = t.next(at) {
		s := &t.slots[at]
		if s.first == nil {
			return v
		}
		if s.tag == tag && s.owner() == name(wire) {
			return s.value
		}
	}
}

// guess is the slot that find would compare with a name of that hash and length,
// nil if there is none. It does not look at the name.
func (t *table[V]) guess(hash uint64, length int) *tableSlot[V] {
	if t == nil || len(t.slots) == 0 {
		return nil
	}
	tag := tagOf(hash, length)
	for at := t.place(hash); ; at = t.next(at) {
		switch s := &t.slots[at]; {
		case s.first == nil:
			return nil
		case s.tag == tag:
			return s
		}
	}
}

// place is the slot of a hash, if that is not taken by another name.
func (t *table[V]) place(hash uint64) uint64 {
	at, _ := bits.Mul64(hash, uint64(len(t.slots)))
	return at
}

func (t *table[V]) next(at uint64) uint64 {
	if at++; at == uint64(len(t.slots)) {
		return 0
	}
	return at
}

// get is find for a name whose hash is not known.
func (t *table[V]) get(owner name) (v V) {
	if t == nil || len(t.slots) == 0 || len(owner) > maxName { // there is no such name
		return v
	}
	if s := &t.slots[t.search(hashName(owner), owner)]; s.first != nil {
		v = s.value
	}
	return v
}

// search is the slot of the name with that hash, or the free one where it
// belongs. The table has slots.
func (t *table[V]) search(hash uint64, owner name) uint64 {
	tag := tagOf(hash, len(owner))
	at := t.place(hash)
	for s := &t.slots[at]; s.first != nil && (s.tag != tag || s.owner() != owner); s = &t.slots[at] {
		at = t.next(at)
	}
	return at
}

// set puts v in the place of what belongs to owner, which is a whole name.
func (t *table[V]) set(owner name, v V) {
	hash := hashName(owner)
	if len(t.slots) > 0 {
		if s := &t.slots[t.search(hash, owner)]; s.first != nil {
			s.value = v
			return
		}
	}
	if 3*(t.count+1) > 2*len(t.slots) {
		t.resize(2*t.count + 4)
	}
	t.slots[t.search(hash, owner)] = tableSlot[V]{unsafe.StringData(string(owner)), tagOf(hash, len(owner)), v}
	t.count++
}

// resize makes room for that many names.
func (t *table[V]) resize(names int) {
	old := t.slots
	t.slots = make([]tableSlot[V], 2*names+1) // one is always free, where a search ends
	for i := range old {
		if s := &old[i]; s.first != nil {
			t.slots[t.search(hashName(s.owner()), s.owner())] = *s
		}
	}
}

// fit takes no more memory than is needed for a table that is whole.
func (t *table[V]) fit() { t.resize(t.count) }

// newTable makes a table with room for that many names.
func newTable[V any](names int) *table[V] {
	t := new(table[V])
	t.resize(names)
	return t
}

// clone is a copy that set may change.
func (t *table[V]) clone() *table[V] { return &table[V]{slices.Clone(t.slots), t.count} }

func (t *table[V]) len() int {
	if t == nil {
		return 0
	}
	return t.count
}

// all returns everything, in an order that is the same for the same names set in
// the same order. Meanwhile, other values may be set for names that are there.
func (t *table[V]) all() iter.Seq2[name, V] {
	return func(yield func(name, V) bool) {
		if t == nil {
			return
		}
		for i := range t.slots {
			if s := &t.slots[i]; s.first != nil && !yield(s.owner(), s.value) {
				return
			}
		}
	}
}

// names returns the names of t in the order of all.
func (t *table[V]) names() iter.Seq[name] {
	return func(yield func(name) bool) {
		for owner := range t.all() {
			if !yield(owner) {
				return
			}
		}
	}
}
