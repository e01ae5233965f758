package dnsserver

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
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

func framed(packets ...[]byte) []byte {
	var out []byte
	for _, p := range packets {
		out = binary.BigEndian.AppendUint16(out, uint16(len(p)))
		out = append(out, p...)
	}
	return out
}

func TestPipelining(t *testing.T) {
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

func TestOneOctetAtATime(t *testing.T) {
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

func TestLongMessage(t *testing.T) {
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

func TestNonsenseEndsTheConnection(t *testing.T) {
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
func TestSlowMessage(t *testing.T) {
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

func TestConnectionsOfAPrefix(t *testing.T) {
	r := start(t, example(t), "127.0.0.53:0")
	stranger := dialTCP(t, r, "127.0.9.1")
	eventually(t, func() error {
		if r.connections.count() != 1 {
			return errors.New("not accepted")
		}
		return nil
	})
	var all []net.Conn
	for i := range maxConnectionsPerPrefix + 3 {
		all = append(all, dialTCP(t, r, "127.0.0.1"))
		want := 1 + min(i+1, maxConnectionsPerPrefix)
		eventually(t, func() error {
			if n := r.connections.count(); n != want {
				return fmt.Errorf("%d connections, want %d", n, want)
			}
			return nil
		})
	}
	// The oldest three had to go; the stranger and the newest are served.
	packet, err := question(t, "www.example.com A").Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{stranger, all[3], all[len(all)-1]} {
		if _, err := c.Write(framed(packet)); err != nil {
			t.Fatal(err)
		}
		if a, err := (&dns.Conn{Conn: c}).ReadMsg(); err != nil || len(a.Answer) != 2 {
			t.Errorf("%v %v", a, err)
		}
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
		c := &connection{TCPConn: new(net.TCPConn), prefix: prefix}
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
