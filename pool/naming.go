package pool

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Naming says how the hostnames of a service are answered, and which names the
// service has beside them. The zero value: as all addresses, without any.
type Naming struct {
	Policy AnswerPolicy
	Limit  int     // addresses in one answer, 1 to MaxAnswer; 0: see MaxAddresses
	TTL    ZoneTTL // of a time that is 0: the zone's

	Clients *ClientMap // nil: all clients are answered alike

	HTTPS  *Parameters // of an HTTPS record at every hostname; nil: there is none
	SRV    []ServiceName
	SVCB   []ServiceName
	Status []string // names of TXT records that say how the service does
}

// MaxAnswer is how many addresses an answer names at most.
const MaxAnswer = 8

// MaxAddresses is how many addresses an answer names at most.
func (n *Naming) MaxAddresses() int {
	switch {
	case n.Limit > 0:
		return n.Limit
	case n.Policy == AnswerWeighted:
		return 1
	}
	return MaxAnswer
}

// Parameters are what an HTTPS or SVCB record says beside the addresses, RFC
// 9460.
type Parameters struct {
	ALPN []string // in the order of preference; empty: the default of the scheme
	Port uint16   // 0: the default of the scheme
}

// A ServiceName is a name that leads to the service, such as _http._tcp.example.com
// or _8443._https.example.com. It is lower case, without the final dot.
type ServiceName struct {
	Name string
	Port uint16 // 0: of SRV, that of the listener or backend; of SVCB, the default of the scheme
	ALPN []string
}

// UDP reports whether the name of an SRV record is for UDP.
func (s *ServiceName) UDP() bool {
	_, rest, _ := strings.Cut(s.Name, ".")
	return strings.HasPrefix(rest, "_udp.")
}

// A NameKind says what a name of a service is for.
type NameKind uint8

const (
	Hostname   NameKind = iota // has the addresses
	SRVName                    // leads to ports of targets
	SVCBName                   // leads to the first hostname
	StatusName                 // says how the service does
	TargetName                 // of one backend, that SRV records lead to
)

var nameKinds = names{"hostname", "SRV name", "SVCB name", "status name", "target name"}

func (k NameKind) String() string { return nameKinds.name(int(k)) }

// An OwnName is a name that belongs to a service.
type OwnName struct {
	Name  string
	Kind  NameKind
	HTTPS bool // it has an HTTPS record, too
}

// OwnNames returns every name that belongs to s, each once.
func (s *Service) OwnNames() []OwnName {
	targets := s.TargetNames()
	all := make([]OwnName, 0, len(s.Hostnames)+len(s.Naming.SRV)+len(s.Naming.SVCB)+len(s.Naming.Status)+len(targets))
	for _, h := range s.Hostnames {
		all = append(all, OwnName{h, Hostname, s.Naming.HTTPS != nil})
	}
	for _, n := range s.Naming.SRV {
		all = append(all, OwnName{Name: n.Name, Kind: SRVName})
	}
	for _, n := range s.Naming.SVCB {
		all = append(all, OwnName{Name: n.Name, Kind: SVCBName})
	}
	for _, n := range s.Naming.Status {
		all = append(all, OwnName{Name: n, Kind: StatusName})
	}
	seen := make(map[string]bool, len(targets))
	for _, t := range targets {
		if t != "" && !seen[t] {
			seen[t] = true
			all = append(all, OwnName{Name: t, Kind: TargetName})
		}
	}
	return all
}

// MaxTargets is how many endpoints of a service have a target name: the first,
// by address.
const MaxTargets = 1024

// TargetNames returns the names that the SRV records of a direct service lead to,
// one for each endpoint and in their order: the node below the first hostname,
// or where that would stand for different addresses, or is not known, the address
// that is dialled, as in ip-172-31-8-18. It is nil where there is no such
// record; a name is empty where a node is called like the address of another.
// Health makes no difference to it.
func (s *Service) TargetNames() []string {
	if s.Answer != Direct || len(s.Naming.SRV) == 0 || len(s.Hostnames) == 0 {
		return nil
	}
	endpoints := s.Endpoints[:min(len(s.Endpoints), MaxTargets)]
	labels := make([]string, len(endpoints))
	taken := make(map[string][]netip.Addr) // what a label stands for
	for level := range 3 {
		groups := make(map[string][]int)
		for i := range endpoints {
			if labels[i] != "" {
				continue
			}
			label := nodeLabel(endpoints[i].Node)
			if level > 0 {
				label = addressLabel(endpoints[i].Address.Addr())
			}
			if level > 1 { // unique, as the address with its port is
				label += "-" + strconv.Itoa(int(endpoints[i].Address.Port()))
			}
			if label != "" {
				groups[label] = append(groups[label], i)
			}
		}
		for label, group := range groups {
			reach := endpoints[group[0]].Reachable()
			if other, ok := taken[label]; ok && !slices.Equal(other, reach) ||
				slices.ContainsFunc(group, func(i int) bool { return !slices.Equal(endpoints[i].Reachable(), reach) }) {
				continue
			}
			taken[label] = reach
			for _, i := range group {
				labels[i] = label
			}
		}
	}
	for i, label := range labels {
		if label != "" {
			labels[i] = label + "." + s.Hostnames[0]
		}
	}
	return labels
}

// maxNode is how long the label of a node gets.
const maxNode = 63

// nodeLabel is a node as one label, empty where it makes none.
func nodeLabel(node string) string {
	label := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '-':
			return r
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, node)
	label = strings.Trim(label, "-")
	if len(label) > maxNode {
		return ""
	}
	return label
}

func addressLabel(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return "ip-" + strings.ReplaceAll(a.String(), ".", "-")
	}
	return "ip-" + strings.ReplaceAll(a.StringExpanded(), ":", "-")
}

// An Address is one that a hostname resolves to.
type Address struct {
	Addr   netip.Addr
	Weight int // of all backends that have it
}

// A View is what a part of the clients is answered: the addresses of the
// backends in one zone of the cloud.
type View struct {
	Zone      string
	Addresses []Address // in the order of the backends, each once; may be empty
}

// Weighted is Addresses with the weights of the backends. Addresses of this
// host weigh all the same.
func (p *Pool) Weighted(host []netip.Addr) []Address {
	if p.Answer == Proxied {
		var out []Address
		for _, a := range p.Addresses(host) {
			out = append(out, Address{a, 1})
		}
		return out
	}
	return p.addressesOf(func(*Backend) bool { return true })
}

// Views returns what there is to answer for each zone that Naming.Clients names,
// in their order. It is nil where all clients are answered alike.
func (p *Pool) Views() []View {
	if p.Naming.Clients == nil || p.Answer == Proxied {
		return nil
	}
	views := make([]View, len(p.Naming.Clients.Zones()))
	for i, zone := range p.Naming.Clients.Zones() {
		views[i] = View{zone, p.addressesOf(func(b *Backend) bool { return b.Zone == zone })}
	}
	return views
}

func (p *Pool) addressesOf(is func(*Backend) bool) []Address {
	var out []Address
	at := make(map[netip.Addr]int)
	for _, i := range p.Names.Index {
		b := &p.Backends[i]
		if !is(b) {
			continue
		}
		for _, a := range b.Reachable() {
			a = a.Unmap().WithZone("")
			if j, known := at[a]; known {
				out[j].Weight += b.Weight
				continue
			}
			at[a] = len(out)
			out = append(out, Address{a, b.Weight})
		}
	}
	return out
}

// A Draw is one of the choices of addresses that an answer may name.
type Draw struct {
	Members []int  // positions, ascending
	Share   uint64 // how often it is drawn, of the sum over all
}

// Draws returns at most len(weights) choices of limit positions each, of which
// one is to be drawn by the shares, so that each position is in an answer in
// proportion to its weight; one that is due in more than every answer is in
// every one, and the others share what is left. Weights of 0 are in none. This
// is systematic sampling with unequal probabilities (Madow 1949): the weights
// are laid side by side, and a comb with limit teeth is laid over them.
func Draws(weights []int, limit int) []Draw {
	var always, rest []int
	total := 0
	for i, w := range weights {
		if w > 0 {
			rest = append(rest, i)
			total += w
		}
	}
	if len(rest) == 0 || limit <= 0 {
		return nil
	}
	if len(rest) <= limit {
		return []Draw{{rest, 1}}
	}
	for again := true; again; { // who is due in every answer leaves more of the comb to none
		again = false
		for n, i := range rest {
			if weights[i]*limit >= total {
				always = append(always, i)
				rest = slices.Delete(rest, n, n+1)
				total -= weights[i]
				limit--
				again = true
				break
			}
		}
	}
	if limit == 0 || len(rest) == 0 {
		slices.Sort(always)
		return []Draw{{always, 1}}
	}
	// In units of 1/limit, so that the distance of the teeth is total.
	var cuts []int // where a tooth crosses into the next weight, as offsets of the comb
	end := 0
	for _, i := range rest {
		end += weights[i] * limit
		cuts = append(cuts, end%total)
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts) // begins with 0: the last end is limit times total
	draws := make([]Draw, 0, len(cuts))
	for n, from := range cuts {
		to := total
		if n+1 < len(cuts) {
			to = cuts[n+1]
		}
		members := slices.Clone(always)
		tooth, end := from, 0
		for _, i := range rest {
			if end += weights[i] * limit; tooth < end {
				members = append(members, i)
				tooth += total
			}
		}
		slices.Sort(members)
		draws = append(draws, Draw{members, uint64(to - from)})
	}
	return draws
}
