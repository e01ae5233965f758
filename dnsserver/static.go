package dnsserver

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// A zone without an SOA of its own gets these. They are what RIPE-203 and its
// followers advise for a small zone; secondaries need not wait for them, they
// are told of changes.
const (
	soaRefresh = 3600
	soaRetry   = 600
	soaExpire  = 14 * 24 * 3600
)

// nsTTL is for the name servers that the configuration names, and for their
// addresses, which do not follow the health of anything.
const nsTTL = 3600

// A static is what of a zone does not follow the health of backends. It is
// made once for each *pool.Zone and is immutable.
type static struct {
	conf  *pool.Zone
	apex  name
	nodes *table[*node] // with the empty non-terminals; the apex is always there
	names int           // nodes that own something
	plain bool          // see zone

	apexLabels int

	soa       record // the serial in its data is the file's; 0 where it has none
	fileSOA   bool   // the master file brings the SOA
	hash      [sha256.Size]byte
	liveTTL   uint32 // of NODATA for a service, seconds
	resources int    // records

	order func() []name // all names in canonical order; sorts them when it is first called
}

// seconds is d as a TTL.
func seconds(d time.Duration) uint32 {
	return uint32(min(max(d/time.Second, 0), maxTTL))
}

// loadZone makes the static part of a zone out of what can be used of it, and
// tells everything that is wrong. It returns nil only if the zone's own name
// is none.
func loadZone(conf *pool.Zone) (*static, []finding) {
	apex, err := parseName(conf.Name)
	if err != nil {
		return nil, []finding{{message: err.Error()}}
	}
	l := &loader{
		static: &static{
			conf:       conf,
			apex:       apex,
			apexLabels: apex.labels(),
			nodes:      new(table[*node]),
			hash:       hashZone(conf),
			liveTTL:    seconds(conf.TTL.Negative),
		},
		owners: make(map[name][]record),
	}
	records, findings := parseZoneFile(conf.Records, apex, seconds(conf.TTL.Normal), maxRecords)
	l.findings = findings
	for _, r := range records {
		l.add(r)
	}
	l.authority()
	for owner, records := range l.owners {
		l.node(owner, records)
	}
	l.connect()
	l.judge()
	l.plain = l.isPlain()
	l.nodes.fit()
	nodes := l.nodes // alone: the records as they were read are not kept
	l.order = sync.OnceValue(func() []name { return canonical(nodes) })
	return l.static, readable(l.findings)
}

// hashZone is over everything that the static part of a zone is made of.
func hashZone(z *pool.Zone) [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %v %v\n", z.Name, z.Hostmaster, z.NameServers, z.TTL)
	fmt.Fprintf(h, "signed %t\n", z.DNSSEC.Folder != "")
	h.Write([]byte(z.Records))
	return [sha256.Size]byte(h.Sum(nil))
}

// A loader makes a static.
type loader struct {
	*static
	owners   map[name][]record
	findings []finding
}

func (l *loader) fault(line int, format string, args ...any) {
	l.findings = append(l.findings, finding{line: line, column: 1, message: fmt.Sprintf(format, args...)})
}

func (l *loader) warn(line int, format string, args ...any) {
	l.findings = append(l.findings, finding{line: line, column: 1, message: fmt.Sprintf(format, args...), warning: true})
}

// add takes a record of the master file.
func (l *loader) add(r record) {
	switch {
	case !r.owner.below(l.apex):
		l.fault(r.line, "%s is not in the zone %s", r.owner, l.apex)
	case r.typ == typeSOA && r.owner != l.apex:
		l.fault(r.line, "%s owns an SOA: only the apex %s may", r.owner, l.apex)
	case r.typ == typeSOA && l.fileSOA:
		l.fault(r.line, "a second SOA: the first stands on line %d", l.soa.line)
	case r.typ == typeSOA:
		l.soa, l.fileSOA = r, true
	case r.typ == typeDS && r.owner == l.apex:
		l.fault(r.line, "DS of %s belongs in the parent zone", l.apex)
	case r.owner == l.apex && l.conf.DNSSEC.Folder != "" && aboutKeys(r.typ):
		l.fault(r.line, "%s of %s comes from the keys that the zone is signed with", dns.Type(r.typ), l.apex)
	case r.typ == typeNS && r.owner.isWildcard():
		l.fault(r.line, "%s: a wildcard cannot be delegated", r.owner) // RFC 4592 section 4.2
	case r.typ == typeDNAME && r.owner.isWildcard():
		l.fault(r.line, "%s: a wildcard cannot own a DNAME", r.owner) // RFC 4592 section 4.4
	default:
		l.owners[r.owner] = append(l.owners[r.owner], r)
	}
}

func aboutKeys(typ uint16) bool {
	return typ == dns.TypeDNSKEY || typ == dns.TypeCDS || typ == dns.TypeCDNSKEY
}

func hasType(records []record, typ uint16) bool {
	return slices.ContainsFunc(records, func(r record) bool { return r.typ == typ })
}

// authority adds what the configuration has to say: the name servers, unless
// the file has its own, and the SOA.
func (l *loader) authority() {
	own := hasType(l.owners[l.apex], typeNS)
	for _, ns := range l.conf.NameServers {
		host, err := parseName(ns.Name)
		if err != nil {
			l.fault(0, "name server: %v", err)
			continue
		}
		if !own {
			l.owners[l.apex] = append(l.owners[l.apex], record{owner: l.apex, typ: typeNS, ttl: nsTTL, data: []byte(host), target: host})
		}
		if !host.below(l.apex) || hasType(l.owners[host], typeA) || hasType(l.owners[host], typeAAAA) || hasType(l.owners[host], typeCNAME) {
			continue // what the file says of the name is used as it stands
		}
		for _, a := range ns.Addresses {
			l.owners[host] = append(l.owners[host], addressRecord(host, nsTTL, a))
		}
	}
	if !hasType(l.owners[l.apex], typeNS) {
		l.fault(0, "zone %s has no name server: add NS records of %s to the zone file, or name them in the configuration", l.conf.Name, l.apex)
	}
	if !l.fileSOA {
		l.soa = l.defaultSOA()
	}
}

func addressRecord(owner name, ttl uint32, a netip.Addr) record {
	a = a.Unmap()
	r := record{owner: owner, typ: typeAAAA, ttl: ttl, data: a.AsSlice()}
	if a.Is4() {
		r.typ = typeA
	}
	return r
}

// defaultSOA makes the SOA of a zone whose file has none. Its TTL and its
// last number are both how long a negative answer is cached, RFC 2308.
func (l *loader) defaultSOA() record {
	primary := l.apex
	if i := slices.IndexFunc(l.owners[l.apex], func(r record) bool { return r.typ == typeNS }); i >= 0 {
		primary = l.owners[l.apex][i].target
	}
	mailbox, err := mailboxName(l.conf.Hostmaster, l.apex)
	if err != nil {
		l.fault(0, "zone %s: hostmaster %q: %v", l.conf.Name, l.conf.Hostmaster, err)
		mailbox = l.apex
	}
	data := slices.Concat([]byte(primary), []byte(mailbox))
	negative := seconds(l.conf.TTL.Negative)
	for _, n := range []uint32{0, soaRefresh, soaRetry, soaExpire, negative} {
		data = binary.BigEndian.AppendUint32(data, n)
	}
	return record{owner: l.apex, typ: typeSOA, ttl: negative, data: data}
}

// mailboxName turns user@host into the name that an SOA carries: the user is
// one label, its dots are kept, RFC 1035 section 8.
func mailboxName(mailbox string, apex name) (name, error) {
	if mailbox == "" {
		mailbox = "hostmaster@" + apex.String()
	}
	at := strings.LastIndexByte(mailbox, '@')
	if at <= 0 || at > maxLabel {
		return "", fmt.Errorf("want user@host, the user at most %d octets", maxLabel)
	}
	host, err := parseName(mailbox[at+1:])
	if err != nil {
		return "", err
	}
	whole := name([]byte{byte(at)}) + name(strings.ToLower(mailbox[:at])) + host
	if len(whole) > maxName {
		return "", errLongName
	}
	return whole, nil
}

// node makes the node of an owner from its records.
func (l *loader) node(owner name, records []record) {
	n := &node{apex: owner == l.apex}
	slices.SortStableFunc(records, func(a, b record) int { return int(a.typ) - int(b.typ) })
	for from := 0; from < len(records); {
		to := from + 1
		for to < len(records) && records[to].typ == records[from].typ {
			to++
		}
		l.addSet(owner, n, records[from:to])
		from = to
	}
	n.cut = !n.apex && n.set(typeNS) != nil
	if len(n.sets) > 0 {
		l.names++
	}
	if len(n.sets) == 1 && len(n.sets[0].wire)+len(owner) <= textLen {
		owner, n = together(owner, n)
	}
	l.nodes.set(owner, n)
}

// textLen is how many octets lie beside a node: with them it takes 192 octets,
// three lines of the cache.
const textLen = 80

// together returns a name and a node of one set, in one piece of memory with
// all that an answer needs of them. Most names are like that, and a query that
// asks for one waits for memory once instead of four times.
func together(owner name, n *node) (name, *node) {
	one := &struct {
		node
		sets [1]rrset
		text [textLen]byte
	}{node: *n, sets: [1]rrset{n.sets[0]}}
	s := &one.sets[0]
	end := copy(one.text[:], s.wire)
	s.wire = one.text[:end:end]
	one.node.sets = one.sets[:]
	text := one.text[end:][:copy(one.text[end:], owner)]
	return name(unsafe.String(unsafe.SliceData(text), len(text))), &one.node // nobody writes there again
}

// addSet adds the records of one type to n.
func (l *loader) addSet(owner name, n *node, records []record) {
	first := records[0]
	kind := dns.Type(first.typ).String()
	ttl := first.ttl
	var data [][]byte
	var targets []name
	size := 0
	seen := make(map[string]bool, len(records))
	for _, r := range records {
		if seen[string(r.data)] {
			l.warn(r.line, "%s has this %s record twice", owner, kind)
			continue
		}
		if len(data) > 0 && (r.typ == typeCNAME || r.typ == typeDNAME) {
			l.fault(r.line, "%s has two %s records", owner, kind)
			continue
		}
		if r.ttl != ttl {
			ttl = min(ttl, r.ttl) // RFC 2181 section 5.2
			l.warn(r.line, "the %s records of %s differ in their TTL: the lowest is used", kind, owner)
		}
		seen[string(r.data)] = true
		data = append(data, r.data)
		size += headerLen + len(r.data)
		if r.target != "" {
			targets = append(targets, r.target)
		}
	}
	if size > maxSet {
		l.fault(first.line, "the %s records of %s make %d octets: more than fits in an answer", kind, owner, size)
		return
	}
	s := newSet(first.typ, ttl, data...)
	s.inFile = int32(min(first.line, math.MaxInt32))
	switch {
	case first.typ == typeCNAME, first.typ == typeDNAME:
		s.leads = &leads{target: targets[0]}
	case len(targets) > 0:
		s.leads = &leads{targets: targets}
	}
	n.sets = append(n.sets, s)
	l.resources += len(data)
}

func (l *loader) isPlain() bool {
	for owner, n := range l.nodes.all() {
		if n.cut || owner.isWildcard() || n.set(typeDNAME) != nil {
			return false
		}
	}
	return true
}

// connect adds the empty non-terminals and marks what lies below a delegation
// or a DNAME.
func (l *loader) connect() {
	if l.nodes.get(l.apex) == nil {
		l.nodes.set(l.apex, &node{apex: true})
	}
	for _, owner := range slices.Collect(l.nodes.names()) {
		for up := owner; up != l.apex; {
			up = up.parent()
			if l.nodes.get(up) != nil {
				break
			}
			l.nodes.set(up, &node{})
		}
	}
	for owner, n := range l.nodes.all() {
		for up := owner; up != l.apex; {
			up = up.parent()
			if above := l.nodes.get(up); above.cut || above.set(typeDNAME) != nil {
				n.occluded = true
				break
			}
		}
	}
}
