package dnsserver

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// dialTCP opens a connection as clients at 127.0.0.N do.
func dialTCP(t testing.TB, r *running, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(8 * time.Second))
	return c
}

// onEachTCP runs a test of behaviour on all that TCP can go through. Where there
// are no loops those go through goroutines, too.
func onEachTCP(t *testing.T, test func(t *testing.T, start starter)) {
	t.Helper()
	for _, way := range []struct {
		name  string
		loops int
	}{{"goroutines", 0}, {"a loop", 1}, {"three loops", 3}} {
		t.Run(way.name, func(t *testing.T) {
			test(t, func(t testing.TB, f *fixture, addresses ...string) *running {
				return startWith(t, f, func(s *Server) { s.loops = way.loops }, addresses...)
			})
		})
	}
}

type starter func(t testing.TB, f *fixture, addresses ...string) *running

// askOn asks once and takes the answer. After that a connection is counted on
// every system: some tell of one only with its first octets.
func askOn(t testing.TB, c net.Conn) {
	t.Helper()
	packet, err := question(t, "www.example.com A").Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(framed(packet)); err != nil {
		t.Fatal(err)
	}
	if a, err := (&dns.Conn{Conn: c}).ReadMsg(); err != nil || len(a.Answer) != 2 {
		t.Fatalf("%v %v", a, err)
	}
}

func framed(packets ...[]byte) []byte {
	var out []byte
	for _, p := range packets {
		out = binary.BigEndian.AppendUint16(out, uint16(len(p)))
		out = append(out, p...)
	}
	return out
}

func TestPipelining(t *testing.T) { onEachTCP(t, pipelining) }

func pipelining(t *testing.T, start starter) {
	r := start(t, example(t), "127.0.0.53:0")
	c := dialTCP(t, r, "127.0.0.1")
	var all [][]byte
	for i := range 500 {
		m := question(t, "www.example.com A")
		m.Id = uint16(i)
		p, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		stream := framed(all...)
		for len(stream) > 0 { // in odd pieces
			n := min(len(stream), 333)
			if _, err := c.Write(stream[:n]); err != nil {
				t.Error(err)
				return
			}
			stream = stream[n:]
		}
	})
	conn := dns.Conn{Conn: c}
	for i := range all {
		a, err := conn.ReadMsg()
		if err != nil {
			t.Fatal(err)
		}
		if int(a.Id) != i || len(a.Answer) != 2 {
			t.Fatalf("answer %d: %v", i, a)
		}
	}
}

// TestHalfClose: who says that it has asked everything gets every answer.
func TestHalfClose(t *testing.T) { onEachTCP(t, halfClose) }

func halfClose(t *testing.T, start starter) {
	f := &fixture{}
	f.zone(&pool.Zone{Name: "big.example", Records: "@ NS ns.example.net.\n" + manyTXT(200)})
	r := start(t, f, "127.0.0.53:0")
	// Few answers fit into the system at once, many do not.
	for _, asked := range []int{1, 2, 150} {
		c := dialTCP(t, r, "127.0.0.1")
		var all [][]byte
		for i := range asked {
			m := question(t, "all.big.example TXT")
			m.Id = uint16(i)
			p, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
		if _, err := c.Write(framed(all...)); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		conn := dns.Conn{Conn: c}
		for i := range all {
			if a, err := conn.ReadMsg(); err != nil || int(a.Id) != i || len(a.Answer) != 200 {
				t.Fatalf("answer %d of %d: %v", i, asked, err)
			}
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after %d answers: %v", asked, err)
		}
		if took := time.Since(begun); took > tcpMessage {
			t.Errorf("%d answers and the end took %s", asked, took)
		}
	}
}

// TestTransferAmongQueries: a zone is sent in its place among other answers,
// on a connection that goes on.
func TestTransferAmongQueries(t *testing.T) { onEachTCP(t, transferAmongQueries) }

func transferAmongQueries(t *testing.T, start starter) {
	f := example(t)
	for _, z := range f.dns.Zones {
		z.Transfer = pool.Transfer{Allow: []pool.TransferClient{{Network: netip.MustParsePrefix("127.0.0.0/8")}}}
	}
	r := start(t, f, "127.0.0.53:0")
	c := dialTCP(t, r, "127.0.0.1")
	for range 2 {
		var all [][]byte
		for i, ask := range []string{"www.example.com A", "example.com AXFR", "www.example.com A"} {
			m := question(t, ask)
			m.Id = uint16(i)
			p, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p)
		}
		if _, err := c.Write(framed(all...)); err != nil {
			t.Fatal(err)
		}
		conn := dns.Conn{Conn: c}
		for i := range all {
			soas := 0
			for {
				a, err := conn.ReadMsg()
				if err != nil || int(a.Id) != i || len(a.Answer) == 0 {
					t.Fatalf("answer %d: %v %v", i, a, err)
				}
				for _, rr := range a.Answer {
					if rr.Header().Rrtype == dns.TypeSOA {
						soas++
					}
				}
				if i != 1 || soas == 2 {
					break
				}
			}
		}
	}
	if n := r.connections.count(); n != 1 {
		t.Errorf("%d connections are counted, want 1", n)
	}
	c.Close()
	eventually(t, func() error {
		if n := r.connections.count(); n != 0 {
			return fmt.Errorf("%d connections are open", n)
		}
		return nil
	})
}

func TestOneOctetAtATime(t *testing.T) { onEachTCP(t, oneOctetAtATime) }

func oneOctetAtATime(t *testing.T, start starter) {
	r := start(t, example(t), "127.0.0.53:0")
	c := dialTCP(t, r, "127.0.0.1")
	packet, err := question(t, "www.example.com A").Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range framed(packet) {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := (&dns.Conn{Conn: c}).ReadMsg(); err != nil || len(a.Answer) != 2 {
		t.Errorf("%v %v", a, err)
	}
}

func TestLongMessage(t *testing.T) { onEachTCP(t, longMessage) }

func longMessage(t *testing.T, start starter) {
	r := start(t, example(t), "127.0.0.53:0")
	c := dialTCP(t, r, "127.0.0.1")
	packet := make([]byte, 20_000)
	copy(packet, "\x12\x34\x01\x00\x00\x01")
	if _, err := c.Write(framed(packet)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	a, err := (&dns.Conn{Conn: c}).ReadMsg()
	if err != nil || a.Id != 0x1234 || a.Rcode != dns.RcodeFormatError {
		t.Errorf("%v %v", a, err)
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection: %v", err)
	}
}

func TestNonsenseEndsTheConnection(t *testing.T) { onEachTCP(t, nonsenseEndsTheConnection) }

func nonsenseEndsTheConnection(t *testing.T, start starter) {
	r := start(t, example(t), "127.0.0.53:0")
	for _, packet := range [][]byte{{}, []byte("short"), []byte("\x12\x34\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00")} {
		c := dialTCP(t, r, "127.0.0.1")
		if _, err := c.Write(framed(packet)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("% x: %d octets, %v", packet, n, err)
		}
	}
}

// TestSlowMessage: who begins a message ends it within two seconds, and others
// are served meanwhile.
func TestSlowMessage(t *testing.T) { onEachTCP(t, slowMessage) }

func slowMessage(t *testing.T, start starter) {
	t.Parallel()
	r := start(t, example(t), "127.0.0.53:0")
	c := dialTCP(t, r, "127.0.0.1")
	begun := time.Now()
	if _, err := c.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	if a := r.exchange(t, "tcp", "www.example.com A", 0); len(a.Answer) != 2 {
		t.Errorf("got %v", a)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection: %v", err)
	}
	if took := time.Since(begun); took < tcpMessage-100*time.Millisecond || took > tcpMessage+2*time.Second {
		t.Errorf("it took %s, want %s", took, tcpMessage)
	}
}

func TestConnectionsOfAPrefix(t *testing.T) { onEachTCP(t, connectionsOfAPrefix) }

func connectionsOfAPrefix(t *testing.T, start starter) {
	r := start(t, example(t), "127.0.0.53:0")
	stranger := dialTCP(t, r, "127.0.9.1")
	askOn(t, stranger)
	var all []net.Conn
	for i := range maxConnectionsPerPrefix + 3 {
		all = append(all, dialTCP(t, r, "127.0.0.1"))
		askOn(t, all[i])
		want := 1 + min(i+1, maxConnectionsPerPrefix)
		eventually(t, func() error {
			if n := r.connections.count(); n != want {
				return fmt.Errorf("%d connections, want %d", n, want)
			}
			return nil
		})
	}
	// The oldest three had to go; the stranger and the newest are served.
	for _, c := range []net.Conn{stranger, all[3], all[len(all)-1]} {
		askOn(t, c)
	}
	for _, c := range all[:3] {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the oldest: %v", err)
		}
	}
}

func TestConnectionsAdmit(t *testing.T) {
	var all connections
	pair := func(prefix uint64, idle int64) *connection {
		c := &connection{transport: &netConnection{TCPConn: new(net.TCPConn)}, prefix: prefix}
		c.idleSince.Store(idle)
		return c
	}
	oldest := pair(1, 5)
	if !all.admit(oldest) {
		t.Fatal("refused")
	}
	for i := range maxConnections - 1 {
		if !all.admit(pair(uint64(100+i), int64(10+i))) {
			t.Fatal("refused")
		}
	}
	if !all.admit(pair(7, 5000)) || all.count() != maxConnections {
		t.Errorf("%d connections", all.count())
	}
	if _, there := all.open[oldest]; there {
		t.Error("the oldest was not closed")
	}
	for c := range all.open {
		c.idleSince.Store(0) // all are busy
	}
	if all.admit(pair(8, 5001)) {
		t.Error("a busy connection was closed for a new one")
	}
	for c := range all.open {
		all.remove(c)
		all.remove(c)
	}
	if all.count() != 0 || len(all.prefixes) != 0 {
		t.Errorf("%d connections of %d prefixes are left", all.count(), len(all.prefixes))
	}
}

// TestTCPFlood: connections that send an octet a second take every place, and
// others send long messages; who asks meanwhile is answered.
func TestTCPFlood(t *testing.T) { onEachTCP(t, tCPFlood) }

func tCPFlood(t *testing.T, start starter) {
	t.Parallel()
	r := start(t, example(t), "127.0.0.53:0")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	dial := func(from string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", r.Addrs()[0].String())
		if err != nil {
			t.Error(err)
		}
		return c
	}
	// In the middle of a message, from as many networks as it takes.
	for i := range maxConnections {
		c := dial(fmt.Sprintf("127.0.%d.1", 100+i/(maxConnectionsPerPrefix-1)))
		if c == nil {
			return
		}
		defer c.Close()
		if _, err := c.Write([]byte{0, 40, 1}); err != nil {
			t.Fatal(err)
		}
	}
	long := append([]byte{0xff, 0xff}, make([]byte, 65535)...)
	for i := range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				c := dial(fmt.Sprintf("127.0.9%d.1", i))
				if c == nil {
					return
				}
				_ = c.SetDeadline(time.Now().Add(time.Second))
				_, _ = c.Write(long) // it is closed in the middle
				c.Close()
			}
		})
	}
	for range 50 {
		if a := r.exchange(t, "tcp", "www.example.com A", 0); len(a.Answer) != 2 {
			t.Fatalf("got %v", a)
		}
		if a := r.exchange(t, "udp", "www.example.com A", 0); len(a.Answer) != 2 {
			t.Fatalf("got %v", a)
		}
	}
	if n := r.connections.count(); n > maxConnections {
		t.Errorf("%d connections are open", n)
	}
}

// TestWriteDeadline: who does not take the answers is closed.
func TestWriteDeadline(t *testing.T) { onEachTCP(t, writeDeadline) }

func writeDeadline(t *testing.T, start starter) {
	t.Parallel()
	f := &fixture{}
	f.zone(&pool.Zone{Name: "big.example", Records: "@ NS ns.example.net.\n" + manyTXT(200)})
	r := start(t, f, "127.0.0.53:0")
	c := dialTCP(t, r, "127.0.0.1")
	packet, err := question(t, "all.big.example TXT").Pack()
	if err != nil {
		t.Fatal(err)
	}
	one := framed(packet)
	for { // until both directions are full, and then until it is closed
		if _, err := c.Write(one); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("it is not closed")
			}
			break
		}
	}
	eventually(t, func() error {
		if n := r.connections.count(); n != 0 {
			return fmt.Errorf("%d connections are open", n)
		}
		return nil
	})
}

// manyTXT is one large RRset.
func manyTXT(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "all TXT %0200d\n", i)
	}
	return b.String()
}

// TestIdleIsShorterInACrowd, and the clients are told, RFC 7828.
func TestIdleIsShorterInACrowd(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	told := func() uint16 {
		m := question(t, "www.example.com A")
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}}
		packet, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return h.send(t, packet, true).IsEdns0().Option[0].(*dns.EDNS0_TCP_KEEPALIVE).Timeout
	}
	if got := told(); got != 100 {
		t.Errorf("%d in calm, want 100", got)
	}
	var all []*connection
	for i := range maxConnections/2 + 1 {
		c := &connection{transport: &netConnection{TCPConn: new(net.TCPConn)}, prefix: uint64(i)}
		h.connections.admit(c)
		all = append(all, c)
	}
	if got := told(); got != 20 {
		t.Errorf("%d in a crowd, want 20", got)
	}
	h.connections.remove(all[0])
	if got := told(); got != 100 {
		t.Errorf("%d afterwards, want 100", got)
	}
}
