package dnsserver

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// Of many keys the frequent ones are found, with counts that are never too
// low, and never too high by more than is said.
func TestHeavy(t *testing.T) {
	const places = 64
	h := newHeavy(places)
	real := make(map[string]uint64)
	random := rand.New(rand.NewPCG(3, 4))
	zipf := rand.NewZipf(random, 1.1, 1, 100_000)
	total := uint64(0)
	for range 200_000 {
		key, n := fmt.Sprint(zipf.Uint64()), uint64(1+random.IntN(3))
		h.add([]byte(key), n)
		real[key] += n
		total += n
	}
	if len(h.places) != places || len(h.at) != places {
		t.Fatalf("%d places, %d keys, want %d", len(h.places), len(h.at), places)
	}
	sum := uint64(0)
	for i, p := range h.places {
		if h.at[p.key] != i {
			t.Errorf("%s is not where it should be", p.key)
		}
		if want := real[p.key]; p.count < want || p.count-p.over > want {
			t.Errorf("%s: %d, at most %d too high, is %d", p.key, p.count, p.over, want)
		}
		sum += p.count
	}
	if sum != total {
		t.Errorf("the counts are %d together, want %d", sum, total)
	}
	for key, n := range real {
		if _, known := h.at[key]; !known && n > total/places {
			t.Errorf("%s with %d of %d is missing", key, n, total)
		}
	}
}

// watchTop has h count what is asked most.
func (h *house) watchTop() *top {
	w := &watch{top: newTop(1)}
	w.complete()
	h.watch.Store(w)
	return w.top
}

func TestTop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		h.publish(example(t))
		top := h.watchTop()
		ask := func(times int, name, from string) {
			packet := must(new(dns.Msg).SetQuestion(name, dns.TypeA).Pack())
			for range times {
				h.respond(&h.r, nil, packet, netip.MustParseAddr(from), 0, false)
			}
			top.count(time.Now())
		}
		check := func(what string, got []TopEntry, want ...string) {
			t.Helper()
			var text []string
			for _, e := range got {
				text = append(text, fmt.Sprintf("%s %d", e.What, e.Queries))
			}
			if !slices.Equal(text, want) {
				t.Errorf("%s: got %q, want %q", what, text, want)
			}
		}
		ask(5, "WEB.example.com.", "192.0.2.1")
		ask(3, "nothing.example.com.", "192.0.2.200")
		time.Sleep(topWindow / topPeriods)
		ask(2, "web.example.com.", "198.51.100.1")
		ask(1, `\000\"<b>.example.net.`, "2001:db8:0:ff01::1")
		ask(1, `\000\"<b>.nothing.example.com.`, "2001:db8:0:ff02::1")
		got, on := h.Top()
		if !on || got.Queries != 12 || got.Absent != 4 || got.Window != topWindow/topPeriods {
			t.Errorf("got %+v, %t", got, on)
		}
		check("names", got.Names, "web.example.com 7", "nothing.example.com 3", `\000\"<b>.example.net 1`, `\000\"<b>.nothing.example.com 1`)
		check("clients", got.Clients, "192.0.2.0/24 8", "198.51.100.0/24 2", "2001:db8:0:ff00::/56 2")
		check("missing", got.Missing, "nothing.example.com 3", `\000\"<b>.nothing.example.com 1`)
		check("below", got.Below, "example.com 3", "nothing.example.com 1")

		time.Sleep(topWindow - topWindow/topPeriods)
		got, _ = h.Top()
		check("names, later", got.Names, "web.example.com 2", `\000\"<b>.example.net 1`, `\000\"<b>.nothing.example.com 1`)
		time.Sleep(topWindow)
		if got, _ = h.Top(); len(got.Names) != 0 || got.Queries != 0 {
			t.Errorf("after the window: %+v", got)
		}
	})
	if _, on := newHouse(t, nil).Top(); on {
		t.Error("nobody counts, and it is said that somebody does")
	}
}

// An attack by random names fills no memory, shows where it aims at, and
// hides no name that many ask for.
func TestTopUnderAttack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		h.publish(example(t))
		top := h.watchTop()
		honest := must(new(dns.Msg).SetQuestion("web.example.com.", dns.TypeA).Pack())
		for i := range 20_000 {
			packet := must(new(dns.Msg).SetQuestion(fmt.Sprintf("r%x.example.com.", rand.Uint64()), dns.TypeA).Pack())
			h.respond(&h.r, nil, packet, netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 0, false)
			if i%10 == 0 {
				h.respond(&h.r, nil, honest, client, 0, false)
			}
			if i%500 == 0 {
				time.Sleep(topEvery)
				top.count(time.Now())
			}
		}
		got, _ := h.Top()
		if len(got.Names) != 1 || got.Names[0].What != "web.example.com" || len(got.Missing) != 0 {
			t.Errorf("names %v, missing %v", got.Names, got.Missing)
		}
		if len(got.Below) != 1 || got.Below[0].What != "example.com" {
			t.Errorf("below %v", got.Below)
		}
		for _, p := range top.periods {
			for _, l := range []*heavy{p.names, p.clients, p.missing, p.below} {
				if len(l.places) > topPlaces || len(l.at) > topPlaces {
					t.Errorf("%d places, %d keys", len(l.places), len(l.at))
				}
			}
		}
		if len(top.periods) > topPeriods {
			t.Errorf("%d periods", len(top.periods))
		}
	})
}

// Where there are many queries only some are looked at, and the counts stay
// right; where there are few again, all are.
func TestTopLooksAtFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		h.publish(example(t))
		top := h.watchTop()
		packet := must(new(dns.Msg).SetQuestion("web.example.com.", dns.TypeA).Pack())
		const rounds, each = 200, 5000 // 20,000 a second
		samples := 0
		for round := range rounds {
			for i := range each {
				h.respond(&h.r, nil, packet, client, 0, false)
				if i%(ringSize/2) == 0 && round == 0 { // as the wake of a half full ring does
					top.count(time.Now())
				}
			}
			time.Sleep(topEvery)
			before := top.shift.Load()
			top.count(time.Now())
			if round > rounds/2 {
				samples += each >> before
			}
		}
		if perSecond := float64(samples) / (rounds/2 - 1) / topEvery.Seconds(); perSecond > 2*topRate || perSecond < topRate/4 {
			t.Errorf("%.0f samples a second, want about %d", perSecond, topRate)
		}
		got, _ := h.Top()
		if want := uint64(rounds * each); got.Queries < want*95/100 || got.Queries > want*105/100 || got.Names[0].Queries != got.Queries {
			t.Errorf("%d queries, want about %d; names %v", got.Queries, want, got.Names)
		}
		for range 2 * topMaxShift {
			time.Sleep(topEvery)
			top.count(time.Now())
		}
		if top.shift.Load() != 0 || top.limit.Load() != math.MaxUint32 {
			t.Errorf("one in %d is looked at in calm", 1<<top.shift.Load())
		}
	})
}

// Every name of a type stands in its place.
func TestTypeNames(t *testing.T) {
	for typ, place := range typePlaces {
		if want := dns.TypeToString[uint16(typ)]; place != 0 && typeNames[place] != want {
			t.Errorf("type %d is called %s, not %s", typ, typeNames[place], want)
		}
	}
	for place, text := range typeNames[2:] {
		if typ, known := dns.StringToType[text]; !known || typePlaces[typ] != uint8(place+2) {
			t.Errorf("%s is nowhere counted", text)
		}
	}
	if len(typeNames) > 32 {
		t.Error("there is no bit left in touched")
	}
}

// What the workers counted is there when somebody asks, over both transports.
func TestTallies(t *testing.T) {
	r := start(t, example(t), "127.0.0.53:0")
	var octets [len(transports)]int
	ask := func(transport int, ask string, edns, do bool) {
		conn, err := net.Dial(transports[transport], r.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		m := question(t, ask)
		if edns {
			m.SetEdns0(1232, do)
		}
		d := &dns.Conn{Conn: conn}
		buf := make([]byte, maxPayload)
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if err := d.WriteMsg(m); err != nil {
			t.Fatal(err)
		}
		n, err := d.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		octets[transport] += n
	}
	for i := range transports {
		ask(i, "web.example.com A", false, false)
		ask(i, "web.example.com TYPE4711", true, false)
	}
	ask(0, "web.example.com HTTPS", true, true)
	want := []string{
		`elbow_dns_query_types_total{type="A"} 2`, `elbow_dns_query_types_total{type="other"} 2`, `elbow_dns_query_types_total{type="HTTPS"} 1`,
		`elbow_dns_edns_queries_total 3`, `elbow_dns_do_queries_total 1`, `elbow_dns_rate_limit_slipped_total 0`,
		`elbow_dns_query_bytes_total{transport="tcp"} 77`,
		fmt.Sprintf(`elbow_dns_response_bytes_total{transport="udp"} %d`, octets[0]),
		fmt.Sprintf(`elbow_dns_response_bytes_total{transport="tcp"} %d`, octets[1]),
		`elbow_dns_query_log_lines_total{result="written"} 0`, `elbow_dns_dnstap_connected 0`,
	}
	eventually(t, func() error {
		got := gathered(t, r)
		for _, w := range want {
			if !slices.Contains(got, w) {
				return fmt.Errorf("%s is missing in\n%s", w, strings.Join(got, "\n"))
			}
		}
		return nil
	})
}

// gathered returns what a scrape shows, a line for each series.
func gathered(t testing.TB, r *running) []string {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			series := f.GetName()
			if len(labels) > 0 {
				series += "{" + strings.Join(labels, ",") + "}"
			}
			out = append(out, fmt.Sprintf("%s %v", series, m.Counter.GetValue()+m.Gauge.GetValue()))
		}
	}
	return out
}
