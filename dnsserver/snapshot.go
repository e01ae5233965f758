package dnsserver

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"haslohas.com/elbow/pool"
)

// A snapshot is everything that is answered at one moment. It is immutable
// but for the marks of what was answered.
type snapshot struct {
	generation uint64 // of the pool.Table it was made of
	zones      *table[*zone]
	sorted     []*zone // by name, as the Table has them
	maxLabels  int     // of the name of any zone
	names      int     // of all zones
	limit      limit
	cookies    cookieJar      // empty: cookies are ignored
	nsid       string         // empty: nobody is told
	trustECS   []netip.Prefix // empty: all
	roll       *roll          // nil: there was no Table

	pending map[name]bool // new zones that are being prepared; nil: none

	keys      tsigKeys
	transfers map[name]*pool.Transfer // of every zone
}

// A zone is one zone of a snapshot. Snapshots share it as long as nothing in
// it changes.
type zone struct {
	*static
	nodes  *table[*node] // those of static, signed where the zone is
	live   *table[*node] // names of services, and empty non-terminals above them
	serial uint32
	counts *zoneCounts
	signed *signed // nil: the zone is not signed
	plain  bool    // no name has anything to say about those below it: no delegation, DNAME or wildcard

	soa          rrset
	negative     rrset // the SOA for negative answers, RFC 2308 section 3
	negativeLive rrset // the same about a service: it may be back soon

	history history // nil: nobody may copy the zone, or nothing has changed
}

// succeed makes z follow was in the history of the zone; nil: there was none.
func (z *zone) succeed(was *zone, conf *pool.Zone) {
	if was != nil && z != was && len(conf.Transfer.Allow) > 0 {
		z.history = was.history.add(compare(was, z))
	}
}

// size is how many names the zone has, roughly: one of a service may be in its file, too.
func (z *zone) size() int { return z.nodes.len() + z.live.len() }

// without returns the zones of s that are not in other, or not as they are. One
// that stands elsewhere there may be among them.
func (s *snapshot) without(other *snapshot) []*zone {
	var out []*zone
	for i, z := range s.sorted {
		if i >= len(other.sorted) || other.sorted[i] != z {
			out = append(out, z)
		}
	}
	return out
}

// get returns the node of the name with that hash, nil if it does not exist.
func (z *zone) get(hash uint64, wire []byte) *node {
	if n := z.live.find(hash, wire); n != nil {
		return n
	}
	return z.nodes.find(hash, wire)
}

// node is get for a name that is one already.
func (z *zone) node(owner name) *node {
	if n := z.live.get(owner); n != nil {
		return n
	}
	return z.nodes.get(owner)
}

// zoneOf returns the zone that answers a question of the given type for the
// name in q, and the label of the name at which the zone begins.
func (s *snapshot) zoneOf(q *query) (*zone, int) {
	for i := max(0, q.labels-s.maxLabels); i <= q.labels; i++ {
		z := s.zones.find(q.hashes[i], q.suffix(i))
		if z == nil {
			continue
		}
		// RFC 4035 section 3.1.4.1: a DS belongs to the parent.
		if i == 0 && q.qtype == typeDS && q.labels > 0 {
			for up := 1; up <= q.labels; up++ {
				if parent := s.zones.find(q.hashes[up], q.suffix(up)); parent != nil {
					return parent, up
				}
			}
		}
		return z, i
	}
	return nil, 0
}

// newZone makes the zone of a static part and services, except for its serial.
// Where reuse has a node for the same answer, that one is taken.
func newZone(st *static, services map[name]*live, reuse *table[*node]) *zone {
	z := &zone{static: st, nodes: st.nodes, live: newTable[*node](len(services))}
	for owner, l := range services {
		if old := reuse.get(owner); old != nil && old.live == l {
			z.live.set(owner, old)
			continue
		}
		z.live.set(owner, liveNode(st, owner, l))
	}
	for owner := range services {
		for up := owner; up != st.apex; {
			up = up.parent()
			if st.nodes.get(up) != nil || z.live.get(up) != nil {
				break
			}
			z.live.set(up, &node{})
		}
	}
	z.plain = st.plain
	for owner := range services {
		z.plain = z.plain && !owner.isWildcard()
	}
	return z
}

// liveNode makes the node of a name of a service: what that has there, and
// whatever else the master file says of the name.
func liveNode(st *static, owner name, l *live) *node {
	n := &node{apex: owner == st.apex, live: l}
	n.sets = l.sets(st.conf.DNSSEC.Folder != "")
	own := len(n.sets)
	if old := st.nodes.get(owner); old != nil && !old.occluded {
		for _, s := range old.sets {
			switch {
			case s.typ == typeCNAME, s.typ == typeDNAME, old.cut:
			case l.kind == pool.Hostname && (s.typ == typeA || s.typ == typeAAAA):
			case slices.ContainsFunc(n.sets[:own], func(mine rrset) bool { return mine.typ == s.typ }):
			default:
				n.sets = append(n.sets, s)
			}
		}
	}
	slices.SortStableFunc(n.sets, func(a, b rrset) int { return int(a.typ) - int(b.typ) })
	return n
}

// number gives the zone its serial, which stands in three prebuilt records.
func (z *zone) number(serial uint32) {
	z.serial = serial
	data := slices.Clone(z.static.soa.data)
	binary.BigEndian.PutUint32(data[len(data)-20:], serial)
	minimum := binary.BigEndian.Uint32(data[len(data)-4:])
	ttl := z.static.soa.ttl
	z.soa = newSet(typeSOA, ttl, data)
	z.negative = newSet(typeSOA, min(ttl, minimum), data)
	z.negativeLive = newSet(typeSOA, min(ttl, minimum, z.liveTTL), data)
}

// fileSerial is the serial that the master file asks for, 0 if none.
func (st *static) fileSerial() uint32 {
	if !st.fileSOA {
		return 0
	}
	return binary.BigEndian.Uint32(st.soa.data[len(st.soa.data)-20:])
}

// owners counts the names that own something or belong to a service.
func (z *zone) owners() int {
	count := z.names
	for owner, n := range z.live.all() {
		if old := z.nodes.get(owner); n.live != nil && (old == nil || len(old.sets) == 0) {
			count++
		}
	}
	return count
}

// service returns what a service has to say about owner, nil if none has.
func (s *snapshot) service(owner name) *live {
	for up := owner; ; up = up.parent() {
		if z := s.zones.get(up); z != nil {
			if n := z.live.get(owner); n != nil && n.live != nil {
				return n.live
			}
		}
		if up == root {
			return nil
		}
	}
}

// unmapped returns addresses in the form of an answer, each once.
func unmapped(addresses []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(addresses))
	for _, a := range addresses {
		if a = a.Unmap().WithZone(""); a.IsValid() && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// sameServices reports whether the nodes of services are exactly those in was.
func sameServices(services map[name]*live, was *table[*node]) bool {
	for owner, l := range services {
		if n := was.get(owner); n == nil || n.live != l {
			return false
		}
	}
	return sameOwners(services, was)
}

// sameOwners reports whether the services in was have the same hostnames.
func sameOwners(services map[name]*live, was *table[*node]) bool {
	count := 0
	for owner, n := range was.all() {
		if n.live != nil {
			if services[owner] == nil {
				return false
			}
			count++
		}
	}
	return count == len(services)
}

// sortedNames is for whatever must come out the same each time.
func sortedNames[V any](m map[name]V) []name { return slices.Sorted(maps.Keys(m)) }
