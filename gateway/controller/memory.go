package controller

import "haslohas.com/elbow/gateway"

// storeName is the name of the Gateways in the Store.
const storeName = "gateways"

// load returns what the last process has left. It is in force until the cluster says
// something else. What cannot be read costs no start.
func (c *Controller) load() *gateway.World {
	if c.Store == nil {
		return nil
	}
	var w gateway.World
	there, err := c.Store.Load(storeName, &w)
	if err != nil {
		c.Log.Warn("starting without the Gateways that were served", "err", err)
	}
	if err != nil || !there {
		return nil
	}
	return &w
}

// save keeps what is in force for the next process. mu is held.
func (c *Controller) save() {
	if c.Store == nil {
		return
	}
	w := gateway.World{}
	if c.asked.world != nil {
		w = *c.asked.world
	}
	if err := c.Store.Save(storeName, remembered(&w, c.settings.Site.Controller)); err != nil {
		c.Log.Warn("the Gateways that are served will not outlive a restart", "err", err)
	}
}

// remembered is what must be known of w to ask for the same again.
func remembered(w *gateway.World, controller string) *gateway.World {
	out := &gateway.World{Grants: w.Grants, Namespaces: w.Namespaces}
	for _, c := range w.Classes {
		if c.Spec.ControllerName == controller {
			c.Status = gateway.ClassStatus{}
			out.Classes = append(out.Classes, c)
		}
	}
	for _, g := range w.Gateways {
		if g.Status = (gateway.GatewayStatus{}); !g.Deleted {
			out.Gateways = append(out.Gateways, g)
		}
	}
	named := make(map[gateway.Name]bool)
	for _, r := range w.Routes {
		if r.Status = (gateway.RouteStatus{}); r.Deleted {
			continue
		}
		out.Routes = append(out.Routes, r)
		for _, rule := range r.Spec.Rules {
			for _, b := range rule.BackendRefs {
				name := gateway.Name{Namespace: r.Namespace, Name: b.Name}
				if b.Namespace != nil {
					name.Namespace = *b.Namespace
				}
				named[name] = true
			}
		}
	}
	for _, s := range w.Services {
		if named[s.Name] {
			out.Services = append(out.Services, s)
		}
	}
	return out
}
