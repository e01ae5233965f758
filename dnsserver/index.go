package dnsserver

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"slices"
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
// To find a name takes one way to memory for the slots and one for the entry, and
// those of the slots depend on nothing but the hash: see batch.warm. Slots
// hold no pointers, which spares the garbage collector a look.
type table[V any] struct {
	slots   []uint64 // half of a hash, and the place in entries, from 1 on; 0: free
	entries []tableEntry[V]
}

type tableEntry[V any] struct {
	owner name
	value V
}

const (
	slotBits = 32 // of a slot say where, the others whose
	slotMask = 1<<slotBits - 1
)

// find returns what belongs to the name with that hash, the zero value if there is
// nothing.
func (t *table[V]) find(hash uint64, wire []byte) (v V) {
	if t == nil || len(t.slots) == 0 {
		return v
	}
	for at := t.first(hash); ; at = t.next(at) {
		slot := t.slots[at]
		if slot == 0 {
			return v
		}
		if (slot^hash<<slotBits)>>slotBits == 0 {
			if e := &t.entries[slot&slotMask-1]; e.owner == name(wire) {
				return e.value
			}
		}
	}
}

// guess is the place in entries, from 1 on, of what find would compare with the
// name of that hash first; 0: nothing. It does not look at the name.
func (t *table[V]) guess(hash uint64) uint64 {
	if t == nil || len(t.slots) == 0 {
		return 0
	}
	at := t.first(hash)
	for t.slots[at] != 0 && t.slots[at]>>slotBits != hash&slotMask {
		at = t.next(at)
	}
	return t.slots[at] & slotMask
}

// first is the slot of a hash, if that is not taken by another name.
func (t *table[V]) first(hash uint64) uint64 {
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
	if i := t.at(owner); i >= 0 {
		return t.entries[i].value
	}
	return v
}

// at is the place of a name in entries, -1 if it has none.
func (t *table[V]) at(owner name) int {
	if t == nil || len(t.slots) == 0 || len(owner) > maxName { // there is no such name
		return -1
	}
	hash := hashName(owner)
	for at := t.first(hash); t.slots[at] != 0; at = t.next(at) {
		slot := t.slots[at]
		if i := int(slot&slotMask) - 1; slot>>slotBits == hash&slotMask && t.entries[i].owner == owner {
			return i
		}
	}
	return -1
}

// set puts v in the place of what belongs to owner.
func (t *table[V]) set(owner name, v V) {
	if i := t.at(owner); i >= 0 {
		t.entries[i].value = v
		return
	}
	if 4*(len(t.entries)+1) > 3*len(t.slots) {
		t.resize(2*len(t.entries) + 4)
	}
	t.entries = append(t.entries, tableEntry[V]{owner, v})
	t.occupy(hashName(owner), uint64(len(t.entries)))
}

func (t *table[V]) occupy(hash, place uint64) {
	at := t.first(hash)
	for t.slots[at] != 0 {
		at = t.next(at)
	}
	t.slots[at] = hash<<slotBits | place
}

// resize makes room for that many names.
func (t *table[V]) resize(names int) {
	t.slots = make([]uint64, names+names/2+1) // one is always free, where a search ends
	for i, e := range t.entries {
		t.occupy(hashName(e.owner), uint64(i+1))
	}
}

// fit takes no more memory than is needed for a table that is whole.
func (t *table[V]) fit() {
	t.entries = slices.Clone(t.entries)
	t.resize(len(t.entries))
}

// newTable makes a table with room for that many names.
func newTable[V any](names int) *table[V] {
	t := &table[V]{entries: make([]tableEntry[V], 0, names)}
	t.resize(names)
	return t
}

func (t *table[V]) len() int {
	if t == nil {
		return 0
	}
	return len(t.entries)
}

// all returns everything in the order in which it came.
func (t *table[V]) all() iter.Seq2[name, V] {
	return func(yield func(name, V) bool) {
		if t == nil {
			return
		}
		for i := 0; i < len(t.entries); i++ { // as long as it is now
			if e := &t.entries[i]; !yield(e.owner, e.value) {
				return
			}
		}
	}
}

// names returns the names of t in the order in which they came.
func (t *table[V]) names() iter.Seq[name] {
	return func(yield func(name) bool) {
		for owner := range t.all() {
			if !yield(owner) {
				return
			}
		}
	}
}
