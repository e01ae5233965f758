//go:build chaos && linux

package chaos

import (
	"testing"
	"time"
)

func TestResetMidStream(t *testing.T) {
	const endless = 1 << 40
	withEachEngine(t, func(t *testing.T, engine string) {
		w := newWorld(t, setting{engine: engine})
		sent := make(chan error, 1)
		for _, bytes := range []uint64{1, 10_000, 16 << 20} {
			// The client resets, with bytes under way both ways, from it, and to it.
			for _, sc := range []script{
				{Mode: exchange, Up: endless, Down: endless},
				{Mode: exchange, Up: endless, Down: bytes},
				{Mode: exchange, Down: endless},
			} {
				s := w.open(sc).mayEnd("client-reset")
				go func() { sent <- send(s.conn, s.up, sc.Up, &s.sent) }()
				if err := receive(s.conn, s.down, int64(bytes), &s.received); err != nil {
					t.Fatal(err)
				}
				reset(s.conn)
				<-sent
				s.err = errCutByUs
				if r, _ := w.backends[0].awaitRecord(s.Seed, true); r.End != "reset" {
					t.Errorf("after %d bytes: the backend of a client that resets sees %q", bytes, r.End)
				}
			}

			// The backend resets, with bytes under way both ways and with none.
			for _, down := range []uint64{endless, 0} {
				s := w.open(script{Mode: resetLate, Up: bytes, Down: down}).mayEnd("backend-reset")
				go func() { sent <- send(s.conn, s.up, bytes, &s.sent) }()
				s.err = receive(s.conn, s.down, -1, &s.received)
				if !isReset(s.err) {
					t.Errorf("after %d bytes: the client of a backend that resets sees %q", bytes, end(s.err))
				}
				<-sent
			}

			// A client that says nothing resets.
			s := w.open(script{Mode: mirror}).mayEnd("client-reset")
			if err := s.ping(int(bytes)); err != nil {
				t.Fatal(err)
			}
			reset(s.conn)
			if r, _ := w.backends[0].awaitRecord(s.Seed, true); r.End != "reset" {
				t.Errorf("the backend of a silent client that resets sees %q", r.End)
			}
			s.err = errCutByUs
		}
		w.settle()
	})
}

func TestHalfClose(t *testing.T) {
	const (
		late  = 4 * time.Second
		bytes = 5<<20 + 1
	)
	withEachEngine(t, func(t *testing.T, engine string) {
		// What comes late is not late for idleTimeout: another clock runs.
		w := newWorld(t, setting{engine: engine, service: "    idleTimeout: 3s\n    halfCloseTimeout: 5s"})

		// The client closes its side first, the backend's answer is late.
		s := w.open(script{Mode: answerLate, Up: bytes, Down: bytes, Pause: late})
		s.err = send(s.conn, s.up, bytes, &s.sent)
		if s.err == nil {
			s.err = closeWrite(s.conn)
		}
		if s.err == nil {
			s.err = receive(s.conn, s.down, -1, &s.received)
		}
		if s.err != nil || s.received != bytes {
			t.Errorf("a late answer: %d of %d bytes, %v", s.received, uint64(bytes), s.err)
		}

		// The backend closes its side first, the client goes on late.
		s = w.open(script{Mode: closeFirst, Down: bytes}).mayEnd("backend-closed")
		s.err = receive(s.conn, s.down, -1, &s.received)
		if s.err != nil || s.received != bytes {
			t.Errorf("from a backend that closes first: %d of %d bytes, %v", s.received, uint64(bytes), s.err)
		}
		<-time.After(late)
		if s.err = send(s.conn, s.up, bytes, &s.sent); s.err == nil {
			s.err = closeWrite(s.conn)
		}
		if s.err != nil {
			t.Errorf("to a backend that has closed first: %v", s.err)
		}
		if r, ok := w.backends[0].awaitRecord(s.Seed, true); !ok || r.Received != scriptSize+bytes || r.End != "closed" {
			t.Errorf("the backend that has closed first received %d bytes and sees %q", r.Received, r.End)
		}

		// A side that has closed does not wait for ever.
		for _, sc := range []script{
			{Mode: answerLate, Up: bytes, Down: bytes, Pause: 3 * late},
			{Mode: closeFirst, Down: bytes},
		} {
			s = w.open(sc).mayEnd("half-close-timeout")
			if s.err = send(s.conn, s.up, sc.Up, &s.sent); s.err == nil && sc.Mode == answerLate {
				s.err = closeWrite(s.conn)
			}
			if s.err != nil {
				t.Fatal(s.err)
			}
			begin := time.Now()
			if s.err = receive(s.conn, s.down, -1, &s.received); s.err == nil { // the backend has closed: wait for the reset
				if s.received != bytes {
					t.Errorf("%d of %d bytes before the end", s.received, uint64(bytes))
				}
				s.err = awaitError(s.conn)
			}
			if took := time.Since(begin); !isReset(s.err) || took < 4900*time.Millisecond || took > 2*late+2*time.Second {
				t.Errorf("after a half-close and silence the client sees %q after %s", end(s.err), took)
			}
			if r, _ := w.backends[0].awaitRecord(s.Seed, true); sc.Mode == closeFirst && r.End != "reset" {
				t.Errorf("after a half-close and silence the backend sees %q", r.End)
			}
		}
		w.settle()
	})
}
