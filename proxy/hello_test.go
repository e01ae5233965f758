package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// helloOf is what crypto/tls sends first with that configuration.
func helloOf(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	server.SetReadDeadline(time.Now().Add(patience))
	go func() {
		defer client.Close()
		tls.Client(client, config).Handshake() // fails, nobody answers
	}()
	data := make([]byte, recordHeader)
	if _, err := io.ReadFull(server, data); err != nil {
		t.Fatal(err)
	}
	data = append(data, make([]byte, binary.BigEndian.Uint16(data[3:]))...)
	if _, err := io.ReadFull(server, data[recordHeader:]); err != nil {
		t.Fatal(err)
	}
	return data
}

// inRecords is the one record of hello as several with at most size bytes each.
func inRecords(hello []byte, size int) []byte {
	var all []byte
	for body := hello[recordHeader:]; len(body) > 0; {
		n := min(size, len(body))
		all = append(all, recordHandshake, 3, 1, byte(n>>8), byte(n))
		all = append(all, body[:n]...)
		body = body[n:]
	}
	return all
}

func sizes(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, byte(len(p)>>8), byte(len(p)))
		all = append(all, p...)
	}
	return all
}

// record is a ClientHello in one record, with these extensions.
func record(extensions ...[]byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 1, 1, 0) // no session id, one suite, no compression
	if extensions != nil {
		body = append(body, sizes(bytes.Join(extensions, nil))...)
	}
	message := append([]byte{clientHello, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{recordHandshake, 3, 1}, sizes(message)...)
}

func extension(kind uint16, body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, kind), sizes(body)...)
}

func serverNames(entries ...[]byte) []byte {
	return extension(extensionServerName, sizes(bytes.Join(entries, nil)))
}

func entry(kind byte, name string) []byte { return append([]byte{kind}, sizes([]byte(name))...) }

func protocols(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(append(list, byte(len(n))), n...)
	}
	return extension(extensionALPN, sizes(list))
}

var (
	grease  = extension(0x3a3a, []byte{1, 2, 3}) // RFC 8701
	padding = extension(21, make([]byte, 600))
	named   = serverNames(entry(0, "a.example"))
)

// tlsCases are ClientHellos written by hand; those of a real client are made
// by crypto/tls.
var tlsCases = []struct {
	name string
	data []byte
	want string
}{
	{"a name", record(named), `tls "a.example" []`},
	{"after extensions that nobody knows", record(grease, padding, protocols("h2", "http/1.1"), named, grease), `tls "a.example" [h2 http/1.1]`},
	{"no extensions", record(), `tls "" []`},
	{"an empty list of them", record([]byte{}), `tls "" []`},
	{"the first of two names", record(serverNames(entry(0, "a.example"), entry(0, "b.example"))), `tls "a.example" []`},
	{"after a name of another type", record(serverNames(entry(7, "x"), entry(0, "b.example"))), `tls "b.example" []`},
	{"no name of a host", record(serverNames(entry(7, "x"))), `tls "" []`},
	{"a name as it was written", record(serverNames(entry(0, "A.Example."))), `tls "A.Example." []`},
	{"what follows the hello", append(record(named), "rest"...), `tls "a.example" []`},
	{"as long as can be", record(named, extension(21, make([]byte, maxHello-recordHeader-4-4-2-len(named)-len(record())+recordHeader-4))), `tls "a.example" []`},

	{"one byte", []byte{recordHandshake}, "unfinished"},
	{"nearly all", record(named)[:len(record(named))-1], "unfinished"},
	{"too long", record(named, extension(21, make([]byte, maxHello))), "malformed"},
	{"an empty name", record(serverNames(entry(0, ""))), "malformed"},
	{"an empty list of names", record(serverNames()), "malformed"},
	{"a name longer than its list", record(extension(0, sizes([]byte{0, 0, 9, 'a'}))), "malformed"},
	{"names twice", record(named, named), "malformed"},
	{"protocols twice", record(protocols("h2"), protocols("h2")), "malformed"},
	{"the longest protocol", record(protocols(strings.Repeat("p", 255))), `tls "" [` + strings.Repeat("p", 255) + `]`},
	{"an empty protocol", record(protocols("h2", "")), "malformed"},
	{"no protocols", record(protocols()), "malformed"},
	{"an extension longer than all of them", record([]byte{0, 0, 1, 0}), "malformed"},
	{"half an extension", record(named, []byte{0}), "malformed"},
	{"another message", []byte{recordHandshake, 3, 1, 0, 4, 2, 0, 0, 0}, "malformed"},
	{"an empty record", []byte{recordHandshake, 3, 1, 0, 0}, "malformed"},
	{"a record too long", []byte{recordHandshake, 3, 1, 0x40, 1}, "malformed"},
	{"a message too long", []byte{recordHandshake, 3, 1, 0, 4, 1, 1, 0, 0}, "malformed"},
	{"another record in between", append(inRecords(record(named), 20)[:25], 21, 3, 1, 0, 2), "malformed"},
	{"cut short in itself", []byte{recordHandshake, 3, 1, 0, 6, 1, 0, 0, 2, 3, 3}, "malformed"},
	{"no TLS", []byte{recordHandshake, 2}, "foreign"},
}

var httpCases = []struct{ name, data, want string }{
	{"a host", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", `http "a.example"`},
	{"with a port", "GET / HTTP/1.1\r\nHost: a.example:8080\r\n\r\n", `http "a.example"`},
	{"with an empty port", "GET / HTTP/1.1\r\nHost: a.example:\r\n\r\n", `http "a.example"`},
	{"in any case, with white space", "GET / HTTP/1.1\r\naccept: */*\r\nhOsT:\t A.Example \t\r\nX: y\r\n\r\n", `http "A.Example"`},
	{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: a.example\r\n\r\n", `http "a.example"`},
	{"lines without CR", "GET / HTTP/1.0\nHost: a.example\n\n", `http "a.example"`},
	{"an empty line first", "\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n", `http "a.example"`},
	{"with a body", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc", `http "a.example"`},
	{"IPv4", "GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n", `http "192.0.2.1"`},
	{"IPv6", "GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", `http "2001:db8::1"`},
	{"IPv6 with a port", "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", `http "2001:db8::1"`},
	{"the target in absolute form wins", "GET http://b.example:80/x HTTP/1.1\r\nHost: a.example\r\n\r\n", `http "b.example"`},
	{"without a path", "GET http://b.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n", `http "b.example"`},
	{"without a Host", "GET http://b.example HTTP/1.0\r\n\r\n", `http "b.example"`},
	{"an address in a query is none", "GET /?to=http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", `http "a.example"`},
	{"CONNECT", "CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n", `http "b.example"`},
	{"no Host", "GET / HTTP/1.0\r\nAccept: */*\r\n\r\n", `http ""`},
	{"an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", `http ""`},
	{"long fields behind it", "GET / HTTP/1.1\r\nHost: a.example\r\nCookie: " + strings.Repeat("x", maxRequestHead), `http "a.example"`},

	{"nothing", "", "unfinished"},
	{"a part of the method", "GE", "unfinished"},
	{"a part of the line", "GET /index", "unfinished"},
	{"without the end of the fields", "GET / HTTP/1.1\r\nHost: a.example\r\n", "unfinished"},
	{"half an empty line first", "\r", "unfinished"},

	{"two Hosts", "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", "malformed"},
	{"two, the first one empty", "GET / HTTP/1.1\r\nHost:\r\nHost: a.example\r\n\r\n", "malformed"},
	{"a field that goes on", "GET / HTTP/1.1\r\nHost: a.example\r\n b.example\r\n\r\n", "malformed"},
	{"a space before the fields", "GET / HTTP/1.1\r\n Host: a.example\r\n\r\n", "malformed"},
	{"a space before the colon", "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n", "malformed"},
	{"no colon", "GET / HTTP/1.1\r\nHost\r\n\r\n", "malformed"},
	{"a CR in a field", "GET / HTTP/1.1\r\nX: a\rHost: b.example\r\n\r\n", "malformed"},
	{"a zero byte in a field", "GET / HTTP/1.1\r\nHost: a\x00.example\r\n\r\n", "malformed"},
	{"a space in the host", "GET / HTTP/1.1\r\nHost: a.example b.example\r\n\r\n", "malformed"},
	{"a path in the host", "GET / HTTP/1.1\r\nHost: a.example/\r\n\r\n", "malformed"},
	{"a user in the target", "GET http://u@b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "malformed"},
	{"a port that is none", "GET / HTTP/1.1\r\nHost: a.example:8o\r\n\r\n", "malformed"},
	{"an address without its end", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "malformed"},
	{"an address with a rest", "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n", "malformed"},
	{"two targets", "GET / / HTTP/1.1\r\nHost: a.example\r\n\r\n", "malformed"},
	{"no target", "GET  HTTP/1.1\r\nHost: a.example\r\n\r\n", "malformed"},
	{"a target without end", "GET /" + strings.Repeat("x", maxRequestHead), "malformed"},
	{"fields without end and no Host", "GET / HTTP/1.1\r\nCookie: " + strings.Repeat("x", maxRequestHead), "malformed"},

	{"SSH", "SSH-2.0-OpenSSH_9.6p1 Debian-3\r\n", "foreign"},
	{"SMTP", "EHLO client.example\r\n", "foreign"},
	{"HTTP/0.9", "GET /\r\n", "foreign"},
	{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "foreign"},
	{"a method of 33 bytes", strings.Repeat("X", 33), "foreign"},
	{"bytes", "\x00\x01\x02", "foreign"},
	{"a PROXY header", signatureV2, "foreign"},
}

// describeHello is what a look at data brings, in words.
func describeHello(data []byte) string {
	h, o := parseHello(bytes.Clone(data))
	switch {
	case o == unfinished:
		return "unfinished"
	case o == foreign:
		return "foreign"
	case o == malformed:
		return "malformed"
	case !h.TLS:
		return fmt.Sprintf("http %q", h.Name)
	}
	var offered []string
	for p := h.Protocols; len(p) > 0; p = p[1+int(p[0]):] {
		offered = append(offered, string(p[1:1+int(p[0])]))
	}
	return fmt.Sprintf("tls %q %s", h.Name, offered)
}

func TestParseHello(t *testing.T) {
	for _, c := range tlsCases {
		t.Run("TLS/"+c.name, func(t *testing.T) {
			if got := describeHello(c.data); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if strings.HasPrefix(c.want, "tls") {
				inPieces(t, c.data, c.want)
			}
		})
	}
	for _, c := range httpCases {
		t.Run("HTTP/"+c.name, func(t *testing.T) {
			if got := describeHello([]byte(c.data)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// inPieces checks that hello is the same in several records, and incomplete
// without its end.
func inPieces(t *testing.T, hello []byte, want string) {
	t.Helper()
	end := recordHeader + int(binary.BigEndian.Uint16(hello[3:]))
	for _, size := range []int{1, 2, 3, 4, 5, 33, 256, 1400} {
		pieces := inRecords(hello[:end], size)
		if len(pieces) > maxHello {
			continue
		}
		if got := describeHello(pieces); got != want {
			t.Errorf("in records of %d bytes: %s, want %s", size, got, want)
		}
		for n := 0; n < len(pieces); n += 1 + n/50 {
			if got := describeHello(pieces[:n]); got != "unfinished" {
				t.Errorf("%d of %d bytes in records of %d bytes: %s", n, len(pieces), size, got)
			}
		}
	}
}

// What crypto/tls sends, post-quantum key shares of more than a segment included.
func TestHelloOfRealClients(t *testing.T) {
	for _, c := range []struct {
		name   string
		config *tls.Config
		want   string
		least  int
	}{
		{"TLS 1.3", &tls.Config{ServerName: "a.example", NextProtos: []string{"h2", "http/1.1"}}, `tls "a.example" [h2 http/1.1]`, 1400},
		{"TLS 1.2", &tls.Config{ServerName: "a.example", MaxVersion: tls.VersionTLS12}, `tls "a.example" []`, 0},
		{"classic key share", &tls.Config{ServerName: "a.example", CurvePreferences: []tls.CurveID{tls.X25519}}, `tls "a.example" []`, 0},
		{"no name", &tls.Config{InsecureSkipVerify: true}, `tls "" []`, 0},
		{"an address is no name", &tls.Config{ServerName: "192.0.2.1"}, `tls "" []`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			hello := helloOf(t, c.config)
			if got := describeHello(hello); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if len(hello) < c.least {
				t.Errorf("only %d bytes: it shows nothing about large hellos", len(hello))
			}
			inPieces(t, hello, c.want)
		})
	}
}

func TestParseHelloAllocatesNothing(t *testing.T) {
	for name, data := range map[string][]byte{
		"TLS":           record(grease, protocols("h2"), named),
		"TLS, absolute": inRecords(record(named), 10),
		"HTTP":          []byte("GET http://b.example/ HTTP/1.1\r\nAccept: */*\r\nHost: a.example:80\r\n\r\n"),
	} {
		space := make([]byte, len(data))
		if n := testing.AllocsPerRun(100, func() { parseHello(space[:copy(space, data)]) }); n != 0 {
			t.Errorf("%s: %.0f allocations", name, n)
		}
	}
}

func FuzzHello(f *testing.F) {
	for _, c := range tlsCases {
		f.Add(c.data)
	}
	for _, c := range httpCases {
		f.Add([]byte(c.data))
	}
	f.Add(inRecords(helloOf(f, &tls.Config{ServerName: "a.example"}), 100))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, o := parseHello(bytes.Clone(data))
		got := describeHello(data)
		switch {
		case o != understood && (h.TLS || h.Name != nil || h.Protocols != nil):
			t.Errorf("%s and %+v", got, h)
		case o == unfinished && len(data) >= maxHello:
			t.Error("never complete")
		case len(h.Name)+len(h.Protocols) > len(data):
			t.Errorf("%d bytes bring %+v", len(data), h)
		}
		more := append(bytes.Clone(data), data...)
		if again := describeHello(more); o != unfinished && len(data) <= maxRequestHead/2 && again != got {
			t.Errorf("%s, but with more bytes %s", got, again)
		}
		for p := h.Protocols; len(p) > 0; p = p[1+int(p[0]):] { // no part of it is cut short
			if p[0] == 0 || int(p[0]) >= len(p) {
				t.Fatalf("protocols %q", h.Protocols)
			}
		}
	})
}

func BenchmarkHello(b *testing.B) {
	hello := helloOf(b, &tls.Config{ServerName: "www.b.example", NextProtos: []string{"h2", "http/1.1"}})
	request := "GET /index.html HTTP/1.1\r\nHost: www.b.example\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"
	for name, data := range map[string][]byte{
		"TLS":              hello,
		"TLS in 4 records": inRecords(hello, (len(hello)+3)/4),
		"HTTP":             []byte(request),
	} {
		b.Run(name, func(b *testing.B) {
			space := make([]byte, len(data))
			b.ReportAllocs()
			for b.Loop() {
				if _, o := parseHello(space[:copy(space, data)]); o != understood {
					b.Fatal(o)
				}
			}
		})
	}
}
