package dnstap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// contentType is what both sides of a Frame Stream call the frames of dnstap.
const contentType = "protobuf:dnstap.Dnstap"

// The control frames, fstrm/control.h.
const (
	controlAccept = 1
	controlStart  = 2
	controlStop   = 3
	controlReady  = 4
	controlFinish = 5

	fieldContentType = 1

	maxControl = 512 // octets
)

// A Stream writes frames to a reader. It serves one goroutine.
type Stream struct {
	conn  net.Conn
	limit time.Duration // that a write may take
}

// Open begins a bidirectional Frame Stream on conn: it offers the reader frames of
// dnstap and waits, as for every step later on, for at most limit. An error leaves
// conn open.
func Open(conn net.Conn, limit time.Duration) (*Stream, error) {
	s := &Stream{conn: conn, limit: limit}
	if err := s.send(controlReady, true); err != nil {
		return nil, fmt.Errorf("greeting the reader: %w", err)
	}
	accepted, err := s.await(controlAccept)
	switch {
	case err != nil:
		return nil, fmt.Errorf("awaiting what the reader accepts: %w", err)
	case !accepted:
		return nil, errors.New("the reader does not accept " + contentType)
	}
	if err := s.send(controlStart, true); err != nil {
		return nil, fmt.Errorf("starting the stream: %w", err)
	}
	return s, nil
}

// Write sends whole frames. After an error the stream is of no more use.
func (s *Stream) Write(frames []byte) error {
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.limit)); err != nil {
		return fmt.Errorf("writing frames: %w", err)
	}
	if _, err := s.conn.Write(frames); err != nil {
		return fmt.Errorf("writing frames: %w", err)
	}
	return nil
}

// Finish ends the stream and waits for the reader to say that it has all. It
// leaves the connection open.
func (s *Stream) Finish() error {
	if err := s.send(controlStop, false); err != nil {
		return fmt.Errorf("ending the stream: %w", err)
	}
	if _, err := s.await(controlFinish); err != nil {
		return fmt.Errorf("awaiting that the reader has all: %w", err)
	}
	return nil
}

func (s *Stream) send(control uint32, typed bool) error {
	frame := make([]byte, 8, 64) // the escape: a data frame of no length
	frame = binary.BigEndian.AppendUint32(frame, control)
	if typed {
		frame = binary.BigEndian.AppendUint32(frame, fieldContentType)
		frame = binary.BigEndian.AppendUint32(frame, uint32(len(contentType)))
		frame = append(frame, contentType...)
	}
	binary.BigEndian.PutUint32(frame[4:], uint32(len(frame)-8))
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.limit)); err != nil {
		return err
	}
	_, err := s.conn.Write(frame)
	return err
}

// await reads the control frame that must come now. It reports whether the
// frame names the content type, or none, which stands for any.
func (s *Stream) await(control uint32) (ours bool, err error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(s.limit)); err != nil {
		return false, err
	}
	var head [12]byte
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		return false, err
	}
	size := binary.BigEndian.Uint32(head[4:])
	if escape := binary.BigEndian.Uint32(head[:]); escape != 0 || size < 4 || size > maxControl {
		return false, errors.New("the reader does not speak Frame Streams")
	}
	if got := binary.BigEndian.Uint32(head[8:]); got != control {
		return false, fmt.Errorf("got control frame %d instead of %d", got, control)
	}
	fields := make([]byte, size-4)
	if _, err := io.ReadFull(s.conn, fields); err != nil {
		return false, err
	}
	ours = len(fields) == 0
	for len(fields) > 0 {
		if len(fields) < 8 {
			return false, errors.New("a control frame ends within a field")
		}
		field, length := binary.BigEndian.Uint32(fields), binary.BigEndian.Uint32(fields[4:])
		if uint64(length) > uint64(len(fields)-8) {
			return false, errors.New("a control frame ends within a field")
		}
		ours = ours || field == fieldContentType && string(fields[8:8+length]) == contentType
		fields = fields[8+length:]
	}
	return ours, nil
}
