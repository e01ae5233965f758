package dnsserver

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/pool"
)

// A live is what a service has to say about one of its names. It is immutable
// but for the marks.
type live struct {
	service   string
	kind      pool.NameKind
	addresses []netip.Addr // that the answers name
	ttl       time.Duration
	negative  uint32 // TTL of NODATA, seconds
	limit     int    // addresses in an answer
	nobody    bool   // no backend is eligible, and so there is nothing to answer
	silent    bool   // what is to answer is withheld, see pool.Host.Silent

	naming   *pool.Naming   // nil: everybody is answered with all addresses
	weighted []pool.Address // addresses with their weights
	views    []pool.View    // for the clients in rules

	data       []datum
	status     []string // of a status name, but for the generation
	generation uint64   // of the Table that brought it

	// answered is set once an answer has named the addresses. It is the only
	// thing a query writes.
	answered atomic.Bool

	// failOpen says that no backend is up and the addresses are answered all
	// the same. It is no part of the answer to who does not ask by EDNS, and so
	// follows the Table where the rest stays.
	failOpen atomic.Bool
}

// A datum is the data of a record.
type datum struct {
	typ  uint16
	data string
}

// mark notes that the addresses were handed out. It looks before it writes, so
// that readers on several processors share the line in their caches.
func (l *live) mark() {
	if !l.answered.Load() {
		l.answered.Store(true)
	}
}

// same reports whether both lead to the same answer. That the generation of a
// status has gone on is no change: it tells since when the rest is so.
func (l *live) same(other *live) bool {
	return l.service == other.service && l.kind == other.kind && l.ttl == other.ttl && l.negative == other.negative &&
		l.limit == other.limit && l.nobody == other.nobody && l.silent == other.silent &&
		slices.Equal(l.addresses, other.addresses) &&
		sameNaming(l.naming, other.naming) && slices.Equal(l.weighted, other.weighted) &&
		slices.EqualFunc(l.views, other.views, func(a, b pool.View) bool {
			return a.Zone == b.Zone && slices.Equal(a.Addresses, b.Addresses)
		}) &&
		slices.Equal(l.data, other.data) && slices.Equal(l.status, other.status)
}

func sameNaming(a, b *pool.Naming) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Policy == b.Policy && a.Limit == b.Limit && a.Clients.Equal(b.Clients)
}

// describe writes everything that the answers follow from.
func (l *live) describe(w io.Writer, owner name) {
	fmt.Fprintf(w, "%q %v %v\n", string(owner), l.addresses, l.ttl)
	if l.naming != nil {
		fmt.Fprintf(w, "%v %d %v %v\n", l.naming.Policy, l.naming.Limit, l.weighted, l.views)
		if m := l.naming.Clients; m != nil {
			fmt.Fprintf(w, "%v\n", m.Rules())
		}
	}
	if len(l.data) > 0 || len(l.status) > 0 {
		for _, d := range l.data {
			fmt.Fprintf(w, "%d %q\n", d.typ, d.data)
		}
		fmt.Fprintf(w, "%q\n", l.status)
	}
}

// typesOf are those of the records that a service has, or may have, at a name of
// that kind.
func typesOf(kind pool.NameKind, https bool) []uint16 {
	switch kind {
	case pool.SRVName:
		return []uint16{typeSRV}
	case pool.SVCBName:
		return []uint16{typeSVCB}
	case pool.StatusName:
		return []uint16{typeTXT}
	}
	if https {
		return []uint16{typeA, typeAAAA, typeHTTPS}
	}
	return []uint16{typeA, typeAAAA}
}

// brings reports whether the answer to a question for typ could have records of l.
func (l *live) brings(typ uint16) bool {
	return typ == typeANY || typ == typeHTTPS || slices.Contains(typesOf(l.kind, false), typ)
}

// types are those of the records that l has or may have.
func (l *live) types() []uint16 {
	https := slices.ContainsFunc(l.data, func(d datum) bool { return d.typ == typeHTTPS })
	return typesOf(l.kind, https)
}

// sets are the records of l.
func (l *live) sets(signed bool) []rrset {
	var sets []rrset
	if l.kind == pool.Hostname || l.kind == pool.TargetName {
		for _, typ := range [...]uint16{typeA, typeAAAA} {
			var data [][]byte
			for _, a := range l.addresses {
				if typeOf(a) == typ {
					data = append(data, a.AsSlice())
				}
			}
			if len(data) > 0 {
				s := newSet(typ, seconds(l.ttl), data...)
				s.choice = newChoice(typ, l, signed)
				sets = append(sets, s)
			}
		}
	}
	for from := 0; from < len(l.data); {
		to := from + 1
		for to < len(l.data) && l.data[to].typ == l.data[from].typ {
			to++
		}
		var data [][]byte
		for _, d := range l.data[from:to] {
			data = append(data, []byte(d.data))
		}
		sets = append(sets, newSet(l.data[from].typ, seconds(l.ttl), data...))
		from = to
	}
	if len(l.status) > 0 {
		sets = append(sets, newSet(typeTXT, seconds(l.ttl), textData(slices.Concat(l.status, []string{fmt.Sprintf("generation=%d", l.generation)}))))
	}
	return sets
}

// A claim is a name of a service in a zone.
type claim struct {
	zone  *pool.Zone
	owner name
	live  *live
}

// A roll is what the services of a Table own. It is kept with the snapshot: a
// service that has not changed keeps its part.
type roll struct {
	zones []*pool.Zone
	host  pool.Host
	pools map[*pool.Pool][]claim
}

// newRoll makes the roll of a Table. Where the snapshot before has the very
// same answer, that one is taken over.
func newRoll(t *pool.Table, before *snapshot) *roll {
	r := &roll{zones: t.DNS.Zones, host: t.Host, pools: make(map[*pool.Pool][]claim, len(t.Pools))}
	known := before.roll
	if known != nil && !(slices.Equal(known.zones, r.zones) && slices.Equal(known.host.Addresses, r.host.Addresses) && known.host.Silent() == r.host.Silent()) {
		known = nil
	}
	for _, p := range t.Pools {
		if known != nil {
			if claims, ok := known.pools[p]; ok {
				r.pools[p] = claims
				continue
			}
		}
		m := &claimer{table: t, pool: p, before: before}
		m.claimAll()
		r.pools[p] = m.claims
	}
	return r
}

// services returns the claims by zone and name. A name that two want is the
// one's that comes first by kind, then by the order of the services: the
// configuration has refused all but targets.
func (r *roll) services(pools []*pool.Pool) map[*pool.Zone]map[name]*live {
	out := make(map[*pool.Zone]map[name]*live)
	for _, p := range pools {
		for _, c := range r.pools[p] {
			if out[c.zone] == nil {
				out[c.zone] = make(map[name]*live)
			}
			if other := out[c.zone][c.owner]; other == nil || c.live.kind < other.kind {
				out[c.zone][c.owner] = c.live
			}
		}
	}
	return out
}

// A claimer makes the claims of a pool.
type claimer struct {
	table  *pool.Table
	pool   *pool.Pool
	before *snapshot
	claims []claim

	addresses []netip.Addr
	weighted  []pool.Address // where they matter
	views     []pool.View
	hints     bool // HTTPS and SVCB records name the addresses
}

func (m *claimer) claimAll() {
	p := m.pool
	m.addresses = unmapped(p.Addresses(m.table.Host.Addresses))
	n := &p.Naming
	if len(p.Hostnames) == 0 {
		return // whatever else there is leads there
	}
	chosen := n.Policy == pool.AnswerWeighted || n.Limit > 0 || n.Clients != nil
	if chosen {
		m.weighted, m.views = p.Weighted(m.table.Host.Addresses), p.Views()
	}
	// Where addresses are chosen, hints of all would go round the choice.
	m.hints = n.Policy == pool.AnswerAll && n.Clients == nil && len(m.addresses) <= n.MaxAddresses()
	for _, h := range p.Hostnames {
		m.claim(h, pool.Hostname, func(l *live) {
			l.addresses = m.addresses
			if chosen {
				l.naming, l.weighted, l.views = n, m.weighted, m.views
			}
			if n.HTTPS != nil && len(m.addresses) > 0 {
				l.data = []datum{{typeHTTPS, m.service(root, n.HTTPS)}}
			}
		})
	}
	for i := range n.SVCB {
		s := &n.SVCB[i]
		m.claim(s.Name, pool.SVCBName, func(l *live) {
			if target, err := parseName(p.Hostnames[0]); err == nil && len(m.addresses) > 0 {
				l.data = []datum{{typeSVCB, m.service(target, &pool.Parameters{ALPN: s.ALPN, Port: s.Port})}}
				if m.hints {
					l.addresses = m.addresses
				}
			}
		})
	}
	targets := m.targets()
	for i := range n.SRV {
		s := &n.SRV[i]
		m.claim(s.Name, pool.SRVName, func(l *live) { l.data = m.locations(s, targets) })
	}
	for _, s := range n.Status {
		m.claim(s, pool.StatusName, func(l *live) {
			l.status, l.nobody = m.status(), false
			l.ttl = p.TTL(m.table.DNS.Zone(s).TTL).Degraded
		})
	}
}

// claim makes a claim to a name. Fill says what is answered.
func (m *claimer) claim(text string, kind pool.NameKind, fill func(*live)) {
	p := m.pool
	z := m.table.DNS.Zone(text)
	owner, err := parseName(text)
	if z == nil || err != nil {
		return // the first is allowed, the second not accepted by the configuration
	}
	silent := p.Answer == pool.Proxied && m.table.Host.Silent() && (kind == pool.Hostname || kind == pool.SVCBName)
	l := &live{
		service:    p.Name,
		kind:       kind,
		negative:   seconds(p.TTL(z.TTL).Negative),
		limit:      p.Naming.MaxAddresses(),
		nobody:     len(m.addresses) == 0 && !silent,
		silent:     silent,
		generation: m.table.Generation,
	}
	if len(m.addresses) > 0 {
		l.ttl = p.Lifetime(z.TTL).TTL
	}
	fill(l)
	if old := m.before.service(owner); old != nil && old.same(l) {
		l = old
	}
	l.failOpen.Store(len(m.addresses) > 0 && (p.Names.FailOpen || len(p.Names.Index) == 0))
	m.claims = append(m.claims, claim{z, owner, l})
}

// targets claims the names that SRV records of a direct service lead to, and
// returns them by the position of the backend.
func (m *claimer) targets() []name {
	p := m.pool
	texts := p.TargetNames()
	names := make([]name, len(texts))
	serving := make(map[string][]netip.Addr)
	for _, i := range p.Names.Index {
		if i < len(texts) && serving[texts[i]] == nil {
			serving[texts[i]] = unmapped(p.Backends[i].Reachable())
		}
	}
	claimed := make(map[string]bool)
	for i, text := range texts {
		owner, err := parseName(text)
		if err != nil || text == "" {
			continue // the name is too long, or there is none
		}
		names[i] = owner
		if !claimed[text] {
			claimed[text] = true
			m.claim(text, pool.TargetName, func(l *live) {
				l.addresses, l.limit = serving[text], pool.MaxAnswer
				if len(l.addresses) == 0 {
					l.ttl = 0
				}
			})
		}
	}
	return names
}

// maxLocations is how many targets an SRV answer names.
const maxLocations = 32

// locations are the data of SRV records, RFC 2782.
func (m *claimer) locations(s *pool.ServiceName, targets []name) []datum {
	p := m.pool
	if p.Answer == pool.Proxied {
		target, err := parseName(p.Hostnames[0])
		if err != nil || len(m.addresses) == 0 {
			return nil
		}
		return []datum{{typeSRV, location(0, 0, s.Port, target)}}
	}
	var out []datum
	for _, i := range p.Names.Index {
		if i >= len(targets) || targets[i] == "" || len(out) == maxLocations {
			continue
		}
		b := &p.Backends[i]
		port := b.Address.Port()
		if s.Port > 0 {
			port = s.Port
		}
		d := datum{typeSRV, location(uint16(b.Priority), uint16(b.Weight), port, targets[i])}
		if !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}

func location(priority, weight, port uint16, target name) string {
	var b []byte
	for _, n := range []uint16{priority, weight, port} {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	return string(append(b, target...))
}

// Keys of parameters, RFC 9460 section 14.3.2.
const (
	paramALPN  = 1
	paramPort  = 3
	paramHint4 = 4
	paramHint6 = 6
)

// service is the data of an HTTPS or SVCB record, RFC 9460 section 2.2: the
// parameters stand in the order of their keys.
func (m *claimer) service(target name, p *pool.Parameters) string {
	b := append([]byte{0, 1}, target...) // the priority of the only one
	param := func(key uint16, value []byte) {
		if len(value) > 0 {
			b = binary.BigEndian.AppendUint16(b, key)
			b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
			b = append(b, value...)
		}
	}
	param(paramALPN, textData(p.ALPN))
	if p.Port > 0 {
		param(paramPort, binary.BigEndian.AppendUint16(nil, p.Port))
	}
	if m.hints {
		var v4, v6 []byte
		for _, a := range m.addresses {
			if a.Is4() {
				v4 = append(v4, a.AsSlice()...)
			} else {
				v6 = append(v6, a.AsSlice()...)
			}
		}
		param(paramHint4, v4)
		param(paramHint6, v6)
	}
	return string(b)
}

// textData is strings of at most 255 octets each, with their lengths.
func textData(texts []string) []byte {
	var out []byte
	for _, s := range texts {
		s = s[:min(len(s), 255)]
		out = append(append(out, byte(len(s))), s...)
	}
	return out
}

// status says how the pool does.
func (m *claimer) status() []string {
	p := m.pool
	up := 0
	for i := range p.Backends {
		if p.Backends[i].Well() {
			up++
		}
	}
	state := "serving"
	switch {
	case len(p.Names.Index) == 0:
		state = "down"
	case p.Names.FailOpen:
		state = "fail-open"
	case p.Names.Priority > p.FirstPriority():
		state = "failed-over"
	}
	return []string{
		"state=" + state,
		fmt.Sprintf("up=%d/%d", up, len(p.Backends)),
		fmt.Sprintf("priority=%d", p.Names.Priority),
	}
}
