package controller

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/discovery/kubernetes"
	"haslohas.com/elbow/gateway"
	"haslohas.com/elbow/pool"
)

const us = "haslohas.com/elbow"

// edge is a world with one Gateway: a database at a port of its own and a shop that is
// told apart by its name.
func edge(t *testing.T) *gateway.World {
	t.Helper()
	const text = `{
		"Classes": [{"metadata": {"name": "elbow"}, "spec": {"controllerName": "haslohas.com/elbow"}},
			{"metadata": {"name": "other"}, "spec": {"controllerName": "example.com/other"}}],
		"Gateways": [{"metadata": {"namespace": "default", "name": "edge", "resourceVersion": "7"}, "spec": {"gatewayClassName": "elbow", "listeners": [
			{"name": "db", "port": 5432, "protocol": "TCP"},
			{"name": "tls", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}}]},
			"status": {"conditions": [{"type": "Accepted", "status": "Unknown", "reason": "Pending", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}}],
		"Routes": [
			{"Kind": "TCPRoute", "metadata": {"namespace": "default", "name": "db"}, "spec": {"parentRefs": [{"name": "edge"}],
				"rules": [{"backendRefs": [{"name": "postgres", "port": 5432, "weight": 3}, {"name": "other", "port": 5432}]}]}},
			{"Kind": "TLSRoute", "metadata": {"namespace": "default", "name": "shop"}, "spec": {"parentRefs": [{"name": "edge"}],
				"hostnames": ["shop.public.haslohas.com", "*.shop.public.haslohas.com", "shop.example.com"]}}],
		"Services": [
			{"Namespace": "default", "Name": "postgres", "Ports": [{"Number": 5432}]},
			{"Namespace": "default", "Name": "other", "Ports": [{"Number": 5432, "Node": true}]},
			{"Namespace": "default", "Name": "unused", "Ports": [{"Number": 1}]}]}`
	var w gateway.World
	if err := json.Unmarshal([]byte(text), &w); err != nil {
		t.Fatal(err)
	}
	return &w
}

// settings are those of a host with an Elastic IP and the zone public.haslohas.com.
func settings() Settings {
	return Settings{
		Site: Site{
			Controller: us,
			Zones:      []string{"public.haslohas.com"},
			Addresses:  []netip.Addr{netip.MustParseAddr("54.93.167.95")},
			Default:    pool.Service{Balance: pool.LeastConn, IdleTimeout: time.Minute},
		},
		Cluster: kubernetes.New(kubernetes.Options{}),
	}
}

// A front is a host on which the listeners are as it says.
type front struct {
	listeners map[string]Listener
	conflicts []discovery.Conflict
}

func (f front) Listeners() map[string]Listener  { return f.listeners }
func (f front) Conflicts() []discovery.Conflict { return f.conflicts }

// A memory is a Store of JSON texts.
type memory map[string]string

func (m memory) Load(name string, v any) (bool, error) {
	text, ok := m[name]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal([]byte(text), v)
}

func (m memory) Save(name string, v any) error {
	text, err := json.Marshal(v)
	m[name] = string(text)
	return err
}

// show is services in a line each.
func show(all []discovery.Service) []string {
	var out []string
	for _, s := range all {
		out = append(out, fmt.Sprintf("%s at %v sni %v dns %v: %s", s.Name, s.Listen, s.Match.SNI, s.Hostnames, s.SourceKey))
	}
	return out
}

var edgeServices = []string{
	"default/edge/db at [0.0.0.0:5432] sni [] dns []: gateway: default/postgres:5432*3 default/other:5432*1 by nodes",
	"default/edge/tls/default/shop at [0.0.0.0:443] sni [shop.public.haslohas.com *.shop.public.haslohas.com shop.example.com] " +
		"dns [shop.public.haslohas.com]: gateway: no backends",
}

// TestServicesOutliveTheProcess: what Gateways ask for is handed on when it changes, and
// by the next process before it has heard of the cluster.
func TestServicesOutliveTheProcess(t *testing.T) {
	store := make(memory)
	var delivered [][]string
	o := Options{Front: front{}, Table: new(pool.Publisher), Store: store, Deliver: func(s []discovery.Service) { delivered = append(delivered, show(s)) }}
	c := New(o)
	c.Apply(settings())
	if len(delivered) > 0 {
		t.Errorf("nothing is known, and %v was delivered", delivered)
	}
	c.update(nil, errors.New("nobody there"))
	c.update(edge(t), nil)
	c.update(edge(t), nil)
	if diff := cmp.Diff([][]string{edgeServices}, delivered); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, absent := range []string{"unused", "example.com/other", `"Pending"`} {
		if strings.Contains(store[storeName], absent) {
			t.Errorf("%s is kept for the next process: %s", absent, store[storeName])
		}
	}

	delivered = nil
	next := New(o)
	next.Apply(settings())
	if diff := cmp.Diff([][]string{edgeServices}, delivered); diff != "" {
		t.Errorf("the next process: -want +got:\n%s", diff)
	}
	next.update(nil, errors.New("nobody there"))
	next.update(&gateway.World{}, nil)
	off := settings()
	off.Site.Controller = ""
	next.Apply(off)
	if diff := cmp.Diff([][]string{edgeServices, nil}, delivered); diff != "" {
		t.Errorf("all Gateways are gone: -want +got:\n%s", diff)
	}
}

func TestTurnedOff(t *testing.T) {
	var last []string
	c := New(Options{Front: front{}, Table: new(pool.Publisher), Deliver: func(s []discovery.Service) { last = show(s) }})
	on := settings()
	c.Apply(on)
	c.update(edge(t), nil)
	if !slices.Equal(last, edgeServices) {
		t.Errorf("delivered %v", last)
	}
	c.Apply(Settings{Site: Site{Addresses: on.Site.Addresses}, Cluster: on.Cluster})
	if last != nil {
		t.Errorf("it is turned off, and %v is asked for", last)
	}
	c.update(edge(t), nil) // it was under way
	if last != nil {
		t.Errorf("it is turned off, and %v is asked for again", last)
	}
}

func TestOutcomes(t *testing.T) {
	became := outcomes(front{
		listeners: map[string]Listener{
			"a/b/open":   {Open: true},
			"a/b/part":   {Open: true},
			"a/b/soon":   {},
			"a/b/failed": {Err: errors.New("address already in use")},
		},
		conflicts: []discovery.Conflict{
			{Service: "a/b/part", Claim: "sni x.example on listener 0.0.0.0:443", Holder: "default/shop"},
			{Service: "a/b/open", Claim: "name x.example", Holder: "web"},
			{Service: "a/b/lost", Claim: "listener 0.0.0.0:80", Holder: "web"},
			{Service: "a/b/late", Claim: "listener 0.0.0.0:81", Holder: "x/y/tls/z/route"},
		},
	})
	want := map[string]gateway.Outcome{
		"a/b/open":   {Listening: true},
		"a/b/part":   {Listening: true, Refused: []string{"sni x.example on listener 0.0.0.0:443 belongs to Service default/shop"}},
		"a/b/soon":   {},
		"a/b/new":    {},
		"a/b/failed": {Err: "address already in use"},
		"a/b/lost":   {Refused: []string{`listener 0.0.0.0:80 belongs to service "web" of elbow's configuration`}},
		"a/b/late":   {Refused: []string{"listener 0.0.0.0:81 belongs to Gateway x/y"}},
	}
	for id, w := range want {
		if diff := cmp.Diff(w, became(id)); diff != "" {
			t.Errorf("%s: -want +got:\n%s", id, diff)
		}
	}
}
