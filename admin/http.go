package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// handler returns what is served: over TCP the read-only half, on the control
// socket everything.
func (s *Server) handler(control bool) http.Handler {
	mux := http.NewServeMux()
	if s.opts.Gatherer != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(s.opts.Gatherer, promhttp.HandlerOpts{
			ErrorHandling:       promhttp.ContinueOnError,
			MaxRequestsInFlight: 16,
		}))
	}
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := s.ready(); err != nil {
			writeText(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		writeText(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.status())
	})
	mux.HandleFunc("GET /api/v1/why", s.serveWhy)
	mux.HandleFunc("GET /api/v1/affected", s.serveAffected)
	mux.HandleFunc("GET /api/v1/dns/top", s.serveTop)
	mux.HandleFunc("GET /api/v1/events", s.serveEvents)
	mux.HandleFunc("GET /{$}", s.servePage)
	mux.HandleFunc("GET /fragment", s.serveFragment)
	mux.Handle("GET /status.css", asset("status.css"))
	mux.Handle("GET /status.js", asset("status.js"))
	mux.HandleFunc("GET /favicon.svg", serveIcon)
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/favicon.svg", http.StatusFound)
	})
	for _, verb := range []string{"drain", "undrain", "force", "unforce"} {
		h := refuseWrite
		if control {
			h = s.command(verb)
		}
		mux.HandleFunc("POST /api/v1/"+verb, h)
	}
	if s.opts.Minions != nil {
		mux.HandleFunc("GET /api/v1/demo/minions", func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, s.opts.Minions.List())
		})
		mux.HandleFunc("POST /api/v1/demo/minions", s.setMinion)
	}
	if control {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, fmt.Errorf("there is no %s %s", r.Method, r.URL.Path))
	})
	return guard(http.NewCrossOriginProtection().Handler(mux))
}

// contentPolicy lets the page load its own style, script and icon, and nothing
// else from anywhere.
const contentPolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guard bounds the time and the body of each request and sets the headers that
// all answers have. A profile may take as long as was asked for.
func guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", contentPolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cross-Origin-Resource-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		deadlines := http.NewResponseController(w)
		end := time.Now().Add(writeTimeout)
		if r.URL.Path == "/debug/pprof/profile" || r.URL.Path == "/debug/pprof/trace" {
			end = time.Time{}
		}
		// A writer that knows no deadlines is one of a test.
		_ = deadlines.SetWriteDeadline(end)
		if r.Method == http.MethodPost {
			_ = deadlines.SetReadDeadline(time.Now().Add(readTimeout))
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		h.ServeHTTP(w, r)
	})
}

// failure is the body of every answer that is an error.
type failure struct {
	Error string   `json:"error"`
	Near  []string `json:"near,omitempty"` // names that exist and look alike
}

func writeError(w http.ResponseWriter, code int, err error) {
	writeJSON(w, code, failure{Error: err.Error()})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil { // no value of this package has this
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n')) // the client has gone, and nobody is left to be told
}

func writeText(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text+"\n") // as in writeJSON
}

// readJSON decodes the one JSON value that the body must be into v. Where
// that cannot be done it has answered and returns false.
func readJSON(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("more follows after the JSON value")
		}
	}
	switch {
	case err == nil:
		return true
	case errors.Is(err, io.EOF):
		err = errors.New("it is empty")
	default:
		if big, ok := errors.AsType[*http.MaxBytesError](err); ok {
			writeError(w, http.StatusRequestEntityTooLarge, fmt.Errorf("request body: more than %d bytes", big.Limit))
			return false
		}
	}
	writeError(w, http.StatusBadRequest, fmt.Errorf("request body: %w", err))
	return false
}
