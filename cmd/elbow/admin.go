package main

import (
	"time"

	"haslohas.com/elbow/admin"
	"haslohas.com/elbow/config"
	"haslohas.com/elbow/dnsserver"
	"haslohas.com/elbow/health"
)

// newAdmin gives admin the view of every part that it shows.
func newAdmin(e *elbow, c config.Admin) *admin.Server {
	return admin.New(admin.Options{
		Listen:    c.Listen,
		Socket:    c.Socket,
		Version:   readBuild().version,
		Table:     &e.table,
		Gatherer:  e.registry,
		Ready:     e.readiness,
		Listeners: e.listeners,
		Active:    e.proxy.Active,
		Zones:     e.zones,
		Sources:   e.sources,
		Explain:   e.explain,
		ElasticIP: e.elasticIP,
		Top:       e.top,
		Operator:  operator(e.checker),
		Minions:   e.minions,
		Inherited: e.inherited("admin"),
		Log:       e.log,

		Delegations: e.delegations,
	})
}

func (e *elbow) listeners() []admin.Listener {
	var out []admin.Listener
	for _, l := range e.proxy.Listeners() {
		out = append(out, admin.Listener(l))
	}
	return out
}

func (e *elbow) zones() []admin.Zone {
	var out []admin.Zone
	for _, z := range e.names.Zones() {
		zone := admin.Zone{Name: z.Name, Serial: z.Serial, Names: z.Names, Expires: z.Expires, Overdue: z.Overdue}
		for _, k := range z.Keys {
			zone.Keys = append(zone.Keys, admin.ZoneKey(k))
		}
		out = append(out, zone)
	}
	return out
}

func (e *elbow) sources() []admin.Source {
	var out []admin.Source
	for _, s := range e.catalog.Sources() {
		out = append(out, admin.Source(s))
	}
	return out
}

func (e *elbow) delegations() []admin.Delegation {
	var out []admin.Delegation
	for _, k := range e.parents.Kept() {
		d := admin.Delegation{Zone: k.Zone, Parent: k.Parent, OK: k.OK(), Checked: k.At, Findings: []admin.DelegationFinding{}, Repair: k.Repair}
		for _, f := range k.Findings {
			d.Findings = append(d.Findings, admin.DelegationFinding{Code: string(f.Code), Level: string(f.Level), Where: f.Where, Text: f.Text, Cure: f.Cure})
		}
		out = append(out, d)
	}
	return out
}

func (e *elbow) explain(name string) (admin.Explanation, bool) {
	x, ok := e.names.Explain(name)
	return admin.Explanation(x), ok
}

func (e *elbow) top() (admin.Top, bool) {
	t, counted := e.names.Top()
	entries := func(in []dnsserver.TopEntry) []admin.TopEntry {
		var out []admin.TopEntry
		for _, x := range in {
			out = append(out, admin.TopEntry(x))
		}
		return out
	}
	return admin.Top{
		Window:  int(t.Window.Seconds()),
		Queries: t.Queries,
		Absent:  t.Absent,
		Names:   entries(t.Names),
		Clients: entries(t.Clients),
		Missing: entries(t.Missing),
		Below:   entries(t.Below),
	}, counted
}

func operator(c *health.Checker) admin.Operator {
	return admin.Operator{
		Drain:   func(target string) ([]admin.Affected, error) { return affected(c.Drain(target)) },
		Undrain: func(target string) ([]admin.Affected, error) { return affected(c.Undrain(target)) },
		Force: func(target string, up bool, d time.Duration) ([]admin.Affected, error) {
			return affected(c.Force(target, up, d))
		},
		Unforce:  func(target string) ([]admin.Affected, error) { return affected(c.Unforce(target)) },
		Affected: func(target string) ([]admin.Affected, error) { return affected(c.Affected(target)) },
	}
}

func affected(in []health.Affected, err error) ([]admin.Affected, error) {
	out := make([]admin.Affected, 0, len(in))
	for _, a := range in {
		out = append(out, admin.Affected(a))
	}
	return out, err
}
