package dnsserver

import "sync/atomic"

// ringSize is how many values wait in one ring. A power of two.
const ringSize = 1024

// A ring hands values from the goroutines that answer queries to one that
// writes them down. Who puts never waits and never allocates: the slots are
// used again and again, and where none is free the value is lost. It is Dmitry
// Vyukov's bounded queue, with one reader.
type ring[T any] struct {
	_     [64]byte // what is written by those who put stands in lines of its own
	tail  atomic.Uint64
	_     [64]byte
	lost  atomic.Uint64
	head  uint64 // belongs to the reader
	slots []slot[T]
}

// A slot is free for the value with the number turn, or holds the one before.
type slot[T any] struct {
	turn  atomic.Uint64
	value T
}

func newRing[T any]() *ring[T] {
	r := &ring[T]{slots: make([]slot[T], ringSize)}
	for i := range r.slots {
		r.slots[i].turn.Store(uint64(i))
	}
	return r
}

// claim returns a slot to fill, which is to be given back at once by commit;
// nil: all are taken, and the value counts as lost.
func (r *ring[T]) claim() *slot[T] {
	at := r.tail.Load()
	for {
		s := &r.slots[at%ringSize]
		switch turn := s.turn.Load(); {
		case turn == at:
			if r.tail.CompareAndSwap(at, at+1) {
				return s
			}
		case turn < at:
			r.lost.Add(1)
			return nil
		}
		at = r.tail.Load()
	}
}

// commit gives the slot to the reader. It reports whether the ring may want to
// be read soon.
func (s *slot[T]) commit() (soon bool) { return s.turn.Add(1)%(ringSize/2) == 0 }

// next returns the oldest value, nil if there is none. It is valid until the
// next call of free, which must follow.
func (r *ring[T]) next() *T {
	if s := &r.slots[r.head%ringSize]; s.turn.Load() == r.head+1 {
		return &s.value
	}
	return nil
}

func (r *ring[T]) free() {
	r.slots[r.head%ringSize].turn.Store(r.head + ringSize)
	r.head++
}

// A queue is a ring for each of several workers, so that they do not write to
// the same lines of the cache, and one reader.
type queue[T any] struct {
	rings []*ring[T]
	wake  chan struct{} // receives when a ring is half full
}

func newQueue[T any](workers int) *queue[T] {
	q := &queue[T]{wake: make(chan struct{}, 1)}
	for range workers {
		q.rings = append(q.rings, newRing[T]())
	}
	return q
}

// claim is ring.claim for a worker.
func (q *queue[T]) claim(worker int) *slot[T] { return q.rings[worker%len(q.rings)].claim() }

// commit gives a slot that was claimed to the reader.
func (q *queue[T]) commit(s *slot[T]) {
	if s.commit() {
		select {
		case q.wake <- struct{}{}:
		default: // it will look anyway
		}
	}
}

// drain calls f with the values that wait, and returns how many those were. It
// comes to an end even where values arrive as fast as they are taken.
func (q *queue[T]) drain(f func(*T)) (n int) {
	const rounds = 16
	for range rounds {
		before := n
		for _, r := range q.rings {
			for range ringSize {
				v := r.next()
				if v == nil {
					break
				}
				f(v)
				r.free()
				n++
			}
		}
		if n-before < ringSize/2 {
			break
		}
	}
	return n
}

// takeLost returns how many values were lost since the last call.
func (q *queue[T]) takeLost() (n uint64) {
	for _, r := range q.rings {
		if r.lost.Load() > 0 {
			n += r.lost.Swap(0)
		}
	}
	return n
}
