package health

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

// probeOnce probes address as p says and returns what was said, an error with
// "! " ahead.
func probeOnce(t *testing.T, address net.Addr, p pool.Probe) string {
	t.Helper()
	if p.Timeout == 0 {
		p.Timeout = 2 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), p.Timeout)
	defer cancel()
	words, err := newProbe(netip.MustParseAddrPort(address.String()), p)(ctx)
	if err != nil {
		return "! " + err.Error()
	}
	return words
}

// listen serves each connection with serve and closes it then.
func listen(t *testing.T, serve func(net.Conn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(10 * time.Second))
			serve(c)
			c.Close()
		}
	}()
	return l.Addr()
}

func closedPort(t *testing.T) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr()
}

func quietServer(t *testing.T, h http.HandlerFunc, start func(*httptest.Server)) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	start(s)
	t.Cleanup(s.Close)
	return s
}

func TestProbeTCP(t *testing.T) {
	up := listen(t, func(net.Conn) {})
	if got := probeOnce(t, up, pool.Probe{}); got != "tcp connect ok" {
		t.Errorf("got %q", got)
	}
	if got := probeOnce(t, closedPort(t), pool.Probe{}); got != "! connect refused" {
		t.Errorf("got %q", got)
	}
	// A probe with a port of its own.
	port := netip.MustParseAddrPort(up.String()).Port()
	if got := probeOnce(t, closedPort(t), pool.Probe{Port: port}); got != "tcp connect ok" {
		t.Errorf("with a port of its own: got %q", got)
	}
}

func TestProbeTCPResets(t *testing.T) {
	ended := make(chan error, 1)
	up := listen(t, func(c net.Conn) {
		_, err := c.Read(make([]byte, 1))
		ended <- err
	})
	probeOnce(t, up, pool.Probe{})
	if err := <-ended; !strings.Contains(fmt.Sprint(err), syscall.ECONNRESET.Error()) {
		t.Errorf("the server saw %v, want a reset", err)
	}
}

func TestProbeTimeout(t *testing.T) {
	mute := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	for _, c := range []struct {
		kind pool.ProbeType
		want string
	}{
		{pool.ProbeHTTP, "! HTTP answer timed out after 50ms"},
		{pool.ProbeHTTPS, "! TLS handshake timed out after 50ms"},
		{pool.ProbeTLS, "! TLS handshake timed out after 50ms"},
		{pool.ProbeGRPC, "! gRPC answer timed out after 50ms"},
	} {
		if got := probeOnce(t, mute, pool.Probe{Type: c.kind, Timeout: 50 * time.Millisecond}); got != c.want {
			t.Errorf("%s: got %q, want %q", c.kind, got, c.want)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if _, err := newProbe(netip.MustParseAddrPort(mute.String()), pool.Probe{})(ctx); fmt.Sprint(err) != "connect timed out after 1s" {
		t.Errorf("tcp: got %v", err)
	}
}

// listenUDP answers each datagram with what answer makes of it, empty: nothing.
func listenUDP(t *testing.T, answer func(string) string) net.Addr {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		buffer := make([]byte, datagramLimit)
		for {
			n, from, err := c.ReadFrom(buffer)
			if err != nil {
				return
			}
			if out := answer(string(buffer[:n])); out != "" {
				c.WriteTo([]byte(out), from)
			}
		}
	}()
	return c.LocalAddr()
}

func TestProbeUDP(t *testing.T) {
	echo := listenUDP(t, func(s string) string { return "pong " + s })
	long := listenUDP(t, func(string) string { return strings.Repeat("x", bodyLimit) + "late" })
	mute := listenUDP(t, func(string) string { return "" })
	port := netip.MustParseAddrPort(echo.String()).Port()
	for _, c := range []struct {
		name  string
		at    net.Addr
		probe pool.Probe
		want  string
	}{
		{"any answer", echo, pool.Probe{Send: "ping"}, "UDP answer of 9 bytes"},
		{"any bytes", echo, pool.Probe{Send: "\x00\xff", Body: "\x00\xff"}, "UDP answer of 7 bytes"},
		{"the expected answer", echo, pool.Probe{Send: "ping", Body: "pong ping"}, "UDP answer of 9 bytes"},
		{"another answer", echo, pool.Probe{Send: "ping", Body: "pang"}, `! UDP answer of 9 bytes does not contain "pang"`},
		{"too late in the answer", long, pool.Probe{Send: "ping", Body: "late"}, `! UDP answer of 5124 bytes does not contain "late"`},
		{"silence", mute, pool.Probe{Send: "ping", Timeout: 50 * time.Millisecond}, "! UDP answer timed out after 50ms"},
		{"nobody", closedUDPPort(t), pool.Probe{Send: "ping"}, "! UDP answer refused"},
		{"a port of its own", closedUDPPort(t), pool.Probe{Send: "ping", Port: port}, "UDP answer of 9 bytes"},
	} {
		c.probe.Type = pool.ProbeUDP
		if got := probeOnce(t, c.at, c.probe); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// closedUDPPort is an address on which nobody listens: that of a socket which
// takes datagrams from another one alone.
func closedUDPPort(t *testing.T) net.Addr {
	t.Helper()
	c, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.LocalAddr()
}

func TestProbeProxyHeader(t *testing.T) {
	for _, c := range []struct {
		version pool.ProxyVersion
		want    string
	}{
		{pool.ProxyV1, hex.EncodeToString([]byte("PROXY UNKNOWN\r\n"))},
		{pool.ProxyV2, "0d0a0d0a000d0a515549540a20000000"},
	} {
		got := make(chan string, 1)
		server := listen(t, func(c net.Conn) {
			b, err := io.ReadAll(c)
			got <- hex.EncodeToString(b) + fmt.Sprint(err)
		})
		probeOnce(t, server, pool.Probe{Proxy: c.version})
		if g := <-got; g != c.want+"<nil>" {
			t.Errorf("%s: the server read %s, want %s", c.version, g, c.want)
		}
	}
}

func TestProbeProxyHeaderAheadOfHTTP(t *testing.T) {
	lines := make(chan string, 1)
	server := listen(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		line, _ := r.ReadString('\n')
		if _, err := http.ReadRequest(r); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
		lines <- line
	})
	got := probeOnce(t, server, pool.Probe{Type: pool.ProbeHTTP, Proxy: pool.ProxyV1})
	if line := <-lines; got != "HTTP 200" || line != "PROXY UNKNOWN\r\n" {
		t.Errorf("got %q, the first line was %q", got, line)
	}
}

func TestProbeHTTP(t *testing.T) {
	server := quietServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/status":
			code, _ := strconv.Atoi(r.URL.Query().Get("code"))
			w.Header().Set("Location", "/nowhere")
			w.WriteHeader(code)
		case "/head":
			fmt.Fprintf(w, "%s|%s|%s|%s|%v", r.Method, r.Host, r.UserAgent(), r.Header.Get("Accept-Encoding"), r.Close)
		case "/late":
			fmt.Fprint(w, strings.Repeat("x", 5<<10), "ok")
		case "/just":
			fmt.Fprint(w, strings.Repeat("x", 5<<10-2), "ok and more")
		case "/stream": // never ends by itself
			fmt.Fprint(w, "ok")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/cut":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half")
		case "/drop":
			panic(http.ErrAbortHandler)
		case "/raw%2Fpath", "/raw/path":
			fmt.Fprint(w, r.RequestURI)
		default:
			http.NotFound(w, r)
		}
	}, (*httptest.Server).Start)
	ranges := func(r ...pool.StatusRange) (out pool.StatusRanges) { copy(out[:], r); return }
	for _, c := range []struct {
		name  string
		probe pool.Probe
		want  string
	}{
		{"ok", pool.Probe{Path: "/status?code=200"}, "HTTP 200"},
		{"no redirect is followed", pool.Probe{Path: "/status?code=302"}, "HTTP 302"},
		{"redirect not wanted", pool.Probe{Path: "/status?code=302", Status: ranges(pool.StatusRange{First: 200, Last: 299})}, "! HTTP status 302, want 200-299"},
		{"unavailable", pool.Probe{Path: "/status?code=503"}, "! HTTP status 503, want 200-399"},
		{"ranges", pool.Probe{Path: "/status?code=404", Status: ranges(pool.StatusRange{First: 200, Last: 204}, pool.StatusRange{First: 301, Last: 301})}, "! HTTP status 404, want 200-204, 301"},
		{"default path", pool.Probe{Status: ranges(pool.StatusRange{First: 404, Last: 404})}, "HTTP 404"},
		{"what is sent", pool.Probe{Path: "/head", Host: "web.example", Body: "GET|web.example|elbow-probe|identity|true"}, "HTTP 200"},
		{"body missing", pool.Probe{Path: "/head", Body: "all well"}, `! body does not contain "all well"`},
		{"body too late", pool.Probe{Path: "/late", Body: "ok"}, `! the first 5120 bytes of the body do not contain "ok"`},
		{"body just in time", pool.Probe{Path: "/just", Body: "ok"}, "HTTP 200"},
		{"endless body", pool.Probe{Path: "/stream", Body: "ok"}, "HTTP 200"},
		{"endless body without it", pool.Probe{Path: "/stream", Body: "no", Timeout: 100 * time.Millisecond}, "! HTTP body timed out after 100ms"},
		{"cut body", pool.Probe{Path: "/cut", Body: "whole"}, "! HTTP body: the connection was closed early"},
		{"dropped", pool.Probe{Path: "/drop"}, "! HTTP answer: the connection was closed early"},
		{"escaped path", pool.Probe{Path: "/raw%2Fpath", Body: "/raw%2Fpath"}, "HTTP 200"},
		{"bad path", pool.Probe{Path: "nowhere"}, `! path "nowhere" of the probe is not a request target`},
		{"bad escape", pool.Probe{Path: "/%zz"}, `! path "/%zz" of the probe is not a request target`},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.probe.Type = pool.ProbeHTTP
			if got := probeOnce(t, server.Listener.Addr(), c.probe); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestProbeHTTPHostileServers(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"another protocol", "220 mail.example ESMTP\r\n", `! HTTP answer: malformed HTTP status code "mail.example"`},
		{"control characters", "HTTP/9\x1b[31m \x00\r\n", "! HTTP answer: "},
		{"huge header", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 200<<10) + "\r\n\r\n", "! HTTP answer: "},
		{"interim answers", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP 200"},
		{"endless interim answers", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10000), "! HTTP answer: the header is longer than 65536 bytes"},
		{"nothing", "", "! HTTP answer: the connection was closed early"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := listen(t, func(conn net.Conn) {
				http.ReadRequest(bufio.NewReader(conn))
				io.WriteString(conn, c.answer)
			})
			got := probeOnce(t, server, pool.Probe{Type: pool.ProbeHTTP})
			if !strings.HasPrefix(got, c.want) || strings.ContainsAny(got, "\x00\x1b\r\n") || len(got) > 250 {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestProbeTLS(t *testing.T) {
	server := quietServer(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.TLS.ServerName)
	}, (*httptest.Server).StartTLS)
	plain := quietServer(t, func(http.ResponseWriter, *http.Request) {}, (*httptest.Server).Start)
	for _, c := range []struct {
		name  string
		to    *httptest.Server
		probe pool.Probe
		want  string
	}{
		{"tls", server, pool.Probe{Type: pool.ProbeTLS}, "TLS handshake ok"},
		{"https", server, pool.Probe{Type: pool.ProbeHTTPS}, "HTTP 200"},
		{"server name", server, pool.Probe{Type: pool.ProbeHTTPS, Host: "web.example:8443", Body: "web.example"}, "HTTP 200"},
		{"unknown authority", server, pool.Probe{Type: pool.ProbeTLS, Host: "example.com", Verify: true}, "! TLS: failed to verify certificate: x509: certificate signed by unknown authority"},
		{"https verified", server, pool.Probe{Type: pool.ProbeHTTPS, Verify: true}, "! TLS: failed to verify certificate: x509: certificate signed by unknown authority"},
		{"no TLS", plain, pool.Probe{Type: pool.ProbeTLS}, "! TLS: first record does not look like a TLS handshake"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := probeOnce(t, c.to.Listener.Addr(), c.probe); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if got := probeOnce(t, closedPort(t), pool.Probe{Type: pool.ProbeHTTPS}); got != "! connect refused" {
		t.Errorf("nobody there: got %q", got)
	}
}

// grpcServer answers health checks as the real ones do: the name of the
// service chooses the answer.
func grpcServer(t *testing.T) net.Addr {
	server := quietServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != grpcPath || r.Method != "POST" || r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" ||
			len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		service := ""
		if len(body) > 7 {
			service = string(body[7:])
		}
		serving := map[string]byte{"": 1, "web": 1, "closed": 2, "odd": 9}
		value, ok := serving[service]
		switch {
		case service == "absent":
			w.Header().Set("Grpc-Status", "12")
			return
		case service == "mute":
			return
		case service == "garbled":
			w.Write([]byte{0, 0, 0, 0, 9, 8})
		case !ok:
			w.Header().Set("Grpc-Status", "5") // trailers-only
			return
		default:
			w.Write([]byte{0, 0, 0, 0, 2, 8, value})
		}
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}, func(s *httptest.Server) {
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
	})
	return server.Listener.Addr()
}

func TestProbeGRPC(t *testing.T) {
	server := grpcServer(t)
	for _, c := range []struct{ service, want string }{
		{"", "gRPC health: SERVING"},
		{"web", "gRPC health: SERVING"},
		{"closed", "! gRPC health: NOT_SERVING"},
		{"odd", "! gRPC health: 9"},
		{"other", `! gRPC health: the server does not know the service "other"`},
		{"absent", "! gRPC: the server has no health service (UNIMPLEMENTED)"},
		{"mute", "! gRPC: the answer has no grpc-status"},
		{"garbled", "! gRPC: malformed health response"},
	} {
		got := probeOnce(t, server, pool.Probe{Type: pool.ProbeGRPC, Service: c.service})
		if got != c.want {
			t.Errorf("%q: got %q, want %q", c.service, got, c.want)
		}
	}
	plain := quietServer(t, func(http.ResponseWriter, *http.Request) {}, (*httptest.Server).Start)
	if got := probeOnce(t, plain.Listener.Addr(), pool.Probe{Type: pool.ProbeGRPC}); !strings.HasPrefix(got, "! gRPC answer: ") {
		t.Errorf("a server of HTTP/1 only: got %q", got)
	}
}

// TestProbeLeavesNoConnection: a probe has closed its connection when it
// returns, whatever it found.
func TestProbeLeavesNoConnection(t *testing.T) {
	for _, kind := range []pool.ProbeType{pool.ProbeTCP, pool.ProbeHTTP, pool.ProbeHTTPS, pool.ProbeTLS, pool.ProbeGRPC} {
		closed := make(chan struct{})
		server := listen(t, func(c net.Conn) {
			if kind != pool.ProbeTCP {
				io.WriteString(c, "no protocol at all\r\n\r\n")
			}
			io.Copy(io.Discard, c)
			close(closed)
		})
		probeOnce(t, server, pool.Probe{Type: kind})
		select {
		case <-closed:
		case <-time.After(5 * time.Second):
			t.Errorf("%s: the connection is still open", kind)
		}
	}
}

func TestLocalFaults(t *testing.T) {
	d := dialer{address: netip.MustParseAddrPort("192.0.2.1:80")}
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.ENOBUFS, syscall.ENOMEM} {
		err := d.explain("connect", &net.OpError{Op: "dial", Err: errno})
		if _, ok := err.(*localFault); !ok {
			t.Errorf("%v is charged to the backend", errno)
		}
	}
	for _, errno := range []syscall.Errno{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ETIMEDOUT, syscall.ECONNRESET} {
		err := d.explain("connect", &net.OpError{Op: "dial", Err: errno})
		if _, ok := err.(*localFault); ok {
			t.Errorf("%v is not charged to the backend", errno)
		}
	}
	if got := d.explain("connect", &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}).Error(); got != "connect: no route to host" {
		t.Errorf("got %q", got)
	}
}

func FuzzServingOf(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 0, 9, 0x12, 3, 'a', 'b', 'c', 8, 1, 0x1d, 0, 0, 0, 0})
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 8})
	f.Add([]byte{0, 0, 0, 0, 11, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, answer []byte) {
		got, err := servingOf(answer)
		if err != nil && got != 0 {
			t.Errorf("%d with an error", got)
		}
	})
}

func TestServingOfSkipsUnknownFields(t *testing.T) {
	got, err := servingOf([]byte{0, 0, 0, 0, 16, 0x12, 3, 'a', 'b', 'c', 0x1d, 1, 2, 3, 4, 0x20, 7, 8, 1, 0x28, 0})
	if err != nil || got != 1 {
		t.Errorf("got %d, %v, want 1", got, err)
	}
}

// A real is a server that can be closed.
type real struct {
	address netip.AddrPort
	close   func()
}

func listenForever(t *testing.T) real {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	stop := sync.OnceFunc(func() { l.Close(); <-done })
	t.Cleanup(stop)
	return real{netip.MustParseAddrPort(l.Addr().String()), stop}
}
