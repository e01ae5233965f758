package admin

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"time"
)

// A command is the body of POST /api/v1/drain, undrain, force and unforce.
type command struct {
	Target string `json:"target"`
	State  string `json:"state,omitempty"` // force: up or down
	For    string `json:"for,omitempty"`   // force: as in Go, such as 1h; empty: until unforced
}

// result is the answer to a command.
type result struct {
	Affected []Affected `json:"affected"`
	Warning  string     `json:"warning,omitempty"` // the command is in force, but
}

// maxForce bounds how long a forced state with an expiry may last.
const maxForce = 366 * 24 * time.Hour

func refuseWrite(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusForbidden, fmt.Errorf(
		"%s changes something, and that is possible on the control socket only (admin.socket): elbow %s …",
		r.URL.Path, r.URL.Path[len("/api/v1/"):]))
}

func (s *Server) command(verb string) http.HandlerFunc {
	op := s.opts.Operator
	return func(w http.ResponseWriter, r *http.Request) {
		var c command
		if !readJSON(w, r, &c) {
			return
		}
		run, err := op.prepare(verb, c)
		if err != nil {
			writeError(w, http.StatusBadRequest, err)
			return
		}
		s.carryOut(w, c.Target, run)
	}
}

func (s *Server) serveAffected(w http.ResponseWriter, r *http.Request) {
	target := r.URL.Query().Get("target")
	if err := checkName("target", target); err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	s.carryOut(w, target, s.opts.Operator.Affected)
}

func (s *Server) carryOut(w http.ResponseWriter, target string, run func(string) ([]Affected, error)) {
	if run == nil {
		writeError(w, http.StatusNotImplemented, errors.New("this daemon takes no such command"))
		return
	}
	affected, err := run(target)
	if err != nil && len(affected) == 0 {
		names := known(s.opts.Table.Load())
		writeJSON(w, http.StatusNotFound, failure{Error: err.Error(), Near: near(target, names)})
		return
	}
	out := result{Affected: orEmpty(affected)}
	if err != nil {
		out.Warning = err.Error()
	}
	writeJSON(w, http.StatusOK, out)
}

// prepare checks c and returns what carries it out; nil: nobody does.
func (o *Operator) prepare(verb string, c command) (func(target string) ([]Affected, error), error) {
	if err := checkName("target", c.Target); err != nil {
		return nil, err
	}
	if verb != "force" && (c.State != "" || c.For != "") {
		return nil, fmt.Errorf("%s: state and for belong to force", verb)
	}
	switch verb {
	case "drain":
		return o.Drain, nil
	case "undrain":
		return o.Undrain, nil
	case "unforce":
		return o.Unforce, nil
	}
	if c.State != "up" && c.State != "down" {
		return nil, fmt.Errorf("state: it is %q, want up or down", c.State)
	}
	var d time.Duration
	if c.For != "" {
		var err error
		if d, err = time.ParseDuration(c.For); err != nil {
			return nil, fmt.Errorf("for: %q is no duration such as 1h or 30m", c.For)
		}
		if d <= 0 || d > maxForce {
			return nil, fmt.Errorf("for: it is %s, want more than 0s and at most %s", d, maxForce)
		}
	}
	if o.Force == nil {
		return nil, nil
	}
	return func(target string) ([]Affected, error) { return o.Force(target, c.State == "up", d) }, nil
}

// maxName bounds the names that are asked for: a DNS name has 253 bytes, a
// target may have a service ahead of the address.
const maxName = 512

func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%s: it is missing", what)
	case len(name) > maxName:
		return fmt.Errorf("%s: it has %d bytes, at most %d are possible", what, len(name), maxName)
	}
	return nil
}

// setMinion stops or starts a minion: JSON from the script of the page, a form
// from a browser without scripts.
func (s *Server) setMinion(w http.ResponseWriter, r *http.Request) {
	var want struct {
		Name    string `json:"name"`
		Running *bool  `json:"running"`
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	form := kind == "application/x-www-form-urlencoded"
	if form {
		if err := r.ParseForm(); err != nil {
			writeError(w, http.StatusBadRequest, fmt.Errorf("form: %w", err))
			return
		}
		want.Name = r.PostForm.Get("name")
		if v := r.PostForm.Get("running"); v == "true" || v == "false" {
			want.Running = new(v == "true")
		}
	} else if !readJSON(w, r, &want) {
		return
	}
	if err := checkName("name", want.Name); err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	if want.Running == nil {
		writeError(w, http.StatusBadRequest, errors.New("running: want true or false"))
		return
	}
	if err := s.opts.Minions.Set(want.Name, *want.Running); err != nil {
		writeError(w, http.StatusConflict, err)
		return
	}
	s.log.Info("minion set", "minion", want.Name, "running", *want.Running)
	if form {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	writeJSON(w, http.StatusOK, s.opts.Minions.List())
}
