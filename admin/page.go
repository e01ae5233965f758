package admin

import (
	"bytes"
	"embed"
	"fmt"
	"hash/fnv"
	"html/template"
	"net/http"
	"strings"
	"time"

	"haslohas.com/elbow/pool"
)

//go:embed assets
var assets embed.FS

// templates are parsed once; a mistake in them is found by any test.
var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"age":    age,
	"clock":  func(t time.Time) string { return t.UTC().Format("15:04:05") },
	"moment": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"iso":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"number": number,
	"drain":  drainWords,
	"tone":   tone,
	"join":   addressList,
}).ParseFS(assets, "assets/*.html"))

// A page is what the status page shows.
type page struct {
	Status
	Views   []serviceView
	Recent  []Transition // the newest of Transitions
	Demo    bool
	Minions []Minion
	Top     []topList // what DNS was asked most
	Asked   Top       // where Top is from
}

// A serviceView is a service with its pictures.
type serviceView struct {
	ServiceStatus
	Wide, Tall  flow // for a desktop, for a phone
	Spark       string
	Connections int
}

// recent bounds how many transitions the page shows.
const recent = 12

func (s *Server) page() page {
	out := page{Status: s.status(), Demo: s.opts.Minions != nil}
	for i := range out.Services {
		service := &out.Services[i]
		v := serviceView{
			ServiceStatus: *service,
			Wide:          wideFlow(&out.Host, service),
			Tall:          tallFlow(&out.Host, service),
			Spark:         sparkline(s.load.of(service.Name)),
			Connections:   service.connections(),
		}
		out.Views = append(out.Views, v)
	}
	out.Recent = out.Transitions[:min(len(out.Transitions), recent)]
	out.Asked, _ = s.top()
	for _, l := range out.Asked.lists() {
		if l.Entries = l.Entries[:min(len(l.Entries), topOnPage)]; len(l.Entries) > 0 {
			out.Top = append(out.Top, l)
		}
	}
	if out.Demo {
		out.Minions = s.opts.Minions.List()
	}
	return out
}

func (s *Server) servePage(w http.ResponseWriter, _ *http.Request) { s.render(w, "page.html") }

// serveFragment is the part of the page that changes, for its script.
func (s *Server) serveFragment(w http.ResponseWriter, _ *http.Request) { s.render(w, "status.html") }

func (s *Server) render(w http.ResponseWriter, name string) {
	var text bytes.Buffer
	if err := templates.ExecuteTemplate(&text, name, s.page()); err != nil {
		s.log.Error("rendering the status page", "err", err)
		http.Error(w, "rendering the status page: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = text.WriteTo(w) // as in writeJSON
}

// asset serves one of the files of the page. A browser asks each time whether
// its copy is still the one.
func asset(name string) http.Handler {
	text, err := assets.ReadFile("assets/" + name)
	if err != nil {
		panic(err) // it is not in the program: any test finds that
	}
	sum := fnv.New64a()
	sum.Write(text)
	tag := fmt.Sprintf(`"%x"`, sum.Sum64())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(text))
	})
}

// icon is the mark of elbow, a bent pipe; %s is its colour.
const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path d="M4 11h7a10 10 0 0 1 10 10v7" fill="none" stroke="%s" stroke-width="8"/>` +
	`<path d="M4.5 4.5v13M14.5 27.5h13" stroke="%[1]s" stroke-width="3" stroke-linecap="round"/></svg>`

// serveIcon answers with the mark in the colour of ?level=.
func serveIcon(w http.ResponseWriter, r *http.Request) {
	colour := "#6f7a86"
	switch Level(r.URL.Query().Get("level")) {
	case OK:
		colour = "#12946a"
	case Warn:
		colour = "#c98308"
	case Bad:
		colour = "#d6403a"
	}
	w.Header().Set("Content-Type", "image/svg+xml")
	w.Header().Set("Cache-Control", "max-age=86400")
	fmt.Fprintf(w, icon, colour)
}

// tone is the colour that a state is shown in, beside its word.
func tone(b BackendStatus) string {
	switch b.State {
	case pool.Up.String(), pool.ForcedUp.String():
		if b.Suspect {
			return "warn"
		}
		return "ok"
	case pool.Down.String():
		return "bad"
	case pool.Draining.String():
		return "drain"
	case pool.ForcedDown.String():
		return "off"
	}
	return "idle"
}

// age is the time from since to now in a few characters; empty where since is
// zero.
func age(now, since time.Time) string {
	if since.IsZero() {
		return ""
	}
	d := max(0, now.Sub(since))
	s, m, h := int(d/time.Second), int(d/time.Minute), int(d/time.Hour)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case m < 10:
		return fmt.Sprintf("%dm %ds", m, s%60)
	case m < 60:
		return fmt.Sprintf("%dm", m)
	case h < 24:
		return fmt.Sprintf("%dh %dm", h, m%60)
	}
	return fmt.Sprintf("%dd %dh", h/24, h%24)
}

// The size of a sparkline.
const (
	sparkWidth  = 132
	sparkHeight = 26
)

// sparkline returns the points of an SVG polyline, empty for a line that shows
// nothing.
func sparkline(values []int) string {
	top := 0
	for _, v := range values {
		top = max(top, v)
	}
	if len(values) < samples/10 || top == 0 {
		return ""
	}
	var out strings.Builder
	for i, v := range values {
		x := sparkWidth - float64(len(values)-1-i)*sparkWidth/(samples-1)
		y := sparkHeight - 2 - float64(v)*(sparkHeight-4)/float64(top)
		fmt.Fprintf(&out, "%.1f,%.1f ", x, y)
	}
	return strings.TrimSpace(out.String())
}
