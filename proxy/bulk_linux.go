package proxy

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is the capacity that is asked for, the most that is granted
	// without privileges (fs.pipe-max-size). Without them a user has 64 MiB of
	// pipes (fs.pipe-user-pages-soft) before new ones shrink to 8 KiB;
	// maxPipes of these stay below.
	pipeSize = 1 << 20
	maxPipes = 48
	// minBulk is the least that a splice must bring for a stream to stay bulk:
	// below it, read and write are cheaper.
	minBulk = 8 << 10
)

// A pipe carries bytes from socket to socket inside the kernel.
type pipe struct{ r, w int }

// A pipePool lends pipes to bulk streams. A stream holds one only while bytes
// are in it; who gets none copies.
type pipePool struct {
	free []pipe
	lent int
	most int // that there may be
}

func (p *pipePool) take() (pipe, bool) {
	if n := len(p.free); n > 0 {
		got := p.free[n-1]
		p.free = p.free[:n-1]
		p.lent++
		return got, true
	}
	if p.lent >= p.most {
		return pipe{}, false
	}
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return pipe{}, false // short of descriptors: copying needs none
	}
	_, _ = unix.FcntlInt(uintptr(fd[0]), unix.F_SETPIPE_SZ, pipeSize) // a smaller pipe works too
	p.lent++
	return pipe{fd[0], fd[1]}, true
}

// give takes a pipe back; one that is not empty is closed.
func (p *pipePool) give(got pipe, empty bool) {
	p.lent--
	if empty {
		p.free = append(p.free, got)
		return
	}
	got.close()
}

func (p *pipePool) close() {
	for _, got := range p.free {
		got.close()
	}
	p.free = nil
}

// pipes is a pool for several goroutines.
type pipes struct {
	mu   sync.Mutex
	pool pipePool
}

func newPipes() *pipes { return &pipes{pool: pipePool{most: maxPipes}} }

func (p *pipes) get() (pipe, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pool.take()
}

func (p *pipes) put(got pipe, empty bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pool.give(got, empty)
}

func (p *pipes) close() { p.pool.close() }

func (p pipe) close() {
	_ = unix.Close(p.r) // nothing can be done about a pipe that does not close
	_ = unix.Close(p.w)
}

// bulk is the part of a stream that splices.
type bulk struct {
	pipe   pipe
	inPipe int
	none   bool // splice does not work on these sockets
}

// runBulk splices while that pays. It reports done when the stream has ended,
// which it has told the pair; otherwise the stream goes on by copying.
func (s *stream) runBulk() (done bool) {
	for !s.bulk.none {
		// The pipe is empty, so EAGAIN can only mean that there is nothing to read.
		lacking := false
		err := s.src.raw.Read(func(fd uintptr) bool {
			var ok bool
			if s.bulk.pipe, ok = s.pair.engine.pipes.get(); !ok {
				lacking = true
				return true
			}
			s.n, s.err = splice(int(fd), s.bulk.pipe.w, pipeSize)
			s.bulk.inPipe = max(0, s.n)
			if s.err != nil || s.n == 0 {
				s.pair.engine.pipes.put(s.bulk.pipe, true)
			}
			return s.err != unix.EAGAIN
		})
		switch {
		case lacking:
			return false
		case err == nil && (s.err == unix.EINVAL || s.err == unix.ENOSYS || s.err == unix.EPERM):
			s.bulk.none = true
			return false
		case err == nil:
			err = s.err
		}
		if err != nil {
			s.pair.failed(s.direction, err, false)
			return true
		}
		if s.n == 0 {
			s.pair.closed(s.direction)
			return true
		}
		brought := s.n
		err = s.dst.raw.Write(s.drain)
		s.pair.engine.pipes.put(s.bulk.pipe, s.bulk.inPipe == 0)
		if err == nil {
			err = s.err
		}
		if err != nil {
			s.pair.failed(1-s.direction, err, true)
			return true
		}
		if brought < minBulk {
			return false
		}
	}
	return false
}

// drain moves what is in the pipe to the other side.
func (s *stream) drain(fd uintptr) bool {
	for s.bulk.inPipe > 0 {
		var n int
		n, s.err = splice(s.bulk.pipe.r, int(fd), s.bulk.inPipe)
		if s.err == unix.EAGAIN {
			return false
		}
		if s.err == nil && n == 0 {
			s.err = syscall.EPIPE // cannot be: the pipe holds inPipe bytes
		}
		if s.err != nil {
			return true
		}
		s.bulk.inPipe -= n
		s.pair.moved(s.direction, n)
		s.pair.touch()
	}
	s.err = nil
	return true
}

// splice moves up to n bytes without waiting. SPLICE_F_MORE is never set: it
// holds back the last segment for up to 200 ms.
func splice(from, to, n int) (int, error) {
	for {
		moved, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(moved), err
		}
	}
}
