package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/pool"
)

func TestStatusJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := ask(server(degraded(7), nil).handler(false), "GET", "/api/v1/status", "")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("status %d, %s", w.Code, w.Header().Get("Content-Type"))
		}
		golden(t, "status.json", w.Body.String())
	})
}

// contract is the example that users were given.
const contract = `{"version":"…","generation":7,"ready":true,
 "services":[{"name":"web","listeners":[{"address":"0.0.0.0:80","connections":12}],
   "hostnames":["web.public.haslohas.com"],"answer":"proxied",
   "backends":[{"address":"172.31.8.233:80","node":"minion1","state":"up","since":"2026-11-22T20:00:00Z","reason":"tcp connect ok",
                "weight":1,"connections":7,"eligible":true}]}],
 "zones":[{"name":"public.haslohas.com","serial":2026112207,"names":4}],
 "sources":[{"name":"web/static","endpoints":2,"age_seconds":0,"error":""}]}`

func TestStatusKeepsTheContract(t *testing.T) {
	var want, got any
	if err := json.Unmarshal([]byte(contract), &want); err != nil {
		t.Fatal(err)
	}
	w := ask(server(calm(7), nil).handler(true), "GET", "/api/v1/status", "")
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	covers(t, "status", want, got, map[string]bool{"status.version": true,
		"status.services.backends.since": true, "status.sources.age_seconds": true})
}

// covers fails where got lacks something of want: a key, a type, a value.
func covers(t *testing.T, path string, want, got any, differs map[string]bool) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			t.Fatalf("%s is %T, want an object", path, got)
		}
		for k, v := range want {
			if _, ok := g[k]; !ok {
				t.Errorf("%s.%s is missing", path, k)
				continue
			}
			covers(t, path+"."+k, v, g[k], differs)
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) < len(want) {
			t.Fatalf("%s is %v, want a list of %d", path, got, len(want))
		}
		for i, v := range want {
			covers(t, path, v, g[i], differs)
		}
	default:
		if (want == nil) != (got == nil) || !differs[path] && want != got {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
}

func TestEmptyListsAreNotNull(t *testing.T) {
	s := New(Options{Table: new(pool.Publisher)})
	if body := ask(s.handler(false), "GET", "/api/v1/status", "").Body.String(); strings.Contains(body, "null") {
		t.Errorf("a list is null:\n%s", body)
	}
}

func TestHealthEndpoints(t *testing.T) {
	reason := errors.New("starting: the first round of probes is not over")
	h := server(nil, func(o *Options) { o.Ready = func() error { return reason } }).handler(false)
	if w := ask(h, "GET", "/livez", ""); w.Code != 200 {
		t.Errorf("/livez before ready: %d", w.Code)
	}
	w := ask(h, "GET", "/readyz", "")
	if w.Code != http.StatusServiceUnavailable || w.Body.String() != reason.Error()+"\n" {
		t.Errorf("/readyz before ready: %d %q", w.Code, w.Body)
	}
	contains(t, "status before ready", ask(h, "GET", "/api/v1/status", "").Body.String(),
		`"ready": false`, `"not_ready": "`+reason.Error())
	contains(t, "page before ready", ask(h, "GET", "/", "").Body.String(), reason.Error(), "not ready")

	reason = nil
	if w := ask(h, "GET", "/readyz", ""); w.Code != 200 || w.Body.String() != "ok\n" {
		t.Errorf("/readyz: %d %q", w.Code, w.Body)
	}
}

func TestMetrics(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "elbow_table_generation", Help: "The newest."})
	r.MustRegister(g)
	g.Set(7)
	h := server(nil, func(o *Options) { o.Gatherer = r }).handler(false)
	contains(t, "/metrics", ask(h, "GET", "/metrics", "").Body.String(), "elbow_table_generation 7")
}

func TestWritesAreForTheSocketOnly(t *testing.T) {
	var o operator
	s := server(calm(7), func(opts *Options) { opts.Operator = o.functions() })
	tcp, control := s.handler(false), s.handler(true)
	for _, verb := range []string{"drain", "undrain", "force", "unforce"} {
		w := ask(tcp, "POST", "/api/v1/"+verb, `{"target":"minion1","state":"up"}`)
		if w.Code != http.StatusForbidden {
			t.Errorf("%s over TCP: %d", verb, w.Code)
		}
		contains(t, verb+" over TCP", w.Body.String(), "control socket only", "elbow "+verb)
		if w := ask(control, "GET", "/api/v1/"+verb, ""); w.Code == http.StatusOK {
			t.Errorf("GET %s: %d", verb, w.Code)
		}
	}
	if len(o.told) > 0 {
		t.Errorf("the operator was told %q", o.told)
	}
	if w := ask(tcp, "GET", "/debug/pprof/", ""); w.Code != http.StatusNotFound {
		t.Errorf("pprof over TCP: %d", w.Code)
	}
	if w := ask(control, "GET", "/debug/pprof/cmdline", ""); w.Code != http.StatusOK {
		t.Errorf("pprof on the socket: %d", w.Code)
	}
	if w := ask(tcp, "POST", "/api/v1/demo/minions", `{"name":"minion1","running":true}`); w.Code != http.StatusNotFound {
		t.Errorf("minions without a demo: %d", w.Code)
	}
}

func TestCommands(t *testing.T) {
	for _, test := range []struct {
		name, verb, body string
		code             int
		told, says       string
	}{
		{"drain", "drain", `{"target":"minion1"}`, 200, "drain minion1", `"affected"`},
		{"undrain", "undrain", `{"target":"web/172.31.8.18:80"}`, 200, "undrain web/172.31.8.18:80", `"backend"`},
		{"force up", "force", `{"target":"minion1","state":"up"}`, 200, "force up 0s minion1", ""},
		{"force down for a time", "force", `{"target":"minion1","state":"down","for":"1h"}`, 200, "force down 1h0m0s minion1", ""},
		{"unforce", "unforce", `{"target":"minion1"}`, 200, "unforce minion1", ""},
		{"in force but not saved", "drain", `{"target":"minion2"}`, 200, "drain minion2", `"warning": "saving verdicts: disk full"`},
		{"unknown target", "drain", `{"target":"minion9"}`, 404, "drain minion9", "minion1"},

		{"no body", "drain", ``, 400, "", "it is empty"},
		{"no JSON", "drain", `target=minion1`, 400, "", "request body: "},
		{"half a value", "drain", `{"target":`, 400, "", "request body: "},
		{"unknown field", "drain", `{"target":"minion1","wait":true}`, 400, "", `unknown field \"wait\"`},
		{"wrong type", "drain", `{"target":1}`, 400, "", "request body: "},
		{"two values", "drain", `{"target":"minion1"}{}`, 400, "", "more follows"},
		{"no target", "drain", `{}`, 400, "", "target: it is missing"},
		{"long target", "drain", `{"target":"` + strings.Repeat("x", 600) + `"}`, 400, "", "at most 512"},
		{"huge body", "drain", `{"target":"` + strings.Repeat("x", 70<<10) + `"}`, 413, "", "more than 65536 bytes"},
		{"no state", "force", `{"target":"minion1"}`, 400, "", "want up or down"},
		{"sideways", "force", `{"target":"minion1","state":"sideways"}`, 400, "", "want up or down"},
		{"no duration", "force", `{"target":"minion1","state":"up","for":"soon"}`, 400, "", "no duration"},
		{"past", "force", `{"target":"minion1","state":"up","for":"-1h"}`, 400, "", "more than 0s"},
		{"for ever", "force", `{"target":"minion1","state":"up","for":"100000h"}`, 400, "", "at most"},
		{"a drain has no end", "drain", `{"target":"minion1","for":"1h"}`, 400, "", "belong to force"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var o operator
			s := server(calm(7), func(opts *Options) { opts.Operator = o.functions() })
			w := ask(s.handler(true), "POST", "/api/v1/"+test.verb, test.body)
			if w.Code != test.code {
				t.Errorf("status %d, want %d: %s", w.Code, test.code, w.Body)
			}
			if !json.Valid(w.Body.Bytes()) {
				t.Errorf("the answer is no JSON: %s", w.Body)
			}
			contains(t, "answer", w.Body.String(), test.says)
			if told := strings.Join(o.told, "; "); told != test.told {
				t.Errorf("the operator was told %q, want %q", told, test.told)
			}
		})
	}
}

func TestNobodyCarriesOut(t *testing.T) {
	h := server(calm(7), nil).handler(true)
	if w := ask(h, "POST", "/api/v1/drain", `{"target":"minion1"}`); w.Code != http.StatusNotImplemented {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(h, "GET", "/api/v1/affected?target=minion1", ""); w.Code != http.StatusNotImplemented {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAffected(t *testing.T) {
	var o operator
	h := server(calm(7), func(opts *Options) { opts.Operator = o.functions() }).handler(false)
	contains(t, "affected", ask(h, "GET", "/api/v1/affected?target=minion1", "").Body.String(), `"drain": "1 connection left"`)
	if w := ask(h, "GET", "/api/v1/affected", ""); w.Code != http.StatusBadRequest {
		t.Errorf("without a target: %d", w.Code)
	}
}

func TestCrossOriginIsRefused(t *testing.T) {
	minions := &herd{running: true}
	h := server(calm(7), func(o *Options) { o.Minions = minions }).handler(false)
	r := httptest.NewRequest("POST", "/api/v1/demo/minions", strings.NewReader(`{"name":"minion1","running":false}`))
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden || !minions.running {
		t.Errorf("a foreign page stopped a minion: %d", w.Code)
	}
}

func TestMinions(t *testing.T) {
	minions := &herd{running: true}
	h := server(calm(7), func(o *Options) { o.Minions = minions }).handler(false)
	contains(t, "page", ask(h, "GET", "/", "").Body.String(), "minion1", "127.0.0.1:18081", "running, 3 requests", "Stop")

	if w := ask(h, "POST", "/api/v1/demo/minions", `{"name":"minion1","running":false}`); w.Code != 200 || minions.running {
		t.Errorf("stop by script: %d %s", w.Code, w.Body)
	}
	contains(t, "page", ask(h, "GET", "/", "").Body.String(), "stopped, 3 requests", "Start")
	contains(t, "list", ask(h, "GET", "/api/v1/demo/minions", "").Body.String(), `"running": false`)

	form := func(body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", "/api/v1/demo/minions", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	if w := form("name=minion1&running=true"); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" || !minions.running {
		t.Errorf("start by form: %d", w.Code)
	}
	for _, bad := range []struct {
		body string
		code int
	}{
		{"name=minion1", 400}, {"name=minion1&running=perhaps", 400}, {"running=true", 400},
		{"name=minion7&running=true", 409}, {"name=" + strings.Repeat("x", 70<<10), 400},
	} {
		if w := form(bad.body); w.Code != bad.code {
			t.Errorf("form %.40q: %d, want %d", bad.body, w.Code, bad.code)
		}
	}
	if w := ask(h, "POST", "/api/v1/demo/minions", `{"name":"minion1"}`); w.Code != 400 {
		t.Errorf("without running: %d", w.Code)
	}
}

func TestHeaders(t *testing.T) {
	h := server(calm(7), nil).handler(false)
	for _, path := range []string{"/", "/fragment", "/status.css", "/status.js", "/favicon.svg", "/livez", "/api/v1/status", "/nothing"} {
		w := ask(h, "GET", path, "")
		if got := w.Header().Get("Content-Security-Policy"); got != contentPolicy {
			t.Errorf("%s: Content-Security-Policy %q", path, got)
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s may be sniffed", path)
		}
	}
	if w := ask(h, "GET", "/nothing", ""); w.Code != 404 {
		t.Errorf("/nothing: %d", w.Code)
	}
	contains(t, "icon", ask(h, "GET", "/favicon.svg?level=bad", "").Body.String(), `stroke="#d6403a"`)

	first := ask(h, "GET", "/status.css", "")
	r := httptest.NewRequest("GET", "/status.css", nil)
	r.Header.Set("If-None-Match", first.Header().Get("ETag"))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusNotModified {
		t.Errorf("style that the browser has: %d", w.Code)
	}
}

func TestDirectNamesInStatus(t *testing.T) {
	one := backend(minion1, "minion1", pool.Up, "ok")
	one.Public = []netip.Addr{netip.MustParseAddr("3.120.1.1")}
	two := backend(minion2, "minion2", pool.Down, "refused")
	two.Public = []netip.Addr{netip.MustParseAddr("3.120.1.2")}
	service := &pool.Service{Name: "m", Hostnames: []string{"m.public.haslohas.com", "m.elsewhere.example"}, Answer: pool.Direct, WhenAllDown: pool.Refuse}

	st := server(table(7, pool.NewPool(service, []pool.Backend{one, two})), nil).status()
	want := []NameStatus{
		{Name: "m.public.haslohas.com", Zone: zone.Name, Addresses: one.Public, TTL: 30, Reason: "no state could change soon"},
		{Name: "m.elsewhere.example", Addresses: []netip.Addr{}, Reason: "no zone of this elbow holds the name"},
	}
	if diff := cmp.Diff(want, st.Services[0].Names, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("one of two up (-want +got):\n%s", diff)
	}

	one.State = pool.Down
	st = server(table(8, pool.NewPool(service, []pool.Backend{one, two})), nil).status()
	if n := st.Services[0].Names[0]; len(n.Addresses) != 0 || n.TTL != 7 {
		t.Errorf("all down, refuse: %+v, want no address for the negative TTL", n)
	}
}

func TestChosenPortInStatus(t *testing.T) {
	chosen := netip.MustParseAddrPort("127.0.0.1:40123")
	p := pool.NewPool(&pool.Service{Name: "web", Listen: []netip.AddrPort{anyPort}}, nil)
	s := server(table(1, p), func(o *Options) {
		o.Listeners = func() []Listener {
			return []Listener{{Address: chosen, Configured: anyPort, Service: "web", Connections: 3}}
		}
	})
	want := []ListenerStatus{{Address: chosen.String(), Connections: 3}}
	if diff := cmp.Diff(want, s.status().Services[0].Listeners); diff != "" {
		t.Errorf("listeners (-want +got):\n%s", diff)
	}
}
