//go:build linux

package proxy

import (
	"golang.org/x/sys/unix"
)

// turnBytes is how much one direction of a connection may move before the
// others of its loop get their turn.
const turnBytes = 512 << 10

// A way is one direction of a pair while it relays: what was taken from one
// side and could not be given to the other yet. While there is something,
// nothing more is read: TCP slows the sender down.
type way struct {
	pending []byte // to be written, in one of the buffers
	large   *[bufferSize]byte
	small   *[smallBuffer]byte
	preface int // bytes of pending that do not count
	pipe    pipe
	inPipe  int // bytes in pipe, which is held only while there are some

	full   uint8 // full buffers in a row
	noBulk bool  // splice does not work on these sockets
	slow   bool  // the receiver did not keep up; such ones get small buffers
	last   bool  // what is pending is the end of the stream
	done   bool  // the stream has ended or cannot go on
}

func (w *way) isBlocked() bool { return len(w.pending) > 0 || w.inPipe > 0 }

// keep holds what is left of the hot buffer until it can be written.
func (w *way) keep(l *loop, rest []byte) {
	w.slow = true
	if len(rest) <= smallBuffer {
		w.small = takeSpare(&l.small)
		w.pending = w.small[:copy(w.small[:], rest)]
		return
	}
	w.large, w.pending = l.hot, rest
	l.hot = takeSpare(&l.large)
}

// release gives the buffer back.
func (w *way) release(l *loop) {
	putSpare(&l.small, w.small)
	putSpare(&l.large, w.large)
	w.small, w.large, w.pending = nil, nil, nil
}

// drop forgets whatever is held.
func (w *way) drop(l *loop) {
	w.release(l)
	if w.inPipe > 0 {
		l.pipes.give(w.pipe, false)
		w.inPipe = 0
	}
}

func takeSpare[T any](spare *[]*T) *T {
	n := len(*spare)
	if n == 0 {
		return new(T)
	}
	b := (*spare)[n-1]
	*spare = (*spare)[:n-1]
	return b
}

func putSpare[T any](spare *[]*T, b *T) {
	if b != nil && len(*spare) < spareBuffers {
		*spare = append(*spare, b)
	}
}

// begin begins to relay.
func (p *pair) begin() {
	l := p.loop
	p.stage = relaying
	p.since, p.active = l.at, l.at
	p.ends[out].writable, p.ends[in].writable = true, true
	p.ends[in].readable = true // most clients have sent something by now
	p.watchIdle()
	if preface := p.preface(l.hot[:0]); len(preface) > 0 {
		p.ways[in].preface = len(preface)
		p.write(in, preface)
		if p.stage != relaying {
			return
		}
	}
	p.relay()
	// Only now, so that what was there has not to be told by an event.
	if p.stage == relaying && !p.ends[in].registered && !p.register(in) {
		p.end(localFault, true)
	}
}

// relay moves what can be moved.
func (p *pair) relay() {
	for again := true; again; {
		broken := p.broken
		p.flow(in)
		if p.stage != relaying {
			return
		}
		p.flow(out)
		if p.stage != relaying {
			return
		}
		again = p.broken != broken // the first way may now find out something
	}
}

// flow moves the bytes of one direction until there are no more, there is no
// more room, or it is the turn of others. It may end the pair.
func (p *pair) flow(d direction) {
	w, src, dst, l := &p.ways[d], &p.ends[d], &p.ends[1-d], p.loop
	if w.done {
		return
	}
	if w.isBlocked() && (!dst.writable || !p.flush(d)) {
		return
	}
	for moved := 0; !w.last; {
		if !src.readable {
			return
		}
		if moved >= turnBytes {
			l.again = append(l.again, p.id)
			return
		}
		if w.full >= bulkAfter && !w.noBulk {
			n, ok := p.splice(d)
			if !ok {
				return
			}
			moved += n
			continue
		}
		b := l.hot[:]
		if w.slow {
			b = b[:smallBuffer]
		}
		n, err := sysRead(src.fd, b)
		switch {
		case err == unix.EAGAIN:
			src.readable, src.exhaust = false, false
			w.full, w.slow = 0, false
			return
		case err != nil:
			p.failed(d, err, false)
			return
		case n == 0:
			p.closed(d)
			return
		case n == len(b):
			w.full = min(w.full+1, bulkAfter)
		default:
			// The socket was empty after that, so there is no need to see
			// EAGAIN; or the end of the stream.
			w.full, w.slow = 0, false
			if !src.exhaust {
				src.readable, w.last = false, src.ended
			}
		}
		moved += n
		if !p.write(d, b[:n]) {
			return
		}
	}
	p.closed(d)
}

// write writes b and keeps what is left; it reports whether nothing is.
func (p *pair) write(d direction, b []byte) bool {
	p.quicken(1 - d)
	n, err := sysWrite(p.ends[1-d].fd, b)
	if err != nil && err != unix.EAGAIN {
		p.failed(1-d, err, true)
		return false
	}
	p.wrote(d, n)
	if n == len(b) {
		return true
	}
	p.ways[d].keep(p.loop, b[n:])
	p.awaitRoom(1 - d) // a write that is cut short has room announced too
	return false
}

// quicken sets TCP_NODELAY on a side that is written to the second time. The
// algorithm of Nagle (RFC 9293, section 3.7.4) holds nothing back before, and
// many connections write once. The client's side has it from the listener.
func (p *pair) quicken(side direction) {
	switch s := &p.ends[side]; {
	case s.quick:
	case !s.written:
		s.written = true
	default:
		s.quick = true
		_ = sysSetInt(s.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // fails on a socket that is gone, as the write will
	}
}

// awaitRoom has an event tell when there is room to write to a side again.
func (p *pair) awaitRoom(side direction) {
	s := &p.ends[side]
	s.writable = false
	if s.awaits&unix.EPOLLOUT == 0 {
		s.awaits |= unix.EPOLLOUT
		if s.registered && !p.control(unix.EPOLL_CTL_MOD, side) { // tells at once where there is room already
			p.end(localFault, true)
		}
	}
}

// wrote counts n bytes.
func (p *pair) wrote(d direction, n int) {
	if w := &p.ways[d]; w.preface > 0 {
		uncounted := min(n, w.preface)
		w.preface -= uncounted
		n -= uncounted
	}
	if n > 0 {
		p.moved(d, n)
		p.active = p.loop.at
	}
}

// flush writes what is held; it reports whether nothing is any more.
func (p *pair) flush(d direction) bool {
	w, dst, l := &p.ways[d], &p.ends[1-d], p.loop
	p.quicken(1 - d)
	for len(w.pending) > 0 {
		n, err := sysWrite(dst.fd, w.pending)
		if err == unix.EAGAIN {
			p.awaitRoom(1 - d)
			return false
		}
		if err != nil {
			p.failed(1-d, err, true)
			return false
		}
		w.pending = w.pending[n:]
		p.wrote(d, n)
	}
	w.release(l)
	return w.inPipe == 0 || p.drain(d)
}

// splice moves bytes without copying them. It reports how many it brought, and
// false where the way cannot go on now.
func (p *pair) splice(d direction) (brought int, ok bool) {
	w, src, l := &p.ways[d], &p.ends[d], p.loop
	pipe, ok := l.pipes.take()
	if !ok {
		w.full = 0
		return 0, true
	}
	// The pipe is empty, so EAGAIN can only mean that there is nothing to read.
	n, err := splice(src.fd, pipe.w, pipeSize)
	if n <= 0 || err != nil {
		l.pipes.give(pipe, true)
		switch {
		case err == unix.EAGAIN:
			src.readable, src.exhaust = false, false
		case err == unix.EINVAL || err == unix.ENOSYS || err == unix.EPERM:
			w.noBulk = true
			return 0, true
		case err != nil:
			p.failed(d, err, false)
		default:
			p.closed(d)
		}
		return 0, false
	}
	if n < minBulk {
		w.full = 0
	}
	w.pipe, w.inPipe = pipe, n
	return n, p.drain(d)
}

// drain writes what is in the pipe; it reports whether nothing is any more.
func (p *pair) drain(d direction) bool {
	w, dst := &p.ways[d], &p.ends[1-d]
	p.quicken(1 - d)
	for w.inPipe > 0 {
		n, err := splice(w.pipe.r, dst.fd, w.inPipe)
		if err == unix.EAGAIN {
			p.awaitRoom(1 - d)
			return false
		}
		if err == nil && n == 0 {
			err = unix.EPIPE // cannot be: the pipe holds inPipe bytes
		}
		if err != nil {
			p.failed(1-d, err, true)
			return false
		}
		w.inPipe -= n
		p.wrote(d, n)
	}
	p.loop.pipes.give(w.pipe, true)
	return true
}

// closed tells that the stream in direction d has come to its end, with all
// its bytes written.
func (p *pair) closed(d direction) {
	p.ways[d].done = true
	if p.broken != goesOn { // the end of a stream whose other way is broken is no clean one
		p.end(p.broken, true)
		return
	}
	if p.halfClosed {
		p.end(p.first, false)
		return
	}
	p.halfClosed = true
	p.first = clientClosed
	if d == out {
		p.first = backendClosed
	}
	p.active = p.loop.at
	sysShutdown(p.ends[1-d].fd)
	p.watchIdle()
}

// failed tells that a side has failed: from was read from or, with writing,
// written to.
//
// A side that was written to may have sent something before it reset the
// connection, say an answer that says why. So where it can still be read,
// that stream goes on and comes to its end by itself.
func (p *pair) failed(side direction, err error, writing bool) {
	why := brokenBy(side, err)
	switch {
	case p.broken != goesOn:
		p.end(p.broken, true)
	case writing && !p.halfClosed:
		p.broken = why
		w := &p.ways[1-side]
		w.done = true
		w.drop(p.loop)
		p.ends[side].readable, p.ends[side].exhaust = true, true
	default:
		p.end(why, true)
	}
}
