package dnsserver

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dnstap/golang-dnstap"
	framestream "github.com/farsightsec/golang-framestream"
	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	"haslohas.com/elbow/pool"
)

// A tapReader accepts one stream after the other and hands on its messages.
type tapReader struct {
	net.Listener
	messages chan *dnstap.Dnstap
	ended    chan error // how a stream ended; nil: as it should
}

func newTapReader(t testing.TB, network, address string) *tapReader {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	r := &tapReader{Listener: l, messages: make(chan *dnstap.Dnstap, 100), ended: make(chan error, 10)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.ended <- r.read(c)
			c.Close()
		}
	}()
	return r
}

func (r *tapReader) read(c net.Conn) error {
	in, err := framestream.NewReader(c, &framestream.ReaderOptions{ContentTypes: [][]byte{dnstap.FSContentType}, Bidirectional: true})
	if err != nil {
		return err
	}
	for buf := make([]byte, 1<<17); ; {
		n, err := in.ReadFrame(buf)
		if errors.Is(err, framestream.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		m := new(dnstap.Dnstap)
		if err := proto.Unmarshal(buf[:n], m); err != nil {
			return err
		}
		r.messages <- m
	}
}

func (r *tapReader) next(t testing.TB) *dnstap.Dnstap {
	t.Helper()
	select {
	case m := <-r.messages:
		return m
	case <-time.After(5 * time.Second):
		t.Fatal("no message of dnstap has come")
		return nil
	}
}

// connected waits until the tap has found its reader.
func (r *running) connected(t testing.TB, want bool) {
	t.Helper()
	eventually(t, func() error {
		if r.watched.tapConnected.Load() != want {
			return fmt.Errorf("connected is %t", !want)
		}
		return nil
	})
}

// The messages say what was on the wire, between whom, and of which zone.
func TestDnstap(t *testing.T) {
	for _, c := range []struct {
		listen, network, reader string
		asked                   string // the address that is asked
	}{
		{"127.0.0.53:0", "unix", filepath.Join(t.TempDir(), "tap.sock"), "127.0.0.53"},
		{"0.0.0.0:0", "tcp", "127.0.0.1:0", "127.0.0.54"},
		{"[::1]:0", "unix", filepath.Join(t.TempDir(), "tap6.sock"), "::1"},
	} {
		t.Run(c.listen, func(t *testing.T) {
			reader := newTapReader(t, c.network, c.reader)
			f := example(t)
			f.dns.Dnstap = pool.Dnstap{Network: c.network, Address: reader.Addr().String(), Identity: "master", Queries: true, Responses: true, Sample: 1}
			r := start(t, f, c.listen)
			r.connected(t, true)
			server := netip.AddrPortFrom(netip.MustParseAddr(c.asked), r.Addrs()[0].Port())
			for _, transport := range []string{"udp", "tcp"} {
				conn, err := net.Dial(transport, server.String())
				if err != nil {
					t.Fatal(err)
				}
				client := netip.MustParseAddrPort(conn.LocalAddr().String())
				d := &dns.Conn{Conn: conn}
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
				query := must(question(t, "WeB.example.com A").Pack())
				begun := time.Now()
				if _, err := d.Write(query); err != nil {
					t.Fatal(err)
				}
				response := make([]byte, 512)
				n, err := d.Read(response)
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				got := [2]*dnstap.Dnstap{reader.next(t), reader.next(t)}
				for i, kind := range []dnstap.Message_Type{dnstap.Message_AUTH_QUERY, dnstap.Message_AUTH_RESPONSE} {
					m := got[i].Message
					at := time.Unix(int64(m.GetQueryTimeSec()), int64(m.GetQueryTimeNsec()))
					address, _ := netip.AddrFromSlice(m.QueryAddress)
					here, _ := netip.AddrFromSlice(m.ResponseAddress)
					switch {
					case string(got[i].Identity) != "master", got[i].GetType() != dnstap.Dnstap_MESSAGE, m.GetType() != kind:
						t.Errorf("%s: %v", transport, got[i])
					case m.GetSocketProtocol().String() != strings.ToUpper(transport), (m.GetSocketFamily() == dnstap.SocketFamily_INET6) != client.Addr().Is6():
						t.Errorf("%s: family %v, protocol %v", transport, m.GetSocketFamily(), m.GetSocketProtocol())
					case netip.AddrPortFrom(address, uint16(m.GetQueryPort())) != client, netip.AddrPortFrom(here, uint16(m.GetResponsePort())) != server:
						t.Errorf("%s: from %s port %d to %s port %d, want %s to %s", transport, address, m.GetQueryPort(), here, m.GetResponsePort(), client, server)
					case at.Before(begun.Add(-time.Second)) || at.After(time.Now()):
						t.Errorf("%s: at %s, asked at %s", transport, at, begun)
					case string(m.QueryZone) != "\x07example\x03com\x00":
						t.Errorf("%s: zone %q", transport, m.QueryZone)
					}
				}
				if m := got[0].Message; !bytes.Equal(m.QueryMessage, query) || m.ResponseMessage != nil {
					t.Errorf("%s: query % x, want % x", transport, m.QueryMessage, query)
				}
				if m := got[1].Message; !bytes.Equal(m.ResponseMessage, response[:n]) || m.QueryMessage != nil {
					t.Errorf("%s: response % x, want % x", transport, m.ResponseMessage, response[:n])
				}
			}
			r.stop()
			if err := <-reader.ended; err != nil {
				t.Errorf("the stream ended with %v", err)
			}
			if n := r.watched.tapSent.Load(); n != 4 || r.watched.tapLost.Load() != 0 {
				t.Errorf("%d messages were sent, %d lost", n, r.watched.tapLost.Load())
			}
		})
	}
}

// A large answer by TCP is there as a whole.
func TestDnstapLarge(t *testing.T) {
	t.Parallel() // it waits
	reader := newTapReader(t, "unix", filepath.Join(t.TempDir(), "tap.sock"))
	f := example(t)
	var records strings.Builder
	records.WriteString(ns)
	for i := range 200 {
		fmt.Fprintf(&records, "all TXT %0200d\n", i)
	}
	f.zone(&pool.Zone{Name: "big.example", Records: records.String()})
	f.dns.Dnstap = pool.Dnstap{Network: "unix", Address: reader.Addr().String(), Responses: true, Sample: 1}
	r := start(t, f, "127.0.0.53:0")
	r.connected(t, true)
	for range 3 {
		a := r.exchange(t, "tcp", "all.big.example TXT", 0)
		got := new(dns.Msg)
		if err := got.Unpack(reader.next(t).Message.ResponseMessage); err != nil || len(got.Answer) != len(a.Answer) || len(a.Answer) != 200 {
			t.Errorf("%d records in the message, %d in the answer, %v", len(got.Answer), len(a.Answer), err)
		}
	}
	if n := r.watch.Load().tap.large.Load(); n != 0 {
		t.Errorf("%d large answers are waiting", n)
	}
}

// A reader that goes away is found again; without it queries are answered, and
// what it misses is counted.
func TestDnstapReaderComesAndGoes(t *testing.T) {
	t.Parallel() // it waits
	path := filepath.Join(t.TempDir(), "tap.sock")
	f := example(t)
	f.dns.Dnstap = pool.Dnstap{Network: "unix", Address: path, Queries: true, Sample: 1}
	r := start(t, f, "127.0.0.53:0")
	eventually(t, func() error {
		if !strings.Contains(r.log.String(), "dnstap reader is away") {
			return errors.New("nobody says that there is no reader")
		}
		return nil
	})
	r.exchange(t, "udp", "web.example.com A", 0)
	if n := r.watched.tapLost.Load(); n != 1 {
		t.Errorf("%d messages were lost, want 1", n)
	}
	reader := newTapReader(t, "unix", path)
	r.connected(t, true)
	r.exchange(t, "udp", "www.example.com A", 0)
	if m := reader.next(t).Message; !bytes.Contains(m.QueryMessage, []byte("\x03www")) {
		t.Errorf("got %v", m)
	}
	if n := strings.Count(r.log.String(), "dnstap reader is away"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// A reader that takes nothing more keeps no query waiting.
func TestDnstapSlowReader(t *testing.T) {
	t.Parallel() // it waits
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "tap.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	begun := make(chan struct{})
	gone := make(chan struct{})
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = framestream.NewReader(c, &framestream.ReaderOptions{Bidirectional: true, ContentTypes: [][]byte{dnstap.FSContentType}})
		close(begun)
		<-gone
	}()
	defer close(gone)
	f := example(t)
	f.dns.RateLimit = pool.RateLimit{}
	f.dns.Dnstap = pool.Dnstap{Network: "unix", Address: l.Addr().String(), Queries: true, Responses: true, Sample: 1}
	r := start(t, f, "127.0.0.53:0")
	<-begun
	r.connected(t, true)
	conn, err := net.Dial("udp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := &dns.Conn{Conn: conn}
	query := must(question(t, "web.example.com A").Pack())
	answers := 0
	buf := make([]byte, 512)
	for r.watched.tapLost.Load() == 0 {
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := d.Write(query); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Read(buf); err != nil {
			t.Fatalf("after %d answers: %v", answers, err)
		}
		answers++
	}
	t.Logf("%d answers until the first message was lost", answers)
}
