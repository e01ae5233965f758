package admin

import (
	"encoding/xml"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"haslohas.com/elbow/pool"
)

// everyState is a table with each state that a backend may be in.
func everyState() *pool.Table {
	var all []pool.Backend
	for i, state := range []pool.State{pool.Unknown, pool.Up, pool.Down, pool.Draining, pool.ForcedUp, pool.ForcedDown} {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80)
		all = append(all, backend(at, "node", state, "reason of "+state.String()))
	}
	all[1].Suspect = true
	all[3].Drain = pool.LeavingDNS
	all[0].Since = time.Time{}
	return table(7, web(all...))
}

// TestPageHasTheFacts: what matters is in the HTML, no script needed.
func TestPageHasTheFacts(t *testing.T) {
	s := server(degraded(7), nil)
	for _, path := range []string{"/", "/fragment"} {
		w := ask(s.handler(false), "GET", path, "")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
			t.Fatalf("%s: %d %s", path, w.Code, w.Header())
		}
		contains(t, path, w.Body.String(),
			"web: 1 of 2 up, serving", "Generation <b>7</b>", "1m 0s",
			"web.public.haslohas.com", "54.93.167.95", "TTL 5 s", "172.31.8.18:80 is down and could change within 2s",
			"0.0.0.0:80", "12 connections", "172.31.8.233:80", "minion1", "tcp connect ok", ">down</b>", "tcp connect: connection refused",
			"it is down, and others are well", "2h 0m", "public.haslohas.com", "2026112207", "web/static", "1m 30s ago",
			`aria-label="client to web.public.haslohas.com to 54.93.167.95:80, then to 172.31.8.233:80 (minion1 · up); 172.31.8.18:80 (minion2 · down)"`)
	}
	page := ask(s.handler(false), "GET", "/", "").Body.String()
	contains(t, "page", page, "<title>web: 1 of 2 up, serving · elbow on master</title>", `<html lang="en">`, `http-equiv="refresh"`)
	if strings.Contains(page, "style=") || strings.Contains(page, "onclick") || strings.Contains(page, "<script>") {
		t.Error("the page has inline style or script, which its own policy forbids")
	}
}

func TestPageShowsEveryState(t *testing.T) {
	body := ask(server(everyState(), nil).handler(false), "GET", "/", "").Body.String()
	for _, tone := range []string{"idle", "warn", "bad", "drain", "ok", "off"} {
		contains(t, "page", body, `class="dot `+tone+`"`)
	}
	contains(t, "page", body, "draining, leaving DNS", "up, suspect", "forced-up", "forced-down", "unknown")
}

func TestPageOfNothing(t *testing.T) {
	contains(t, "before the first table", ask(server(nil, nil).handler(false), "GET", "/", "").Body.String(),
		"starting: nothing was decided yet", "The first round of probes is under way.")
	contains(t, "without services", ask(server(table(1), nil).handler(false), "GET", "/", "").Body.String(),
		"No services are configured")
	contains(t, "without backends", ask(server(table(1, web()), nil).handler(false), "GET", "/", "").Body.String(),
		"No source names a backend", "no backends")
	bare := New(Options{Table: new(pool.Publisher)})
	if w := ask(bare.handler(false), "GET", "/", ""); w.Code != http.StatusOK {
		t.Errorf("with nothing but a table: %d %s", w.Code, w.Body)
	}
}

func TestPageEscapes(t *testing.T) {
	evil := `<script>alert(1)</script>"'`
	b := backend(minion1, evil, pool.Down, evil)
	s := server(table(1, web(b)), func(o *Options) {
		o.Ready = func() error { return errors.New(evil) }
		o.Sources = func() []Source { return []Source{{Name: evil, Err: evil}} }
	})
	if body := ask(s.handler(false), "GET", "/", "").Body.String(); strings.Contains(body, "<script>alert") {
		t.Errorf("a node's name becomes a script:\n%s", body)
	}
}

// TestFlow: every box and its text lie inside the picture, and a pipe is alive
// exactly where clients get through.
func TestFlow(t *testing.T) {
	host := &Host{Addresses: []netip.Addr{elastic}}
	many := ServiceStatus{Name: "many", Names: []NameStatus{{Name: strings.Repeat("long.", 40) + "public.haslohas.com", Addresses: []netip.Addr{elastic}}, {}},
		Listeners: []ListenerStatus{{Address: "[::]:80"}, {Address: "[2001:db8::1]:8443"}}}
	for range 40 {
		many.Backends = append(many.Backends, BackendStatus{Address: "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535", Node: strings.Repeat("n", 80), State: "up", Eligible: true})
	}
	direct := ServiceStatus{Answer: "direct", Names: []NameStatus{{Name: "d", Addresses: []netip.Addr{elastic}}},
		Backends: []BackendStatus{{Address: "a", State: "up", Answered: true}, {Address: "b", State: "draining", Drain: "leaving-dns", Eligible: true}}}
	closed := ServiceStatus{Listeners: []ListenerStatus{{Address: "0.0.0.0:80", Error: "in use"}}, Backends: []BackendStatus{{Address: "a", State: "up", Eligible: true}}}
	open := ServiceStatus{FailOpen: true, Listeners: []ListenerStatus{{Address: "0.0.0.0:80"}}, Backends: []BackendStatus{{Address: "a", State: "down", Eligible: true}}}
	leaving := ServiceStatus{Listeners: []ListenerStatus{{Address: "0.0.0.0:80"}}, Backends: []BackendStatus{{Address: "a", State: "draining", Drain: "leaving-dns", Eligible: true}}}
	unnamed := ServiceStatus{Names: []NameStatus{{Name: "n"}}, Listeners: []ListenerStatus{{Address: "0.0.0.0:80"}}, Backends: []BackendStatus{{Address: "a", State: "down"}}}
	for name, test := range map[string]struct {
		service ServiceStatus
		pipes   string // of the wide one, in the order of drawing
		boxes   int
	}{
		"many":    {many, "ok ok ok ok ok ok ok ok ok", 10},
		"direct":  {direct, "dead ok ok", 4},
		"closed":  {closed, "dead dead", 3},
		"open":    {open, "ok warn", 3},
		"leaving": {leaving, "ok drain", 3},
		"unnamed": {unnamed, "dead dead dead", 4},
		"empty":   {ServiceStatus{}, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range []flow{wideFlow(host, &test.service), tallFlow(host, &test.service)} {
				var tones []string
				for _, p := range f.Pipes {
					tones = append(tones, p.Tone)
				}
				if got := strings.Join(tones, " "); got != test.pipes {
					t.Errorf("pipes %q, want %q", got, test.pipes)
				}
				if len(f.Boxes) != test.boxes {
					t.Errorf("%d boxes, want %d", len(f.Boxes), test.boxes)
				}
				for _, b := range f.Boxes {
					if b.X < 0 || b.Y < 0 || b.X+b.W > f.Width || b.Y+b.H > f.Height {
						t.Errorf("box %q at %d,%d %dx%d lies outside of %dx%d", b.Text, b.X, b.Y, b.W, b.H, f.Width, f.Height)
					}
					if end := b.TextX() + 8*len([]rune(b.Text)); end > b.X+b.W {
						t.Errorf("text %q runs out of its box: %d > %d", b.Text, end, b.X+b.W)
					}
				}
			}
		})
	}
}

func TestIconIsXML(t *testing.T) {
	body := ask(server(nil, nil).handler(false), "GET", "/favicon.svg", "").Body
	if err := xml.NewDecoder(body).Decode(new(struct{})); err != nil {
		t.Error(err)
	}
}

func TestSparkline(t *testing.T) {
	for _, test := range []struct {
		name   string
		values []int
		want   string
	}{
		{"nothing", nil, ""},
		{"too short", []int{1, 2}, ""},
		{"idle", make([]int, samples), ""},
		{"a step", []int{0, 0, 0, 0, 0, 4}, "120.8,24.0 123.1,24.0 125.3,24.0 127.5,24.0 129.8,24.0 132.0,2.0"},
	} {
		if got := sparkline(test.values); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestAge(t *testing.T) {
	now := time.Now()
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 12 * time.Second: "12s", 200 * time.Second: "3m 20s", 42 * time.Minute: "42m",
		125 * time.Minute: "2h 5m", 50 * time.Hour: "2d 2h",
	} {
		if got := age(now, now.Add(-d)); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	if got := age(now, time.Time{}); got != "" {
		t.Errorf("since never: %q", got)
	}
}

func TestText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("bind: permission denied")
		draining := backend(minion1, "minion1", pool.Draining, "cached DNS answers run out in 12s")
		draining.Drain = pool.LeavingDNS
		api := pool.NewPool(&pool.Service{Name: "api", Hostnames: []string{"api.elsewhere.example"},
			Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:8443")}}, []pool.Backend{draining})
		s := server(table(7, api, degraded(7).Pools[0]), func(o *Options) {
			listeners := o.Listeners()
			o.Listeners = func() []Listener {
				return append(listeners, Listener{Address: netip.MustParseAddrPort("0.0.0.0:8443"), Service: "api", Err: down})
			}
			sources := o.Sources()
			o.Sources = func() []Source { return append(sources, Source{Name: "api/file", Err: "no such file"}) }
		})
		for name, opts := range map[string]TextOptions{
			"status.txt": {}, "status-colour.txt": {Color: true}, "status-narrow.txt": {Width: 80},
		} {
			var out strings.Builder
			if err := WriteStatus(&out, s.status(), opts); err != nil {
				t.Fatal(err)
			}
			golden(t, name, out.String())
		}
		signed := server(calm(7), func(o *Options) {
			o.Zones = func() []Zone {
				return []Zone{
					{Name: "public.haslohas.com", Serial: 2026112207, Names: 4, Expires: time.Now().Add(6 * 24 * time.Hour),
						Keys: []ZoneKey{{27817, "ecdsap256", "retired"}, {123, "ecdsap256", "active"}}},
					{Name: "overdue.haslohas.com", Serial: 3, Names: 1, Expires: time.Now().Add(41 * time.Hour), Overdue: true,
						Keys: []ZoneKey{{9, "ed25519", "active"}}},
					{Name: "unsigned.haslohas.com", Serial: 1, Names: 12},
				}
			}
		})
		var out strings.Builder
		if err := WriteStatus(&out, signed.status(), TextOptions{}); err != nil {
			t.Fatal(err)
		}
		golden(t, "status-signed.txt", out.String())
		contains(t, "page", ask(signed.handler(false), "GET", "/", "").Body.String(), "signed for 6d 0h; keys 27817 retired, 123 active",
			`class="alarm">signed for 1d 17h; key 9 active`, "but the signatures of overdue.haslohas.com are not renewed")
		for file, name := range map[string]string{
			"why-hostname.txt": "web.public.haslohas.com", "why-node.txt": "minion1", "why-unknown.txt": "wbe.public.haslohas.com",
		} {
			why, ok := s.why(s.opts.Table.Load(), name, netip.Prefix{})
			if !ok {
				t.Fatalf("no why for %s", name)
			}
			var out strings.Builder
			if err := WriteWhy(&out, why, TextOptions{}); err != nil {
				t.Fatal(err)
			}
			golden(t, file, out.String())
		}
	})
}

// TestTextIsHarmless: what a backend says does not command the terminal.
func TestTextIsHarmless(t *testing.T) {
	evil := "\x1b[2J\x07\r\nall is well\u202e"
	s := server(table(7, web(backend(minion1, evil, pool.Down, evil))), func(o *Options) {
		o.Ready = func() error { return errors.New(evil) }
	})
	var out strings.Builder
	if err := WriteStatus(&out, s.status(), TextOptions{}); err != nil {
		t.Fatal(err)
	}
	why, _ := s.why(s.opts.Table.Load(), minion1.String(), netip.Prefix{})
	if err := WriteWhy(&out, why, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x07\r\u202e") || strings.Contains(out.String(), "\nall is well") {
		t.Errorf("control characters in:\n%q", out.String())
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestTextToAFullDisk(t *testing.T) {
	if err := WriteStatus(full{}, Status{}, TextOptions{}); err == nil || err.Error() != "printing: disk full" {
		t.Errorf("%v", err)
	}
}
