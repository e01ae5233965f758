package dnstap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	reference "github.com/dnstap/golang-dnstap"
	framestream "github.com/farsightsec/golang-framestream"
	"google.golang.org/protobuf/proto"
)

var (
	asked    = time.Date(2026, 11, 23, 9, 0, 0, 123456789, time.UTC)
	answered = asked.Add(time.Millisecond)
)

// The reference implementation reads what is written, and finds nothing that
// it does not know.
func TestMessages(t *testing.T) {
	for name, c := range map[string]struct {
		encoder Encoder
		message Message
		want    *reference.Dnstap
	}{
		"query by UDP": {
			Encoder{Identity: "master", Version: "elbow v1"},
			Message{
				Client: netip.MustParseAddrPort("192.0.2.1:5353"), Server: netip.MustParseAddrPort("198.51.100.1:53"),
				QueryTime: asked, Zone: []byte("\x07example\x03com\x00"), Wire: []byte("the query"),
			},
			&reference.Dnstap{
				Identity: []byte("master"), Version: []byte("elbow v1"), Type: reference.Dnstap_MESSAGE.Enum(),
				Message: &reference.Message{
					Type: reference.Message_AUTH_QUERY.Enum(), SocketFamily: reference.SocketFamily_INET.Enum(),
					SocketProtocol: reference.SocketProtocol_UDP.Enum(),
					QueryAddress:   []byte{192, 0, 2, 1}, QueryPort: proto.Uint32(5353),
					ResponseAddress: []byte{198, 51, 100, 1}, ResponsePort: proto.Uint32(53),
					QueryTimeSec: proto.Uint64(uint64(asked.Unix())), QueryTimeNsec: proto.Uint32(123456789),
					QueryMessage: []byte("the query"), QueryZone: []byte("\x07example\x03com\x00"),
				},
			},
		},
		"response by TCP, of no zone, over IPv6": {
			Encoder{},
			Message{
				IsResponse: true, TCP: true,
				Client:    netip.MustParseAddrPort("[2001:db8::1]:65535"),
				QueryTime: asked, ResponseTime: answered, Wire: bytes.Repeat([]byte{0xff}, 65535),
			},
			&reference.Dnstap{
				Type: reference.Dnstap_MESSAGE.Enum(),
				Message: &reference.Message{
					Type: reference.Message_AUTH_RESPONSE.Enum(), SocketFamily: reference.SocketFamily_INET6.Enum(),
					SocketProtocol: reference.SocketProtocol_TCP.Enum(),
					QueryAddress:   netip.MustParseAddr("2001:db8::1").AsSlice(), QueryPort: proto.Uint32(65535),
					QueryTimeSec: proto.Uint64(uint64(asked.Unix())), QueryTimeNsec: proto.Uint32(123456789),
					ResponseTimeSec: proto.Uint64(uint64(answered.Unix())), ResponseTimeNsec: proto.Uint32(124456789),
					ResponseMessage: bytes.Repeat([]byte{0xff}, 65535),
				},
			},
		},
	} {
		frame := c.encoder.Append([]byte("before"), &c.message)[len("before"):]
		if n := binary.BigEndian.Uint32(frame); int(n) != len(frame)-4 {
			t.Errorf("%s: the frame says %d octets and has %d", name, n, len(frame)-4)
		}
		var got reference.Dnstap
		if err := proto.Unmarshal(frame[4:], &got); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !proto.Equal(c.want, &got) {
			t.Errorf("%s:\ngot  %v\nwant %v", name, &got, c.want)
		}
	}
}

func TestEncoderAllocatesNothing(t *testing.T) {
	e := Encoder{Identity: "master", Version: "elbow v1"}
	m := Message{Client: netip.MustParseAddrPort("192.0.2.1:5353"), QueryTime: asked, Wire: make([]byte, 512)}
	dst := make([]byte, 0, 4096)
	e.Append(dst, &m)
	if n := testing.AllocsPerRun(100, func() { e.Append(dst, &m) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// The reference reader gets every frame and the end of the stream.
func TestStream(t *testing.T) {
	here, there := net.Pipe()
	defer here.Close()
	frames := make(chan []string, 1)
	go func() {
		defer there.Close()
		var got []string
		r, err := framestream.NewReader(there, &framestream.ReaderOptions{
			ContentTypes: [][]byte{[]byte("something else"), reference.FSContentType}, Bidirectional: true, Timeout: 5 * time.Second,
		})
		for buf := make([]byte, 100); err == nil; {
			var n int
			if n, err = r.ReadFrame(buf); err == nil {
				got = append(got, string(buf[:n]))
			}
		}
		if !errors.Is(err, framestream.EOF) {
			got = append(got, err.Error())
		}
		frames <- got
	}()
	s, err := Open(here, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"\x00\x00\x00\x03one", "\x00\x00\x00\x03two\x00\x00\x00\x05three"} {
		if err := s.Write([]byte(f)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Finish(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(<-frames, " "); got != "one two three" {
		t.Errorf("the reader got %q", got)
	}
}

// Whatever a reader says instead of what it should, Open returns.
func TestReadersThatAreNone(t *testing.T) {
	accept := func(fields string) string {
		frame := binary.BigEndian.AppendUint32(nil, 0)
		frame = binary.BigEndian.AppendUint32(frame, uint32(4+len(fields)))
		return string(binary.BigEndian.AppendUint32(frame, controlAccept)) + fields
	}
	for name, c := range map[string]struct{ says, want string }{
		"nothing":            {"", os.ErrDeadlineExceeded.Error()},
		"HTTP":               {"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak Frame Streams"},
		"another type":       {accept("\x00\x00\x00\x01\x00\x00\x00\x02ab"), "does not accept"},
		"half a field":       {accept("\x00\x00\x00\x01\x00"), "ends within a field"},
		"a field too long":   {accept("\x00\x00\x00\x01\xff\xff\xff\xffab"), "ends within a field"},
		"too long a frame":   {"\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00\x00\x01", "does not speak Frame Streams"},
		"another frame":      {"\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x05", "control frame 5 instead of 1"},
		"a frame cut in two": {accept("\x00\x00\x00\x01")[:13], os.ErrDeadlineExceeded.Error()},
		"any type":           {accept(""), ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				go io.Copy(io.Discard, there)
				go there.Write([]byte(c.says))
				begun := time.Now()
				_, err := Open(here, 2*time.Second)
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if took := time.Since(begun); took > 2*time.Second {
					t.Errorf("it took %s", took)
				}
				here.Close()
				there.Close()
			})
		})
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x02"))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x0e\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x02ab"))
	f.Fuzz(func(t *testing.T, says []byte) {
		conn := &deaf{Reader: bytes.NewReader(says)}
		if _, err := Open(conn, time.Second); err == nil && (len(says) < 12 || says[11] != controlAccept) {
			t.Errorf("% x was taken for a reader", says)
		}
	})
}

// A deaf is a connection to one who has said all and listens to nothing.
type deaf struct {
	io.Reader
	net.Conn
}

func (d *deaf) Read(p []byte) (int, error)       { return d.Reader.Read(p) }
func (d *deaf) Write(p []byte) (int, error)      { return len(p), nil }
func (d *deaf) SetReadDeadline(time.Time) error  { return nil }
func (d *deaf) SetWriteDeadline(time.Time) error { return nil }
