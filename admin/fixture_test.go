package admin

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"haslohas.com/elbow/pool"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got, go test -update accepts it):\n%s", path, diff)
	}
}

var (
	minion1 = netip.MustParseAddrPort("172.31.8.233:80")
	minion2 = netip.MustParseAddrPort("172.31.8.18:80")
	elastic = netip.MustParseAddr("54.93.167.95")
	every80 = netip.MustParseAddrPort("0.0.0.0:80")
)

var zone = &pool.Zone{
	Name: "public.haslohas.com",
	TTL:  pool.ZoneTTL{Normal: 30 * time.Second, Degraded: 5 * time.Second, Negative: 7 * time.Second},
	File: "/etc/elbow/public.zone",
}

// backend is one of the minions, in a state that it is in for two hours.
func backend(at netip.AddrPort, node string, state pool.State, reason string) pool.Backend {
	return pool.Backend{
		Endpoint: pool.Endpoint{Address: at, Node: node, Weight: 1},
		State:    state, Reason: reason, Since: time.Now().Add(-2 * time.Hour),
	}
}

func web(backends ...pool.Backend) *pool.Pool {
	return pool.NewPool(&pool.Service{
		Name: "web", Hostnames: []string{"web.public.haslohas.com"}, Listen: []netip.AddrPort{every80},
	}, backends)
}

func table(generation uint64, pools ...*pool.Pool) *pool.Table {
	set := &pool.Set{
		Host: pool.Host{Name: "master", Addresses: []netip.Addr{elastic}},
		DNS:  pool.DNS{Zones: []*pool.Zone{zone}},
	}
	return pool.NewTable(generation, time.Now().Add(-time.Minute), set, pools)
}

// calm is both minions up; degraded has lost the second.
func calm(generation uint64) *pool.Table {
	return table(generation, web(
		backend(minion1, "minion1", pool.Up, "tcp connect ok"),
		backend(minion2, "minion2", pool.Up, "tcp connect ok")))
}

func degraded(generation uint64) *pool.Table {
	down := backend(minion2, "minion2", pool.Down, "tcp connect: connection refused")
	down.Flip = 2 * time.Second
	return table(generation, web(backend(minion1, "minion1", pool.Up, "tcp connect ok"), down))
}

// options show table through every part.
func options(tables *pool.Publisher) Options {
	return Options{
		Version: "v1.2.3",
		Table:   tables,
		Listeners: func() []Listener {
			return []Listener{{Address: every80, Service: "web", Connections: 12}}
		},
		Active: func(_ string, at netip.AddrPort) int {
			return map[netip.AddrPort]int{minion1: 7, minion2: 5}[at]
		},
		Zones: func() []Zone { return []Zone{{Name: "public.haslohas.com", Serial: 2026112207, Names: 4}} },
		Sources: func() []Source {
			return []Source{{Name: "web/static", Endpoints: 2, Updated: time.Now().Add(-90 * time.Second)}}
		},
		Explain: explain,
	}
}

// explain is a DNS server that knows two names.
func explain(name string) (Explanation, bool) {
	e := Explanation{Zone: zone.Name, Name: name, Serial: 2026112207, Generation: 7, Kind: "does not exist"}
	switch name {
	case "web.public.haslohas.com":
		e.Kind, e.Records = "service", []string{name + ".\t30\tIN\tA\t54.93.167.95"}
	case zone.Name:
		e.Kind, e.Records = "static", []string{name + ".\t3600\tIN\tNS\tns1." + name + "."}
	default:
		if !strings.HasSuffix(name, "."+zone.Name) {
			return Explanation{}, false
		}
	}
	return e, true
}

// server shows a table; nil: none was published.
func server(t *pool.Table, change func(*Options)) *Server {
	var p pool.Publisher
	opts := options(&p)
	if change != nil {
		change(&opts)
	}
	s := New(opts)
	if t != nil {
		p.Publish(t)
		s.history.observe(t)
	}
	return s
}

// ask sends one request to a handler.
func ask(h http.Handler, method, target, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: %q is missing in:\n%s", what, p, text)
		}
	}
}

// start runs s until the test ends and returns what ends it earlier and waits
// for the error of Run.
func start(t *testing.T, s *Server) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var err error
	ended := false
	stop = func() error {
		cancel()
		if !ended {
			err, ended = <-done, true
		}
		return err
	}
	t.Cleanup(func() { _ = stop() })
	select {
	case <-s.Listening():
	case err = <-done:
		ended = true
		t.Fatalf("Run: %v", err)
	}
	return stop
}

// operator remembers what it was told.
type operator struct{ told []string }

func (o *operator) functions() Operator {
	do := func(verb string) func(string) ([]Affected, error) {
		return func(target string) ([]Affected, error) {
			o.told = append(o.told, verb+" "+target)
			switch target {
			case "nobody", "minion9":
				return nil, errors.New("no backend \"" + target + "\"")
			case "minion2":
				return []Affected{{Service: "web", Backend: minion2.String(), Node: target}}, errors.New("saving verdicts: disk full")
			}
			return []Affected{{Service: "web", Backend: minion1.String(), Node: "minion1", State: "draining", Drain: "1 connection left", Connections: 1}}, nil
		}
	}
	return Operator{
		Drain: do("drain"), Undrain: do("undrain"), Unforce: do("unforce"), Affected: do("affected"),
		Force: func(target string, up bool, d time.Duration) ([]Affected, error) {
			state := map[bool]string{true: "up", false: "down"}[up]
			return do("force " + state + " " + d.String())(target)
		},
	}
}

// herd is a demo with one minion.
type herd struct{ running bool }

func (h *herd) List() []Minion {
	return []Minion{{Name: "minion1", Address: "127.0.0.1:18081", Running: h.running, Requests: 3}}
}

func (h *herd) Set(name string, running bool) error {
	if name != "minion1" {
		return errors.New("there is no " + name)
	}
	h.running = running
	return nil
}

// afterSamples receives when that many samples were due.
func afterSamples(n int) <-chan time.Time {
	return time.After(time.Duration(n)*sampleEvery + time.Millisecond)
}
