package dnsserver

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// malformed are packets by hand, in hexadecimal, after a header with the id
// 1234 and the given counts.
var malformed = []string{
	"", "12", "1234", "1234 0000 0001 0000 0000 00", // shorter than a header
	"1234 0000 0000 0000 0000 0000",                                                                    // no question
	"1234 0000 0001 0000 0000 0000",                                                                    // a question is missing
	"1234 0000 ffff 0000 0000 0000",                                                                    // very many are
	"1234 0000 0001 0000 0000 0000 00",                                                                 // without type
	"1234 0000 0001 0000 0000 0000 00 0001 00",                                                         // half a class
	"1234 0000 0001 0000 0000 0000 3f 61",                                                              // a label that goes on behind the end
	"1234 0000 0001 0000 0000 0000 40 61",                                                              // an extended label
	"1234 0000 0001 0000 0000 0000 80 61",                                                              //
	"1234 0000 0001 0000 0000 0000 c0",                                                                 // half a pointer
	"1234 0000 0001 0000 0000 0000 c00c 0001 0001",                                                     // a pointer to itself
	"1234 0000 0001 0000 0000 0000 c000 0001 0001",                                                     // into the header
	"1234 0000 0001 0000 0000 0000 01 61 c00c 0001 0001",                                               // a name without end
	"1234 0000 0001 0000 0000 0001 00 0001 0001 00 0029",                                               // half an OPT
	"1234 0000 0001 0000 0000 0001 00 0001 0001 c0",                                                    // half a pointer as owner
	"1234 0000 0001 0000 0000 0001 00 0001 0001 00 0029 04d0 00000000 ffff",                            // data behind the end
	"1234 0000 0001 0000 0000 0001 00 0001 0001 00 0029 04d0 00000000 0003 000a00",                     // half an option
	"1234 0000 0001 0000 0000 0001 00 0001 0001 00 0029 04d0 00000000 0004 000affff",                   // an option behind the end
	"1234 0000 0001 0000 0000 ffff 00 0001 0001 00 0029 04d0 00000000 0000",                            // many records promised
	"1234 0000 0001 ffff ffff ffff 00 0001 0001",                                                       //
	"1234 0000 0001 0000 0000 0001 00 0001 0001 00 00fa 00ff 00000000 0000",                            // TSIG without data
	"1234 0000 0001 0000 0000 0001 00 0001 0001 c00c 00fa 00ff 00000000 0000",                          // with a pointer as key
	"1234 0000 0001 0000 0000 0001 00 0001 0001 00 00fa 00ff 00000000 0003 016100",                     // without time
	"1234 0000 0001 0000 0000 0001 00 0001 0001 00 00fa 00ff 00000000 0002 c00c",                       // algorithm is a pointer
	"1234 0000 0001 0000 0000 0002 00 0001 0001 00 00fa 00ff 00000000 0000 00 0001 0001 00000000 0000", // not the last
	"1234 0000 0001 0001 0000 0000 00 0001 0001 00 00fa 00ff 00000000 0000",                            // in the answer
	"1234 2000 0001 0000 0000 0000 ff",                                                                 // NOTIFY
	"1234 2800 0001 0000 0000 0000 c00c",                                                               // UPDATE
	"1234 0000 0000 0000 0000 0001 00 0029 04d0 00000000 000c 000a 0008 0102030405060708",              // a cookie alone
	"1234 0000 0001 0000 0000 0001 00 0001 0001 00 0029 04d0 00000000 000b 000a 0007 01020304050607",   // a short cookie
	"1234 0000 0001 0000 0000 0001 00 0001 0001 00 0029 04d0 00000000 001c 000a 0018 0102030405060708 010000005cf79f11 1f8130c3eee29480",
	"1234 0000 0001 0000 0000 0001 00 0001 0001 00 0029 04d0 00000000 000f 0003 0000 0008 0007 0001 18 00 c00002", // NSID and subnet
	"1234 0000 0001 0000 0000 0001 00 0001 0001 00 0029 04d0 00000000 000b 0008 0007 0001 19 00 c00002",           // a short subnet
	"1234 7800 ffff ffff ffff ffff", // opcode 15
	"1234 8000 0001 0000 0000 0000 00 0001 0001",
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return b
}

// seeds are good packets of every kind.
func seeds(t testing.TB) [][]byte {
	t.Helper()
	var out [][]byte
	for _, ask := range []string{
		"www.example.com A", "WEB.example.com A", "many.example.com ANY", "alias.example.com AAAA", "x.y.old.example.com MX",
		"a.cwild.example.com A", "host.sub.example.com A", "sub.example.com DS", "grow.example.com A", "a.b.grow.example.com A",
		"example.com NS", "child.example.com DS", "nothing.example.com TXT", "example.net A", ". NS", "b.loop.example.com A",
		strings.Repeat("a.", 100) + "example.com A", strings.Repeat(strings.Repeat("b", 60)+".", 3) + "old.example.com A",
	} {
		m := question(t, ask)
		for step := range 3 {
			switch step {
			case 1:
				m.SetEdns0(1232, true)
				m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 19}, &dns.EDNS0_COOKIE{Cookie: "0102030405060708"}, &dns.EDNS0_TCP_KEEPALIVE{Code: 11}}
			case 2:
				m.IsEdns0().Option = nil
				m.SetTsig("key.", dns.HmacSHA256, 300, 1700000000)
				packet, _, err := dns.TsigGenerate(m, "c2VjcmV0", "", false)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, packet)
				continue
			}
			packet, err := m.Pack()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, packet)
		}
	}
	return out
}

// check sends a packet by UDP and TCP and judges what comes back.
func (h *house) check(t testing.TB, packet []byte) {
	t.Helper()
	for _, tcp := range []bool{false, true} {
		given := string(packet)
		out := h.respond(&h.r, nil, packet, client, 0, tcp)
		if string(packet) != given {
			t.Fatalf("the packet was written to: % x, was % x", packet, given)
		}
		if len(packet) < 12 || packet[2]&0x80 != 0 {
			if out != nil {
				t.Fatalf("answered: % x", packet)
			}
			continue
		}
		if len(out) < 12 || len(out) > maxMessage || !tcp && len(out) > maxPayload {
			t.Fatalf("% x: a response of %d octets", packet, len(out))
		}
		var m dns.Msg
		if err := m.Unpack(out); err != nil {
			t.Fatalf("% x: response % x: %v", packet, out, err)
		}
		if !m.Response || m.Id != binary.BigEndian.Uint16(packet) || m.RecursionAvailable || m.Zero || m.AuthenticatedData {
			t.Fatalf("% x: bad header %v", packet, m.MsgHdr)
		}
		if m.Opcode != int(packet[2]>>3&0xf) {
			t.Fatalf("% x: bad opcode %v", packet, m.MsgHdr)
		}
		if m.Rcode == dns.RcodeServerFailure {
			t.Fatalf("% x: SERVFAIL", packet)
		}
		if q := h.r.question; q != nil && string(out[12:12+len(q)]) != string(q) {
			t.Fatalf("% x: the question came back as % x", packet, out)
		}
	}
}

func TestMalformed(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	for _, text := range malformed {
		h.check(t, unhex(t, text))
	}
	random := rand.New(rand.NewPCG(20261123, 53))
	all := seeds(t)
	for range 20_000 {
		packet := append([]byte(nil), all[random.IntN(len(all))]...)
		for range 1 + random.IntN(6) {
			switch at := random.IntN(len(packet)); random.IntN(6) {
			case 0:
				packet[at] = byte(random.Uint32())
			case 1:
				packet[at] ^= 1 << random.IntN(8)
			case 2:
				packet = packet[:max(1, at)]
			case 3:
				packet = append(packet[:at:at], packet[at/2:]...)
			case 4:
				packet[at] = []byte{0, 0xff, 0xc0, 0x3f, 0x40, 41, 250}[random.IntN(7)]
			case 5:
				other := all[random.IntN(len(all))]
				packet = append(packet[:at:at], other[min(at, len(other)):]...)
			}
		}
		h.check(t, packet)
	}
}

// TestReaderAgrees: what another reader accepts as one plain question is
// answered as such.
func TestReaderAgrees(t *testing.T) {
	var q query
	agreed := 0
	for _, packet := range seeds(t) {
		var m dns.Msg
		if err := m.Unpack(packet); err != nil {
			continue // miekg/dns takes an empty ZONEVERSION, which is what a question has, for a fault
		}
		agreed++
		q.read(packet)
		if got, want := name(q.name[:q.nameLen]), mustName(t, m.Question[0].Name); got != want {
			t.Errorf("name %s, want %s", got, want)
		}
		if q.qtype != m.Question[0].Qtype || q.edns != (m.IsEdns0() != nil) || (q.tsigKey != nil) != (m.IsTsig() != nil) {
			t.Errorf("%v was read as %+v", m.Question[0], q)
		}
	}
	if agreed < 15 {
		t.Errorf("only %d packets were compared", agreed)
	}
}

func FuzzQuery(f *testing.F) {
	h := newHouse(f, nil)
	h.publish(example(f))
	for _, packet := range seeds(f) {
		f.Add(packet)
	}
	for _, text := range malformed {
		f.Add(unhex(f, text))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) <= maxQuery {
			h.check(t, packet)
		}
	})
}

// FuzzZoneFile: no text makes the loader fail, and whatever it accepts can be
// asked for.
func FuzzZoneFile(f *testing.F) {
	for _, c := range zoneErrors {
		f.Add(c.text)
	}
	f.Add("$ORIGIN a.example.com.\n$TTL 5m\n@ A 192.0.2.1 ; comment\n TXT ( \"a\n b\" ; x\n c )\n$GENERATE 1-3 h$ A 192.0.2.$\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 || strings.Contains(strings.ToUpper(text), "$GENERATE") && len(text) > 256 {
			return
		}
		fx := &fixture{}
		fx.zone(&pool.Zone{Name: "example.com", Records: text})
		fx.direct("web.example.com", "192.0.2.1")
		CheckZone(fx.dns.Zones[0], []pool.OwnName{{Name: "web.example.com"}})
		h := newHouse(t, nil)
		h.publish(fx)
		count := 0
		for owner, n := range h.snapshot.Load().sorted[0].nodes.all() {
			for _, s := range n.sets {
				if count++; count > 50 || s.typ == typeANY {
					continue
				}
				packet := append([]byte("\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"), owner...)
				packet = append(packet, byte(s.typ>>8), byte(s.typ), 0, 1)
				h.check(t, packet)
			}
		}
	})
}

// FuzzTransfer: no packet copies a zone that is not signed with the key, and
// none that may copy it makes the server stumble.
func FuzzTransfer(f *testing.F) {
	closed, open := newHouse(f, nil), newHouse(f, nil)
	closed.publish(transferable(example(f)))
	everybody := example(f)
	for _, z := range everybody.dns.Zones {
		z.Transfer.Allow = []pool.TransferClient{{Network: netip.PrefixFrom(client, client.BitLen())}}
	}
	open.publish(everybody)
	serial := open.snapshot.Load().sorted[0].serial
	everybody.down[netip.MustParseAddr("198.51.100.1")] = true
	open.publish(everybody)
	for _, m := range []*dns.Msg{axfr("example.com."), ixfr("example.com.", serial), ixfr("example.com.", serial+1), ixfr("example.com.", 1).SetEdns0(1232, false)} {
		packet, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
		for _, algorithm := range []string{dns.HmacSHA256, dns.HmacSHA512} {
			m.Extra = nil
			m.SetTsig("key.", algorithm, 300, time.Now().Unix())
			packet, _ := signedPacket(f, m, "another secret")
			f.Add(packet)
		}
	}
	for _, text := range malformed {
		f.Add(unhex(f, text))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) > maxQuery {
			return
		}
		for _, tcp := range []bool{false, true} {
			closed.respond(&closed.r, nil, packet, client, 0, tcp)
			if closed.r.transfer != nil {
				t.Fatalf("copied: % x", packet)
			}
			out := open.respond(&open.r, nil, packet, client, 0, tcp)
			if x := open.r.transfer; x != nil {
				open.r.transfer = nil
				e := envelope{responder: &open.r, transfer: x, tcp: tcp, many: true, size: transferMessage, send: func(message []byte) error {
					var m dns.Msg
					if err := m.Unpack(message); err != nil {
						t.Fatalf("% x: message % x: %v", packet, message, err)
					}
					return nil
				}}
				if err := e.write(); err != nil || !tcp {
					t.Fatalf("% x: %v", packet, err)
				}
			} else if out != nil {
				var m dns.Msg
				if err := m.Unpack(out); err != nil {
					t.Fatalf("% x: response % x: %v", packet, out, err)
				}
			}
		}
	})
}
