package pool

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// A ClientRule says which zones of the cloud are near the clients of some
// subnets.
type ClientRule struct {
	Subnets []netip.Prefix // masked; IPv4 not in IPv6 form
	Zones   []string       // in the order of preference
}

// A ClientMap finds the rule for a client: that of the longest prefix which
// holds it. It is immutable. Make one with [NewClientMap].
type ClientMap struct {
	rules  []ClientRule
	zones  []string // of all rules, sorted
	v4, v6 trie
}

// NewClientMap makes the map of rules. A subnet that stands in two of them
// belongs to the first.
func NewClientMap(rules []ClientRule) *ClientMap {
	m := &ClientMap{rules: rules}
	for i, r := range rules {
		for _, p := range r.Subnets {
			switch {
			case !p.IsValid():
			case p.Addr().Is4():
				m.v4.insert(keyOf(p.Addr()), p.Bits(), int32(i))
			default:
				m.v6.insert(keyOf(p.Addr()), p.Bits(), int32(i))
			}
		}
		m.zones = append(m.zones, r.Zones...)
	}
	slices.Sort(m.zones)
	m.zones = slices.Compact(m.zones)
	return m
}

// Equal reports whether both find the same rules; either may be nil.
func (m *ClientMap) Equal(other *ClientMap) bool {
	if m == nil || other == nil {
		return m == other
	}
	return m == other || slices.EqualFunc(m.rules, other.rules, func(a, b ClientRule) bool {
		return slices.Equal(a.Subnets, b.Subnets) && slices.Equal(a.Zones, b.Zones)
	})
}

// Rules returns the rules, in their order.
func (m *ClientMap) Rules() []ClientRule { return m.rules }

// Zones returns the zones that any rule names, sorted.
func (m *ClientMap) Zones() []string { return m.zones }

// Find returns the rule for the client network with that address and length, -1
// if none holds all of it, and its scope as of RFC 7871: the length of the
// prefix of the address within which every client has that rule. A scope that
// is longer than the network says that parts of it have other rules. Find
// allocates nothing.
func (m *ClientMap) Find(client netip.Addr, length int) (rule, scope int) {
	switch {
	case client.Is4():
		return m.v4.find(keyOf(client), length)
	case client.Is6():
		return m.v6.find(keyOf(client), length)
	}
	return -1, 0
}

// A key is the bits of an address from the first on; those of IPv4 are the
// first 32.
type key struct{ high, low uint64 }

func keyOf(a netip.Addr) key {
	if a.Is4() {
		b := a.As4()
		return key{uint64(binary.BigEndian.Uint32(b[:])) << 32, 0}
	}
	b := a.As16()
	return key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// common is how many of the first bits of both are the same.
func (k key) common(other key) int {
	if x := k.high ^ other.high; x != 0 {
		return bits.LeadingZeros64(x)
	}
	return 64 + bits.LeadingZeros64(k.low^other.low)
}

func (k key) bit(i int) int {
	if i < 64 {
		return int(k.high >> (63 - i) & 1)
	}
	return int(k.low >> (127 - i) & 1)
}

// A trie is prefixes with their rules, with a node for each of them and for
// each place where two part. The zero value is empty.
type trie struct{ nodes []trieNode }

type trieNode struct {
	key    key
	length int
	rule   int32    // -1: the node is only a place where others part
	below  [2]int32 // by the next bit; 0: none, as the first node is below nobody
}

func (t *trie) insert(k key, length int, rule int32) {
	if len(t.nodes) == 0 {
		t.nodes = append(t.nodes, trieNode{rule: -1}) // holds everything
	}
	at := int32(0)
	for {
		n := &t.nodes[at]
		if n.length == length { // as k begins with the key of n
			if n.rule < 0 {
				n.rule = rule
			}
			return
		}
		side := k.bit(n.length)
		next := n.below[side]
		if next == 0 {
			next = t.add(trieNode{key: k, length: length, rule: rule}) // n is of no more use
			t.nodes[at].below[side] = next
			return
		}
		child := t.nodes[next]
		shared := min(k.common(child.key), length, child.length)
		if shared == child.length {
			at = next
			continue
		}
		// The new prefix, or the place where both part, goes in between.
		between := trieNode{key: k, length: shared, rule: -1}
		between.below[child.key.bit(shared)] = next
		if shared == length {
			between.rule = rule
		} else {
			between.below[k.bit(shared)] = t.add(trieNode{key: k, length: length, rule: rule})
		}
		next = t.add(between)
		t.nodes[at].below[side] = next
		return
	}
}

func (t *trie) add(n trieNode) int32 {
	t.nodes = append(t.nodes, n)
	return int32(len(t.nodes) - 1)
}

func (t *trie) find(k key, length int) (rule, scope int) {
	rule = -1
	if len(t.nodes) == 0 {
		return rule, 0
	}
	at := int32(0)
	for {
		n := &t.nodes[at]
		if n.rule >= 0 && n.length <= length {
			rule = int(n.rule)
		}
		if n.below == [2]int32{} {
			return rule, n.length
		}
		next := n.below[k.bit(n.length)]
		if next == 0 {
			return rule, n.length + 1 // the others go the other way
		}
		child := &t.nodes[next]
		if shared := k.common(child.key); shared < child.length {
			return rule, shared + 1 // where those part from the client
		}
		at = next
	}
}
