package controller

import (
	"context"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/discovery/kubernetes"
	"haslohas.com/elbow/gateway"
	"haslohas.com/elbow/pool"
)

// A Front is what the host does for services, by their names.
type Front interface {
	// Listeners returns how those of each service are. A service that has none is
	// absent.
	Listeners() map[string]Listener

	// Conflicts returns what services are refused.
	Conflicts() []discovery.Conflict
}

// A Listener is how the listeners of a service are, all together.
type Listener struct {
	Open bool  // each accepts
	Err  error // why one does not; nil: it is about to
}

// A Store keeps values over restarts, by name.
type Store interface {
	Load(name string, v any) (bool, error)
	Save(name string, v any) error
}

// Options are what a Controller works with. Front, Table and Deliver are required.
type Options struct {
	Front Front
	Table *pool.Publisher // whose changes are reason to look at the Front again

	// Deliver is called with everything that is asked for, whenever that has
	// changed: first those who were first. Calls do not overlap.
	Deliver func([]discovery.Service)

	Store      Store                 // nil: nothing outlives the process
	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: the metrics are not registered
}

// A Site is what this host has for the Gateways of a cluster.
type Site struct {
	Controller string       // the controllerName of the GatewayClasses that are ours; empty: none is
	Zones      []string     // in which names are answered
	Addresses  []netip.Addr // of the host
	Default    pool.Service // what a service is like that says nothing about it
}

// Settings say whose Gateways are served. The zero value: nobody's.
type Settings struct {
	Site    Site
	Cluster *kubernetes.Cluster
}

func (s *Settings) same(other *Settings) bool {
	return s.Cluster == other.Cluster && reflect.DeepEqual(s.Site, other.Site)
}

// A Controller serves Gateways. Its methods may be called by several goroutines.
type Controller struct {
	Options
	metrics *metrics

	mu       sync.Mutex
	settings Settings      // guarded by mu
	changed  chan struct{} // capacity 1: there are new settings

	asked asked // guarded by mu
}

// New returns a Controller that does nothing until it has settings.
func New(o Options) *Controller {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Controller{Options: o, metrics: newMetrics(o.Registerer), changed: make(chan struct{}, 1)}
}

// Apply brings settings into force. The first ones are at once: what the last process
// has left is handed on before Apply returns, so that no listener is missing in the
// first table.
func (c *Controller) Apply(s Settings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.settings.same(&s) {
		return
	}
	c.settings = s
	c.metrics.on.Set(0)
	if s.on() {
		c.metrics.on.Set(1)
		if c.asked.world == nil {
			c.asked.world = c.load()
		}
	} else {
		c.asked.world = nil
	}
	c.decide()
	poke(c.changed)
}

func (s *Settings) on() bool { return s.Site.Controller != "" && s.Cluster != nil }

// Run serves Gateways until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		c.mu.Lock()
		s := c.settings
		c.mu.Unlock()
		if !s.on() {
			select {
			case <-ctx.Done():
			case <-c.changed:
			}
			continue
		}
		l := &loop{Controller: c, gateways: s.Cluster.Gateways(), writing: make(map[string]*writing)}
		l.run(ctx)
	}
	return nil
}

// asked is what is asked for.
type asked struct {
	world     *gateway.World // nil: not known
	fresh     bool           // it is as the cluster says now, and not the last process
	decision  *gateway.Decision
	delivered []discovery.Service
	at        time.Time // when that changed
	err       string    // why the world may be out of date, as it was last said
}

// decide decides what is to be done, and hands it on if that is something else than
// before. mu is held.
func (c *Controller) decide() {
	w := gateway.World{}
	if c.asked.world != nil {
		w = *c.asked.world
	}
	w.Controller, w.Addresses = c.settings.Site.Controller, c.settings.Site.Addresses
	c.asked.decision = gateway.Decide(&w)
	want := services(c.asked.decision, &c.settings)
	if sameWanted(c.asked.delivered, want) {
		return
	}
	c.tell(c.asked.delivered, want)
	c.asked.delivered, c.asked.at = want, time.Now()
	c.metrics.services.Set(float64(len(want)))
	c.Deliver(want)
	c.save()
}

func (c *Controller) tell(before, now []discovery.Service) {
	named := func(all []discovery.Service, name string) bool {
		return slices.ContainsFunc(all, func(s discovery.Service) bool { return s.Name == name })
	}
	for _, s := range now {
		if !named(before, s.Name) {
			c.Log.Info("a Gateway asks for a service", "service", s.Name, "listen", s.Listen, "sni", s.Match.SNI)
		}
	}
	for _, s := range before {
		if !named(now, s.Name) {
			c.Log.Info("no Gateway asks for a service any more", "service", s.Name)
		}
	}
}

func sameWanted(a, b []discovery.Service) bool {
	return slices.EqualFunc(a, b, func(x, y discovery.Service) bool {
		return x.SourceKey == y.SourceKey && reflect.DeepEqual(x.Service, y.Service)
	})
}

// update takes what the cluster says; w is nil where it says nothing.
func (c *Controller) update(w *gateway.World, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follows(err)
	if w == nil || !c.settings.on() || c.asked.fresh && reflect.DeepEqual(w, c.asked.world) {
		return
	}
	c.asked.world, c.asked.fresh = w, true
	c.decide()
}

// follows says once why the Gateways are not known as they are now.
func (c *Controller) follows(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	c.metrics.following.Set(0)
	if err == nil {
		c.metrics.following.Set(1)
	}
	if text == c.asked.err {
		return
	}
	c.asked.err = text
	if err != nil {
		c.Log.Warn("the Gateways cannot be followed, what they last asked for stays in force", "err", err)
	} else {
		c.Log.Info("following the Gateways again")
	}
}

// poke leaves a wake-up in a channel of capacity 1, unless one is waiting there.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
