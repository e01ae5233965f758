package dnsserver

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haslohas.com/elbow/pool"
)

const keySecret = "0123456789abcdef0123456789abcdef"

// transferable lets everybody with the key "key" copy the zones of f, and
// 127.0.0.2 without.
func transferable(f *fixture) *fixture {
	f.dns.Keys = []pool.Key{
		{Name: "key", Algorithm: pool.HMACSHA256, Secret: keySecret},
		{Name: "key384.test", Algorithm: pool.HMACSHA384, Secret: keySecret},
		{Name: "key512.test", Algorithm: pool.HMACSHA512, Secret: keySecret},
		{Name: "other", Algorithm: pool.HMACSHA256, Secret: keySecret + "!"},
	}
	for i, z := range f.dns.Zones {
		z := *z // the server may have the one before
		z.Transfer.Allow = []pool.TransferClient{
			{Key: "key"}, {Key: "key384.test"}, {Network: netip.MustParsePrefix("127.0.0.0/8"), Key: "key512.test"},
			{Network: netip.MustParsePrefix("127.0.0.2/32")},
		}
		f.dns.Zones[i] = &z
	}
	return f
}

// A secondary copies zones as a client would that knows a key.
type secondary struct {
	from      string
	key       string // empty: it does not sign
	algorithm string
	secret    string // empty: keySecret
	skew      time.Duration
}

var signing = secondary{from: "127.0.0.1", key: "key.", algorithm: dns.HmacSHA256}

func (s secondary) secrets() map[string]string {
	if s.key == "" {
		return nil
	}
	secret := s.secret
	if secret == "" {
		secret = keySecret
	}
	return map[string]string{s.key: base64.StdEncoding.EncodeToString([]byte(secret))}
}

func (s secondary) sign(m *dns.Msg) *dns.Msg {
	if s.key != "" {
		m.SetTsig(s.key, s.algorithm, 300, time.Now().Add(s.skew).Unix())
	}
	return m
}

// transfer returns the records that come, as they come.
func (s secondary) transfer(t testing.TB, r *running, m *dns.Msg) ([]dns.RR, error) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(s.from)}}
	c, err := d.DialContext(t.Context(), "tcp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	x := &dns.Transfer{Conn: &dns.Conn{Conn: c, TsigSecret: s.secrets()}, TsigSecret: s.secrets(), ReadTimeout: 5 * time.Second}
	in, err := x.In(s.sign(m), "")
	if err != nil {
		t.Fatal(err)
	}
	var records []dns.RR
	for e := range in {
		if e.Error != nil {
			return records, e.Error
		}
		records = append(records, e.RR...)
	}
	return records, nil
}

// ask returns the response to one query, by UDP or TCP. It does not look at
// the signature.
func (s secondary) ask(t testing.TB, r *running, network string, m *dns.Msg) (*dns.Msg, error) {
	t.Helper()
	var local net.Addr = &net.UDPAddr{IP: net.ParseIP(s.from)}
	if network == "tcp" {
		local = &net.TCPAddr{IP: net.ParseIP(s.from)}
	}
	c := dns.Client{Net: network, Dialer: &net.Dialer{LocalAddr: local}, TsigSecret: s.secrets(), UDPSize: 4096}
	a, _, err := c.ExchangeContext(t.Context(), s.sign(m), r.Addrs()[0].String())
	return a, err
}

func axfr(zone string) *dns.Msg { return new(dns.Msg).SetAxfr(zone) }

func ixfr(zone string, serial uint32) *dns.Msg {
	return new(dns.Msg).SetIxfr(zone, serial, "ns.", "mbox.")
}

// state is a zone as a secondary has it.
type state map[string]bool

// apply does what a secondary does with the records of a transfer, RFC 1995
// section 4 and RFC 5936 section 3.
func (s *state) apply(t testing.TB, records []dns.RR) (serial uint32, kind string) {
	t.Helper()
	newest, ok := records[0].(*dns.SOA)
	if !ok {
		t.Fatalf("begins with %v", records[0])
	}
	if len(records) == 1 {
		return newest.Serial, "current"
	}
	if last := records[len(records)-1]; last.String() != newest.String() {
		t.Fatalf("ends with %v, begins with %v", last, newest)
	}
	if _, difference := records[1].(*dns.SOA); !difference {
		*s = state{newest.String(): true}
		for _, rr := range records[1 : len(records)-1] {
			if (*s)[rr.String()] {
				t.Errorf("%v comes twice", rr)
			}
			(*s)[rr.String()] = true
		}
		return newest.Serial, "whole"
	}
	removing := false
	for _, rr := range records[1 : len(records)-1] {
		if _, soa := rr.(*dns.SOA); soa {
			removing = !removing
		}
		if removing != (*s)[rr.String()] {
			t.Errorf("%v is removed: %t, was there: %t", rr, removing, (*s)[rr.String()])
		}
		if removing {
			delete(*s, rr.String())
		} else {
			(*s)[rr.String()] = true
		}
	}
	return newest.Serial, "difference"
}

// answers is what clients get who ask for each name and type of a zone.
func (r *running) answers(t testing.TB, zone string) state {
	t.Helper()
	z := r.snapshot.Load().zones.get(mustName(t, zone))
	out := make(state)
	resp := new(responder)
	for _, owner := range slices.Concat(slices.Sorted(z.nodes.names()), slices.Sorted(z.live.names())) {
		types := []uint16{typeA, typeAAAA, typeSOA}
		if n := z.node(owner); n != nil {
			for _, s := range n.sets {
				types = append(types, s.typ)
			}
		}
		for _, typ := range types {
			v := resp.ask(owner, typ)
			wire, _ := resp.answer(nil, r.snapshot.Load(), v, conversation{tcp: true, inside: true})
			var m dns.Msg
			if err := m.Unpack(wire); err != nil {
				t.Fatal(err)
			}
			for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
				rr.Header().Name = strings.ToLower(rr.Header().Name)
				if owner := rr.Header().Name; m.Rcode == 0 && dns.IsSubDomain(zone, owner) && owns(t, z, rr) {
					out[rr.String()] = true
				}
			}
		}
	}
	return out
}

// owns leaves out what is made for one answer: what comes of wildcards and
// DNAMEs, and the SOA with the TTL of a negative answer.
func owns(t testing.TB, z *zone, rr dns.RR) bool {
	n := z.node(mustName(t, rr.Header().Name))
	if soa, ok := rr.(*dns.SOA); ok {
		return soa.Hdr.Ttl == z.soa.ttl
	}
	return n != nil && n.set(rr.Header().Rrtype) != nil
}

// exampleTransfers is the Table of the answers, without what no client can see.
func exampleTransfers(t testing.TB) *fixture {
	f := transferable(example(t))
	for _, z := range f.dns.Zones {
		z.NameServers = slices.Clone(z.NameServers)
	}
	return f
}

func TestTransferOfTheWholeZone(t *testing.T) {
	r := start(t, exampleTransfers(t), "127.0.0.53:0")
	for _, zone := range []string{"example.com.", "child.example.com."} {
		records, err := signing.transfer(t, r, axfr(zone))
		if err != nil {
			t.Fatal(err)
		}
		var got state
		serial, kind := got.apply(t, records)
		if z := r.snapshot.Load().zones.get(mustName(t, zone)); serial != z.serial || kind != "whole" {
			t.Errorf("%s: serial %d, %s", zone, serial, kind)
		}
		want := r.answers(t, zone)
		for rr := range want {
			if !got[rr] {
				t.Errorf("%s is answered and was not sent", rr)
			}
		}
		// What lies below a delegation is sent and not answered, and so are all
		// addresses where an answer has eight.
		for rr := range got {
			if !want[rr] && !strings.Contains(rr, "sub.example.com.") && !strings.HasPrefix(rr, "many.example.com.") {
				t.Errorf("%s was sent and is not answered", rr)
			}
		}
	}
	records, err := signing.transfer(t, r, axfr("example.com."))
	if err != nil {
		t.Fatal(err)
	}
	many := 0
	for _, rr := range records {
		if rr.Header().Name == "many.example.com." && rr.Header().Rrtype == dns.TypeA {
			many++
		}
	}
	if many != 10 {
		t.Errorf("%d addresses of many.example.com, want all 10", many)
	}
	for i, rr := range records[1 : len(records)-2] {
		if a, b := mustName(t, rr.Header().Name), mustName(t, records[i+2].Header().Name); canonicalOrder(a, b) > 0 {
			t.Errorf("%s before %s", a, b)
		}
	}
}

func TestTransferOfALargeZone(t *testing.T) {
	f := &fixture{}
	var b strings.Builder
	fmt.Fprintf(&b, "@ NS ns.example.net.\n$GENERATE 1-5000 host-$ A 192.0.2.1\n")
	for i := range 150 {
		fmt.Fprintf(&b, "all TXT %0200d\n", i)
	}
	fmt.Fprintf(&b, "huge TXT%s\n", strings.Repeat(" "+strings.Repeat("x", 255), 230)) // a record longer than a message
	f.zone(&pool.Zone{Name: "big.example", Records: b.String()})
	r := start(t, transferable(f), "127.0.0.53:0")
	records, err := signing.transfer(t, r, axfr("big.example."))
	if err != nil {
		t.Fatal(err)
	}
	var got state
	if got.apply(t, records); len(got) != 1+1+5000+150+1 {
		t.Errorf("%d records", len(got))
	}

	// The messages themselves: short, each with the question, each signed.
	c, err := net.Dial("tcp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	packet, mac := signedPacket(t, signing.sign(axfr("big.example.").SetEdns0(1232, false)), keySecret)
	if _, err := c.Write(frame(packet)); err != nil {
		t.Fatal(err)
	}
	soas, messages := 0, 0
	for ; soas < 2; messages++ {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second)) // fails as the read then does
		var head [2]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			t.Fatal(err)
		}
		message := make([]byte, binary.BigEndian.Uint16(head[:]))
		if _, err := io.ReadFull(c, message); err != nil {
			t.Fatal(err)
		}
		var m dns.Msg
		if err := m.Unpack(message); err != nil {
			t.Fatal(err)
		}
		if len(message) > transferMessage && len(m.Answer) > 1 {
			t.Errorf("a message of %d octets", len(message))
		}
		if !m.Authoritative || len(m.Question) != 1 || m.Id != binary.BigEndian.Uint16(packet) || (m.IsEdns0() != nil) != (messages == 0) {
			t.Errorf("message %d: %v", messages, m.MsgHdr)
		}
		sig := m.IsTsig()
		if sig == nil {
			t.Fatalf("message %d is not signed", messages)
		}
		if err := dns.TsigVerify(slices.Clone(message), base64.StdEncoding.EncodeToString([]byte(keySecret)), mac, messages > 0); err != nil {
			t.Fatalf("message %d: %v", messages, err)
		}
		mac = sig.MAC
		for _, rr := range m.Answer {
			if rr.Header().Rrtype == dns.TypeSOA {
				soas++
			}
		}
	}
	if messages < 10 {
		t.Errorf("%d messages", messages)
	}
}

// signedPacket returns a message with the MAC that its TSIG record asks for.
func signedPacket(t testing.TB, m *dns.Msg, secret string) (packet []byte, mac string) {
	t.Helper()
	packet, mac, err := dns.TsigGenerate(m, base64.StdEncoding.EncodeToString([]byte(secret)), "", false)
	if err != nil {
		t.Fatal(err)
	}
	return packet, mac
}

func frame(packet []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
}

func TestWhoMayTransfer(t *testing.T) {
	r := start(t, exampleTransfers(t), "127.0.0.53:0")
	for name, c := range map[string]struct {
		secondary
		zone string
		want string // of the error; empty: the zone comes
	}{
		"the key":                             {signing, "example.com.", ""},
		"the key, name and algorithm in caps": {secondary{from: "127.0.0.1", key: "KEY.", algorithm: "HMAC-SHA256."}, "example.com.", "miekg"},
		"hmac-sha384":                         {secondary{from: "127.0.0.1", key: "key384.test.", algorithm: dns.HmacSHA384}, "example.com.", ""},
		"hmac-sha512":                         {secondary{from: "127.0.0.1", key: "key512.test.", algorithm: dns.HmacSHA512}, "example.com.", ""},
		"the address":                         {secondary{from: "127.0.0.2"}, "example.com.", ""},
		"the address, signed":                 {secondary{from: "127.0.0.2", key: "other.", algorithm: dns.HmacSHA256, secret: keySecret + "!"}, "example.com.", ""},
		"neither":                             {secondary{from: "127.0.0.3"}, "example.com.", "bad xfr rcode: 5"},
		"a key of no use":                     {secondary{from: "127.0.0.3", key: "other.", algorithm: dns.HmacSHA256, secret: keySecret + "!"}, "example.com.", "bad xfr rcode: 5"},
		"no zone":                             {signing, "www.example.com.", "bad authentication"},
		"another's zone":                      {signing, "example.net.", "bad authentication"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.want == "miekg" { // whose client looks for the secret by the name as it is written
				packet, _ := signedPacket(t, c.sign(axfr(c.zone)), keySecret)
				h := newHouse(t, nil)
				h.publish(exampleTransfers(t))
				if out := h.respond(&h.r, nil, packet, client, 0, true); out != nil || h.r.transfer == nil || h.r.transfer.signer.key == nil {
					t.Errorf("got % x", out)
				}
				return
			}
			records, err := c.transfer(t, r, axfr(c.zone))
			if got := fmt.Sprint(err); err == nil != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("%d records, error %v, want %q", len(records), err, c.want)
			}
			for _, network := range []string{"udp", "tcp"} { // any other query is answered, and signed if it was
				m := question(t, "www.example.com A")
				if a, err := c.ask(t, r, network, m); err != nil || len(a.Answer) == 0 || (a.IsTsig() != nil) != (c.key != "") {
					t.Errorf("%s: %v %v", network, a, err)
				}
			}
		})
	}
	// By UDP never, RFC 5936 section 4.2.
	if a, err := signing.ask(t, r, "udp", axfr("example.com.")); err != nil || a.Rcode != dns.RcodeRefused {
		t.Errorf("AXFR by UDP: %v %v", a, err)
	}
	a, err := secondary{from: "127.0.0.3"}.ask(t, r, "tcp", axfr("example.com.").SetEdns0(1232, false))
	if err != nil || a.Rcode != dns.RcodeRefused || len(a.IsEdns0().Option) != 1 || a.IsEdns0().Option[0].(*dns.EDNS0_EDE).InfoCode != dns.ExtendedErrorCodeProhibited {
		t.Errorf("got %v %v", a, err)
	}
	if n := len(regexp.MustCompile("transfer refused.*client=127.0.0.3 ").FindAllString(r.log.String(), -1)); n != 1 {
		t.Errorf("logged %d times that 127.0.0.3 is refused:\n%s", n, r.log)
	}
	if strings.Contains(r.log.String(), keySecret[:8]) {
		t.Error("the secret is logged")
	}
}

// TestIncrementalTransfer: a secondary that asks after each change, or after
// several, has what is answered.
func TestIncrementalTransfer(t *testing.T) {
	f := exampleTransfers(t)
	r := start(t, f, "127.0.0.53:0")
	records, err := signing.transfer(t, r, axfr("example.com."))
	if err != nil {
		t.Fatal(err)
	}
	var each, seldom state
	first, _ := each.apply(t, records)
	seldom.apply(t, records)
	serial := first
	kinds := make(map[string]int)
	addresses := []string{"198.51.100.1", "198.51.100.2", "2001:db8:1::1", "198.51.100.10", "198.51.100.15"}
	for i := range 40 {
		a := netip.MustParseAddr(addresses[i*7%len(addresses)])
		f.down[a] = !f.down[a]
		if i%5 == 0 {
			f.suspense = map[string]bool{f.services[0].Name: i%10 == 0}
		}
		if i == 20 { // the master file is edited
			z := *f.dns.Zones[1]
			z.Records = strings.Replace(z.Records, "192.0.2.25", "192.0.2.26", 1) + "\n" + "added TXT " + strings.Repeat(strings.Repeat("x", 200)+" ", 3) + "\n"
			f.dns.Zones[1] = &z
		}
		if i == 30 { // a service goes
			f.services = f.services[:len(f.services)-1]
		}
		r.publish()
		r.await(t)
		got, err := signing.transfer(t, r, ixfr("example.com.", serial))
		if err != nil {
			t.Fatal(err)
		}
		var kind string
		serial, kind = each.apply(t, got)
		kinds[kind]++
		if want := r.snapshot.Load().zones.get(mustName(t, "example.com")).serial; serial != want {
			t.Fatalf("serial %d, want %d", serial, want)
		}
		all, err := signing.transfer(t, r, axfr("example.com."))
		if err != nil {
			t.Fatal(err)
		}
		want := make(state)
		want.apply(t, all)
		if diff := cmp.Diff(want, each); diff != "" {
			t.Fatalf("change %d (-whole +followed):\n%s", i, diff)
		}
		if i%8 == 7 { // from the beginning, in one step
			late := make(state)
			for k := range seldom {
				late[k] = true
			}
			got, err := signing.transfer(t, r, ixfr("example.com.", first))
			if err != nil {
				t.Fatal(err)
			}
			if s, kind := late.apply(t, got); s != serial || kind != "difference" {
				t.Errorf("serial %d, %s", s, kind)
			}
			if diff := cmp.Diff(want, late); diff != "" {
				t.Fatalf("change %d in one step (-whole +followed):\n%s", i, diff)
			}
		}
	}
	if kinds["difference"] != 40 {
		t.Errorf("sent %v, want 40 differences", kinds)
	}
	if n := len(r.snapshot.Load().zones.get(mustName(t, "example.com")).history); n != 40 {
		t.Errorf("%d changes are kept", n)
	}

	// By UDP.
	for name, c := range map[string]struct {
		serial  uint32
		payload uint16
		records int // 0: any number above 1
	}{
		"the newest":                        {serial, 1232, 1},
		"newer than the newest":             {serial + 7, 1232, 1},
		"the one before":                    {serial - 1, 1232, 0},
		"all changes":                       {first, 512, 1}, // too long
		"a serial that is not known":        {first - 1, 1232, 1},
		"newer by the arithmetic of serial": {serial - 1<<31 + 1, 1232, 1},
	} {
		for _, s := range []secondary{signing, {from: "127.0.0.2"}} {
			m := ixfr("example.com.", c.serial).SetEdns0(c.payload, false)
			a, err := s.ask(t, r, "udp", m)
			if err != nil || a.Rcode != 0 || !a.Authoritative || a.Truncated || len(a.Answer) != c.records && (c.records != 0 || len(a.Answer) < 2) {
				t.Errorf("%s: %v %v", name, a, err)
				continue
			}
			if soa, ok := a.Answer[0].(*dns.SOA); !ok || soa.Serial != serial || (a.IsTsig() != nil) != (s.key != "") {
				t.Errorf("%s: %v", name, a)
			}
		}
	}
	// By TCP a serial that is not known brings the whole zone.
	got, err := signing.transfer(t, r, ixfr("example.com.", first-1))
	if err != nil {
		t.Fatal(err)
	}
	var fresh state
	if s, kind := fresh.apply(t, got); s != serial || kind != "whole" {
		t.Errorf("serial %d, %s", s, kind)
	}
	if diff := cmp.Diff(each, fresh); diff != "" {
		t.Errorf("-followed +whole:\n%s", diff)
	}
	want := `
# HELP elbow_dns_transfers_total Zone transfers that were asked for (axfr, ixfr), by what was sent.
# TYPE elbow_dns_transfers_total counter
elbow_dns_transfers_total{asked="axfr",result="whole",zone="example.com"} 41
elbow_dns_transfers_total{asked="ixfr",result="current",zone="example.com"} 4
elbow_dns_transfers_total{asked="ixfr",result="difference",zone="example.com"} 47
elbow_dns_transfers_total{asked="ixfr",result="too_large",zone="example.com"} 6
elbow_dns_transfers_total{asked="ixfr",result="whole",zone="example.com"} 1
`
	// A transfer is counted when it has ended, which the secondary sees first.
	eventually(t, func() error {
		return testutil.GatherAndCompare(r.registry, strings.NewReader(want), "elbow_dns_transfers_total")
	})
	if n := testutil.CollectAndCount(newMetrics(r.Server), "elbow_dns_secondary_transfer_age_seconds"); n != 2 {
		t.Errorf("the age of %d secondaries is told, want 127.0.0.2 for two zones", n)
	}
}

func TestIncrementalTransferNeedsASerial(t *testing.T) {
	r := start(t, exampleTransfers(t), "127.0.0.53:0")
	for name, edit := range map[string]func(*dns.Msg){
		"no SOA":         func(m *dns.Msg) { m.Ns = nil },
		"another's SOA":  func(m *dns.Msg) { m.Ns[0].Header().Name = "example.net." },
		"a longer name":  func(m *dns.Msg) { m.Ns[0].Header().Name = "a.example.com." },
		"no SOA but NS":  func(m *dns.Msg) { m.Ns = []dns.RR{mustRR(t, "example.com. NS ns.")} },
		"two SOAs":       func(m *dns.Msg) { m.Ns = append(m.Ns, m.Ns[0]) },
		"in the answers": func(m *dns.Msg) { m.Answer, m.Ns = m.Ns, nil },
	} {
		m := ixfr("example.com.", 1)
		edit(m)
		if a, err := signing.ask(t, r, "tcp", m); err != nil || a.Rcode != dns.RcodeFormatError || a.IsTsig() == nil {
			t.Errorf("%s: %v %v", name, a, err)
		}
	}
}

// TestHistoryIsBounded: neither many nor large changes add up.
func TestHistoryIsBounded(t *testing.T) {
	big := make([]byte, historyBytes/4)
	var h history
	for i := range 3 * historyMost {
		h = h.add(&difference{serial: uint32(i), size: 10})
	}
	if len(h) != historyMost || h[0].serial != 2*historyMost {
		t.Errorf("%d changes from %d on", len(h), h[0].serial)
	}
	for range 10 {
		h = h.add(&difference{size: len(big)})
	}
	if len(h) != 4 {
		t.Errorf("%d large changes", len(h))
	}
	if h = h.add(nil); len(h) != 0 {
		t.Errorf("%d changes before one that is too large to keep", len(h))
	}
}

// TestTransfersAreBounded: a client that reads nothing keeps a place, and
// others are told to come later when there are too many.
func TestTransfersAreBounded(t *testing.T) {
	var all transfers
	for i := range maxTransfers {
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i / maxTransfersPerClient)})
		if !all.begin(a) {
			t.Fatalf("transfer %d may not begin", i)
		}
		if i%maxTransfersPerClient == maxTransfersPerClient-1 && all.begin(a) {
			t.Fatal("one client may begin too many")
		}
	}
	if all.begin(netip.MustParseAddr("10.9.9.9")) {
		t.Error("one too many")
	}
	all.end(netip.MustParseAddr("10.0.0.0"))
	if !all.begin(netip.MustParseAddr("10.9.9.9")) {
		t.Error("the free place is not given")
	}

	r := start(t, exampleTransfers(t), "127.0.0.53:0")
	for range maxTransfersPerClient {
		if !r.transfers.begin(netip.MustParseAddr("127.0.0.1")) {
			t.Fatal("no place")
		}
	}
	a, err := signing.ask(t, r, "tcp", axfr("example.com."))
	if err != nil || a.Rcode != dns.RcodeServerFailure || a.IsTsig() == nil {
		t.Errorf("got %v %v", a, err)
	}
	r.transfers.end(netip.MustParseAddr("127.0.0.1"))
	if _, err := signing.transfer(t, r, axfr("example.com.")); err != nil {
		t.Error(err)
	}
}

// TestTransferEndsWithTheServer: a client that does not read stops no restart.
func TestTransferEndsWithTheServer(t *testing.T) {
	f := &fixture{}
	f.zone(&pool.Zone{Name: "big.example", Records: "@ NS ns.example.net.\n$GENERATE 1-20000 host-$ TXT" + strings.Repeat(" "+strings.Repeat("x", 200), 3) + "\n"})
	r := start(t, transferable(f), "127.0.0.53:0")
	c, err := net.Dial("tcp", r.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	packet, _ := signedPacket(t, signing.sign(axfr("big.example.")), keySecret)
	if _, err := c.Write(frame(packet)); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		r.transfers.mu.Lock()
		defer r.transfers.mu.Unlock()
		if r.transfers.all == 0 {
			return fmt.Errorf("no transfer")
		}
		return nil
	})
	begun := time.Now()
	r.stop()
	if d := time.Since(begun); d > transferWrite/2 {
		t.Errorf("the end took %s", d)
	}
}
