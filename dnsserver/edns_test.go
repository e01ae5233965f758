package dnsserver

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

// TestCompliance is the list of the DNS flag days, as ISC's genreport asks it: of
// an unsigned zone and a signed one, by UDP and TCP. The lines that are not about
// a SOA are in the tests below: opcode and opcodeflg, dnswkk, the list of types,
// edns@512 and ednstcp.
func TestCompliance(t *testing.T) {
	soa := func() *dns.Msg { return question(t, "example.com SOA") }
	opt := func(m *dns.Msg, options ...dns.EDNS0) *dns.OPT {
		m.SetEdns0(4096, false)
		m.IsEdns0().Option = options
		return m.IsEdns0()
	}
	unknown := &dns.EDNS0_LOCAL{Code: 100}
	cookie := &dns.EDNS0_COOKIE{Cookie: "0102030405060708"}
	nsid := &dns.EDNS0_NSID{Nsid: ""}
	expire := &dns.EDNS0_EXPIRE{Empty: true}
	subnet := &dns.EDNS0_SUBNET{Family: 1, Address: make([]byte, 4)}
	keepalive := &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}

	type expect struct {
		rcode int
		soa   bool // stands in the answer
		opt   bool
		rd    bool
		cd    bool
		do    bool
		tc    bool
		aa    bool
	}
	ok := expect{soa: true, aa: true}
	okOpt := expect{soa: true, opt: true, aa: true}
	cases := []struct {
		name string
		make func(m *dns.Msg)
		want expect
	}{
		{"dns", func(m *dns.Msg) {}, ok},
		{"aa", func(m *dns.Msg) { m.Authoritative = true }, ok},
		{"ad", func(m *dns.Msg) { m.AuthenticatedData = true }, ok},
		{"cd", func(m *dns.Msg) { m.CheckingDisabled = true }, expect{soa: true, aa: true, cd: true}},
		{"rd", func(m *dns.Msg) { m.RecursionDesired = true }, expect{soa: true, aa: true, rd: true}},
		{"ra", func(m *dns.Msg) { m.RecursionAvailable = true }, ok},
		{"tc", func(m *dns.Msg) { m.Truncated = true }, ok},
		{"zflag", func(m *dns.Msg) { m.Zero = true }, ok},
		{"type666", func(m *dns.Msg) { m.Question[0].Qtype = 666 }, expect{aa: true}},
		{"edns", func(m *dns.Msg) { opt(m) }, okOpt},
		{"edns1 ednsopt", func(m *dns.Msg) { opt(m, unknown).SetVersion(1) }, expect{rcode: dns.RcodeBadVers, opt: true}},
		{"edns1 nsid", func(m *dns.Msg) { opt(m, nsid).SetVersion(1) }, expect{rcode: dns.RcodeBadVers, opt: true}},
		{"edns1 cookie", func(m *dns.Msg) { opt(m, cookie).SetVersion(1) }, expect{rcode: dns.RcodeBadVers, opt: true}},
		{"edns1 expire", func(m *dns.Msg) { opt(m, expire).SetVersion(1) }, expect{rcode: dns.RcodeBadVers, opt: true}},
		{"edns1 subnet", func(m *dns.Msg) { opt(m, subnet).SetVersion(1) }, expect{rcode: dns.RcodeBadVers, opt: true}},
		{"dig11", func(m *dns.Msg) { m.AuthenticatedData, m.RecursionDesired = true, true; opt(m, cookie) }, expect{soa: true, aa: true, opt: true, rd: true}},
		{"type1000", func(m *dns.Msg) { m.Question[0].Qtype = 1000 }, expect{aa: true}},
		{"edns1", func(m *dns.Msg) { opt(m).SetVersion(1) }, expect{rcode: dns.RcodeBadVers, opt: true}},
		{"edns1 do", func(m *dns.Msg) { o := opt(m); o.SetVersion(1); o.SetDo() }, expect{rcode: dns.RcodeBadVers, opt: true, do: true}},
		{"edns1 options", func(m *dns.Msg) { opt(m, unknown, nsid, cookie, expire, subnet).SetVersion(1) }, expect{rcode: dns.RcodeBadVers, opt: true}},
		{"edns255", func(m *dns.Msg) { opt(m).SetVersion(255) }, expect{rcode: dns.RcodeBadVers, opt: true}},
		{"edns@512", func(m *dns.Msg) { o := opt(m); o.SetUDPSize(512); o.SetDo() }, expect{soa: true, aa: true, opt: true, do: true}},
		{"edns@0", func(m *dns.Msg) { opt(m).SetUDPSize(0) }, okOpt},
		{"ednsopt", func(m *dns.Msg) { opt(m, unknown) }, okOpt},
		{"do", func(m *dns.Msg) { opt(m).SetDo() }, expect{soa: true, aa: true, opt: true, do: true}},
		{"docd", func(m *dns.Msg) { m.CheckingDisabled = true; opt(m).SetDo() }, expect{soa: true, aa: true, opt: true, do: true, cd: true}},
		{"ednsflags", func(m *dns.Msg) { opt(m).SetZ(0x80) }, okOpt},
		{"optlist", func(m *dns.Msg) { opt(m, nsid, subnet, expire, cookie) }, okOpt},
		{"nsid", func(m *dns.Msg) { opt(m, nsid) }, okOpt},
		{"cookie", func(m *dns.Msg) { opt(m, cookie) }, okOpt},
		{"expire", func(m *dns.Msg) { opt(m, expire) }, okOpt},
		{"subnet", func(m *dns.Msg) { opt(m, subnet) }, okOpt},
		{"keepalive", func(m *dns.Msg) { opt(m, keepalive) }, okOpt},
		{"bind11", func(m *dns.Msg) { opt(m, cookie).SetDo() }, expect{soa: true, aa: true, opt: true, do: true}},
		{"two OPT", func(m *dns.Msg) { opt(m); m.Extra = append(m.Extra, dns.Copy(m.Extra[0])) }, expect{rcode: dns.RcodeFormatError, opt: true}},
		{"OPT with an owner", func(m *dns.Msg) { opt(m).Hdr.Name = "example.com." }, expect{rcode: dns.RcodeFormatError}},
		{"OPT in the answer", func(m *dns.Msg) { opt(m); m.Answer, m.Extra = m.Extra, nil }, expect{rcode: dns.RcodeFormatError}},
		{"other records", func(m *dns.Msg) { m.Ns = []dns.RR{mustRR(t, "example.com. SOA a. b. 1 2 3 4 5")}; opt(m) }, okOpt},
		{"no question", func(m *dns.Msg) { m.Question = nil }, expect{rcode: dns.RcodeFormatError}},
		{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, expect{rcode: dns.RcodeFormatError}},
		{"outside", func(m *dns.Msg) { m.Question[0].Name = "example.net."; opt(m) }, expect{rcode: dns.RcodeRefused, opt: true}},
	}
	for _, signed := range []bool{false, true} {
		h := newHouse(t, nil)
		if signed {
			h.publish(signedExample(t, dnssec.ECDSAP256))
		} else {
			h.publish(example(t))
		}
		for _, tcp := range []bool{false, true} {
			for _, c := range cases {
				t.Run(fmt.Sprintf("%s signed=%v tcp=%v", c.name, signed, tcp), func(t *testing.T) {
					m := soa()
					c.make(m)
					a := h.send(t, must(m.Pack()), tcp)
					if a == nil {
						t.Fatal("no response")
					}
					got := expect{
						rcode: a.Rcode, soa: len(only[*dns.SOA](a.Answer)) == 1,
						opt: a.IsEdns0() != nil, rd: a.RecursionDesired, cd: a.CheckingDisabled, tc: a.Truncated, aa: a.Authoritative,
					}
					if o := a.IsEdns0(); o != nil {
						got.do = o.Do()
						if o.Version() != 0 || o.UDPSize() != 1232 || o.Z() != 0 || o.Hdr.Name != "." {
							t.Errorf("bad OPT %v", o)
						}
						for _, option := range o.Option {
							switch option := option.(type) {
							case *dns.EDNS0_EDE:
							case *dns.EDNS0_COOKIE:
								asked := slices.Contains(m.IsEdns0().Option, dns.EDNS0(cookie))
								if !asked || len(option.Cookie) != 48 || option.Cookie[:16] != cookie.Cookie {
									t.Errorf("asked for a cookie: %v, got %v", asked, option)
								}
							case *dns.EDNS0_SUBNET:
								if !slices.Contains(m.IsEdns0().Option, dns.EDNS0(subnet)) || option.SourceScope != 0 || option.SourceNetmask != 0 {
									t.Errorf("got %v", option)
								}
							case *dns.EDNS0_TCP_KEEPALIVE:
								if !slices.Contains(m.IsEdns0().Option, dns.EDNS0(keepalive)) || !tcp {
									t.Errorf("got %v", option)
								}
							default:
								t.Errorf("nobody asked for option %v", option)
							}
						}
					}
					if got != c.want {
						t.Errorf("got %+v, want %+v", got, c.want)
					}
					if a.Zero || a.RecursionAvailable || a.AuthenticatedData || a.Id != m.Id {
						t.Errorf("bad header %v", a.MsgHdr)
					}
					signatures, want := len(only[*dns.RRSIG](a.Answer)), 0
					if signed && c.want.soa && c.want.do {
						want = 1
					}
					if others := len(a.Answer) - signatures; signatures != want || others > 1 || others == 1 && !got.soa {
						t.Errorf("the answer is %v, want %d signatures", a.Answer, want)
					}
				})
			}
		}
	}
}

// TestKeysOf512: genreport's edns@512 and ednstcp ask for keys with an offer of
// 512 octets, where an answer with signatures fits or does not.
func TestKeysOf512(t *testing.T) {
	for _, keys := range []int{1, 6} {
		f := &fixture{}
		z := &pool.Zone{Name: "example.com", Records: "@ NS ns.example.net.\n", DNSSEC: pool.DNSSEC{Folder: "keys"}}
		for i := range keys {
			z.DNSSEC.Keys = append(z.DNSSEC.Keys, keyFile(t, z.Name, dnssec.ECDSAP256, func(times *dnssec.Times) {
				if i > 0 {
					times.Activate = time.Time{} // it stands by
				}
			}))
		}
		f.zone(z)
		h := newHouse(t, nil)
		h.publish(f)
		if strings.Contains(h.log.String(), "level=ERROR") {
			t.Fatal(h.log.String())
		}
		for _, tcp := range []bool{false, true} {
			m := question(t, "example.com DNSKEY")
			m.SetEdns0(512, true)
			packet := must(m.Pack())
			size := len(h.respond(&h.r, nil, packet, client, 0, tcp))
			a := h.send(t, packet, tcp)
			whole := tcp || keys == 1
			if a.Rcode != dns.RcodeSuccess || !a.Authoritative || a.IsEdns0() == nil || a.Truncated == whole {
				t.Errorf("%d keys, tcp %v: %v", keys, tcp, a)
			}
			if !tcp && size > 512 || tcp && keys > 1 && size <= 512 {
				t.Errorf("%d keys, tcp %v: %d octets", keys, tcp, size)
			}
			if whole && (len(only[*dns.DNSKEY](a.Answer)) != keys || len(only[*dns.RRSIG](a.Answer)) == 0) {
				t.Errorf("%d keys, tcp %v: a part is missing: %v", keys, tcp, a.Answer)
			}
		}
	}
}

func mustRR(t testing.TB, text string) dns.RR {
	t.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

// TestEveryType: no type is answered with an error, RFC 8906 section 3.1.2, of a
// name that exists, of the apex, and of one that does not exist.
func TestEveryType(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	types := []uint16{dns.TypeURI, dns.TypeCAA, 1000, dns.TypeTA, dns.TypeDLV, 65280, 65535}
	for typ := range uint16(300) {
		types = append(types, typ)
	}
	for owner, want := range map[string]int{
		"www.example.com": dns.RcodeSuccess, "example.com": dns.RcodeSuccess, "x.www.example.com": dns.RcodeNameError,
	} {
		for _, typ := range types {
			m := question(t, owner+" A")
			m.Question[0].Qtype = typ
			want := want
			if typ == dns.TypeAXFR || typ == dns.TypeIXFR {
				want = dns.RcodeNotAuth // it is no zone, RFC 5936 section 2.2.1
				if owner == "example.com" {
					want = dns.RcodeRefused // nobody may copy this one
				}
			}
			if a := h.exchange(t, m); a == nil || a.Rcode != want || a.Authoritative != (want == dns.RcodeSuccess || want == dns.RcodeNameError) {
				t.Errorf("%s type %d: %v", owner, typ, a)
			}
		}
	}
}

func TestOpcodes(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	for op := range 16 {
		if op == dns.OpcodeQuery {
			continue
		}
		for _, flags := range []uint16{0, 0x07f0} { // AA TC RD RA Z AD CD
			packet := make([]byte, 12)
			packet[1] = 42
			binary.BigEndian.PutUint16(packet[2:], uint16(op)<<11|flags)
			out := h.respond(&h.r, nil, packet, client, 0, false)
			want := make([]byte, 12)
			want[1] = 42
			binary.BigEndian.PutUint16(want[2:], 0x8000|uint16(op)<<11|4)
			if !bytes.Equal(out, want) {
				t.Errorf("opcode %d flags %#x: got % x, want % x", op, flags, out, want)
			}
		}
	}
	m := new(dns.Msg).SetUpdate("example.com.")
	m.Insert([]dns.RR{mustRR(t, "x.example.com. 60 A 192.0.2.1")})
	if a := h.exchange(t, m); a.Rcode != dns.RcodeNotImplemented || len(a.Question) != 1 {
		t.Errorf("update: %v", a)
	}
	m = new(dns.Msg).SetNotify("example.com.")
	if a := h.exchange(t, m); a.Rcode != dns.RcodeNotImplemented || a.Authoritative || len(a.Question) != 1 {
		t.Errorf("notify: %v", a)
	}
}

func TestNoAnswerAtAll(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	m := question(t, "www.example.com A")
	m.Response = true
	if a := h.exchange(t, m); a != nil {
		t.Errorf("a response was answered: %v", a)
	}
	for n := range 12 {
		if out := h.respond(&h.r, nil, make([]byte, n), client, 0, false); out != nil {
			t.Errorf("%d octets were answered", n)
		}
	}
	if got := h.counts.shards[0].dropped[dropMalformed].Load(); got != 13 {
		t.Errorf("%d drops were counted, want 13", got)
	}
}

func TestZoneVersion(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	h.renumber(2026112307)
	for _, c := range []struct{ ask, want string }{
		{"www.example.com A", "02" + "00" + "78c40533"},
		{"nothing.example.com A", "02" + "00" + "78c40533"},
		{"www.child.example.com A", "03" + "00" + "78c40533"},
		{"www.example.net A", ""},
	} {
		m := question(t, c.ask)
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 19}}
		var got string
		for _, o := range h.exchange(t, m).IsEdns0().Option {
			if o.Option() != 19 {
				continue
			}
			wire, err := packOption(o)
			if err != nil {
				t.Fatal(err)
			}
			got = hex.EncodeToString(wire)
		}
		if got != c.want {
			t.Errorf("%s: version %q, want %q", c.ask, got, c.want)
		}
	}
}

// packOption returns the data of an option as it was on the wire.
func packOption(o dns.EDNS0) ([]byte, error) {
	m := new(dns.Msg)
	m.SetEdns0(512, false)
	m.IsEdns0().Option = []dns.EDNS0{o}
	wire, err := m.Pack()
	if err != nil {
		return nil, err
	}
	return wire[12+11+4:], nil
}

func TestRefusedSaysWhy(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	m := question(t, "www.example.net A")
	m.SetEdns0(1232, false)
	a := h.exchange(t, m)
	if i := slices.IndexFunc(a.IsEdns0().Option, func(o dns.EDNS0) bool {
		e, ok := o.(*dns.EDNS0_EDE)
		return ok && e.InfoCode == dns.ExtendedErrorCodeNotAuthoritative
	}); i < 0 || a.Rcode != dns.RcodeRefused || a.Authoritative {
		t.Errorf("got %v", a)
	}
}

func TestKeepalive(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	m := question(t, "www.example.com A")
	m.SetEdns0(1232, false)
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	a := h.send(t, packet, true)
	if len(a.IsEdns0().Option) != 1 || a.IsEdns0().Option[0].(*dns.EDNS0_TCP_KEEPALIVE).Timeout != 100 {
		t.Errorf("got %v", a)
	}
}

// TestUnknownKey is genreport's dnswkk: a TSIG with a key that is not known.
func TestUnknownKey(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	for _, c := range []struct {
		key  string
		edns bool
	}{{".", false}, {"key.example.", false}, {"key.example.", true}} {
		m := question(t, "example.com SOA")
		if c.edns {
			m.SetEdns0(1232, true)
		}
		m.SetTsig(c.key, dns.HmacSHA256, 300, 1700000000)
		packet, _, err := dns.TsigGenerate(m, "c2VjcmV0", "", false)
		if err != nil {
			t.Fatal(err)
		}
		a := h.send(t, packet, false)
		sig := a.IsTsig()
		if a.Rcode != dns.RcodeNotAuth || len(a.Answer) != 0 || sig == nil || (a.IsEdns0() != nil) != c.edns {
			t.Fatalf("got %v", a)
		}
		if sig.Error != dns.RcodeBadKey || sig.MACSize != 0 || sig.Hdr.Name != c.key || sig.Algorithm != dns.HmacSHA256 ||
			sig.TimeSigned != 1700000000 || sig.Fudge != 300 || sig.OrigId != m.Id || sig.OtherLen != 0 {
			t.Errorf("got %v", sig)
		}
	}
}

func TestSizes(t *testing.T) {
	f := &fixture{}
	var records strings.Builder
	for i := range 40 {
		fmt.Fprintf(&records, "big TXT \"%s%d\"\n", strings.Repeat("x", 40), i)
	}
	for i := range 8 { // 8 referral servers with glue: more than 512 octets
		fmt.Fprintf(&records, "cut NS server-with-a-long-name-%d.cut\nserver-with-a-long-name-%d.cut A 192.0.2.%d\n", i, i, i)
	}
	f.zone(&pool.Zone{Name: "example.com", Records: "@ NS ns.example.net.\n" + records.String()})
	h := newHouse(t, nil)
	h.publish(f)
	for _, c := range []struct {
		ask     string
		payload uint16 // 0: no EDNS
		tcp     bool
		whole   bool
		most    int
	}{
		{"big.example.com TXT", 0, false, false, 512},
		{"big.example.com TXT", 4096, false, false, 1232},
		{"big.example.com TXT", 4096, true, true, 65535},
		{"big.example.com TXT", 0, true, true, 65535},
		{"x.cut.example.com A", 0, false, false, 512},
		{"x.cut.example.com A", 100, false, false, 512},
		{"x.cut.example.com A", 700, false, true, 700},
		{"x.cut.example.com A", 1232, false, true, 1232},
	} {
		m := question(t, c.ask)
		if c.payload > 0 {
			m.SetEdns0(c.payload, true)
		}
		packet, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		out := h.respond(&h.r, nil, packet, client, 0, c.tcp)
		a := h.send(t, packet, c.tcp)
		if len(out) > c.most || a.Truncated == c.whole || (a.IsEdns0() != nil) != (c.payload > 0) {
			t.Errorf("%s payload %d tcp %v: %d octets, %v", c.ask, c.payload, c.tcp, len(out), a.MsgHdr)
		}
		if a.Truncated && len(a.Answer)+len(a.Ns) > 0 {
			t.Errorf("%s: a truncated response holds a part: %v", c.ask, a)
		}
	}
}
