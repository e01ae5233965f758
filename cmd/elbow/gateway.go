package main

import (
	"haslohas.com/elbow/config"
	"haslohas.com/elbow/gateway/controller"
)

// newGateways returns what serves the Gateways of a cluster.
func newGateways(e *elbow) *controller.Controller {
	return controller.New(controller.Options{
		Front:      gatewayFront{front{e}},
		Table:      &e.table,
		Deliver:    e.answers.serve,
		Store:      e.store,
		Log:        e.log,
		Registerer: e.registry,
	})
}

// gatewayFront is what this host does for services, as Gateways need it.
type gatewayFront struct{ front }

func (f gatewayFront) Listeners() map[string]controller.Listener {
	out := make(map[string]controller.Listener)
	for name, l := range f.front.Listeners() {
		out[name] = controller.Listener(l)
	}
	return out
}

// gatewaySite is what c offers to the Gateways of a cluster.
func gatewaySite(c *config.Config) controller.Site {
	s := site(c)
	return controller.Site{
		Controller: c.Kubernetes.GatewayController,
		Zones:      s.Zones,
		Addresses:  s.Addresses,
		Default:    s.Default,
	}
}
