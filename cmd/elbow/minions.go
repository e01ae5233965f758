package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/admin"
)

// minions are the web servers of the demo. Its methods may be called by
// several goroutines.
type minions struct {
	mu  sync.Mutex
	all []*minion
}

// A minion is one web server that can be stopped and started.
type minion struct {
	name, address string
	requests      atomic.Uint64
	server        *http.Server // guarded by minions.mu; nil while stopped
}

// startMinions starts a minion on each address; they are named minion1 and so
// on.
func startMinions(addresses ...string) (*minions, error) {
	h := &minions{}
	for i, a := range addresses {
		m := &minion{name: fmt.Sprintf("minion%d", i+1), address: a}
		if err := m.start(); err != nil {
			h.Close()
			return nil, err
		}
		h.all = append(h.all, m)
	}
	return h, nil
}

func (m *minion) start() error {
	l, err := net.Listen("tcp", m.address)
	if err != nil {
		return fmt.Errorf("starting %s: %w", m.name, err)
	}
	m.server = &http.Server{Handler: m.handler(), ReadHeaderTimeout: 5 * time.Second}
	go m.server.Serve(l) // ends with Close
	return nil
}

// handler answers as the Apache of the article would, and tells who answered.
func (m *minion) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n := m.requests.Add(1)
		fmt.Fprintf(w, "Hello from %s (%s), request %d\n", m.name, m.address, n)
	})
	return mux
}

// stop cuts all connections, as a machine does that loses its power.
func (m *minion) stop() error {
	err := m.server.Close()
	m.server = nil
	return err
}

// List returns what each minion does now.
func (h *minions) List() []admin.Minion {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]admin.Minion, len(h.all))
	for i, m := range h.all {
		out[i] = admin.Minion{Name: m.name, Address: m.address, Running: m.server != nil, Requests: m.requests.Load()}
	}
	return out
}

// Set starts or stops the minion called name.
func (h *minions) Set(name string, running bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.all {
		switch {
		case m.name != name:
			continue
		case running && m.server == nil:
			return m.start()
		case !running && m.server != nil:
			return m.stop()
		}
		return nil
	}
	return fmt.Errorf("there is no %s, only minion1 to minion%d", name, len(h.all))
}

// Close stops all minions.
func (h *minions) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, m := range h.all {
		if m.server != nil {
			errs = append(errs, m.stop())
		}
	}
	return errors.Join(errs...)
}
