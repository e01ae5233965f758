package dnsserver

import (
	"bytes"
	"net/netip"
	"slices"

	"haslohas.com/elbow/pool"
)

// maxDrawn is how many addresses of a view an answer is drawn from. In a signed
// zone it is maxSigned, as each part that may be drawn is signed.
const maxDrawn = 256

// A choice is what is answered in the place of a whole set of addresses: a part
// of it that is drawn, by where the client is. All of it is made, and signed,
// beforehand. It is immutable.
type choice struct {
	parts []rrset
	until []uint64 // of each part the share of it and those before it, in its view
	views []view   // the first is for clients that no rule is for

	clients *pool.ClientMap // nil: there are no rules
	rules   []uint16        // the view of each
}

// A view is the parts that are drawn from, parts[first:end]. Without any, it is
// the whole set.
type view struct{ first, end int }

// newChoice returns the choice for the addresses of one family that l is
// answered with; nil where that is the whole set, or one cut to the limit.
func newChoice(typ uint16, l *live, signed bool) *choice {
	if l.naming == nil {
		return nil
	}
	c := &choice{clients: l.naming.Clients}
	c.add(typ, l, l.weighted, signed, true)
	if c.clients == nil {
		if c.views[0] == (view{}) {
			return nil
		}
		return c
	}
	at := make(map[string]uint16) // views by zone
	for _, v := range l.views {
		if !slices.ContainsFunc(v.Addresses, func(a pool.Address) bool { return typeOf(a.Addr) == typ }) {
			continue
		}
		at[v.Zone] = uint16(len(c.views))
		c.add(typ, l, v.Addresses, signed, false)
	}
	c.rules = make([]uint16, len(c.clients.Rules()))
	for i, r := range c.clients.Rules() {
		for _, zone := range r.Zones {
			if v, ok := at[zone]; ok {
				c.rules[i] = v
				break
			}
		}
	}
	return c
}

func typeOf(a netip.Addr) uint16 {
	if a.Is4() {
		return typeA
	}
	return typeAAAA
}

// add adds a view of those of the addresses that are of that type.
func (c *choice) add(typ uint16, l *live, addresses []pool.Address, signed, everybody bool) {
	// A set that is not signed is cut to the limit when it is answered.
	whole := l.naming.Policy == pool.AnswerAll && (!signed || l.naming.Limit == 0)
	most := maxDrawn
	switch {
	case signed:
		most = maxSigned
	case whole:
		most = len(addresses)
	}
	var data [][]byte
	var weights []int
	for _, a := range addresses {
		if typeOf(a.Addr) == typ && len(data) < most {
			data = append(data, a.Addr.AsSlice())
			weights = append(weights, a.Weight)
		}
	}
	limit := l.limit
	if whole {
		limit = len(data)
	}
	if l.naming.Policy == pool.AnswerAll {
		for i := range weights {
			weights[i] = 1
		}
	}
	draws := pool.Draws(weights, limit)
	if everybody && (len(draws) == 0 || len(draws) == 1 && len(draws[0].Members) == len(data)) {
		c.views = append(c.views, view{})
		return
	}
	first, sum := len(c.parts), uint64(0)
	for _, d := range draws {
		var members [][]byte
		for _, i := range d.Members {
			members = append(members, data[i])
		}
		sum += d.Share
		c.parts = append(c.parts, newSet(typ, seconds(l.ttl), members...))
		c.until = append(c.until, sum)
	}
	c.views = append(c.views, view{first, len(c.parts)})
}

// pick returns the part to answer in the place of whole to a client with that
// rule, -1 for none. It allocates nothing.
func (c *choice) pick(whole *rrset, random uint32, rule int) *rrset {
	v := c.views[0]
	if rule >= 0 {
		v = c.views[c.rules[rule]]
	}
	switch v.end - v.first {
	case 0:
		return whole
	case 1:
		return &c.parts[v.first]
	}
	at := uint64(random) * c.until[v.end-1] >> 32
	low, high := v.first, v.end-1 // the first part whose share goes beyond at is in between
	for low < high {
		middle := int(uint(low+high) >> 1)
		if c.until[middle] > at {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return &c.parts[low]
}

// clone returns a copy whose parts can be signed.
func (c *choice) clone() *choice {
	out := *c
	out.parts = slices.Clone(c.parts)
	return &out
}

// choose returns what is answered of a set that has a choice, and chance for
// the order in it.
func (r *responder) choose(s *rrset) (*rrset, uint32) {
	if r.inside {
		return s, r.random
	}
	rule := -1
	if m := s.choice.clients; m != nil {
		rule = r.rule(m)
	}
	// Other bits than those that draw the part.
	return s.choice.pick(s, r.random, rule), r.random * 0x9e3779b1
}

// rule finds the rule for the client. Where it is told by a subnet option, the
// scope of the answer is noted, RFC 7871 section 7.2.1.
func (r *responder) rule(m *pool.ClientMap) int {
	// A source of 0 keeps the client's address back, section 7.1.2: then it is
	// the resolver that counts, and the scope stays 0.
	if len(r.subnet) > 4 {
		var a netip.Addr
		if r.subnet[1] == 1 {
			var b [4]byte
			copy(b[:], r.subnet[4:])
			a = netip.AddrFrom4(b)
		} else {
			var b [16]byte
			copy(b[:], r.subnet[4:])
			a = netip.AddrFrom16(b)
		}
		rule, scope := m.Find(a, int(r.subnet[2]))
		r.scope = uint8(scope)
		return rule
	}
	rule, _ := m.Find(r.client, r.client.BitLen())
	return rule
}

// trusts reports whether client may say for whose subnet it asks.
func (s *snapshot) trusts(client netip.Addr) bool {
	if len(s.trustECS) == 0 {
		return true
	}
	for _, p := range s.trustECS {
		if p.Contains(client) {
			return true
		}
	}
	return false
}

// every calls yield for each set of n and for each part that may be answered in
// its place.
func (n *node) every(yield func(*rrset) bool) {
	for i := range n.sets {
		s := &n.sets[i]
		if !yield(s) {
			return
		}
		if s.choice == nil {
			continue
		}
		for j := range s.choice.parts {
			if !yield(&s.choice.parts[j]) {
				return
			}
		}
	}
}

// signature returns that of the set of n with the same records as s, nil if there
// is none.
func (n *node) signature(s *rrset) *signature {
	own := n.set(s.typ)
	if own == nil {
		return nil
	}
	if own.sig != nil && own.same(s) {
		return own.sig
	}
	if own.choice != nil {
		for i := range own.choice.parts {
			if p := &own.choice.parts[i]; p.sig != nil && p.ttl == s.ttl && bytes.Equal(p.wire, s.wire) {
				return p.sig
			}
		}
	}
	return nil
}
