package pool

import (
	"net/netip"
	"slices"
	"strings"
)

// A Hello is what a client says first, as far as a [Listener] routes by it.
type Hello struct {
	TLS  bool
	Name []byte // the server name, or without TLS the host; in any case, with or without a final dot; empty: none

	// Protocols are those that a TLS client offers, the one it likes best
	// first, each behind a byte with its length: the ProtocolNameList of
	// RFC 7301, section 3.1, without its own length.
	Protocols []byte
}

// A Listener is an address that clients connect to and the pools that share it.
// It is immutable.
type Listener struct {
	Address netip.AddrPort
	Pools   []*Pool // in the order of the Table, at least one
	Default *Pool   // takes what no other one matches; nil: nobody does

	tls, http nameIndex
	routes    bool
	trusted   []netip.Prefix
}

// Routes reports whether what the client says must be known to find the pool.
// Where it need not be, Default takes everything.
func (l *Listener) Routes() bool { return l.routes }

// Trusts reports whether a connection from peer begins with a PROXY header.
func (l *Listener) Trusts(peer netip.Addr) bool {
	for _, network := range l.trusted {
		if network.Contains(peer.WithZone("")) { // a Prefix contains no address with a zone
			return true
		}
	}
	return false
}

// Route returns the pool that h belongs to, nil if none matches it. It
// allocates nothing.
//
// The closest name decides: the name itself before a wildcard, the longer
// wildcard before the shorter, any before services that match by protocol
// alone. Among services with the same name it is the one for the protocol
// that the client likes best, before the one for all protocols.
func (l *Listener) Route(h Hello) *Pool {
	var space [maxName]byte
	name, ok := fold(space[:], h.Name)
	if !ok {
		name = nil // too long to be anybody's
	}
	if h.TLS {
		return l.tls.find(name, h.Protocols)
	}
	return l.http.find(name, nil)
}

// add makes p one of those that share l. What another one has already stays
// with that.
func (l *Listener) add(p *Pool) {
	l.Pools = append(l.Pools, p)
	if accept := p.ProxyProtocol.Accept; !slices.Equal(accept, l.trusted) { // as a rule they are all the same
		l.trusted = append(l.trusted, accept...)
	}
	for _, k := range p.Match.Keys() {
		l.routes = l.routes || k.By != MatchRest
		switch k.By {
		case MatchRest:
			if l.Default == nil {
				l.Default = p
			}
		case MatchSNI:
			l.tls.add(k, p)
		case MatchHost:
			l.http.add(k, p)
		}
	}
}

// maxName is how long a name can be, RFC 1035 section 2.3.4 less the lengths
// of the first and the last label.
const maxName = 253

// fold returns name in lower case and without its final dot, in space. It
// reports false where space does not hold it.
func fold(space, name []byte) ([]byte, bool) {
	if n := len(name); n > 0 && name[n-1] == '.' {
		name = name[:n-1]
	}
	if len(name) > len(space) {
		return nil, false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		space[i] = c
	}
	return space[:len(name)], true
}

// A nameIndex finds the owner of a name.
type nameIndex struct {
	exact map[string]*owners
	below map[string]*owners // by what follows the "*." of a wildcard
	any   owners
}

// owners are those of one name.
type owners struct {
	all  *Pool            // whatever the protocol; nil: nobody
	alpn map[string]*Pool // by protocol
}

func (n *nameIndex) add(k MatchKey, p *Pool) {
	at := &n.any
	if k.Name != "" {
		name, m := k.Name, &n.exact
		if rest, ok := strings.CutPrefix(name, "*."); ok {
			name, m = rest, &n.below
		}
		if *m == nil {
			*m = make(map[string]*owners)
		}
		if at = (*m)[name]; at == nil {
			at = new(owners)
			(*m)[name] = at
		}
	}
	switch {
	case k.ALPN == "" && at.all == nil:
		at.all = p
	case k.ALPN != "":
		if at.alpn == nil {
			at.alpn = make(map[string]*Pool)
		}
		if at.alpn[k.ALPN] == nil {
			at.alpn[k.ALPN] = p
		}
	}
}

// find returns the owner of name for the protocols that are offered, nil if
// there is none.
func (n *nameIndex) find(name, protocols []byte) *Pool {
	if p := n.exact[string(name)].find(protocols); p != nil {
		return p
	}
	if len(n.below) > 0 {
		for i := 1; i < len(name); i++ { // from 1: a label is never empty
			if name[i] != '.' {
				continue
			}
			if p := n.below[string(name[i+1:])].find(protocols); p != nil {
				return p
			}
		}
	}
	return n.any.find(protocols)
}

func (o *owners) find(protocols []byte) *Pool {
	if o == nil {
		return nil
	}
	if len(o.alpn) > 0 {
		for len(protocols) > 0 {
			n := min(1+int(protocols[0]), len(protocols))
			if p := o.alpn[string(protocols[1:n])]; p != nil {
				return p
			}
			protocols = protocols[n:]
		}
	}
	return o.all
}

// listenersOf returns the listeners of pools, in their order.
func listenersOf(pools []*Pool) ([]*Listener, map[netip.AddrPort]*Listener) {
	var all []*Listener
	byAddress := make(map[netip.AddrPort]*Listener)
	for _, p := range pools {
		for _, a := range p.Listen {
			l := byAddress[a]
			if l == nil {
				l = &Listener{Address: a}
				byAddress[a] = l
				all = append(all, l)
			}
			if !slices.Contains(l.Pools, p) { // the same address twice
				l.add(p)
			}
		}
	}
	return all, byAddress
}
