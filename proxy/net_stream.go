package proxy

import "syscall"

// bulkAfter is how many full buffers in a row make a stream bulk, for which
// the kernel moves the bytes by itself where it can.
const bulkAfter = 2

// A stream moves the bytes of one direction.
//
// It goes past io.Copy on purpose. A stream that waits holds neither buffer
// nor pipe (io.Copy holds a pipe of up to 1 MiB), every byte is counted as it
// is written, so that a slow receiver does not look idle, and small messages
// take one read and one write.
type stream struct {
	pair      *netPair
	direction direction
	src, dst  *end

	// tryRead and tryWrite are what src.raw.Read and dst.raw.Write call until
	// they report true; made once.
	tryRead, tryWrite func(fd uintptr) bool

	buffer  *[bufferSize]byte // nil while there is nothing in it
	pending []byte            // to be written
	n       int               // what tryRead has read
	err     error             // of the last system call
	full    int               // full buffers in a row
	bulk    bulk
}

func newStream(p *netPair, d direction) *stream {
	s := &stream{pair: p, direction: d, src: &p.ends[d], dst: &p.ends[1-d]}
	s.tryRead, s.tryWrite = s.read, s.write
	return s
}

// run writes preface and then all that comes, until one of the sides has
// closed or failed.
func (s *stream) run(preface []byte) {
	from, to := s.direction, 1-s.direction
	if len(preface) > 0 {
		s.pending = preface
		if err := s.flush(false); err != nil {
			s.pair.failed(to, err, true)
			return
		}
	}
	for {
		if s.full >= bulkAfter {
			s.full = 0
			if done := s.runBulk(); done {
				return
			}
		}
		if err := s.fill(); err != nil {
			s.pair.failed(from, err, false)
			return
		}
		if s.n == 0 {
			s.pair.closed(s.direction)
			return
		}
		s.pending = s.buffer[:s.n]
		if s.n == len(s.buffer) {
			s.full++
		} else {
			s.full = 0
		}
		err := s.flush(true)
		s.pair.engine.buffers.Put(s.buffer)
		s.buffer = nil
		if err != nil {
			s.pair.failed(to, err, true)
			return
		}
	}
}

// fill waits for bytes and reads them into a buffer; s.n is 0 at the end
// of the stream.
func (s *stream) fill() error {
	if err := s.src.raw.Read(s.tryRead); err != nil {
		return err
	}
	return s.err
}

func (s *stream) read(fd uintptr) bool {
	if s.buffer == nil {
		s.buffer = s.pair.engine.buffers.Get().(*[bufferSize]byte)
	}
	for {
		s.n, s.err = syscall.Read(int(fd), s.buffer[:])
		if s.err != syscall.EINTR {
			break
		}
	}
	if s.err != nil || s.n == 0 {
		s.pair.engine.buffers.Put(s.buffer)
		s.buffer = nil
	}
	return s.err != syscall.EAGAIN
}

// flush writes what is pending, all of it; payload says whether it counts.
func (s *stream) flush(payload bool) error {
	try := s.tryWrite
	if !payload {
		try = s.writeUncounted
	}
	if err := s.dst.raw.Write(try); err != nil {
		return err
	}
	return s.err
}

func (s *stream) write(fd uintptr) bool { return s.writePending(fd, true) }

func (s *stream) writeUncounted(fd uintptr) bool { return s.writePending(fd, false) }

func (s *stream) writePending(fd uintptr, count bool) bool {
	for len(s.pending) > 0 {
		var n int
		n, s.err = syscall.Write(int(fd), s.pending)
		switch {
		case s.err == syscall.EINTR:
		case s.err == syscall.EAGAIN:
			return false
		case s.err != nil:
			return true
		default:
			s.pending = s.pending[n:]
			if count {
				s.pair.moved(s.direction, n)
				s.pair.touch()
			}
		}
	}
	s.err = nil
	return true
}
