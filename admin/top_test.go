package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// attacked is what DNS was asked under an attack with names that are made up.
func attacked() (Top, bool) {
	return Top{
		Window: 300, Queries: 2000, Absent: 1500,
		Names:   []TopEntry{{"web.public.haslohas.com", 400}, {`\000\"<script>\027[31m.example`, 20}},
		Clients: []TopEntry{{"192.0.2.0/24", 1600}, {"2001:db8::/56", 3}},
		Below:   []TopEntry{{"public.haslohas.com", 1499}},
	}, true
}

func TestTop(t *testing.T) {
	s := server(calm(7), func(o *Options) { o.Top = attacked })
	w := ask(s.handler(false), "GET", "/api/v1/dns/top", "")
	var got Top
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if got.Queries != 2000 || got.Absent != 1500 || got.Names[1].Queries != 20 || got.Missing == nil || len(got.Below) != 1 {
		t.Errorf("got %+v", got)
	}
	contains(t, "JSON", w.Body.String(), `"window_seconds": 300`, `"nxdomain": 1500`, `"nxdomain_names": []`, `"what": "192.0.2.0/24"`)

	body := ask(s.handler(false), "GET", "/", "").Body.String()
	contains(t, "page", body, "Asked most", "2000 queries in 5m 0s, 1500 for names that do not exist",
		"web.public.haslohas.com", "192.0.2.0/24", "Below which names do not exist", `\000\&#34;&lt;script&gt;\027[31m.example`)
	if strings.Contains(body, "Names that do not exist") || strings.Contains(body, "<script>\\") {
		t.Error("the page shows an empty list, or a name becomes a script")
	}

	var text bytes.Buffer
	if err := WriteTop(&text, got, 1, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	want := `2000 queries in 5m 0s, 1500 for names that do not exist

Names
  QUERIES  SHARE
      400  20.0%  web.public.haslohas.com

Client networks
  QUERIES  SHARE
     1600  80.0%  192.0.2.0/24

Below which names do not exist
  QUERIES  SHARE
     1499  75.0%  public.haslohas.com
`
	if text.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", &text, want)
	}
}

func TestTopIsOff(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"not counted": func(o *Options) { o.Top = func() (Top, bool) { return Top{}, false } },
		"no DNS":      nil,
	} {
		s := server(calm(7), change)
		w := ask(s.handler(false), "GET", "/api/v1/dns/top", "")
		if w.Code != http.StatusNotFound {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		contains(t, name, w.Body.String(), "dns.top: true counts it")
		if body := ask(s.handler(false), "GET", "/", "").Body.String(); strings.Contains(body, "Asked most") {
			t.Errorf("%s: the page shows it", name)
		}
	}
}
