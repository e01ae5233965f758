package admin

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"haslohas.com/elbow/pool"
)

// Status is all that there is to know at one moment: GET /api/v1/status.
// Lists are never null.
type Status struct {
	Version    string    `json:"version"`
	Generation uint64    `json:"generation"` // of the table; 0: nothing was decided yet
	Ready      bool      `json:"ready"`
	NotReady   string    `json:"not_ready,omitempty"` // why Ready is false
	Verdict    Verdict   `json:"verdict"`
	Host       Host      `json:"host"`
	Time       time.Time `json:"time"`               // when this was true, by the clock of the host
	Started    time.Time `json:"started"`            // the daemon
	Published  time.Time `json:"published,omitzero"` // the table

	Services    []ServiceStatus  `json:"services"`
	Zones       []ZoneStatus     `json:"zones"`
	Sources     []SourceStatus   `json:"sources"`
	Delegations []Delegation     `json:"delegations,omitempty"` // none: nobody looks after them
	ElasticIP   *ElasticIPStatus `json:"elastic_ip,omitempty"`  // nil: there is none
	Transitions []Transition     `json:"transitions"`           // the newest first, a bounded number
}

// Host is the machine that the daemon runs on.
type Host struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
}

// A ServiceStatus is one service and its backends.
type ServiceStatus struct {
	Name        string           `json:"name"`
	Listeners   []ListenerStatus `json:"listeners"`
	Hostnames   []string         `json:"hostnames"`
	Answer      string           `json:"answer"`           // proxied or direct
	Policy      string           `json:"policy,omitempty"` // of the addresses in an answer: weighted; empty: all
	Limit       int              `json:"limit,omitempty"`  // addresses in an answer, where it is configured
	Balance     string           `json:"balance"`
	WhenAllDown string           `json:"when_all_down"`
	FailOpen    bool             `json:"fail_open"`             // no backend is well and all are tried
	Priority    int              `json:"priority,omitempty"`    // of the backends that take connections
	FailedOver  bool             `json:"failed_over,omitempty"` // there are backends of a lower priority, and none of them is well
	Verdict     Verdict          `json:"verdict"`
	Names       []NameStatus     `json:"names"` // what each hostname resolves to
	Backends    []BackendStatus  `json:"backends"`
}

// A ListenerStatus is a public port of a service.
type ListenerStatus struct {
	Address     string   `json:"address"`               // for UDP with udp/ ahead
	Connections int      `json:"connections"`           // of all services that share it; for UDP, flows
	Error       string   `json:"error,omitempty"`       // why it is not open
	SharedWith  []string `json:"shared_with,omitempty"` // the other services, the first few; they are told apart by what clients ask for
}

// A NameStatus is what a hostname of a service resolves to and for how long
// that may be cached.
type NameStatus struct {
	Name      string       `json:"name"`
	Zone      string       `json:"zone"` // empty: elbow is not asked for it
	Addresses []netip.Addr `json:"addresses"`
	TTL       int          `json:"ttl"` // seconds
	Degraded  bool         `json:"degraded"`
	Reason    string       `json:"ttl_reason"`
}

// A BackendStatus is one backend and the verdict on it.
type BackendStatus struct {
	Address     string       `json:"address"`
	Node        string       `json:"node"`
	State       string       `json:"state"` // unknown, up, down, draining, forced-up, forced-down
	Since       time.Time    `json:"since,omitzero"`
	Reason      string       `json:"reason"`
	Weight      int          `json:"weight"`
	Priority    int          `json:"priority,omitempty"` // 0 is the first
	Connections int          `json:"connections"`
	Eligible    bool         `json:"eligible"` // takes new connections
	Answered    bool         `json:"answered"` // counts for DNS answers
	Why         string       `json:"why"`      // Eligible is as it is
	Drain       string       `json:"drain,omitempty"`
	Suspect     bool         `json:"suspect,omitempty"` // real traffic just failed to connect
	Public      []netip.Addr `json:"public,omitempty"`
	Zone        string       `json:"zone,omitempty"` // of the cloud
}

// A ZoneStatus is a zone as the DNS server serves it.
type ZoneStatus struct {
	Name   string `json:"name"`
	Serial uint32 `json:"serial"`
	Names  int    `json:"names"`

	Keys    []ZoneKey `json:"keys,omitempty"` // none: it is not signed
	Expires time.Time `json:"signatures_expire,omitzero"`
	Overdue bool      `json:"signatures_overdue,omitempty"` // they are not renewed as they should be
}

// A ZoneKey is a key that is in a signed zone.
type ZoneKey struct {
	Tag       uint16 `json:"tag"`
	Algorithm string `json:"algorithm"`
	Stage     string `json:"stage"` // active, standby or retired
}

// KeysText says for a person which keys the zone has.
func (z *ZoneStatus) KeysText() string {
	var out []string
	for _, k := range z.Keys {
		out = append(out, fmt.Sprintf("%d %s", k.Tag, k.Stage))
	}
	return strings.Join(out, ", ")
}

// A SourceStatus is a place where endpoints come from.
type SourceStatus struct {
	Name      string    `json:"name"`
	Endpoints int       `json:"endpoints"`
	Age       int       `json:"age_seconds"` // since the last good set
	Error     string    `json:"error"`
	Updated   time.Time `json:"updated,omitzero"`
}

// A Delegation is how a parent zone leads to one of ours.
type Delegation struct {
	Zone     string              `json:"zone"`
	Parent   string              `json:"parent"` // empty: not known
	OK       bool                `json:"ok"`
	Checked  time.Time           `json:"checked"`
	Findings []DelegationFinding `json:"findings"`
	Repair   string              `json:"repair,omitempty"` // why elbow, which is to, cannot put it right
}

// A DelegationFinding is something that is not as it must be.
type DelegationFinding struct {
	Code  string `json:"code"`
	Level string `json:"level"` // error or warning
	Where string `json:"where"` // a name, or the name and address of a server
	Text  string `json:"text"`
	Cure  string `json:"cure"` // what to do
}

// status gathers everything as it is now.
func (s *Server) status() Status {
	now := time.Now()
	t := s.opts.Table.Load()
	st := Status{
		Version:     s.opts.Version,
		Generation:  t.Generation,
		Ready:       true,
		Host:        Host{Name: t.Host.Name, Addresses: orEmpty(t.Host.Addresses)},
		Time:        seconds(now),
		Started:     seconds(s.started),
		Published:   seconds(t.Published),
		Services:    make([]ServiceStatus, len(t.Pools)),
		Zones:       []ZoneStatus{},
		Sources:     []SourceStatus{},
		Transitions: s.history.list(),
	}
	st.ElasticIP = s.elasticIP(now)
	if err := s.ready(); err != nil {
		st.Ready, st.NotReady = false, err.Error()
	}
	listeners := s.listeners()
	for i, p := range t.Pools {
		st.Services[i] = s.service(t, p, listeners)
	}
	if s.opts.Zones != nil {
		for _, z := range s.opts.Zones() {
			st.Zones = append(st.Zones, ZoneStatus(z))
		}
		slices.SortFunc(st.Zones, func(a, b ZoneStatus) int { return cmp.Compare(a.Name, b.Name) })
	}
	if s.opts.Sources != nil {
		for _, src := range s.opts.Sources() {
			out := SourceStatus{Name: src.Name, Endpoints: src.Endpoints, Error: src.Err, Updated: seconds(src.Updated)}
			if !src.Updated.IsZero() {
				out.Age = int(max(0, now.Sub(src.Updated)) / time.Second)
			}
			st.Sources = append(st.Sources, out)
		}
		slices.SortFunc(st.Sources, func(a, b SourceStatus) int { return cmp.Compare(a.Name, b.Name) })
	}
	if s.opts.Delegations != nil {
		st.Delegations = s.opts.Delegations()
	}
	st.Verdict = overall(&st)
	return st
}

func (s *Server) ready() error {
	if s.opts.Ready == nil {
		return nil
	}
	return s.opts.Ready()
}

// listeners returns what the proxy says about each of its ports, by the address
// that the table has for it.
func (s *Server) listeners() map[pool.Port]Listener {
	out := make(map[pool.Port]Listener)
	if s.opts.Listeners != nil {
		for _, l := range s.opts.Listeners() {
			if !l.Configured.IsValid() {
				l.Configured = l.Address
			}
			out[pool.Port{UDP: l.UDP, Address: l.Configured}] = l
		}
	}
	return out
}

func (s *Server) service(t *pool.Table, p *pool.Pool, listeners map[pool.Port]Listener) ServiceStatus {
	out := ServiceStatus{
		Name:        p.Name,
		Listeners:   listenersOf(t, p, listeners),
		Hostnames:   orEmpty(p.Hostnames),
		Answer:      p.Answer.String(),
		Balance:     p.Balance.String(),
		WhenAllDown: p.WhenAllDown.String(),
		FailOpen:    p.Traffic.FailOpen,
		Priority:    p.Traffic.Priority,
		FailedOver:  p.FailedOver(),
		Names:       make([]NameStatus, len(p.Hostnames)),
		Backends:    make([]BackendStatus, len(p.Backends)),
	}
	if p.Naming.Policy != pool.AnswerAll {
		out.Policy = p.Naming.Policy.String()
	}
	out.Limit = p.Naming.Limit
	for i, h := range p.Hostnames {
		out.Names[i] = name(t, p, h)
	}
	eligible, answered := positions(p.Traffic.Index), positions(p.Names.Index)
	for i := range p.Backends {
		b := &p.Backends[i]
		out.Backends[i] = BackendStatus{
			Address:     b.Address.String(),
			Node:        b.Node,
			State:       b.State.String(),
			Since:       seconds(b.Since),
			Reason:      b.Reason,
			Weight:      b.Weight,
			Priority:    b.Priority,
			Connections: s.active(p.Name, b.Address),
			Eligible:    eligible[i],
			Answered:    answered[i],
			Why:         why(p, b, eligible[i]),
			Drain:       b.Drain.String(),
			Suspect:     b.Suspect,
			Public:      b.Public,
			Zone:        b.Zone,
		}
	}
	out.Verdict = verdict(&out)
	return out
}

// fewServices bounds how many of the services that share a listener are named.
const fewServices = 8

// listenersOf says how the listeners of p are.
func listenersOf(t *pool.Table, p *pool.Pool, listeners map[pool.Port]Listener) []ListenerStatus {
	ports := p.Ports()
	out := make([]ListenerStatus, len(ports))
	for i, a := range ports {
		out[i].Address = a.String()
		var sharing []*pool.Pool
		if !a.UDP {
			sharing = t.Listener(a.Address).Pools
		}
		for _, other := range sharing {
			if other != p && len(out[i].SharedWith) < fewServices {
				out[i].SharedWith = append(out[i].SharedWith, other.Name)
			}
		}
		if l, ok := listeners[a]; ok {
			if l.Address.IsValid() {
				out[i].Address = pool.Port{UDP: l.UDP, Address: l.Address}.String()
			}
			out[i].Connections = l.Connections
			if l.Err != nil {
				out[i].Error = l.Err.Error()
			}
		}
	}
	return out
}

// name says what the hostname h of p resolves to.
func name(t *pool.Table, p *pool.Pool, h string) NameStatus {
	out := NameStatus{Name: h, Addresses: []netip.Addr{}}
	z := t.DNS.Zone(h)
	if z == nil {
		out.Reason = "no zone of this elbow holds the name"
		return out
	}
	life := p.Lifetime(z.TTL)
	out.Zone = z.Name
	out.Addresses = orEmpty(p.Addresses(t.Host.Addresses))
	out.TTL = int(life.TTL / time.Second)
	out.Degraded = life.Degraded
	out.Reason = life.Reason
	if len(out.Addresses) == 0 {
		// What is answered then is NODATA, and that is cached for the negative TTL.
		out.TTL = int(p.TTL(z.TTL).Negative / time.Second)
	}
	if p.Answer == pool.Proxied && t.Host.Silent() {
		out.TTL, out.Reason = 0, "SERVFAIL: the Elastic IP is not this host's now"
	}
	return out
}

func (s *Server) active(service string, backend netip.AddrPort) int {
	if s.opts.Active == nil {
		return 0
	}
	return s.opts.Active(service, backend)
}

// positions is index as a set.
func positions(index []int) map[int]bool {
	out := make(map[int]bool, len(index))
	for _, i := range index {
		out[i] = true
	}
	return out
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// seconds is t as it is shown: UTC, without fractions.
func seconds(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}
