package proxy

import (
	"sync"
	"sync/atomic"
)

// A queue holds the connections of a service that wait because every backend
// is full, first come first served. Nobody overtakes: while somebody waits,
// whoever comes new joins the end.
//
// No wake-up is lost: a session first joins and then looks for room, a
// connection that ends first gives its room back and then looks at waiting.
type queue struct {
	waiting atomic.Int64

	mu          sync.Mutex // taken only while somebody waits
	first, last *session   // linked by session.after
}

// join adds s to the end unless length wait already. It reports whether s
// waits now and whether it is the first.
func (q *queue) join(s *session, length int) (joined, first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting.Load() >= int64(length) {
		return false, false
	}
	q.waiting.Add(1)
	s.before, s.after = q.last, nil
	if q.last == nil {
		q.first = s
	} else {
		q.last.after = s
	}
	q.last = s
	return true, q.first == s
}

// leave removes s, which waits, and wakes who is the first now.
func (q *queue) leave(s *session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.before == nil {
		q.first = s.after
	} else {
		s.before.after = s.after
	}
	if s.after == nil {
		q.last = s.before
	} else {
		s.after.before = s.before
	}
	s.before, s.after = nil, nil
	q.waiting.Add(-1)
	if q.first != nil {
		q.first.waker.resume()
	}
}

// isFirst reports whether it is the turn of s.
func (q *queue) isFirst(s *session) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.first == s
}

// wake lets the first one look for room.
func (q *queue) wake() {
	if q.waiting.Load() == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.first != nil {
		q.first.waker.resume() // under the lock: who waits has not ended
	}
}
