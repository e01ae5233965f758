//go:build linux

package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair returns the two sides over a real socketpair. The new process is one
// that waits for nothing.
func pair(t *testing.T) (*Successor, *Predecessor) {
	t.Helper()
	ours, theirs, err := newPair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(theirs.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err = errors.Join(err, theirs.Close()); err != nil {
		t.Fatal(err)
	}
	l, err := newLink(fd)
	if err != nil {
		t.Fatal(err)
	}
	s := &Successor{cmd: exec.Command("true"), link: ours, exited: make(chan struct{})}
	close(s.exited)
	t.Cleanup(func() { ours.Close(); l.Close() })
	return s, &Predecessor{l}
}

// openDescriptors counts those of this process.
func openDescriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestConversation(t *testing.T) {
	before := openDescriptors(t)
	old, young := pair(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// More than fit into a packet, and more than fit into the buffers.
	const sockets = 3*maxDescriptors + 1
	long := strings.Repeat("long \"text\" ", 100_000)
	var e Estate
	for i := range sockets {
		if err := raw.Control(func(fd uintptr) { err = e.AddSocket(fmt.Sprintf("tcp %d", i/2), int(fd)) }); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(e.Save("long", long), e.Save("empty", ""), e.Save("short", 7)); err != nil {
		t.Fatal(err)
	}
	given := make(chan error, 1)
	go func() {
		given <- errors.Join(old.Prepared(t.Context()), old.Give(t.Context(), &e), old.Ready(t.Context()), old.Leave(t.Context()))
		e.Close()
		l.Close()
	}()
	in, err := young.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := young.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-given; err != nil {
		t.Fatal(err)
	}
	var text string
	if ok, err := in.Load("long", &text); !ok || err != nil || text != long {
		t.Errorf("the long document has %d bytes, %v, %v", len(text), ok, err)
	}
	var n int
	if ok, err := in.Load("short", &n); !ok || err != nil || n != 7 {
		t.Errorf("the short document is %d, %v, %v", n, ok, err)
	}
	if ok, err := in.Load("other", &n); ok || err != nil {
		t.Errorf("a document that was not given: %v, %v", ok, err)
	}
	if _, err := in.Load("long", &n); err == nil {
		t.Error("a text was decoded as a number")
	}
	for i := range sockets / 2 {
		fds := in.Take(fmt.Sprintf("tcp %d", i))
		if len(fds) != 2 {
			t.Fatalf("socket %d: %d descriptors", i, len(fds))
		}
		for _, fd := range fds {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor flags are %#x, %v: the next program would inherit it unasked", flags, err)
			}
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
				t.Errorf("file flags are %#x, %v: it blocks", flags, err)
			}
		}
		if i == 0 { // listens on, although the other one has closed it
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
		closeAll(fds)
		if again := in.Take(fmt.Sprintf("tcp %d", i)); again != nil {
			t.Error("a socket was taken twice")
		}
	}
	if rest := in.Close(); len(rest) != 1 {
		t.Errorf("not taken: %v", rest)
	}
	// The end of the old one is seen.
	waited := make(chan error, 1)
	go func() { waited <- young.Wait(t.Context()) }()
	select {
	case err := <-waited:
		t.Fatalf("the old process has not ended: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	old.link.Close()
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if after := openDescriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// What a new process may do wrong: each is an error in words, soon.
func TestBadSuccessor(t *testing.T) {
	long := string(bytes.Repeat([]byte("x"), maxReason))
	for _, c := range []struct {
		what string
		does func(*Predecessor)
		says string
	}{
		{"it ends", func(p *Predecessor) { p.link.Close() }, "ended: exit status 0"},
		{"it says nothing", func(*Predecessor) {}, "too late"},
		{"it gives up", func(p *Predecessor) { p.Fail(errors.New("no\x1b[31m way")) }, "gives up: no\uFFFD[31m way"},
		{"it gives up at length", func(p *Predecessor) { p.Fail(errors.New(long + long)) }, "gives up: " + long},
		{"it is ready too early", func(p *Predecessor) { _ = p.link.send(t.Context(), ready, nil) }, `said "ready" where "prepared" was due`},
		{"nonsense", func(p *Predecessor) { _ = p.link.send(t.Context(), 'Z', []byte("\x00\xff")) }, `said "packet 'Z'"`},
		{"a packet too long", func(p *Predecessor) { _ = p.link.send(t.Context(), prepared, make([]byte, maxPayload+1)) }, "more than 32768 bytes"},
		{"descriptors", func(p *Predecessor) { _ = p.link.send(t.Context(), givesUp, []byte("x"), 0, 1, 2) }, "gives up: x"},
	} {
		t.Run(c.what, func(t *testing.T) {
			old, young := pair(t)
			before := openDescriptors(t)
			ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("too late"))
			defer cancel()
			c.does(young)
			err := old.Prepared(ctx)
			if err == nil || !strings.HasSuffix(err.Error(), c.says) && !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if after := openDescriptors(t); after > before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

// A new process that does not read holds up the old one for its time alone.
func TestSlowSuccessor(t *testing.T) {
	old, _ := pair(t)
	var e Estate
	if err := e.Save("long", make([]byte, 4<<20)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("too late"))
	defer cancel()
	if err := old.Give(ctx, &e); err == nil || !strings.Contains(err.Error(), "too late") {
		t.Errorf("got %v", err)
	}
}

// What an old process may do wrong, seen from the new one.
func TestBadPredecessor(t *testing.T) {
	send := func(k kind, payload string, fds ...int) func(*link) error {
		return func(l *link) error { return l.send(t.Context(), k, []byte(payload), fds...) }
	}
	for _, c := range []struct {
		what string
		does func(*link) error
		says string
	}{
		{"it ends", (*link).Close, "it has ended"},
		{"another answer", send(leaving, ""), `said "leaving"`},
		{"names are not JSON", send(sockets, "x", 0), "names of sockets"},
		{"more names than sockets", send(sockets, `["a","b"]`, 0), "2 names for 1 sockets"},
		{"more sockets than names", send(sockets, `["a"]`, 0, 1, 2), "1 names for 3 sockets"},
		{"an empty document", send(document, ""), "without a name"},
		{"a name cut short", send(document, "\x05abc"), "without a name"},
		{"too many documents", func(l *link) error {
			for i := range maxDocuments + 1 {
				if err := send(document, fmt.Sprintf("\x02%02d{}", i))(l); err != nil {
					return err
				}
			}
			return nil
		}, "more than 64 documents"},
	} {
		t.Run(c.what, func(t *testing.T) {
			old, young := pair(t)
			before := openDescriptors(t)
			done := make(chan error, 1)
			go func() { done <- c.does(old.link) }()
			in, err := young.Receive(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, %v, want %q", in, err, c.says)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			if after := openDescriptors(t); after > before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

func TestInheritNothing(t *testing.T) {
	for _, c := range []struct{ value, says string }{
		{"x", "is no descriptor"},
		{"1", "is no descriptor"},
		{"99999", "99999"},
	} {
		t.Setenv(variable, c.value)
		if p, err := Inherit(); p != nil || err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, %v", c.value, p, err)
		}
	}
	if p, err := Inherit(); p != nil || err != nil {
		t.Errorf("without the variable: %v, %v", p, err)
	}
	var p *Predecessor
	p.Fail(io.EOF) // nobody to tell
	var in *Inheritance
	if ok, err := in.Load("x", nil); ok || err != nil || in.Take("x") != nil || in.Close() != nil {
		t.Error("a nil Inheritance is not empty")
	}
}

func TestEstateIsBounded(t *testing.T) {
	var e Estate
	long := strings.Repeat("n", maxName+1)
	if e.Save("", 1) == nil || e.Save(long, 1) == nil || e.AddSocket("", 0) == nil || e.AddSocket(long, 0) == nil {
		t.Error("a name of no or too many bytes was accepted")
	}
	if e.AddSocket("closed", 1<<20) == nil {
		t.Error("a descriptor that is not open was accepted")
	}
	if err := e.Save("x", func() {}); err == nil {
		t.Error("a function was encoded")
	}
	if len(e.documents) != 0 || len(e.fds) != 0 {
		t.Errorf("%v", json.RawMessage(fmt.Sprint(e)))
	}
}

func TestProgram(t *testing.T) {
	p, err := ThisProgram()
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(p.Path()) || p.Changed() {
		t.Errorf("%s changed: %v", p.Path(), p.Changed())
	}
	other := *p
	other.path = filepath.Join(t.TempDir(), "elbow")
	if other.Changed() {
		t.Error("a missing file is no other program")
	}
	if err := os.WriteFile(other.path, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if !other.Changed() {
		t.Error("another file was not noticed")
	}
	if s, err := other.Start(); err == nil { // an empty file cannot be executed
		s.Kill()
		t.Error("an empty file was started")
	}
}
