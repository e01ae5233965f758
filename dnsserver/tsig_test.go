package dnsserver

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestSignatures is the table of RFC 8945 section 5.2: what becomes of a query
// whose signature is wrong in one way, by UDP and TCP and for any type.
func TestSignatures(t *testing.T) {
	now := time.Now().Unix()
	for name, c := range map[string]struct {
		key, algorithm, secret string
		time                   int64
		tamper                 func(packet []byte, m *dns.Msg) []byte
		rcode                  int
		tsig                   int // error in the TSIG record; -1: there is none
		signed                 bool
	}{
		"good":                       {rcode: dns.RcodeSuccess, signed: true},
		"clock 299 s behind":         {time: now - 299, rcode: dns.RcodeSuccess, signed: true},
		"another secret":             {secret: "wrong", rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadSig},
		"a key that is not known":    {key: "nobody.", rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadKey},
		"another algorithm":          {algorithm: dns.HmacSHA512, rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadKey},
		"an algorithm of old":        {algorithm: dns.HmacSHA1, rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadKey},
		"clock an hour behind":       {time: now - 3600, rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadTime, signed: true},
		"clock an hour ahead":        {time: now + 3600, rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadTime, signed: true},
		"an hour behind, another's":  {time: now - 3600, secret: "wrong", rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadSig},
		"the question was changed":   {tamper: func(p []byte, _ *dns.Msg) []byte { p[13] ^= 1; return p }, rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadSig},
		"the flags were changed":     {tamper: func(p []byte, _ *dns.Msg) []byte { p[2] ^= 1; return p }, rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadSig},
		"the MAC was changed":        {tamper: func(p []byte, _ *dns.Msg) []byte { p[len(p)-10] ^= 1; return p }, rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadSig},
		"the time was changed":       {tamper: func(p []byte, _ *dns.Msg) []byte { p[len(p)-6-32-5] ^= 1; return p }, rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadSig},
		"the error was changed":      {tamper: func(p []byte, _ *dns.Msg) []byte { p[len(p)-3] ^= 1; return p }, rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadSig},
		"forwarded with another id":  {tamper: func(p []byte, _ *dns.Msg) []byte { p[0] ^= 1; return p }, rcode: dns.RcodeSuccess, signed: true},
		"the MAC is cut to 16":       {tamper: cutMAC(16), rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadTrunc, signed: true},
		"the MAC is cut to 31":       {tamper: cutMAC(31), rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadTrunc, signed: true},
		"the MAC is cut and changed": {tamper: func(p []byte, m *dns.Msg) []byte { p = cutMAC(16)(p, m); p[len(p)-10] ^= 1; return p }, rcode: dns.RcodeNotAuth, tsig: dns.RcodeBadSig},
		"the MAC is cut to 15":       {tamper: cutMAC(15), rcode: dns.RcodeFormatError, tsig: -1},
		"the MAC is cut to nothing":  {tamper: cutMAC(0), rcode: dns.RcodeFormatError, tsig: -1},
		"the MAC is longer":          {tamper: cutMAC(33), rcode: dns.RcodeFormatError, tsig: -1},
		"the class is IN":            {tamper: func(p []byte, _ *dns.Msg) []byte { p[bytes.LastIndex(p, []byte("\x00\xfa\x00\xff"))+3] = 1; return p }, rcode: dns.RcodeFormatError, tsig: -1},
		"the record is cut":          {tamper: cutRecord, rcode: dns.RcodeFormatError, tsig: -1},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, nil)
			h.publish(exampleTransfers(t))
			for _, tcp := range []bool{false, true} {
				for _, m := range []*dns.Msg{
					question(t, "www.example.com A"), question(t, "nothing.example.com TXT"), question(t, "example.com SOA"), question(t, "example.net A"),
					ixfr("example.com.", h.snapshot.Load().sorted[1].serial), axfr("example.com."), question(t, "www.example.com A").SetEdns0(1232, false),
				} {
					m.Id = 4711
					key, algorithm, secret, at := "key.", dns.HmacSHA256, keySecret, now
					if c.key != "" {
						key = c.key
					}
					if c.algorithm != "" {
						algorithm = c.algorithm
					}
					if c.secret != "" {
						secret = c.secret
					}
					if c.time != 0 {
						at = c.time
					}
					m.SetTsig(key, algorithm, 300, at)
					packet, mac := signedPacket(t, m, secret)
					if c.tamper != nil {
						packet = c.tamper(packet, m)
						mac = mac[:min(len(mac), 2*macSize(packet))] // that of the response covers what was sent
					}
					given := string(packet)
					out := h.respond(&h.r, nil, packet, client, 0, tcp)
					if string(packet) != given {
						t.Error("the packet was written to")
					}
					if h.r.transfer != nil { // good, and the whole zone follows
						if c.rcode != dns.RcodeSuccess {
							t.Error("the zone is sent")
						}
						continue
					}
					var a dns.Msg
					if err := a.Unpack(out); err != nil {
						t.Fatal(err)
					}
					rcode := c.rcode
					if q := m.Question[0]; rcode == dns.RcodeSuccess && (q.Name == "example.net." || q.Qtype == dns.TypeAXFR) {
						rcode = dns.RcodeRefused // for reasons of its own
					} else if rcode == dns.RcodeSuccess && q.Name == "nothing.example.com." {
						rcode = a.Rcode
					}
					if a.Rcode != rcode || c.rcode != dns.RcodeSuccess && len(a.Answer)+len(a.Ns) > 0 {
						t.Fatalf("tcp %t: got %v", tcp, &a)
					}
					sig := a.IsTsig()
					if c.tsig < 0 {
						if sig != nil {
							t.Errorf("got %v", sig)
						}
						continue
					}
					if sig == nil || int(sig.Error) != c.tsig || (sig.MAC != "") != c.signed || sig.Hdr.Name != key || sig.Algorithm != algorithm ||
						sig.Hdr.Class != dns.ClassANY || sig.Hdr.Ttl != 0 || sig.OrigId != a.Id || a.Id != binary.BigEndian.Uint16(packet) {
						t.Fatalf("got %v", sig)
					}
					if c.tsig == dns.RcodeBadTime {
						// RFC 8945 section 5.2.3: the client's time, and the server's beside it.
						other, err := hex.DecodeString(sig.OtherData)
						if err != nil || len(other) != 6 || sig.TimeSigned != uint64(c.time) {
							t.Fatalf("got %v", sig)
						}
						if d := time.Now().Unix() - int64(binary.BigEndian.Uint64(append([]byte{0, 0}, other...))); d < 0 || d > 60 {
							t.Errorf("the time of the server is %d s off", d)
						}
					}
					if c.signed {
						verify(t, out, sig, mac)
					}
				}
			}
		})
	}
}

// verify checks the signature of a response by RFC 8945 section 4.3, from what
// another reader made of it.
func verify(t *testing.T, out []byte, sig *dns.TSIG, requestMAC string) {
	t.Helper()
	prior, err := hex.DecodeString(requestMAC)
	if err != nil {
		t.Fatal(err)
	}
	message := bytes.Clone(out[:bytes.LastIndex(out, []byte("\x03key\x00\x00\xfa"))])
	binary.BigEndian.PutUint16(message[10:], binary.BigEndian.Uint16(message[10:])-1)
	h := hmac.New(sha256.New, []byte(keySecret))
	h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(prior))))
	h.Write(prior)
	h.Write(message)
	h.Write([]byte("\x03key\x00\x00\xff\x00\x00\x00\x00\x0bhmac-sha256\x00"))
	h.Write(binary.BigEndian.AppendUint64(nil, sig.TimeSigned)[2:])
	for _, n := range []uint16{sig.Fudge, sig.Error, sig.OtherLen} {
		h.Write(binary.BigEndian.AppendUint16(nil, n))
	}
	other, err := hex.DecodeString(sig.OtherData)
	if err != nil {
		t.Fatal(err)
	}
	h.Write(other)
	if want := hex.EncodeToString(h.Sum(nil)); sig.MAC != want {
		t.Errorf("the MAC is %s, want %s", sig.MAC, want)
	}
}

// macAt is where the size of the MAC stands.
func macAt(packet []byte) int {
	return bytes.LastIndex(packet, []byte("\x00\x00\xfa\x00\xff")) + 11 + len("\x0bhmac-sha256\x00") + 8
}

func macSize(packet []byte) int { return int(binary.BigEndian.Uint16(packet[macAt(packet):])) }

// cutMAC gives the MAC another length.
func cutMAC(size int) func([]byte, *dns.Msg) []byte {
	return func(p []byte, _ *dns.Msg) []byte {
		at, was := macAt(p), macSize(p)
		length := p[bytes.LastIndex(p, []byte("\x00\x00\xfa\x00\xff"))+9:]
		binary.BigEndian.PutUint16(length, binary.BigEndian.Uint16(length)+uint16(size)-uint16(was))
		binary.BigEndian.PutUint16(p[at:], uint16(size))
		mac := append(bytes.Clone(p[at+2:at+2+was]), make([]byte, 64)...)[:size]
		return slices.Concat(p[:at+2], mac, p[at+2+was:])
	}
}

// cutRecord takes the last octet of the data away, and from its length.
func cutRecord(p []byte, _ *dns.Msg) []byte {
	at := bytes.LastIndex(p, []byte("\x00\xfa\x00\xff")) + 8
	binary.BigEndian.PutUint16(p[at:], binary.BigEndian.Uint16(p[at:])-1)
	return p[:len(p)-1]
}
