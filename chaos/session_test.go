//go:build chaos && linux

package chaos

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"haslohas.com/elbow/internal/elbowtest"
)

// A session is one connection as its client sees it.
type session struct {
	*world
	script
	conn           net.Conn
	begin          time.Time
	up, down       *seeded
	sent, received uint64 // with the script
	err            error
	reasons        []string // what the log may say; nil: client-closed
}

// patience is how long a session may take before it is said to hang.
const patience = 110 * time.Second

// dial begins a session from one of the clients' addresses.
func (w *world) dial(from string, sc script) (*session, error) {
	sc.Seed = w.seeds.Add(1)
	s := &session{world: w, script: sc, begin: time.Now(), up: sc.up(), down: sc.down()}
	dialer := net.Dialer{
		Timeout:   patience,
		KeepAlive: -1, // what finds a peer that is gone is elbow's keep-alive
		LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)},
		Control: func(_, _ string, raw syscall.RawConn) (err error) {
			if w.readBuffer == 0 {
				return nil
			}
			e := raw.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, w.readBuffer)
			})
			return errors.Join(err, e)
		},
	}
	err := w.clients.do(func() (err error) {
		s.conn, err = dialer.Dial("tcp4", listen)
		return err
	})
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.sessions = append(w.sessions, s)
	w.mu.Unlock()
	w.t.Cleanup(func() { s.conn.Close() })
	if err := s.conn.SetDeadline(s.begin.Add(patience)); err != nil {
		return nil, err
	}
	head, err := binary.Append(nil, binary.LittleEndian, sc)
	if err != nil {
		return nil, err
	}
	n, err := s.conn.Write(head)
	s.sent = uint64(n)
	if err != nil {
		s.err = err
		s.conn.Close()
	}
	return s, nil
}

func (w *world) open(sc script) *session { w.t.Helper(); return w.openFrom(clientA, sc) }

func (w *world) openFrom(from string, sc script) *session {
	w.t.Helper()
	s, err := w.dial(from, sc)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// mayEnd says what the log may say of s.
func (s *session) mayEnd(reasons ...string) *session { s.reasons = reasons; return s }

// run plays the client's part of an exchange to its end.
func (s *session) run() error {
	if s.err == nil {
		sent := make(chan error, 1)
		go func() { sent <- send(s.conn, s.up, s.Up, &s.sent) }()
		err := receive(s.conn, s.down, int64(s.Down), &s.received)
		if e := <-sent; err == nil {
			err = e
		}
		if err == nil {
			err = s.close()
		}
		s.err = err
	}
	s.conn.Close()
	return s.err
}

// ping sends n bytes to a mirror and receives as many.
func (s *session) ping(n int) error {
	if err := send(s.conn, s.up, uint64(n), &s.sent); err != nil {
		return err
	}
	return receive(s.conn, s.down, int64(n), &s.received)
}

// close closes the client's side, and the connection once the backend has
// closed too.
func (s *session) close() error {
	err := closeWrite(s.conn)
	if err == nil {
		err = receiveEnd(s.conn)
	}
	s.conn.Close()
	return err
}

// A load is a steady stream of sessions, each begun at its time whether or not
// earlier ones have ended.
type load struct{ stop func() []*session }

// startLoad exchanges up to 64 KiB each way perSecond times a second, and every
// hundredth time some megabytes. What the log may say of each is given.
func (w *world) startLoad(perSecond int, reasons ...string) *load {
	var (
		mu   sync.Mutex
		all  []*session
		wg   sync.WaitGroup
		done = make(chan struct{})
	)
	wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for i := uint64(0); ; i++ {
			select {
			case <-done:
				return
			case <-tick.C:
				wg.Go(func() {
					sc := script{Mode: exchange, Up: i * 7919 % (64 << 10), Down: i * 104729 % (64 << 10)}
					if i%100 == 0 {
						sc.Up, sc.Down = sc.Up+4<<20, sc.Down+4<<20
					}
					s, err := w.dial(clientA, sc)
					if err != nil {
						w.t.Errorf("a client cannot connect: %v", err)
						return
					}
					s.mayEnd(reasons...).run()
					mu.Lock()
					defer mu.Unlock()
					all = append(all, s)
				})
			}
		}
	})
	return &load{stop: sync.OnceValue(func() []*session {
		close(done)
		wg.Wait()
		return all
	})}
}

// A line is one of the connection log.
type line struct {
	Client   string
	Backend  string
	BytesIn  uint64 `json:"bytes_in"`
	BytesOut uint64 `json:"bytes_out"`
	Reason   string
	Retries  int
}

func (w *world) log() []line {
	w.t.Helper()
	var all []line
	for text := range strings.Lines(string(w.elbow.ReadFile("connections.log"))) {
		if !strings.HasSuffix(text, "\n") {
			break // it is being written
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			w.t.Fatalf("connection log: %q: %v", text, err)
		}
		all = append(all, l)
	}
	return all
}

// settle closes the books: every session is logged once, for a reason that it
// may have, and its bytes are accounted for on the way from end to end; then
// elbow holds what it held in the beginning. It returns what was logged of each session.
func (w *world) settle() map[*session]line {
	w.t.Helper()
	for _, s := range w.sessions {
		s.conn.Close()
	}
	var log []line
	elbowtest.Eventually(w.t, 10*time.Second, "every session is logged", func() bool {
		log = w.log()
		return len(log) >= len(w.sessions)
	})
	if len(log) > len(w.sessions) {
		w.t.Errorf("%d lines for %d sessions", len(log), len(w.sessions))
	}
	lines := make(map[string][]line)
	for _, l := range log {
		lines[l.Client] = append(lines[l.Client], l)
	}
	logged := make(map[*session]line)
	for _, s := range w.sessions {
		client := s.conn.LocalAddr().String()
		if len(lines[client]) == 0 {
			w.t.Errorf("no line for %s", client)
			continue
		}
		logged[s], lines[client] = lines[client][0], lines[client][1:]
		w.account(s, logged[s])
	}
	w.atRest()
	return logged
}

// account compares what client, elbow and backend tell of a session.
func (w *world) account(s *session, l line) {
	w.t.Helper()
	if s.reasons == nil {
		s.reasons = []string{"client-closed"}
	}
	if !slices.Contains(s.reasons, l.Reason) {
		w.t.Errorf("session %d ended as %s (client: %v), want %v", s.Seed, l.Reason, s.err, s.reasons)
	}
	if errors.Is(s.err, errCorrupt) {
		w.t.Errorf("session %d: the client received %v", s.Seed, s.err)
	}
	clean := l.Reason == "client-closed" || l.Reason == "backend-closed"
	var r record
	ok, lost := false, false
	for _, b := range w.backends {
		if b.address == l.Backend {
			r, ok = b.awaitRecord(s.Seed, clean && !b.died)
			lost = !ok && b.died
		}
	}
	if strings.Contains(r.End, errCorrupt.Error()) {
		w.t.Errorf("session %d: the backend received %s", s.Seed, r.End)
	}
	if s.sent < l.BytesIn || l.BytesOut < s.received || ok && (l.BytesIn < r.Received || r.Sent < l.BytesOut) {
		w.t.Errorf("session %d: in: client %d, elbow %d, backend %d; out: backend %d, elbow %d, client %d",
			s.Seed, s.sent, l.BytesIn, r.Received, r.Sent, l.BytesOut, s.received)
	}
	if !clean || s.err != nil || lost && s.sent == l.BytesIn && l.BytesOut == s.received {
		return
	}
	if !ok || s.sent != l.BytesIn || l.BytesIn != r.Received || r.Sent != l.BytesOut || l.BytesOut != s.received || r.End != "closed" {
		w.t.Errorf("session %d ended well (backend: %q) and bytes are missing: in: client %d, elbow %d, backend %d; out: backend %d, elbow %d, client %d",
			s.Seed, r.End, s.sent, l.BytesIn, r.Received, r.Sent, l.BytesOut, s.received)
	}
}
