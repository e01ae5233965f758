package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"haslohas.com/elbow/pool"
)

// Why says why a name is answered, or a port or backend served, as it is.
type Why struct {
	Name       string          `json:"name"` // as it was understood
	Kind       string          `json:"kind"` // hostname, service, listener, backend, node, zone, name
	Generation uint64          `json:"generation"`
	Time       time.Time       `json:"time"`
	Summary    string          `json:"summary"`
	Lines      []string        `json:"lines"`              // the reasons, each a sentence
	Answer     *Answer         `json:"answer,omitempty"`   // of DNS, where the name has one
	Backends   []BackendStatus `json:"backends,omitempty"` // that decided it
}

// An Answer is what DNS answers for a name now.
type Answer struct {
	Name     string   `json:"name"`
	Zone     string   `json:"zone"`
	Kind     string   `json:"kind"`
	Records  []string `json:"records"` // in presentation format
	Serial   uint32   `json:"serial,omitempty"`
	TTL      int      `json:"ttl,omitempty"` // seconds; 0: not decided by health
	Degraded bool     `json:"degraded"`
	Reason   string   `json:"ttl_reason,omitempty"`
}

func (s *Server) serveWhy(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimSpace(r.URL.Query().Get("name"))
	if err := checkName("name", name); err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	client, err := parseClient(r.URL.Query().Get("client"))
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	t := s.opts.Table.Load()
	out, ok := s.why(t, name, client)
	if !ok {
		writeJSON(w, http.StatusNotFound, failure{
			Error: fmt.Sprintf("%q is no hostname, service, listener, backend, node or zone of this elbow, nor a name in one of its zones", name),
			Near:  near(name, known(t)),
		})
		return
	}
	writeJSON(w, http.StatusOK, out)
}

// why finds what name means, in this order: hostname, service, listener,
// backend, node, zone and any other name in a zone.
func (s *Server) why(t *pool.Table, name string, client netip.Prefix) (Why, bool) {
	w := &explainer{s: s, t: t, client: client, listeners: s.listeners()}
	w.out = Why{Name: name, Generation: t.Generation, Time: seconds(time.Now()), Lines: []string{}}
	domain := strings.TrimSuffix(strings.ToLower(name), ".")
	service, address, qualified := strings.Cut(name, "/")
	if !qualified {
		service, address = "", name
	}
	switch {
	case t.Hostname(domain) != nil:
		w.hostname(domain)
	case t.Service(name) != nil:
		w.service(t.Service(name))
	case w.listener(name), w.backend(service, address), w.node(name), w.name(domain):
	default:
		return Why{}, false
	}
	return w.out, true
}

// An explainer collects one Why.
type explainer struct {
	s         *Server
	t         *pool.Table
	client    netip.Prefix // who asks; the zero value: nobody in particular
	listeners map[pool.Port]Listener
	out       Why
}

func (w *explainer) say(format string, args ...any) {
	w.out.Lines = append(w.out.Lines, fmt.Sprintf(format, args...))
}

func (w *explainer) hostname(h string) {
	p := w.t.Hostname(h)
	st := w.s.service(w.t, p, w.listeners)
	n := st.Names[slices.Index(p.Hostnames, h)]
	w.out.Name, w.out.Kind = h, "hostname"
	w.answer(h)
	if w.out.Answer != nil {
		w.out.Answer.TTL, w.out.Answer.Degraded, w.out.Answer.Reason = n.TTL, n.Degraded, n.Reason
	}
	switch {
	case n.Zone == "":
		w.out.Summary = h + " is a hostname of service " + p.Name + ", but " + n.Reason
	case len(n.Addresses) == 0:
		w.out.Summary = fmt.Sprintf("%s has no address now (NODATA, cached for %ds)", h, n.TTL)
	case p.Naming.Policy == pool.AnswerWeighted && len(n.Addresses) > p.Naming.MaxAddresses():
		w.out.Summary = fmt.Sprintf("%s is answered with %d of %s for %ds", h, p.Naming.MaxAddresses(), addressList(n.Addresses), n.TTL)
	default:
		w.out.Summary = fmt.Sprintf("%s is answered with %s for %ds", h, addressList(n.Addresses), n.TTL)
	}
	if p.Answer == pool.Proxied {
		w.say("service %s is proxied: its names resolve to the addresses of this host", p.Name)
	} else {
		w.say("service %s is direct: its names resolve to the addresses of its healthy backends", p.Name)
	}
	if n.Zone != "" {
		w.say("the TTL is %ds because %s", n.TTL, n.Reason)
		w.naming(p, w.t.DNS.Zone(h))
	}
	w.verdictOf(&st)
}

func (w *explainer) service(p *pool.Pool) {
	st := w.s.service(w.t, p, w.listeners)
	w.out.Kind = "service"
	w.out.Summary = "service " + p.Name + ": " + st.Verdict.Text
	for _, n := range st.Names {
		switch {
		case n.Zone == "":
			w.say("%s: %s", n.Name, n.Reason)
		case len(n.Addresses) == 0:
			w.say("%s has no address now (NODATA for %ds): %s", n.Name, n.TTL, n.Reason)
		default:
			w.say("%s is answered with %s for %ds: %s", n.Name, addressList(n.Addresses), n.TTL, n.Reason)
		}
	}
	w.ports(&st)
	if !p.Match.IsZero() {
		w.say("of the connections there it takes %s", matchList(&p.Match))
	}
	w.verdictOf(&st)
}

func (w *explainer) ports(st *ServiceStatus) {
	for _, l := range st.Listeners {
		if len(l.SharedWith) > 0 {
			w.say("%s is shared with %s", l.Address, strings.Join(l.SharedWith, ", "))
		}
		if l.Error != "" {
			w.say("%s is not open: %s", l.Address, l.Error)
		} else {
			w.say("%s has %s", l.Address, l.load())
		}
	}
}

// load is how many clients l has now, in words.
func (l *ListenerStatus) load() string {
	if _, udp := pool.CutTransport(l.Address); udp {
		return number(l.Connections, "flow")
	}
	return number(l.Connections, "connection")
}

// verdictOf says which backends decide over a service.
func (w *explainer) verdictOf(st *ServiceStatus) {
	switch {
	case len(st.Backends) == 0:
		w.say("service %s has no backends: its source has named none", st.Name)
	case st.FailOpen:
		w.say("no backend of %s is well; whenAllDown is all, so every one is tried", st.Name)
	case !slices.ContainsFunc(st.Backends, func(b BackendStatus) bool { return b.Eligible }):
		w.say("no backend of %s takes connections; whenAllDown is %s", st.Name, st.WhenAllDown)
	default:
		w.say("service %s: %s, balanced by %s", st.Name, st.Verdict.Text, st.Balance)
	}
	w.out.Backends = append(w.out.Backends, st.Backends...)
}

// listener explains a port of the proxy, named as it was configured or, where
// it is open on every address, with an address of this host.
func (w *explainer) listener(name string) bool {
	text, udp := pool.CutTransport(name)
	at, err := netip.ParseAddrPort(text)
	if err != nil {
		return false
	}
	find := w.t.Listener
	if udp {
		find = w.udpListener
	}
	shared := find(at)
	if shared == nil && slices.Contains(w.t.Host.Addresses, at.Addr()) {
		for _, every := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			open := netip.AddrPortFrom(every, at.Port())
			if shared = find(open); shared != nil {
				w.say("%s is open as %s, on every address of this host", name, pool.Port{UDP: udp, Address: open})
				at = open
				break
			}
		}
	}
	if shared == nil {
		return false
	}
	w.out.Kind = "listener"
	owner := "service " + shared.Pools[0].Name
	if n := len(shared.Pools); n > 1 {
		owner = number(n, "service")
	}
	for _, p := range shared.Pools {
		st := w.s.service(w.t, p, w.listeners)
		l := st.Listeners[slices.Index(p.Ports(), pool.Port{UDP: udp, Address: at})]
		w.out.Summary = fmt.Sprintf("%s belongs to %s and has %s", l.Address, owner, l.load())
		if l.Error != "" {
			w.out.Summary = fmt.Sprintf("%s belongs to %s and is not open: %s", l.Address, owner, l.Error)
		}
		if shared.Routes() {
			w.say("service %s takes %s", p.Name, matchList(&p.Match))
		}
		w.verdictOf(&st)
	}
	if shared.Default == nil {
		w.say("what no service matches is refused")
	}
	return true
}

// udpListener returns a UDP listener as one that a single service has.
func (w *explainer) udpListener(at netip.AddrPort) *pool.Listener {
	p := w.t.UDPListener(at)
	if p == nil {
		return nil
	}
	return &pool.Listener{Address: at, Pools: []*pool.Pool{p}, Default: p}
}

// matchList says what m stands for, the first few of it.
func matchList(m *pool.Match) string {
	const most = 8
	var words []string
	for i, k := range m.Keys() {
		if i == most {
			words = append(words, "…")
			break
		}
		words = append(words, k.String())
	}
	return strings.Join(words, ", ")
}

// backend explains the backends at "address:port" or at an address; service
// is one that they must belong to, or empty.
func (w *explainer) backend(service, address string) bool {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		addr, err := netip.ParseAddr(address)
		if err != nil {
			return false
		}
		at = netip.AddrPortFrom(addr, 0)
	}
	return w.matching("backend", func(p *pool.Pool, b *pool.Backend) bool {
		if service != "" && p.Name != service {
			return false
		}
		return b.Address == at || at.Port() == 0 && (b.Address.Addr() == at.Addr() || slices.Contains(b.Public, at.Addr()))
	})
}

func (w *explainer) node(name string) bool {
	return w.matching("node", func(_ *pool.Pool, b *pool.Backend) bool { return b.Node == name })
}

// matching explains the backends that is is true for, if there are any.
func (w *explainer) matching(kind string, is func(*pool.Pool, *pool.Backend) bool) bool {
	var takes int
	for _, p := range w.t.Pools {
		var st *ServiceStatus
		for i := range p.Backends {
			if !is(p, &p.Backends[i]) {
				continue
			}
			if st == nil {
				all := w.s.service(w.t, p, w.listeners)
				st = &all
			}
			b := st.Backends[i]
			w.say("in service %s, %s is %s: %s", p.Name, b.Address, stateWord(&p.Backends[i]), b.Reason)
			if b.Eligible {
				takes++
				w.say("in service %s it takes new connections: %s", p.Name, b.Why)
			} else {
				w.say("in service %s it takes no new connections: %s", p.Name, b.Why)
			}
			switch {
			case p.Answer == pool.Direct && b.Answered:
				w.say("the names of %s are answered with its address", p.Name)
			case p.Answer == pool.Direct:
				w.say("the names of %s are not answered with its address", p.Name)
			}
			w.out.Backends = append(w.out.Backends, b)
		}
	}
	n := len(w.out.Backends)
	if n == 0 {
		return false
	}
	w.out.Kind = kind
	switch {
	case n == 1 && takes == 1:
		w.out.Summary = w.out.Name + " takes new connections"
	case n == 1:
		w.out.Summary = w.out.Name + " takes no new connections"
	default:
		w.out.Summary = fmt.Sprintf("%s stands for %s, %d of them take new connections", w.out.Name, number(n, "backend"), takes)
	}
	return true
}

// name explains a name in a zone that is no hostname.
func (w *explainer) name(domain string) bool {
	z := w.t.DNS.Zone(domain)
	if z == nil || !w.answer(domain) {
		return false
	}
	if p, kind := w.owner(domain); p != nil {
		w.ownName(p, kind, domain, z)
		return true
	}
	a := w.out.Answer
	w.out.Name, w.out.Kind = domain, "name"
	if domain == z.Name {
		w.out.Kind = "zone"
	}
	switch {
	case a.Kind == "does not exist":
		w.out.Summary = fmt.Sprintf("%s does not exist in zone %s (NXDOMAIN, cached for %ds)", domain, z.Name, int(z.TTL.Negative/time.Second))
		if like := near(domain, known(w.t)); len(like) > 0 {
			w.say("names like it that exist: %s", strings.Join(like, ", "))
		}
	case w.out.Kind == "zone":
		w.out.Summary = fmt.Sprintf("%s is a zone of this elbow, serial %d", z.Name, a.Serial)
	default:
		w.out.Summary = fmt.Sprintf("%s is a name of zone %s: %s", domain, z.Name, a.Kind)
	}
	if z.File != "" {
		w.say("its static records come from %s", z.File)
	}
	if w.out.Kind == "zone" {
		w.say("TTLs: %s in calm, %s while a state could flip, %s for what does not exist", z.TTL.Normal, z.TTL.Degraded, z.TTL.Negative)
	}
	return true
}

// answer asks the DNS server for what it would answer.
func (w *explainer) answer(domain string) bool {
	if w.s.opts.Explain == nil {
		return false
	}
	e, ok := w.s.opts.Explain(domain)
	if !ok {
		return false
	}
	w.out.Answer = &Answer{Name: domain, Zone: e.Zone, Kind: e.Kind, Records: orEmpty(e.Records), Serial: e.Serial}
	if e.Generation != w.t.Generation {
		w.say("DNS answers from generation %d, the newest is %d", e.Generation, w.t.Generation)
	}
	return true
}

func addressList(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}

// known lists what may be asked for by name.
func known(t *pool.Table) []string {
	seen := make(map[string]bool)
	for _, z := range t.DNS.Zones {
		seen[z.Name] = true
	}
	for _, p := range t.Pools {
		seen[p.Name] = true
		for _, h := range p.Hostnames {
			seen[h] = true
		}
		for _, l := range p.Ports() {
			seen[l.String()] = true
		}
		for i := range p.Backends {
			seen[p.Backends[i].Address.String()] = true
			seen[p.Backends[i].Node] = true
		}
	}
	delete(seen, "")
	out := make([]string, 0, len(seen))
	for name := range seen {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

const (
	nearest     = 5  // names that near returns at most
	nearCompare = 64 // bytes of each name that are compared: the work is their square
)

// near returns those of names that look like name, the likest first.
func near(name string, names []string) []string {
	type scored struct {
		name  string
		score int
	}
	name = strings.ToLower(name)
	var found []scored
	for _, n := range names {
		d := distance(name[:min(len(name), nearCompare)], n[:min(len(n), nearCompare)])
		if strings.Contains(n, name) || strings.Contains(name, n) {
			d = min(d, 3)
		}
		if d <= max(3, len(n)/4) {
			found = append(found, scored{n, d})
		}
	}
	slices.SortStableFunc(found, func(a, b scored) int { return cmp.Compare(a.score, b.score) })
	var out []string
	for _, f := range found[:min(len(found), nearest)] {
		out = append(out, f.name)
	}
	return out
}

// distance is the edit distance of Levenshtein, in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
