package dnsserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// A line is what a line of the query log says.
type line struct {
	Time, Client, Transport, Name, Type, Class string
	Opcode, Size, Sample                       int
	RD, CD, EDNS, DO, Truncated                bool
	Rcode, Response, Zone, Subnet              string
	Serial                                     uint32
	Generation                                 uint64
}

func parseLine(t testing.TB, text string) line {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	var l line
	if err := d.Decode(&l); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if _, err := time.Parse(time.RFC3339Nano, l.Time); err != nil {
		t.Error(err)
	}
	l.Time = ""
	return l
}

// logged returns what the query log says of one packet. The size of the response
// must be right.
func (h *house) logged(t testing.TB, packet []byte, tcp bool) line {
	t.Helper()
	w := &watch{log: newQueryLog(pool.QueryLog{File: "stdout", Sample: 1}, h.Server)}
	w.complete()
	h.watch.Store(w)
	defer h.watch.Store(nil)
	h.r.port = 5353
	response := h.respond(&h.r, nil, packet, client, 0, tcp)
	var out []byte
	if n := w.log.queue.drain(func(s *sighting) { out = s.appendLine(out, 1) }); n != 1 {
		t.Fatalf("%d lines for a packet", n)
	}
	if strings.Count(string(out), "\n") != 1 || out[len(out)-1] != '\n' {
		t.Fatalf("not one line: %q", out)
	}
	l := parseLine(t, string(out))
	if l.Size != len(response) {
		t.Errorf("%d octets, the response has %d: %q", l.Size, len(response), out)
	}
	l.Size = 0
	return l
}

func TestQueryLogLines(t *testing.T) {
	h := newHouse(t, nil)
	f := example(t)
	h.publish(f)
	h.renumber(7)
	from := netip.AddrPortFrom(client, 5353).String()
	plain := line{Client: from, Transport: "udp", Class: "IN", Sample: 1, Generation: 1}
	for _, c := range []struct {
		ask    string
		change func(*dns.Msg)
		tcp    bool
		want   func(*line)
	}{
		{ask: "WeB.example.com A", want: func(l *line) {
			l.Name, l.Type, l.Rcode, l.Zone, l.Serial = "WeB.example.com", "A", "NOERROR", "example.com", 7
		}},
		{ask: "nothing.example.com AAAA", tcp: true, change: func(m *dns.Msg) {
			m.RecursionDesired, m.CheckingDisabled = true, true
			m.SetEdns0(1232, true)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: []byte{192, 0, 2, 0}}}
		}, want: func(l *line) {
			l.Name, l.Type, l.Rcode, l.Zone, l.Serial = "nothing.example.com", "AAAA", "NXDOMAIN", "example.com", 7
			l.Transport, l.RD, l.CD, l.EDNS, l.DO, l.Subnet = "tcp", true, true, true, true, "192.0.2.0/24"
		}},
		{ask: "www.example.net TYPE4711", want: func(l *line) {
			l.Name, l.Type, l.Rcode = "www.example.net", "TYPE4711", "REFUSED"
		}},
		{ask: `a\.b\"\\\013\010\255{}.example.com TXT`, want: func(l *line) {
			l.Name, l.Type, l.Rcode, l.Zone, l.Serial = `a\.b\"\\\013\010\255{}.example.com`, "TXT", "NXDOMAIN", "example.com", 7
		}},
		{ask: ". NS", want: func(l *line) { l.Name, l.Type, l.Rcode = ".", "NS", "REFUSED" }},
		{ask: "example.com SOA", change: func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, want: func(l *line) {
			l.Name, l.Type, l.Opcode, l.Rcode = "example.com", "SOA", 4, "NOTIMP"
		}},
		{ask: "web.example.com A", change: func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, want: func(l *line) {
			l.Name, l.Type, l.Class, l.Rcode = "web.example.com", "A", "CH", "REFUSED"
		}},
	} {
		m := question(t, c.ask)
		m.RecursionDesired = false
		if c.change != nil {
			c.change(m)
		}
		want := plain
		c.want(&want)
		got := h.logged(t, must(m.Pack()), c.tcp)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.ask, diff)
		}
	}
	if got := h.logged(t, make([]byte, headerLen), false); got.Name != "" || got.Rcode != "FORMERR" {
		t.Errorf("without a question: %+v", got)
	}
	// Who is over the limit gets nothing, which is written down too.
	f.dns.RateLimit = pool.RateLimit{PerSecond: 1}
	h.publish(f)
	packet := must(question(t, "web.example.com A").Pack())
	h.respond(&h.r, nil, packet, client, 0, false)
	if got := h.logged(t, packet, false); got.Response != "none" || got.Rcode != "" || got.Name != "web.example.com" || got.Generation != 2 {
		t.Errorf("over the limit: %+v", got)
	}
}

// FuzzQueryLog: whatever a client sends, it makes one line of JSON in ASCII.
func FuzzQueryLog(f *testing.F) {
	for _, packet := range seeds(f) {
		f.Add(packet, true)
	}
	h := newHouse(f, nil)
	h.publish(example(f))
	f.Fuzz(func(t *testing.T, packet []byte, tcp bool) {
		var q query
		if len(packet) > maxQuery || q.read(packet) == ignore {
			return
		}
		l := h.logged(t, packet, tcp)
		for _, c := range l.Name {
			if c < ' ' || c > '~' {
				t.Errorf("name %q", l.Name)
			}
		}
		if q.question != nil && !strings.EqualFold(l.Name, name(q.name[:q.nameLen]).label()) {
			t.Errorf("name %q, want %q", l.Name, name(q.name[:q.nameLen]).label())
		}
	})
}

// Samples are as many as was asked for, whatever the answers are.
func TestSamplesAreFair(t *testing.T) {
	const sample, draws = 20, 400_000
	w := &watch{log: &queryLog{conf: pool.QueryLog{Sample: sample}}}
	w.complete()
	random := rand.New(rand.NewPCG(1, 2))
	n := 0
	for range draws {
		if w.wants(random.Uint32()) {
			n++
		}
	}
	if want := draws / sample; n < want*95/100 || n > want*105/100 {
		t.Errorf("%d of %d, want about %d", n, draws, want)
	}
	w.log.conf.Sample = 1
	w.complete()
	if !w.wants(1<<32 - 1) {
		t.Error("one in one is not all")
	}
}

// Who looks on costs a query no allocation.
func TestNoAllocationsWatched(t *testing.T) {
	f := example(t)
	f.dns.RateLimit = pool.RateLimit{PerSecond: 60_000, Slip: 2}
	h := newHouse(t, nil)
	h.publish(f)
	w := &watch{
		log: newQueryLog(pool.QueryLog{File: "stdout", Sample: 1}, h.Server),
		tap: newTap(pool.Dnstap{Network: "unix", Queries: true, Responses: true, Sample: 1}, h.Server),
		top: newTop(1),
	}
	w.complete()
	w.tap.open.Store(true)
	h.watch.Store(w)
	out := make([]byte, 0, maxPayload)
	for _, packet := range seeds(t) {
		if h.r.read(packet) == special || len(packet)+maxPayload > tapWires {
			continue
		}
		if n := testing.AllocsPerRun(100, func() { h.respond(&h.r, out, packet, client, 0, false) }); n > 0 {
			t.Errorf("%v allocations for % x", n, packet)
		}
	}
	if n := w.log.queue.drain(func(*sighting) {}); n < ringSize {
		t.Errorf("only %d queries were seen", n)
	}
}

// The file of the query log: one that is moved away, asked for anew, and gone.
func TestQueryLogFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "queries.json")
	f := example(t)
	f.dns.QueryLog = pool.QueryLog{File: path, Sample: 1}
	r := start(t, f, "127.0.0.53:0")
	lines := func(file string) []string {
		text, _ := os.ReadFile(file)
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	holds := func(file, want string) {
		t.Helper()
		eventually(t, func() error {
			all := lines(file)
			if last := all[len(all)-1]; !strings.Contains(last, want) {
				return fmt.Errorf("%s ends with %q, want %s", file, last, want)
			}
			return nil
		})
	}
	r.exchange(t, "udp", "web.example.com A", 0)
	holds(path, `"web.example.com"`)
	r.exchange(t, "tcp", "www.example.com AAAA", 1232)
	holds(path, `"transport":"tcp","name":"www.example.com","type":"AAAA"`)

	// logrotate moves it away and sends SIGHUP.
	old := filepath.Join(dir, "queries.json.1")
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	r.Reopen()
	r.exchange(t, "udp", "chain.example.com A", 0)
	holds(path, `"chain.example.com"`)
	if n := len(lines(old)); n != 2 {
		t.Errorf("%d lines in the old file, want 2", n)
	}
	// Off, and what waited is written.
	r.exchange(t, "udp", "ns1.example.com A", 0)
	f.dns.QueryLog = pool.QueryLog{}
	r.publish()
	r.await(t)
	holds(path, `"ns1.example.com"`)
	eventually(t, func() error {
		if r.watch.Load() != nil {
			return errors.New("somebody still looks on")
		}
		return nil
	})
	if log := r.log.String(); strings.Contains(log, "query log") {
		t.Errorf("the log complains: %s", log)
	}
}

// A query log that cannot be written is one line in the log, and DNS goes on.
func TestQueryLogBroken(t *testing.T) {
	f := example(t)
	f.dns.QueryLog = pool.QueryLog{File: filepath.Join(t.TempDir(), "missing", "queries.json"), Sample: 1}
	r := start(t, f, "127.0.0.53:0")
	for range 3 {
		if a := r.exchange(t, "udp", "web.example.com A", 0); a.Rcode != dns.RcodeSuccess {
			t.Errorf("got %v", a)
		}
	}
	eventually(t, func() error {
		if n := r.watched.logFailed.Load(); n != 3 {
			return fmt.Errorf("%d lines have failed, want 3", n)
		}
		return nil
	})
	if n := strings.Count(r.log.String(), "query log cannot be written"); n != 1 {
		t.Errorf("said %d times:\n%s", n, r.log)
	}
}

// A fullDisk takes some octets and then no more, until it is emptied.
type fullDisk struct {
	room int
	buf  bytes.Buffer
}

func (d *fullDisk) Write(p []byte) (int, error) {
	if len(p) <= d.room {
		d.room -= len(p)
		return d.buf.Write(p)
	}
	n, _ := d.buf.Write(p[:d.room])
	d.room = 0
	return n, errors.New("no space left on device")
}

// A line that is torn when the disk is full does not run into the next one.
func TestQueryLogFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &fullDisk{room: 20}
		var log bytes.Buffer
		s := New(Options{Table: new(pool.Publisher), Stdout: disk, Log: slog.New(slog.NewTextHandler(&log, nil))})
		l := newQueryLog(pool.QueryLog{File: "stdout", Sample: 1}, s)
		put := func() {
			r := responder{query: new(query)}
			r.outcome.rcode = rcodeRefused
			l.see(&r, nil, client, 0, false)
			l.queue.drain(l.add)
			l.flush()
		}
		put()
		put()
		disk.room = 1 << 20
		put()
		put()
		lines := strings.Split(strings.TrimSpace(disk.buf.String()), "\n")
		if len(lines) != 3 {
			t.Fatalf("%d lines: %q", len(lines), lines)
		}
		for _, text := range lines[1:] {
			parseLine(t, text)
		}
		if s.watched.logFailed.Load() != 2 || s.watched.logWritten.Load() != 2 {
			t.Errorf("%d failed, %d written", s.watched.logFailed.Load(), s.watched.logWritten.Load())
		}
		if strings.Count(log.String(), "cannot be written") != 1 || strings.Count(log.String(), "written again") != 1 {
			t.Errorf("the log says %s", &log)
		}
	})
}
