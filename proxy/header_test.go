package proxy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"haslohas.com/elbow/pool"
)

func v2(verCmd, family byte, body string) string {
	return signatureV2 + string([]byte{verCmd, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(body)))) + body
}

const (
	v2Addresses4 = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x30\x39\x00\x50" // 192.0.2.1:12345 to 198.51.100.2:80
	v2TLV        = "\x04\x00\x02ab"
)

var (
	source4      = netip.MustParseAddrPort("192.0.2.1:12345")
	destination4 = netip.MustParseAddrPort("198.51.100.2:80")
	source6      = netip.MustParseAddrPort("[2001:db8::1]:12345")
	dest6        = netip.MustParseAddrPort("[2001:db8::2]:80")
)

var headerCases = []struct {
	name string
	data string
	want header
	size int // 0 and no error: incomplete; -1: malformed
}{
	{"v1 TCP4", "PROXY TCP4 192.0.2.1 198.51.100.2 12345 80\r\n", header{source4, destination4}, 44},
	{"v1 TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 12345 80\r\n", header{source6, dest6}, 45},
	{"v1 mapped IPv4", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 12345 80\r\n", header{source4, destination4}, 58},
	{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", header{}, 15},
	{"v1 UNKNOWN with a rest", "PROXY UNKNOWN ffff:f...f:ffff 65535\r\n", header{}, 37},
	{"v1 with the begin of the stream", "PROXY TCP4 192.0.2.1 198.51.100.2 12345 80\r\nGET /", header{source4, destination4}, 44},
	{"nothing yet", "", header{}, 0},
	{"v1 begun", "PROX", header{}, 0},
	{"v1 without its end", "PROXY TCP4 192.0.2.1 198.51.100.2 12345 80", header{}, 0},
	{"v1 without its last byte", "PROXY TCP4 192.0.2.1 198.51.100.2 12345 80\r", header{}, 0},
	{"v1 too long", "PROXY UNKNOWN " + strings.Repeat("x", 93), header{}, -1},
	{"v1 LF alone", "PROXY TCP4 192.0.2.1 198.51.100.2 12345 80\n", header{}, -1},
	{"v1 empty", "PROXY \r\n", header{}, -1},
	{"v1 nothing but LF", "PROXY \n", header{}, -1},
	{"v1 protocol", "PROXY UDP4 192.0.2.1 198.51.100.2 12345 80\r\n", header{}, -1},
	{"v1 family", "PROXY TCP4 2001:db8::1 2001:db8::2 12345 80\r\n", header{}, -1},
	{"v1 address", "PROXY TCP4 192.0.2.256 198.51.100.2 12345 80\r\n", header{}, -1},
	{"v1 zone", "PROXY TCP6 fe80::1%eth0 fe80::2 12345 80\r\n", header{}, -1},
	{"v1 port", "PROXY TCP4 192.0.2.1 198.51.100.2 65536 80\r\n", header{}, -1},
	{"v1 port with a zero ahead", "PROXY TCP4 192.0.2.1 198.51.100.2 012 80\r\n", header{}, -1},
	{"v1 port with a sign", "PROXY TCP4 192.0.2.1 198.51.100.2 +12 80\r\n", header{}, -1},
	{"v1 two spaces", "PROXY TCP4  192.0.2.1 198.51.100.2 12345 80\r\n", header{}, -1},
	{"v1 a field more", "PROXY TCP4 192.0.2.1 198.51.100.2 12345 80 1\r\n", header{}, -1},
	{"v1 lower case", "proxy TCP4 192.0.2.1 198.51.100.2 12345 80\r\n", header{}, -1},
	{"no header at all", "GET / HTTP/1.0\r\n\r\n", header{}, -1},
	{"v2 TCP4", v2(v2Proxy, v2TCP4, v2Addresses4), header{source4, destination4}, 28},
	{"v2 TCP4 with TLVs and the begin of the stream", v2(v2Proxy, v2TCP4, v2Addresses4+v2TLV) + "GET /", header{source4, destination4}, 33},
	{"v2 TCP6", v2(v2Proxy, v2TCP6, string(addr16("2001:db8::1"))+string(addr16("2001:db8::2"))+"\x30\x39\x00\x50"), header{source6, dest6}, 52},
	{"v2 LOCAL", v2(v2Local, 0, ""), header{}, 16},
	{"v2 LOCAL with addresses", v2(v2Local, v2TCP4, v2Addresses4), header{}, 28},
	{"v2 unspecified", v2(v2Proxy, 0, "abc"), header{}, 19},
	{"v2 UDP4", v2(v2Proxy, 0x12, v2Addresses4), header{}, 28},
	{"v2 as long as can be", v2(v2Proxy, v2TCP4, v2Addresses4+strings.Repeat("x", maxHeaderBody-12)), header{source4, destination4}, maxHeader},
	{"v2 begun", signatureV2[:5], header{}, 0},
	{"v2 without its length", signatureV2 + "\x21\x11", header{}, 0},
	{"v2 without its end", v2(v2Proxy, v2TCP4, v2Addresses4)[:27], header{}, 0},
	{"v2 too long", v2(v2Proxy, v2TCP4, v2Addresses4+strings.Repeat("x", maxHeaderBody-11)), header{}, -1},
	{"v2 too short for its addresses", v2(v2Proxy, v2TCP4, v2Addresses4[:11]), header{}, -1},
	{"v2 version", signatureV2 + "\x31", header{}, -1},
	{"v2 command", signatureV2 + "\x22", header{}, -1},
	{"v2 family", v2(v2Proxy, 0x41, ""), header{}, -1},
	{"v2 transport", v2(v2Proxy, 0x13, ""), header{}, -1},
	{"v2 signature", "\r\n\r\n\x00\r\nQUIX", header{}, -1},
}

func addr16(s string) []byte {
	a := netip.MustParseAddr(s).As16()
	return a[:]
}

func TestParseHeader(t *testing.T) {
	for _, c := range headerCases {
		t.Run(c.name, func(t *testing.T) {
			got, n, err := parseHeader([]byte(c.data))
			if err != nil {
				n = -1
			}
			if n != c.size {
				t.Fatalf("%d bytes, %v; want %d", n, err, c.size)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(header{}), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is written can be read back, and every part of it is incomplete.
func TestHeaderRoundTrip(t *testing.T) {
	for _, h := range []header{
		{source4, destination4},
		{source6, dest6},
		{source4, dest6}, // both as IPv6
		{netip.MustParseAddrPort("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535"), netip.MustParseAddrPort("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffd]:65535")},
	} {
		for name, data := range map[string][]byte{"v1": appendHeaderV1(nil, h), "v2": appendHeaderV2(nil, h)} {
			for n := range data {
				if _, got, err := parseHeader(data[:n]); got != 0 || err != nil {
					t.Errorf("%s %v: the first %d bytes: %d, %v", name, h, n, got, err)
				}
			}
			got, n, err := parseHeader(append(data, "rest"...))
			if got != h || n != len(data) || err != nil {
				t.Errorf("%s %v: read back %v, %d of %d bytes, %v", name, h, got, n, len(data), err)
			}
		}
	}
}

func FuzzProxyHeader(f *testing.F) {
	for _, c := range headerCases {
		f.Add([]byte(c.data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, n, err := parseHeader(data)
		switch {
		case err != nil && (n != 0 || h != header{}):
			t.Errorf("an error and %v, %d", h, n)
		case n < 0 || n > len(data) || n > maxHeader:
			t.Errorf("%d bytes of %d", n, len(data))
		case err == nil && n == 0 && len(data) >= maxHeader:
			t.Error("never complete")
		case h.source.IsValid() != h.destination.IsValid():
			t.Errorf("half an answer: %v", h)
		}
		if n > 0 { // what is complete does not depend on what follows
			if again, m, err := parseHeader(data[:n]); again != h || m != n || err != nil {
				t.Errorf("%v, %d, %v without the rest; %v, %d with it", again, m, err, h, n)
			}
		}
		if err != nil { // what is malformed does not become well with more
			if _, _, err := parseHeader(append(bytes.Clone(data), data...)); err == nil {
				t.Error("malformed, but not with more bytes")
			}
		}
		if h.source.IsValid() {
			for _, b := range [][]byte{appendHeaderV1(nil, h), appendHeaderV2(nil, h)} {
				if again, m, err := parseHeader(b); again != h || m != len(b) || err != nil {
					t.Errorf("%v written and read back is %v, %d, %v", h, again, m, err)
				}
			}
		}
	})
}

// tell sends the client address that came in a header back to the client,
// then echoes.
func tell(conn *net.TCPConn) {
	var data []byte
	for {
		h, n, err := parseHeader(data)
		if err != nil {
			fmt.Fprintf(conn, "%v\n", err)
			return
		}
		if n > 0 {
			fmt.Fprintf(conn, "%s to %s\n", h.source, h.destination)
			break
		}
		data = append(data, 0)
		if _, err := io.ReadFull(conn, data[len(data)-1:]); err != nil {
			return
		}
	}
	echo(conn)
}

func TestSendHeader(t *testing.T) {
	for _, version := range []pool.ProxyVersion{pool.ProxyV1, pool.ProxyV2} {
		t.Run(version.String(), func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, f *fixture) {
				service := web(backendServer(t, tell))
				service.ProxyProtocol.Send = version
				f.serve(up(service))
				client := f.connect()
				expect(t, client, fmt.Sprintf("%s to %s\n", client.LocalAddr(), client.RemoteAddr())) // before the client has sent anything
				exchange(t, client, "hello")
				client.CloseWrite()
				expectEnd(t, client)
				if line := f.awaitReason("client-closed"); line.BytesIn != 5 {
					t.Errorf("logged %d bytes in, want those of the client alone", line.BytesIn)
				}
			})
		})
	}
}

func TestAcceptHeader(t *testing.T) {
	trusting := func(t *testing.T) *pool.Service {
		service := web(backendServer(t, tell))
		service.ProxyProtocol = pool.ProxyProtocol{Accept: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Send: pool.ProxyV2}
		return service
	}
	dial := func(t *testing.T, f *fixture, from string) *net.TCPConn {
		conn, err := net.DialTCP("tcp", &net.TCPAddr{IP: net.ParseIP(from)}, net.TCPAddrFromAddrPort(f.address("web")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(patience))
		return conn
	}
	for name, text := range map[string]string{
		"v1": "PROXY TCP4 192.0.2.1 198.51.100.2 12345 80\r\n",
		"v2": v2(v2Proxy, v2TCP4, v2Addresses4+v2TLV),
	} {
		t.Run(name+" in one piece with the stream", func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, f *fixture) {
				f.serve(up(trusting(t)))
				client := dial(t, f, "127.0.0.1")
				io.WriteString(client, text+"hello")
				client.CloseWrite()
				expect(t, client, "192.0.2.1:12345 to 198.51.100.2:80\nhello")
				expectEnd(t, client)
				line := f.awaitReason("client-closed")
				if line.Client != "192.0.2.1:12345" || line.Peer != client.LocalAddr().String() || line.BytesIn != 5 {
					t.Errorf("logged %+v", line)
				}
			})
		})
		t.Run(name+" byte by byte", func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, f *fixture) {
				f.serve(up(trusting(t)))
				client := dial(t, f, "127.0.0.1")
				client.SetNoDelay(true)
				for i := range text {
					io.WriteString(client, text[i:i+1])
				}
				expect(t, client, "192.0.2.1:12345 to 198.51.100.2:80\n")
				exchange(t, client, "hello")
			})
		})
	}
	t.Run("LOCAL names the real peer", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			f.serve(up(trusting(t)))
			client := dial(t, f, "127.0.0.1")
			io.WriteString(client, v2(v2Local, 0, ""))
			expect(t, client, fmt.Sprintf("%s to %s\n", client.LocalAddr(), client.RemoteAddr()))
		})
	})
	t.Run("not from others: it is data", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			f.serve(up(trusting(t)))
			client := dial(t, f, "127.0.0.2")
			text := "PROXY TCP4 192.0.2.1 198.51.100.2 12345 80\r\n"
			io.WriteString(client, text)
			expect(t, client, fmt.Sprintf("%s to %s\n", client.LocalAddr(), client.RemoteAddr())+text)
		})
	})
	t.Run("the allow list is about the real client", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			service := trusting(t)
			service.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
			f.serve(up(service))
			client := dial(t, f, "127.0.0.1")
			io.WriteString(client, "PROXY TCP4 192.0.2.1 198.51.100.2 12345 80\r\n")
			expect(t, client, "192.0.2.1:12345 to 198.51.100.2:80\n")
			client = dial(t, f, "127.0.0.1")
			io.WriteString(client, "PROXY TCP4 192.0.3.1 198.51.100.2 12345 80\r\n")
			expectReset(t, client)
			f.awaitReason("not-allowed")
		})
	})
	t.Run("malformed", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			f.serve(up(trusting(t)))
			client := dial(t, f, "127.0.0.1")
			io.WriteString(client, "GET / HTTP/1.0\r\n\r\n")
			expectReset(t, client)
			f.awaitReason("proxy-header")
			if got := f.metric("elbow_proxy_refused_total", "web", "proxy-header"); got != 1 {
				t.Errorf("counted %.0f", got)
			}
		})
	})
	t.Run("closed in the middle", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			f.serve(up(trusting(t)))
			client := dial(t, f, "127.0.0.1")
			client.CloseWrite()
			expectReset(t, client)
			f.awaitReason("proxy-header")
		})
	})
	t.Run("a peer that sends none does not hold up the end", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			f.serve(up(trusting(t)))
			client := dial(t, f, "127.0.0.1")
			io.WriteString(client, "PROXY TCP4")
			f.await("the connection", func() bool { return f.server.core.sessions.Load() == 1 })
			begin := time.Now()
			f.stop()
			if took := time.Since(begin); took > headerTimeout/2 {
				t.Errorf("the end took %s", took)
			}
			expectReset(t, client)
			f.awaitReason("shutdown")
		})
	})
}

// A trusted peer that sends no header in time is refused by the session
// whatever the engine; the time itself is not waited for here.
func TestHeaderTimeout(t *testing.T) {
	f := newFixture(t, newNetEngine)
	service := web()
	service.ProxyProtocol.Accept = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	f.publish(up(service))
	now := time.Now()
	var s session
	next := s.accepted(f.server.core, &listener{address: anyPort}, nil, source4, destination4, now)
	if next.do != doHeader || !next.until.Equal(now.Add(headerTimeout)) {
		t.Fatalf("after accept: %+v", next)
	}
	if _, next = s.received([]byte("PROXY "), now); next.do != doHeader || !next.until.Equal(now.Add(headerTimeout)) {
		t.Fatalf("after a part: %+v", next)
	}
	if next = s.expired(next.until); next.do != doReset || next.reason != proxyHeader {
		t.Fatalf("after the time: %+v", next)
	}
}
