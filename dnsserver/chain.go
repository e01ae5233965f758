package dnsserver

import (
	"slices"
	"strings"
)

// A chain is the names of a zone that have an NSEC record, in the canonical
// order of RFC 4034 section 6.1. It is immutable.
type chain struct {
	keys  []string // see orderKey; sorted
	names []name
}

// newChain makes the chain of a zone: every name but those that are not the
// zone's own, and empty non-terminals. A service without addresses keeps its
// place, so that the chain is the same whatever the health of backends.
func newChain(z *zone) *chain {
	c := &chain{names: make([]name, 0, z.static.nodes.len()+z.live.len())}
	for owner, n := range z.static.nodes.all() {
		if z.live.get(owner) == nil && linked(n) {
			c.names = append(c.names, owner)
		}
	}
	for owner, n := range z.live.all() {
		if linked(n) && !z.covered(owner) {
			c.names = append(c.names, owner)
		}
	}
	slices.Sort(c.names)
	type link struct {
		key   string
		owner name
	}
	links := make([]link, len(c.names))
	for i, owner := range c.names {
		links[i] = link{string(appendOrderKey(nil, []byte(owner[:len(owner)-len(z.apex)]))), owner}
	}
	slices.SortFunc(links, func(a, b link) int { return strings.Compare(a.key, b.key) })
	c.keys = make([]string, len(links))
	for i, l := range links {
		c.keys[i], c.names[i] = l.key, l.owner
	}
	return c
}

func linked(n *node) bool {
	return !n.occluded && (n.apex || n.live != nil || len(n.sets) > 0)
}

// covered reports whether owner lies below a delegation or DNAME, where no
// service should be.
func (z *zone) covered(owner name) bool {
	_, above := z.cover(owner)
	return above != nil
}

// next returns the name after the i-th, the first after the last.
func (c *chain) next(i int) name { return c.names[(i+1)%len(c.names)] }

// place returns the place of a name and whether it is in the chain.
func (c *chain) place(owner, apex name) (int, bool) {
	return c.find(appendOrderKey(nil, []byte(owner[:len(owner)-len(apex)])))
}

// find returns the place of the last name whose key is not after key, and
// whether it is key's own. The first name, the apex, is before all others.
func (c *chain) find(key []byte) (int, bool) {
	low, high := 0, len(c.keys) // the first key after key is in between
	for low < high {
		middle := int(uint(low+high) >> 1)
		if c.keys[middle] <= string(key) { // without an allocation only in this form
			low = middle + 1
		} else {
			high = middle
		}
	}
	return max(low-1, 0), low > 0 && c.keys[low-1] == string(key)
}

// maxOrderKey is how long the key of a name can get.
const maxOrderKey = 2 * maxName

// appendOrderKey appends a key by whose octets the canonical order is found: the
// labels from the last to the first, each with an end that is below every
// octet. Labels are in wire form, without the root or apex behind them.
func appendOrderKey(key, labels []byte) []byte {
	var starts [maxLabels + 1]uint8
	count := 0
	for at := 0; at < len(labels) && labels[at] != 0; at += 1 + int(labels[at]) {
		starts[count] = uint8(at)
		count++
	}
	for i := count - 1; i >= 0; i-- {
		at := int(starts[i])
		for _, c := range labels[at+1 : at+1+int(labels[at])] {
			if c <= 1 { // 0 ends a label, so it and 1 become two octets
				key = append(key, 1)
				c++
			}
			key = append(key, c)
		}
		key = append(key, 0)
	}
	return key
}
