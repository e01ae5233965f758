//go:build chaos && linux

package chaos

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"time"
)

// A mode is what the backend does in a session.
type mode uint64

const (
	exchange   mode = iota // receives and sends at the same time, until the client has closed
	mirror                 // answers each piece with as many bytes of its own, until the client has closed
	answerLate             // sends once the client has closed its side, and Pause has gone by
	closeFirst             // sends and closes its side, then receives until the client closes
	resetLate              // resets in the middle of an endless stream, once all of Up has come
	offer                  // sends until the client sends a byte, then closes
)

// A script is what the client tells the backend at the begin of a session.
type script struct {
	Seed     uint64
	Mode     mode
	Up, Down uint64        // bytes after the script
	Pause    time.Duration // before what is late
}

const scriptSize = 40

// client and backend bytes are streams of their own.
func (s script) up() *seeded   { return newSeeded(2 * s.Seed) }
func (s script) down() *seeded { return newSeeded(2*s.Seed + 1) }

// A seeded stream is endless and can be repeated.
type seeded struct {
	bytes *rand.ChaCha8
	at    uint64 // bytes so far
	want  []byte
}

func newSeeded(seed uint64) *seeded {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return &seeded{bytes: rand.NewChaCha8(key)}
}

// Read never fails.
func (s *seeded) Read(b []byte) (int, error) {
	s.at += uint64(len(b))
	return s.bytes.Read(b)
}

// errCorrupt is the error of bytes that are not those of the stream.
var errCorrupt = errors.New("other bytes than were sent")

// Write compares b with what the stream has next.
func (s *seeded) Write(b []byte) (int, error) {
	s.want = append(s.want[:0], b...)
	s.Read(s.want)
	if !bytes.Equal(b, s.want) {
		return 0, fmt.Errorf("%w, in the %d before byte %d", errCorrupt, len(b), s.at)
	}
	return len(b), nil
}

// send writes the next n bytes of s to c; sent counts what was written.
func send(c net.Conn, s *seeded, n uint64, sent *uint64) error {
	b := make([]byte, min(n, 64<<10))
	for n > 0 {
		piece := b[:min(n, uint64(len(b)))]
		s.Read(piece)
		m, err := c.Write(piece)
		*sent += uint64(m)
		if err != nil {
			return err
		}
		n -= uint64(m)
	}
	return nil
}

// receive reads n bytes that must be the next of s, or all until the end of
// the stream if n is negative.
func receive(c io.Reader, s *seeded, n int64, received *uint64) error {
	b := make([]byte, 64<<10)
	for n != 0 {
		piece := b
		if n > 0 {
			piece = b[:min(n, int64(len(b)))]
		}
		m, err := c.Read(piece)
		*received += uint64(m)
		if _, err := s.Write(piece[:m]); err != nil {
			return err
		}
		switch {
		case err == io.EOF && n < 0:
			return nil
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
		if n > 0 {
			n -= int64(m)
		}
	}
	return nil
}

// receiveEnd expects the end of the stream and nothing before it.
func receiveEnd(c io.Reader) error {
	var b [1]byte
	n, err := c.Read(b[:])
	switch {
	case n > 0:
		return fmt.Errorf("%w: more", errCorrupt)
	case err == io.EOF:
		return nil
	}
	return err
}

// reset closes c with an RST.
func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// closeWrite ends what this side sends.
func closeWrite(c net.Conn) error { return c.(*net.TCPConn).CloseWrite() }

// awaitError waits until c, on which nothing more is to come, breaks.
func awaitError(c net.Conn) error {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	for {
		var value int
		if e := raw.Control(func(fd uintptr) { value, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR) }); e != nil {
			return e
		}
		if err != nil {
			return err
		}
		if value != 0 {
			return syscall.Errno(value)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// errCutByUs marks a session that its client has reset.
var errCutByUs = errors.New("reset by the client")

// end names how a connection has ended for one of its sides.
func end(err error) string {
	switch {
	case err == nil:
		return "closed"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return "cut short"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "hangs"
	}
	return err.Error()
}
