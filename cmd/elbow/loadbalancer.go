package main

import (
	"context"
	"errors"
	"sync"

	"haslohas.com/elbow/config"
	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/discovery/kubernetes"
	"haslohas.com/elbow/dnsserver"
	"haslohas.com/elbow/loadbalancer"
	"haslohas.com/elbow/proxy"
)

// newLoadBalancer returns what fulfils the Services of a cluster.
func newLoadBalancer(e *elbow) *loadbalancer.Controller {
	return loadbalancer.New(loadbalancer.Options{
		Front:      front{e},
		Table:      &e.table,
		Deliver:    e.answers.fulfil,
		Events:     e.events,
		Store:      e.store,
		Log:        e.log,
		Registerer: e.registry,
	})
}

// front is what this host does for services.
type front struct{ e *elbow }

func (f front) Listeners() map[string]loadbalancer.Listener {
	out := make(map[string]loadbalancer.Listener)
	for _, l := range f.e.proxy.Listeners() { // also those about to close
		out[l.Service] = loadbalancer.Listener{Open: out[l.Service].Open || l.Err == nil}
	}
	for name, err := range f.e.proxy.Services() {
		l := loadbalancer.Listener{Open: err == nil}
		if !errors.Is(err, proxy.ErrNotYet) {
			l.Err = err
		}
		out[name] = l
	}
	return out
}

func (f front) Answers(hostname string) bool {
	x, ok := f.e.names.Explain(hostname)
	return ok && x.Kind == dnsserver.KindService && f.e.names.Serving() == nil
}

func (f front) Conflicts() []discovery.Conflict { return f.e.catalog.Conflicts() }

// site is what c offers to the Services of a cluster.
func site(c *config.Config) loadbalancer.Site {
	s := loadbalancer.Site{
		Class:     c.Kubernetes.LoadBalancerClass,
		Addresses: c.Host.Addresses,
		Default:   config.DefaultService(),
	}
	for _, z := range c.DNS.Zones {
		s.Zones = append(s.Zones, z.Name)
	}
	return s
}

// A teller tells a cluster of its backends.
type teller struct {
	e *elbow

	mu       sync.Mutex
	services map[string]kubernetes.Subject // guarded by mu: of the configuration, by name; the zero value: of no one object
	on       bool                          // guarded by mu: the configuration wants Events
}

// apply takes what c says.
func (t *teller) apply(c *config.Config, cluster *kubernetes.Cluster) {
	services := make(map[string]kubernetes.Subject)
	for _, s := range c.Services {
		if s.Source.Kind != config.FromKubernetes {
			continue
		}
		k := s.Source.Kubernetes
		services[s.Name] = kubernetes.Subject{}
		if k.Service != "" {
			services[s.Name] = kubernetes.Subject{APIVersion: "v1", Kind: "Service", Namespace: k.Namespace, Name: k.Service}
		}
	}
	t.mu.Lock()
	t.services, t.on = services, c.Kubernetes.Events
	t.mu.Unlock()
	if c.Kubernetes.Events || c.Kubernetes.LoadBalancerClass != "" {
		t.e.events.Use(cluster)
	} else {
		t.e.events.Use(nil)
	}
}

// about says what Events about a service are about.
func (t *teller) about(service string) (s kubernetes.Subject, nodes, ok bool) {
	if s, ok := t.e.balancer.Subject(service); ok {
		t.mu.Lock()
		defer t.mu.Unlock()
		return s, t.on, true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok = t.services[service]
	return s, t.on, ok && t.on
}

// Run tells until ctx ends.
func (t *teller) Run(ctx context.Context) error { return t.e.events.Watch(ctx, &t.e.table, t.about) }
