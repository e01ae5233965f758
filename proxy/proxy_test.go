package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/pool"
)

// onEachEngine runs a test of behaviour.
func onEachEngine(t *testing.T, test func(t *testing.T, f *fixture)) {
	for name, make := range engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newFixture(t, make))
		})
	}
}

// patience bounds every wait of a test: who waits that long has failed.
const patience = 10 * time.Second

// A fixture is a proxy that runs on real sockets of 127.0.0.1.
type fixture struct {
	t        *testing.T
	table    pool.Publisher
	server   *Server
	registry *prometheus.Registry
	heard    recorder
	lines    safeBuffer
	log      safeBuffer

	options  Options
	engine   func(*core) (engine, error)
	cancel   context.CancelFunc
	returned chan error

	generation uint64
}

func newFixture(t *testing.T, engine func(*core) (engine, error)) *fixture {
	f := &fixture{t: t, registry: prometheus.NewPedanticRegistry(), engine: engine}
	f.options = Options{
		Table:      &f.table,
		Observer:   &f.heard,
		ConnLog:    &f.lines,
		Log:        slog.New(slog.NewTextHandler(&f.log, nil)),
		Registerer: f.registry,
	}
	f.server = newServer(f.options, engine)
	return f
}

// start runs the server until the test ends.
func (f *fixture) start() {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	f.cancel = cancel
	f.returned = make(chan error, 1)
	go func() { f.returned <- f.server.Run(ctx) }()
	f.t.Cleanup(f.stop)
}

// stop ends the server and checks that Run returns nil.
func (f *fixture) stop() {
	f.t.Helper()
	if f.cancel == nil {
		return
	}
	f.cancel()
	f.cancel = nil
	select {
	case err := <-f.returned:
		if err != nil {
			f.t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		buffer := make([]byte, 1<<20)
		f.t.Errorf("Run does not return\n%s", buffer[:runtime.Stack(buffer, true)])
	}
}

// anyPort is a listener whose port the system chooses.
var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// web is a service with sensible values on one listener.
func web(backends ...netip.AddrPort) *pool.Service {
	s := &pool.Service{
		Name:             "web",
		Listen:           []netip.AddrPort{anyPort},
		Balance:          pool.RoundRobin,
		Connect:          pool.Connect{Timeout: 2 * time.Second, Attempts: 3},
		IdleTimeout:      patience,
		HalfCloseTimeout: patience,
		DrainTimeout:     patience,
	}
	for _, b := range backends {
		s.Endpoints = append(s.Endpoints, pool.Endpoint{Address: b, Weight: 1})
	}
	return s
}

// up makes a pool of s in which every backend is up, then lets change alter it.
func up(s *pool.Service, change ...func([]pool.Backend)) *pool.Pool {
	backends := make([]pool.Backend, len(s.Endpoints))
	for i, e := range s.Endpoints {
		backends[i] = pool.Backend{Endpoint: e, State: pool.Up}
	}
	for _, c := range change {
		c(backends)
	}
	return pool.NewPool(s, backends)
}

// publisher returns one that has published a table of pools.
func publisher(pools ...*pool.Pool) *pool.Publisher {
	p := new(pool.Publisher)
	p.Publish(pool.NewTable(1, time.Now(), &pool.Set{}, pools))
	return p
}

// publish makes the next generation.
func (f *fixture) publish(pools ...*pool.Pool) {
	f.generation++
	f.table.Publish(pool.NewTable(f.generation, time.Now(), &pool.Set{}, pools))
}

// serve publishes, starts and waits until all listeners are open.
func (f *fixture) serve(pools ...*pool.Pool) {
	f.t.Helper()
	f.publish(pools...)
	f.start()
	f.awaitServing()
}

func (f *fixture) awaitServing() {
	f.t.Helper()
	f.await("listeners open", func() bool { return f.server.Serving() == nil })
}

// await waits for a condition.
func (f *fixture) await(what string, holds func() bool) {
	f.t.Helper()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-deadline:
			f.t.Fatalf("waited in vain for: %s\nlog:\n%s\nlines:\n%s", what, f.log.String(), f.lines.String())
		case <-time.After(time.Millisecond):
		}
	}
}

// address is where the first listener of a service listens.
func (f *fixture) address(service string) netip.AddrPort {
	f.t.Helper()
	for _, l := range f.server.Listeners() {
		if l.Service == service && l.Err == nil {
			return l.Address
		}
	}
	f.t.Fatalf("service %s has no listener", service)
	return netip.AddrPort{}
}

// connect connects to the service web.
func (f *fixture) connect() *net.TCPConn {
	f.t.Helper()
	return f.connectTo(f.address("web"))
}

func (f *fixture) connectTo(a netip.AddrPort) *net.TCPConn {
	f.t.Helper()
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(a))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// A logLine is a line of the connection log.
type logLine struct {
	Time       time.Time `json:"time"`
	Protocol   string    `json:"protocol"`
	Client     string    `json:"client"`
	Peer       string    `json:"peer"`
	Listener   string    `json:"listener"`
	Service    string    `json:"service"`
	SNI        string    `json:"sni"`
	Host       string    `json:"host"`
	Backend    string    `json:"backend"`
	ConnectMS  float64   `json:"connect_ms"`
	DurationMS float64   `json:"duration_ms"`
	BytesIn    int64     `json:"bytes_in"`
	BytesOut   int64     `json:"bytes_out"`
	PacketsIn  int64     `json:"packets_in"`
	PacketsOut int64     `json:"packets_out"`
	Reason     string    `json:"reason"`
	Retries    int       `json:"retries"`
	Generation uint64    `json:"generation"`
	FailOpen   bool      `json:"fail_open"`
}

// awaitLines waits for n lines of the connection log and returns them all.
func (f *fixture) awaitLines(n int) []logLine {
	f.t.Helper()
	f.await(fmt.Sprintf("%d lines in the connection log", n), func() bool {
		return strings.Count(f.lines.String(), "\n") >= n
	})
	var all []logLine
	d := json.NewDecoder(strings.NewReader(f.lines.String()))
	d.DisallowUnknownFields()
	for d.More() {
		var l logLine
		if err := d.Decode(&l); err != nil {
			f.t.Fatalf("connection log: %v\n%s", err, f.lines.String())
		}
		all = append(all, l)
	}
	return all
}

// awaitReason waits for the end of the one connection there was and checks why.
func (f *fixture) awaitReason(want string) logLine {
	f.t.Helper()
	lines := f.awaitLines(1)
	if len(lines) != 1 || lines[0].Reason != want {
		f.t.Fatalf("reason is not %s:\n%s", want, f.lines.String())
	}
	return lines[0]
}

// metric returns the value of a series by its name and label values.
func (f *fixture) metric(name string, labels ...string) float64 {
	f.t.Helper()
	v, ok := f.findMetric(name, labels...)
	if !ok {
		f.t.Fatalf("there is no metric %s%v", name, labels)
	}
	return v
}

func (f *fixture) findMetric(name string, labels ...string) (float64, bool) {
	f.t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
	series:
		for _, m := range family.Metric {
			for _, want := range labels {
				found := false
				for _, l := range m.Label {
					found = found || l.GetValue() == want
				}
				if !found {
					continue series
				}
			}
			switch {
			case m.Counter != nil:
				return m.Counter.GetValue(), true
			case m.Gauge != nil:
				return m.Gauge.GetValue(), true
			case m.Histogram != nil:
				return float64(m.Histogram.GetSampleCount()), true
			}
		}
	}
	return 0, false
}

// backendServer accepts connections and hands them to handle, each in its own
// goroutine, until the test ends.
func backendServer(t *testing.T, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := make(map[*net.TCPConn]bool)
	wg.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			mu.Lock()
			open[conn] = true
			mu.Unlock()
			wg.Go(func() {
				conn.SetDeadline(time.Now().Add(patience))
				handle(conn)
				conn.Close()
				mu.Lock()
				delete(open, conn)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echo sends back what comes until the client closes.
func echo(conn *net.TCPConn) {
	io.Copy(struct{ io.Writer }{conn}, conn)
	conn.CloseWrite()
}

// greeter says name and then echoes.
func greeter(name string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		io.WriteString(conn, name)
		echo(conn)
	}
}

// refusing is an address on which nobody listens: it is bound, so that nobody
// else gets it meanwhile.
func refusing(t *testing.T) netip.AddrPort {
	t.Helper()
	address, _ := bind(t)
	return address
}

// bind returns a socket that is bound to a free port, until the test ends.
func bind(t *testing.T) (address netip.AddrPort, fd int) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	syscall.CloseOnExec(fd)
	loopback := netip.MustParseAddr("127.0.0.1")
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: loopback.As4()}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(loopback, uint16(name.(*syscall.SockaddrInet4).Port)), fd
}

// exchange sends text and wants it back.
func exchange(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	expect(t, conn, text)
}

// expect reads exactly text.
func expect(t *testing.T, conn io.Reader, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v; want %q", got[:n], err, text)
	}
}

// expectEnd reads the clean end of the stream.
func expectEnd(t *testing.T, conn io.Reader) {
	t.Helper()
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("read %d bytes, %v; want the end", n, err)
	}
}

// expectReset reads until the connection fails, and wants it to be by RST.
func expectReset(t *testing.T, conn io.Reader) {
	t.Helper()
	_, err := io.Copy(io.Discard, conn)
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("connection ended with %v, want a reset", err)
	}
}

// expectRefused connects to web and wants a reset, which may come so early
// that the connect itself sees it.
func (f *fixture) expectRefused() {
	f.t.Helper()
	expectRefusedFrom(f.t, &net.Dialer{}, f.address("web"))
}

func expectRefusedFrom(t *testing.T, d *net.Dialer, address netip.AddrPort) {
	t.Helper()
	conn, err := d.DialContext(t.Context(), "tcp", address.String())
	if err == nil {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		_, err = io.Copy(io.Discard, conn)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("connection ended with %v, want a reset", err)
	}
}

// A recorder is an Observer that remembers.
type recorder struct {
	mu     sync.Mutex
	failed []string
	reset  []string
}

func (r *recorder) ConnectFailed(service string, backend netip.AddrPort, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, fmt.Sprintf("%s %s: %s", service, backend, reason))
}

func (r *recorder) SessionReset(service string, backend netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reset = append(r.reset, fmt.Sprintf("%s %s", service, backend))
}

func (r *recorder) failures() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.failed...)
}

func (r *recorder) resets() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.reset...)
}

// A safeBuffer may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestMain checks at the end that no goroutine of this package is left.
func TestMain(m *testing.M) {
	if os.Getenv(fewDescriptors) != "" {
		os.Exit(serveWithFewDescriptors())
	}
	code := m.Run()
	deadline := time.Now().Add(patience)
	for code == 0 {
		buffer := make([]byte, 1<<20)
		stacks := strings.Split(string(buffer[:runtime.Stack(buffer, true)]), "\n\n")
		left := stacks[:0]
		for _, s := range stacks {
			if strings.Contains(s, "elbow/proxy.") && !strings.Contains(s, "proxy.TestMain") {
				left = append(left, s)
			}
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(os.Stderr, "%d goroutines are left:\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
		runtime.Gosched()
	}
	os.Exit(code)
}

// A counter may be used by several goroutines.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
	return c.n
}

func (c *counter) raise(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n = max(c.n, n)
}

func TestEngineChoice(t *testing.T) {
	for engine, there := range map[Engine]bool{"": true, Portable: true, Epoll: runtime.GOOS == "linux", "uring": false} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := New(Options{Table: publisher(), Engine: engine}).Run(ctx)
		if there != (err == nil) {
			t.Errorf("engine %q: Run returns %v", engine, err)
		}
		if !there && !strings.Contains(err.Error(), string(engine)) {
			t.Errorf("the error does not name the engine: %v", err)
		}
	}
}
