package delegation

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

// A Zone is one of ours, and what its parent zone has to know of it.
type Zone struct {
	Name        string            // lower case, without the final dot
	NameServers []pool.NameServer // addresses are those of Name, wherever it lies; none: they are not known here
	TTL         time.Duration     // of all of it
	Keys        Keys
}

// Keys are what the parent is to know of the keys of a zone. The zero value: it
// is not signed.
type Keys struct {
	DS    []string // in presentation format, sorted; none: there are to be none
	Young []string // those of DS whose key is in the zone for less than a day

	// ByHand: elbow leaves the DS records to somebody else.
	ByHand bool
}

// young is how long a key is in the zone before the daemon, which nobody watches,
// lets the parent point to it: until then there may be caches that have older
// answers (RFC 6781 section 4.1).
const young = 24 * time.Hour

// KeysOf returns what the parent of z must know of its keys at now: a DS record
// of each that is in the zone. It is what its CDS records ask for; where they ask
// for nothing, neither does elbow here.
func KeysOf(z *pool.Zone, now time.Time) (Keys, error) {
	out := Keys{ByHand: z.DNSSEC.Folder != "" && z.DNSSEC.CDS == pool.CDSOff}
	if z.DNSSEC.Folder == "" || z.DNSSEC.CDS != pool.CDSPublish {
		return out, nil
	}
	for _, f := range z.DNSSEC.Keys {
		k, err := dnssec.Parse(z.Name, f.Public, string(f.Private))
		if err != nil {
			return Keys{}, fmt.Errorf("%s: %w", f.Path, err)
		}
		if !k.Times.Published(now) {
			continue
		}
		ds := dsText(k.DS())
		out.DS = append(out.DS, ds)
		since := k.Times.Publish
		if since.IsZero() || !k.Times.Activate.IsZero() && k.Times.Activate.Before(since) {
			since = k.Times.Activate
		}
		if now.Before(since.Add(young)) {
			out.Young = append(out.Young, ds)
		}
	}
	slices.Sort(out.DS)
	out.DS = slices.Compact(out.DS)
	return out, nil
}

// dsText is the data of a DS record in presentation format.
func dsText(ds *dns.DS) string {
	return fmt.Sprintf("%d %d %d %s", ds.KeyTag, ds.Algorithm, ds.DigestType, strings.ToUpper(ds.Digest))
}

// below reports whether name is zone or lies in it.
func below(name, zone string) bool {
	return name == zone || strings.HasSuffix(name, "."+zone)
}

// Around returns the zone of all with the longest name that holds name, but is
// not name itself.
func Around(all []Zone, name string) (Zone, bool) {
	var found Zone
	for _, z := range all {
		if z.Name != name && below(name, z.Name) && len(z.Name) > len(found.Name) {
			found = z
		}
	}
	return found, found.Name != ""
}

// A Set is the records of one type at one name.
type Set struct {
	Name   string   `json:"name"` // lower case, without the final dot
	Type   string   `json:"type"`
	TTL    int      `json:"ttl"`    // seconds
	Values []string `json:"values"` // in presentation format, sorted; names with the final dot

	// Special says what Route 53 makes of the set if it does not just answer
	// these values: an alias, or one of several that it chooses from.
	Special string `json:"special,omitempty"`
}

type key struct{ name, typ string }

func (s *Set) key() key { return key{s.Name, s.Type} }

func (s *Set) equal(other *Set) bool {
	return s.key() == other.key() && s.TTL == other.TTL && s.Special == other.Special && slices.Equal(s.Values, other.Values)
}

func (s *Set) String() string { return s.Name + " " + s.Type }

// order sorts a zone before what lies in it: by labels from the right, then by
// type, NS first.
func order(a, b Set) int {
	return cmp.Or(
		slices.Compare(reversed(a.Name), reversed(b.Name)),
		cmp.Compare(rank(a.Type), rank(b.Type)),
		cmp.Compare(a.Type, b.Type),
	)
}

func reversed(name string) []string {
	labels := strings.Split(name, ".")
	slices.Reverse(labels)
	return labels
}

func rank(typ string) int {
	switch typ {
	case "NS":
		return 0
	case "DS":
		return 1
	case "TXT":
		return 3
	}
	return 2
}

// wanted returns the sets that the parent must hold for z. Name servers outside
// have their addresses in another zone.
func (z *Zone) wanted() []Set {
	seconds := int(z.TTL / time.Second)
	ns := Set{Name: z.Name, Type: "NS", TTL: seconds}
	var out []Set
	for _, n := range z.NameServers {
		ns.Values = append(ns.Values, n.Name+".")
		if !below(n.Name, z.Name) {
			continue
		}
		for typ, addresses := range byFamily(n.Addresses) {
			if len(addresses) > 0 {
				out = append(out, Set{Name: n.Name, Type: addressTypes[typ], TTL: seconds, Values: addresses})
			}
		}
	}
	slices.Sort(ns.Values)
	ns.Values = slices.Compact(ns.Values)
	out = append(out, ns)
	if len(z.Keys.DS) > 0 {
		out = append(out, Set{Name: z.Name, Type: "DS", TTL: seconds, Values: z.Keys.DS})
	}
	slices.SortFunc(out, order)
	return out
}

var addressTypes = [...]string{"A", "AAAA"}

// byFamily returns the addresses for A and for AAAA, sorted.
func byFamily(addresses []netip.Addr) (out [2][]string) {
	for _, a := range addresses {
		a = a.Unmap()
		i := 0
		if a.Is6() {
			i = 1
		}
		out[i] = append(out[i], a.String())
	}
	for i := range out {
		slices.Sort(out[i])
		out[i] = slices.Compact(out[i])
	}
	return out
}

// claimed are the sets that speak of the delegation of z, whoever wrote them:
// an address of the wrong family leads astray as a wrong one does.
func (z *Zone) claimed() map[key]bool {
	out := map[key]bool{{z.Name, "NS"}: true}
	if !z.Keys.ByHand {
		out[key{z.Name, "DS"}] = true
	}
	for _, n := range z.NameServers {
		if below(n.Name, z.Name) {
			for _, typ := range addressTypes {
				out[key{n.Name, typ}] = true
			}
		}
	}
	return out
}
