// Package leasetest is an API server for tests that knows Leases and nothing
// else: each write names the version it was made from, or is refused.
package leasetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// A Server keeps the Leases of one namespace. Its methods may be called by
// several goroutines.
type Server struct {
	Namespace string

	// Fault, if not nil, is asked before each request and may refuse it by a
	// status other than 0. It must be set before the first request.
	Fault func(r *http.Request) int

	mu       sync.Mutex
	leases   map[string]map[string]any
	version  int
	requests int
}

// Holder returns who holds a Lease.
func (s *Server) Holder(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return holder(s.leases[name])
}

// Requests returns how many there were.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// Set writes a Lease as another client would: its holder, and for how many
// seconds.
func (s *Server) Set(name, holder string, seconds int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(name, map[string]any{
		"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
		"metadata": map[string]any{"name": name, "namespace": s.Namespace, "labels": map[string]any{"app": "elbow"}},
		"spec":     map[string]any{"holderIdentity": holder, "leaseDurationSeconds": seconds, "leaseTransitions": 3},
	})
}

func holder(lease map[string]any) string {
	spec, _ := lease["spec"].(map[string]any)
	h, _ := spec["holderIdentity"].(string)
	return h
}

func version(lease map[string]any) string {
	meta, _ := lease["metadata"].(map[string]any)
	v, _ := meta["resourceVersion"].(string)
	return v
}

func (s *Server) keep(name string, lease map[string]any) {
	s.version++
	lease["metadata"].(map[string]any)["resourceVersion"] = strconv.Itoa(s.version)
	if s.leases == nil {
		s.leases = make(map[string]map[string]any)
	}
	s.leases[name] = lease
}

// Lease returns a Lease as it stands, nil if there is none.
func (s *Server) Lease(name string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases[name]
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.Fault != nil {
		if code := s.Fault(r); code != 0 {
			refuse(w, code, "the test refuses "+r.Method)
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	base := "/apis/coordination.k8s.io/v1/namespaces/" + s.Namespace + "/leases"
	name, ok := strings.CutPrefix(r.URL.Path, base)
	name = strings.TrimPrefix(name, "/")
	if !ok || r.URL.RawQuery != "" {
		refuse(w, http.StatusNotFound, "the server could not find the requested resource")
		return
	}
	var sent map[string]any
	if r.Method != http.MethodGet {
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil || r.Header.Get("Content-Type") != "application/json" ||
			sent["kind"] != "Lease" || sent["apiVersion"] != "coordination.k8s.io/v1" {
			refuse(w, http.StatusBadRequest, fmt.Sprintf("%v: %v", err, sent))
			return
		}
	}
	before := s.leases[name]
	switch {
	case r.Method == http.MethodPost && name == "":
		meta, _ := sent["metadata"].(map[string]any)
		name, _ = meta["name"].(string)
		if s.leases[name] != nil || version(sent) != "" {
			refuse(w, http.StatusConflict, "already exists")
			return
		}
		s.keep(name, sent)
		w.WriteHeader(http.StatusCreated)
	case before == nil:
		refuse(w, http.StatusNotFound, fmt.Sprintf("leases.coordination.k8s.io %q not found", name))
		return
	case r.Method == http.MethodGet:
	case r.Method == http.MethodPut:
		if version(sent) != version(before) {
			refuse(w, http.StatusConflict, "the object has been modified")
			return
		}
		s.keep(name, sent)
	default:
		refuse(w, http.StatusMethodNotAllowed, r.Method)
		return
	}
	_ = json.NewEncoder(w).Encode(s.leases[name]) // the client may be gone
}

func refuse(w http.ResponseWriter, code int, message string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "Status", "status": "Failure", "message": message, "code": code})
}
