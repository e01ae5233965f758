package admin

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"haslohas.com/elbow/pool"
)

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// socketPath is a short one: the path of a socket is limited.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "elbow")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "elbow.sock")
}

func TestServesAndEnds(t *testing.T) {
	path := socketPath(t)
	s := server(calm(7), func(o *Options) { o.Listen, o.Socket = anyPort, path })
	if s.Addr().IsValid() {
		t.Errorf("Addr before Run: %s", s.Addr())
	}
	stop := start(t, s)
	if s.Addr().Port() == 0 {
		t.Fatalf("Addr is %s", s.Addr())
	}
	r, err := http.Get("http://" + s.Addr().String() + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if st, err := NewClient(path).Status(t.Context()); err != nil || st.Generation != 7 {
		t.Errorf("over the socket: generation %d, %v", st.Generation, err)
	}
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	if c, err := net.Dial("tcp", s.Addr().String()); err == nil {
		c.Close()
		t.Error("the port is still open")
	}
}

func TestSocketMode(t *testing.T) {
	old := syscall.Umask(0) // the most that a socket could be given by accident
	defer syscall.Umask(old)
	path := socketPath(t)
	l, err := listenSocket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]fs.FileMode{path: 0o660 | fs.ModeSocket, filepath.Dir(path): 0o750 | fs.ModeDir} {
		if info, err := os.Lstat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v, want %v", name, info.Mode(), err, want)
		}
	}
	rest, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(rest) != 1 {
		t.Errorf("left beside the socket: %v %v", rest, err)
	}
}

func TestSocketOfTheDead(t *testing.T) {
	path := socketPath(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	start(t, server(calm(7), func(o *Options) { o.Socket = path }))
	if _, err := NewClient(path).Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSocketOfTheLiving(t *testing.T) {
	path := socketPath(t)
	start(t, server(calm(7), func(o *Options) { o.Socket = path }))
	err := server(calm(8), func(o *Options) { o.Socket, o.Listen = path, anyPort }).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "another elbow is running: it answers on "+path) {
		t.Errorf("a second daemon: %v", err)
	}
	if st, err := NewClient(path).Status(t.Context()); err != nil || st.Generation != 7 {
		t.Errorf("the first one: generation %d, %v", st.Generation, err)
	}
}

func TestSocketThatCannotBe(t *testing.T) {
	dir := filepath.Dir(socketPath(t))
	file := filepath.Join(filepath.Dir(dir), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ path, says string }{
		"a file":        {file, "it is no socket"},
		"below a file":  {filepath.Join(file, "elbow.sock"), "making its folder"},
		"a long path":   {filepath.Join(dir, strings.Repeat("x", 100)), "at most 107 bytes"},
		"a long folder": {filepath.Join(dir, strings.Repeat("x", 95), "s"), "at most 107 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			err := server(calm(7), func(o *Options) { o.Socket = test.path }).Run(t.Context())
			if err == nil || !strings.HasPrefix(err.Error(), "admin.socket: ") || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want admin.socket: … %s", err, test.says)
			}
		})
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "precious" {
		t.Errorf("the file in the way: %q %v", text, err)
	}
}

// TestSocketOfASuccessor: who took the path over keeps it when the first ends.
func TestSocketOfASuccessor(t *testing.T) {
	path := socketPath(t)
	first, err := listenSocket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := listenSocket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket: %v", err)
	}
}

func TestPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	err = server(nil, func(o *Options) { o.Listen = at }).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "admin.listen: "+at.String()+" is taken by another program") {
		t.Errorf("Run: %v", err)
	}
}

func TestLimit(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	few := limit(l, 1)
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	one, err := few.Accept()
	if err != nil {
		t.Fatal(err)
	}
	second, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	accepted := make(chan net.Conn)
	go func() {
		c, _ := few.Accept()
		accepted <- c
		_, err := few.Accept() // there is no place again
		if err == nil {
			t.Error("a connection over the limit")
		}
		close(accepted)
	}()
	select {
	case <-accepted:
		t.Fatal("a second connection beside the first")
	default:
	}
	one.Close()
	one.Close() // a connection gives its place back once
	c := <-accepted
	if c == nil {
		t.Fatal("no connection after the first one left")
	}
	few.Close()
	<-accepted
	c.Close()
}

// stream opens a stream of events.
func stream(t *testing.T, s *Server) (*bufio.Reader, *http.Response) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+s.Addr().String()+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Body.Close() })
	return bufio.NewReader(w.Body), w
}

func TestEvents(t *testing.T) {
	var p pool.Publisher
	p.Publish(calm(7))
	opts := options(&p)
	opts.Listen = anyPort
	s := New(opts)
	stop := start(t, s)
	events, answer := stream(t, s)
	if got := answer.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
	await := func(event string) {
		t.Helper()
		for seen := ""; !strings.Contains(seen, event); {
			line, err := events.ReadString('\n')
			if err != nil {
				t.Fatalf("waiting for %q: %v in %q", event, err, seen)
			}
			seen += line
		}
	}
	await("event: change\ndata: {\"generation\":7}\n")
	p.Publish(degraded(8))
	await("event: change\ndata: {\"generation\":8}\n")
	await("event: tick\ndata: {\"generation\":8}\n")

	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	for {
		if _, err := events.ReadByte(); err != nil {
			break // the stream ended with the server
		}
	}
	if len(s.streams) != 0 {
		t.Errorf("%d streams are still counted", len(s.streams))
	}
}

func TestEventsAreBounded(t *testing.T) {
	s := server(calm(7), nil)
	for range maxStreams {
		s.streams <- struct{}{}
	}
	w := ask(s.handler(false), "GET", "/api/v1/events", "")
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("a stream too many: %d", w.Code)
	}
}

func TestClientCommands(t *testing.T) {
	path := socketPath(t)
	var o operator
	start(t, server(calm(7), func(opts *Options) { opts.Socket, opts.Operator = path, o.functions() }))
	c, ctx := NewClient(path), t.Context()

	affected, err := c.Drain(ctx, "minion1")
	if err != nil || len(affected) != 1 || affected[0].Connections != 1 {
		t.Errorf("drain: %+v %v", affected, err)
	}
	for _, do := range []func() ([]Affected, error){
		func() ([]Affected, error) { return c.Undrain(ctx, "minion1") },
		func() ([]Affected, error) { return c.Force(ctx, "minion1", true, 0) },
		func() ([]Affected, error) { return c.Force(ctx, "minion1", false, 3600e9) },
		func() ([]Affected, error) { return c.Unforce(ctx, "minion1") },
		func() ([]Affected, error) { return c.Affected(ctx, "minion1") },
	} {
		if _, err := do(); err != nil {
			t.Error(err)
		}
	}
	want := "drain minion1, undrain minion1, force up 0s minion1, force down 1h0m0s minion1, unforce minion1, affected minion1"
	if got := strings.Join(o.told, ", "); got != want {
		t.Errorf("the operator was told %q, want %q", got, want)
	}

	affected, err = c.Drain(ctx, "minion2")
	if warning, ok := err.(*Warning); !ok || len(affected) != 1 || warning.Message != "saving verdicts: disk full" {
		t.Errorf("in force but not saved: %+v %v", affected, err)
	}
	_, err = c.Drain(ctx, "minion9")
	if e, ok := err.(*APIError); !ok || e.Code != 404 || !strings.HasPrefix(err.Error(), `no backend "minion9"; did you mean minion1, minion2`) {
		t.Errorf("unknown target: %v", err)
	}
	if _, err = c.Force(ctx, "minion1", true, -1); err == nil || !strings.Contains(err.Error(), "for: ") {
		t.Errorf("a time in the past: %v", err)
	}
	why, err := c.Why(ctx, "web.public.haslohas.com", "")
	if err != nil || why.Kind != "hostname" || why.Answer == nil {
		t.Errorf("why: %+v %v", why, err)
	}
	if _, err = c.Why(ctx, "a&name=b", ""); err == nil || !strings.Contains(err.Error(), `"a&name=b" is no hostname`) {
		t.Errorf("a name with an ampersand: %v", err)
	}
}

func TestClientErrors(t *testing.T) {
	path := socketPath(t)
	none := "no elbow answers on " + path + ": is it running? (systemctl status elbow); another place: --socket"
	if _, err := NewClient(path).Status(t.Context()); err == nil || err.Error() != none {
		t.Errorf("no socket: %v", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	denied := NewClient(path).explain(fmt.Errorf("dial unix %s: %w", path, syscall.EACCES)).Error()
	if want := "permission denied on " + path + ": only root and members of the group " + groupOf(path); !strings.HasPrefix(denied, want) || groupOf(path) == "" {
		t.Errorf("denied: %s", denied)
	}
	if g := groupOf("/nowhere/elbow.sock"); g != "elbow" {
		t.Errorf("group of a socket that is not to be seen: %s", g)
	}
	if c := NewClient(""); c.socket != DefaultSocket {
		t.Errorf("default socket %s", c.socket)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 1)
	defer cancel()
	if _, err := NewClient(path).Status(ctx); err == nil || !strings.Contains(err.Error(), "did not answer in time") {
		t.Errorf("no answer: %v", err)
	}

	// Something else answers there.
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops")
			c.Close()
		}
	}()
	if _, err := NewClient(path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), "502") && !strings.Contains(err.Error(), path) {
		t.Errorf("a stranger: %v", err)
	}
}
