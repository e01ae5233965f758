package dnsserver

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"haslohas.com/elbow/internal/dnstable"
	"haslohas.com/elbow/pool"
)

var client = netip.MustParseAddr("203.0.113.77")

// exchange sends a message through the Server as UDP does. It returns nil if
// there is no response.
func (h *house) exchange(t testing.TB, m *dns.Msg) *dns.Msg {
	t.Helper()
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return h.send(t, packet, false)
}

func (h *house) send(t testing.TB, packet []byte, tcp bool) *dns.Msg {
	t.Helper()
	out := h.respond(&h.r, nil, packet, client, 0, tcp)
	if out == nil {
		return nil
	}
	var m dns.Msg
	if err := m.Unpack(out); err != nil {
		t.Fatalf("the response cannot be read: %v\n% x", err, out)
	}
	return &m
}

// question makes the message of a line such as "www.example.com A class=CH".
func question(t testing.TB, line string) *dns.Msg {
	t.Helper()
	m, _, err := dnstable.Question(line)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func text(m *dns.Msg) string { return dnstable.Text(m) }

func TestAnswers(t *testing.T) {
	cases, err := os.ReadFile("testdata/answers.txt")
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, nil)
	h.publish(example(t))
	h.renumber(2026112300)
	count := 0
	for block := range strings.SplitSeq(string(cases), "\n\n") {
		var lines []string
		for line := range strings.SplitSeq(strings.TrimSpace(block), "\n") {
			if !strings.HasPrefix(line, "#") && line != "" {
				lines = append(lines, line)
			}
		}
		if len(lines) == 0 {
			continue
		}
		count++
		ask := strings.TrimPrefix(lines[0], "> ")
		want := strings.Join(lines[1:], "\n") + "\n"
		t.Run(strings.ReplaceAll(ask, " ", "_"), func(t *testing.T) {
			q := question(t, ask)
			packet, err := q.Pack()
			if err != nil {
				t.Fatal(err)
			}
			v := h.r.read(packet)
			// Without chance: the addresses in their own order.
			wire, _ := h.r.answer(nil, h.snapshot.Load(), v, conversation{tcp: true})
			var m dns.Msg
			if err := m.Unpack(wire); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, text(&m)); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			if m.Id != q.Id || !m.Response || len(m.Question) != 1 || m.Question[0] != q.Question[0] {
				t.Errorf("header or question differ: %v", m)
			}
		})
	}
	if count < 60 {
		t.Errorf("only %d cases were found", count)
	}
}

// TestServiceAtOddPlaces: hostnames at the apex, at a delegation and below it,
// beside records of the file, and at an asterisk.
func TestServiceAtOddPlaces(t *testing.T) {
	f := &fixture{}
	f.zone(&pool.Zone{Name: "example.com", Records: `
@    NS    ns.example.net.
@    TXT   "apex"
cut  NS    ns.cut
ns.cut A   192.0.2.53
both A     192.0.2.1
both TXT   "both"
c    CNAME both
old  DNAME cut
`})
	for _, h := range []string{"example.com", "cut.example.com", "x.y.cut.example.com", "both.example.com", "c.example.com", "z.old.example.com", "*.any.example.com"} {
		f.direct(h, "198.51.100.1")
	}
	h := newHouse(t, nil)
	h.publish(f)
	for _, c := range []struct{ ask, want string }{
		{"example.com A", "NOERROR aa\nan example.com. 30 IN A 198.51.100.1\n"},
		{"example.com TXT", "NOERROR aa\nan example.com. 30 IN TXT \"apex\"\n"},
		{"example.com NS", "NOERROR aa\nan example.com. 30 IN NS ns.example.net.\n"},
		{"cut.example.com A", "NOERROR aa\nan cut.example.com. 30 IN A 198.51.100.1\n"},
		{"x.y.cut.example.com A", "NOERROR aa\nan x.y.cut.example.com. 30 IN A 198.51.100.1\n"},
		{"both.example.com A", "NOERROR aa\nan both.example.com. 30 IN A 198.51.100.1\n"},
		{"both.example.com TXT", "NOERROR aa\nan both.example.com. 30 IN TXT \"both\"\n"},
		{"c.example.com A", "NOERROR aa\nan c.example.com. 30 IN A 198.51.100.1\n"},
		{"z.old.example.com A", "NOERROR aa\nan z.old.example.com. 30 IN A 198.51.100.1\n"},
		{"some.any.example.com A", "NOERROR aa\nan some.any.example.com. 30 IN A 198.51.100.1\n"},
	} {
		if got := text(h.exchange(t, question(t, c.ask))); got != c.want {
			t.Errorf("%s: got %s, want %s", c.ask, got, c.want)
		}
	}
	if a := h.exchange(t, question(t, "example.com SOA")); len(a.Answer) != 1 {
		t.Errorf("got %v", a)
	}
	if got := strings.Count(h.log.String(), "claim one name"); got != 5 {
		t.Errorf("%d conflicts were logged, want 5:\n%s", got, h.log.String())
	}
	h.log.Reset()
	f.suspense = map[string]bool{"both-example-com": true}
	h.publish(f)
	if strings.Contains(h.log.String(), "claim one name") {
		t.Error("a change of a TTL has logged the conflicts again")
	}
}

// TestTurns: every address comes first as often as the others, and of many all
// are named in the course of time.
func TestTurns(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	for _, c := range []struct {
		ask   string
		named int // in one answer
		all   int
	}{{"web.example.com A", 2, 2}, {"www.example.com A", 2, 2}, {"many.example.com A", 8, 10}} {
		first, seen := map[string]int{}, map[string]int{}
		const asked = 4000
		for range asked {
			a := h.exchange(t, question(t, c.ask))
			if len(a.Answer) != c.named {
				t.Fatalf("%s: %v", c.ask, a)
			}
			first[a.Answer[0].(*dns.A).A.String()]++
			for _, rr := range a.Answer {
				seen[rr.(*dns.A).A.String()]++
			}
		}
		if len(first) != c.all || len(seen) != c.all {
			t.Errorf("%s: %d first, %d seen, want %d", c.ask, len(first), len(seen), c.all)
		}
		for addr, n := range first {
			if even := asked / c.all; n < even*7/10 || n > even*13/10 {
				t.Errorf("%s: %s came first %d of %d times", c.ask, addr, n, asked)
			}
		}
	}
}

// TestBrokenZoneAtTheStart: what can be used of it is answered.
func TestBrokenZoneAtTheStart(t *testing.T) {
	f := &fixture{}
	f.zone(&pool.Zone{Name: "example.com", File: "zone.db", Records: "@ NS ns.example.net.\nbad A x\ngood A 192.0.2.1\n"})
	f.zone(&pool.Zone{Name: "bad..name"})
	f.direct("web.example.com", "198.51.100.1")
	h := newHouse(t, nil)
	h.publish(f)
	for _, ask := range []string{"good.example.com A", "web.example.com A", "example.com NS"} {
		if a := h.exchange(t, question(t, ask)); len(a.Answer) != 1 {
			t.Errorf("%s: %v", ask, a)
		}
	}
	if !strings.Contains(h.log.String(), `zone.db:2:7: bad A A`) || !strings.Contains(h.log.String(), "bad..name") {
		t.Errorf("not logged:\n%s", h.log.String())
	}
}

func TestRootZone(t *testing.T) {
	f := &fixture{}
	f.zone(&pool.Zone{Name: "", Records: "@ NS ns.example.net.\ncom NS ns.example.net.\nwww A 192.0.2.1\n"})
	h := newHouse(t, nil)
	h.publish(f)
	for ask, want := range map[string]string{
		". NS":       "NOERROR aa\nan . 30 IN NS ns.example.net.\n",
		"www A":      "NOERROR aa\nan www. 30 IN A 192.0.2.1\n",
		"a.b.com DS": "NOERROR\nns com. 30 IN NS ns.example.net.\n",
		"x.www AAAA": "NXDOMAIN aa\nns . 5 IN SOA ns.example.net. hostmaster. 1 3600 600 1209600 5\n",
		". DS":       "NOERROR aa\nns . 5 IN SOA ns.example.net. hostmaster. 1 3600 600 1209600 5\n",
	} {
		h.renumber(1)
		if got := text(h.exchange(t, question(t, ask))); got != want {
			t.Errorf("%s: got %s, want %s", ask, got, want)
		}
	}
}
