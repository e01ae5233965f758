package delegation

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// A world is a parent zone and name servers on loopback addresses, which play
// the zone public.haslohas.com.
type world struct {
	t       *testing.T
	zone    Zone
	parents []*nameServer
	servers []*nameServer // 127.0.0.2 and 127.0.0.3
	names   map[string][]netip.Addr
}

// A nameServer answers from a master file, as bad as the test wants it.
type nameServer struct {
	addr    netip.AddrPort
	records []dns.RR
	apex    string // of its zone
	noUDP   bool
	noTCP   bool
	noAA    bool
	recurse bool
	rcode   int // of every answer, unless 0
}

func records53(t *testing.T, text string) []dns.RR {
	t.Helper()
	var out []dns.RR
	p := dns.NewZoneParser(strings.NewReader(text), ".", "")
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		out = append(out, rr)
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *nameServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	udp := w.LocalAddr().Network() == "udp"
	if udp && s.noUDP {
		return
	}
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = !s.noAA
	name, typ := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
	switch {
	case s.rcode != 0:
		m.Rcode, m.Authoritative = s.rcode, false
	case name == "." && s.recurse && q.RecursionDesired:
		m.RecursionAvailable, m.Authoritative = true, false
		m.Answer = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 1}, Ns: "a.root-servers.net."}}
	case !dns.IsSubDomain(s.apex, name):
		m.Rcode, m.Authoritative = dns.RcodeRefused, false
	default:
		s.answer(m, name, typ)
	}
	_ = w.WriteMsg(m) // the client is a test
}

// answer is what an authoritative server says that is asked for a name in its zone.
func (s *nameServer) answer(m *dns.Msg, name string, typ uint16) {
	exists := false
	for _, rr := range s.records {
		h := rr.Header()
		exists = exists || dns.IsSubDomain(name, h.Name)
		if h.Name == name && h.Rrtype == typ && (typ != dns.TypeNS || name == s.apex) {
			m.Answer = append(m.Answer, rr)
		}
	}
	if len(m.Answer) > 0 {
		return
	}
	for _, rr := range s.records {
		if ns, ok := rr.(*dns.NS); ok && ns.Hdr.Name != s.apex && dns.IsSubDomain(ns.Hdr.Name, name) && !(typ == dns.TypeDS && ns.Hdr.Name == name) {
			m.Authoritative = false
			m.Ns = append(m.Ns, ns)
			for _, glue := range s.records {
				if _, ok := addressOf(glue); ok && glue.Header().Name == ns.Ns {
					m.Extra = append(m.Extra, glue)
				}
			}
		}
	}
	if len(m.Ns) == 0 && !exists {
		m.Rcode = dns.RcodeNameError
	}
}

// start opens a server at an address; port 0: one that is free for UDP and TCP.
func (s *nameServer) start(t *testing.T) {
	t.Helper()
	pc, l := s.listen(t)
	s.addr = netip.AddrPortFrom(s.addr.Addr(), pc.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	serve := func(d *dns.Server) {
		done := make(chan struct{})
		started := make(chan struct{})
		d.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = d.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = d.Shutdown(); <-done })
	}
	serve(&dns.Server{PacketConn: pc, Handler: s})
	if s.noTCP {
		_ = l.Close() // the port was free, and refuses now
		return
	}
	serve(&dns.Server{Listener: l, Handler: s})
}

func (s *nameServer) listen(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for tries := 0; ; tries++ {
		pc, err := net.ListenPacket("udp", s.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		_ = pc.Close()
		if s.addr.Port() != 0 || tries == 20 {
			t.Fatal(err)
		}
	}
}

const childText = `
public.haslohas.com. 60 SOA ns1.public.haslohas.com. h.haslohas.com. 7 1 1 1 1
public.haslohas.com. 60 NS ns1.public.haslohas.com.
public.haslohas.com. 60 NS ns2.public.haslohas.com.
ns1.public.haslohas.com. 60 A 127.0.0.2
ns2.public.haslohas.com. 60 A 127.0.0.3
`

const parentText = `
haslohas.com. 60 SOA ns.haslohas.com. h.haslohas.com. 1 1 1 1 1
haslohas.com. 60 NS ns.haslohas.com.
public.haslohas.com. 3600 NS ns1.public.haslohas.com.
public.haslohas.com. 3600 NS ns2.public.haslohas.com.
ns1.public.haslohas.com. 3600 A 127.0.0.2
ns2.public.haslohas.com. 3600 A 127.0.0.3
`

// newWorld is one in which everything is as it must be, but that the addresses
// are those of loopback.
func newWorld(t *testing.T) *world {
	w := &world{t: t, zone: Zone{
		Name: "public.haslohas.com",
		NameServers: []pool.NameServer{
			{Name: "ns1.public.haslohas.com", Addresses: []netip.Addr{ip("127.0.0.2")}},
			{Name: "ns2.public.haslohas.com", Addresses: []netip.Addr{ip("127.0.0.3")}},
		},
		TTL: time.Hour,
	}, names: make(map[string][]netip.Addr)}
	for range 2 {
		w.parents = append(w.parents, &nameServer{addr: netip.MustParseAddrPort("127.0.0.1:0"), apex: "haslohas.com.", records: records53(t, parentText)})
	}
	for _, a := range []string{"127.0.0.2", "127.0.0.3"} {
		w.servers = append(w.servers, &nameServer{addr: netip.AddrPortFrom(ip(a), 0), apex: "public.haslohas.com.", records: records53(t, childText)})
	}
	return w
}

func (w *world) LookupNS(context.Context, string) ([]*net.NS, error) {
	return nil, fmt.Errorf("nobody should ask for NS")
}

func (w *world) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a := w.names[strings.TrimSuffix(host, ".")]; len(a) > 0 {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// verify opens the world, and looks.
func (w *world) verify() Report {
	w.t.Helper()
	v := &Verifier{ParentZone: "haslohas.com", Private: true, Resolver: w}
	for _, p := range w.parents {
		p.start(w.t)
		v.ParentServers = append(v.ParentServers, p.addr)
	}
	// The servers have one port, as those of the world have.
	for _, s := range w.servers {
		s.addr = netip.AddrPortFrom(s.addr.Addr(), v.Port)
		s.start(w.t)
		v.Port = s.addr.Port()
	}
	r, err := v.Verify(w.t.Context(), w.zone)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// edit changes the records of servers: what begins with - is taken out, what begins
// with + is added.
func (w *world) edit(servers []*nameServer, lines ...string) {
	w.t.Helper()
	for _, s := range servers {
		for _, l := range lines {
			rrs := records53(w.t, l[1:]+"\n")
			if l[0] == '+' {
				s.records = append(s.records, rrs...)
				continue
			}
			before := len(s.records)
			s.records = slices.DeleteFunc(s.records, func(rr dns.RR) bool { return dns.IsDuplicate(rr, rrs[0]) })
			if len(s.records) == before {
				w.t.Fatalf("there is no %s", l)
			}
		}
	}
}
