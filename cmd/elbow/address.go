package main

import (
	"context"
	"slices"
	"sync"

	"haslohas.com/elbow/admin"
	"haslohas.com/elbow/amazon"
	"haslohas.com/elbow/config"
	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/discovery/kubernetes"
	"haslohas.com/elbow/elasticip"
	"haslohas.com/elbow/elasticip/lease"
)

// newElasticIP returns the keeper of the Elastic IP, nil where the
// configuration has none.
func newElasticIP(e *elbow, c *config.Config) *elasticip.Keeper {
	if !c.AWS.ElasticIP.On {
		return nil
	}
	o := elasticIPOptions(c)
	o.Changed = e.answers.believe
	o.Log = e.log
	o.Registerer = e.registry
	if l := c.AWS.ElasticIP; l.Takeover {
		cluster := kubernetes.New(kubernetes.Options{Kubeconfig: c.Kubernetes.Kubeconfig, Log: e.log})
		o.Lock = lease.New(lease.Options{
			Config:    cluster.Config,
			Identity:  func(ctx context.Context) (string, error) { return identity(ctx, c) },
			Namespace: l.Lease.Namespace,
			Name:      l.Lease.Name,
			Duration:  l.Lease.Duration,
			Keep:      e.hasLeft,
			Log:       e.log,
		})
	}
	return elasticip.New(o)
}

func elasticIPOptions(c *config.Config) elasticip.Options {
	return elasticip.Options{
		Connect: func(ctx context.Context) (elasticip.API, string, error) {
			return elasticip.Connect(ctx, way(c), nil)
		},
		Allocation: c.AWS.ElasticIP.AllocationID,
		Addresses:  c.Host.Addresses,
	}
}

// way is how AWS is reached.
func way(c *config.Config) amazon.Options {
	return amazon.Options{Region: c.AWS.Region, Endpoint: c.AWS.Endpoint}
}

// identity is what this host is called in the lease: the ID of its instance,
// which no other host has, and which all processes of this host share.
func identity(ctx context.Context, c *config.Config) (string, error) {
	self, err := amazon.Self(ctx, way(c), nil)
	return self.ID, err
}

// answers are what is wanted of the catalog: what the configuration says, and behind
// that what a cluster asks for. The addresses are those of the configuration but for
// an Elastic IP that may be another host's.
type answers struct {
	deliver func(discovery.Want)

	mu       sync.Mutex
	want     discovery.Want      // guarded by mu, as what follows: what the configuration says
	wanted   bool                // there is one
	services []discovery.Service // what Services of a cluster ask for
	gateways []discovery.Service // what its Gateways ask for
	takeover bool                // the Elastic IP is withheld until it is believed to be here
	belief   elasticip.Belief    // the newest
}

// apply takes what a configuration says.
func (a *answers) apply(w discovery.Want) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.want, a.wanted = w, true
	a.publish()
}

// fulfil takes what the Services of a cluster ask for.
func (a *answers) fulfil(services []discovery.Service) { a.ask(&a.services, services) }

// serve takes what the Gateways of a cluster ask for.
func (a *answers) serve(services []discovery.Service) { a.ask(&a.gateways, services) }

func (a *answers) ask(which *[]discovery.Service, services []discovery.Service) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*which = services
	if a.wanted {
		a.publish()
	}
}

// believe takes a belief.
func (a *answers) believe(b elasticip.Belief) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.belief
	a.belief = b
	if a.wanted && (b.Withheld() != before.Withheld() || b.Address != before.Address) {
		a.publish()
	}
}

// publish delivers what is wanted, without the address if that is withheld.
// Which one it is EC2 has to say: until then it may be any.
func (a *answers) publish() {
	w := a.want
	w.Services = slices.Concat(w.Services, a.services, a.gateways)
	if a.takeover && !a.belief.Mine {
		all := w.Host.Addresses
		w.Host.Addresses, w.Host.Withheld = nil, nil
		for _, addr := range all {
			if addr == a.belief.Address || !a.belief.Address.IsValid() {
				w.Host.Withheld = append(w.Host.Withheld, addr)
			} else {
				w.Host.Addresses = append(w.Host.Addresses, addr)
			}
		}
		w.Host.Withheld = slices.Clip(w.Host.Withheld)
	}
	a.deliver(w)
}

// elasticIP is what the status shows of the address; false: there is none.
func (e *elbow) elasticIP() (admin.ElasticIP, bool) {
	if e.address == nil {
		return admin.ElasticIP{}, false
	}
	b := e.address.Belief()
	return admin.ElasticIP{
		Address:    b.Address,
		Allocation: b.Allocation,
		Instance:   b.Instance,
		Holder:     b.Holder,
		Asked:      b.Asked,
		Here:       b.Here,
		Takeover:   b.Takeover,
		Locked:     b.Locked,
		Mine:       b.Mine,
		Err:        b.Err,
	}, true
}
