package dnsserver

import (
	"context"
	"crypto"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

// A signedHouse is a Server of one signed zone that runs in a bubble.
type signedHouse struct {
	*house
	t    *testing.T
	f    *fixture
	zone *pool.Zone
}

// inSignedHouse runs a test in a bubble in which a Server without sockets runs.
func inSignedHouse(t *testing.T, keys func() []pool.KeyFile, test func(*signedHouse)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{down: make(map[netip.Addr]bool)}
		z := f.zone(&pool.Zone{Name: "example.com", Records: ns + "www A 192.0.2.1\n*.w A 192.0.2.2\nent.x A 192.0.2.3\n"})
		z.DNSSEC = pool.DNSSEC{Folder: "keys", Keys: keys()}
		f.direct("web.example.com", "198.51.100.1", "198.51.100.2")
		h := &signedHouse{house: &house{}, t: t, f: f, zone: z}
		h.Server = New(Options{Table: new(pool.Publisher), Log: slog.New(slog.NewTextHandler(&h.log, nil))})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		h.change()
		test(h)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// change brings a new Table into force.
func (h *signedHouse) change() {
	h.table.Publish(h.f.table())
	synctest.Wait()
}

// rekey replaces the keys, as a reload does.
func (h *signedHouse) rekey(keys ...pool.KeyFile) {
	z := *h.zone
	z.DNSSEC.Keys = keys
	h.zone, h.f.dns.Zones = &z, []*pool.Zone{&z}
	h.change()
}

// check validates some of every kind of answer with the keys that the zone has
// now and returns the tags of keys by what they do.
func (h *signedHouse) check() (published, signing map[uint16]bool) {
	h.t.Helper()
	v := h.validatorOf(h.t, "example.com")
	published, signing = make(map[uint16]bool), make(map[uint16]bool)
	for _, k := range v.keys {
		published[k.KeyTag()] = true
	}
	for _, owner := range []string{"example.com", "www.example.com", "web.example.com", "any.w.example.com", "x.example.com", "nothing.example.com"} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeSOA, dns.TypeDNSKEY} {
			m := h.askSigned(h.t, owner, typ)
			if err := v.judge(m); err != nil {
				h.t.Fatalf("at %v: %s %s: %v\n%v\n%s", time.Now(), owner, dns.Type(typ), err, m, h.log.String())
			}
			for _, sig := range only[*dns.RRSIG](append(m.Answer, m.Ns...)) {
				signing[sig.KeyTag] = true
			}
		}
	}
	return published, signing
}

func oneKey(t *testing.T, a dnssec.Algorithm) func() []pool.KeyFile {
	return func() []pool.KeyFile { return []pool.KeyFile{keyFile(t, "example.com", a, nil)} }
}

func (h *signedHouse) counts() *zoneCounts { return h.snapshot.Load().sorted[0].counts }

// TestSignaturesAreRenewed: for a month, no answer is older than it may be, and
// renewing is rare.
func TestSignaturesAreRenewed(t *testing.T) {
	inSignedHouse(t, oneKey(t, dnssec.ECDSAP256), func(h *signedHouse) {
		first := h.serialOf(t, "example.com")
		for range 4 * 30 {
			time.Sleep(6 * time.Hour)
			h.check()
			if left := time.Until(time.Unix(h.snapshot.Load().sorted[0].signed.end, 0)); left < overdue {
				t.Fatalf("a signature ends in %v", left)
			}
		}
		serial := h.serialOf(t, "example.com")
		if n := int32(serial - first); n < 8 || n > 60 {
			t.Errorf("%d serials in 30 days", n)
		}
	})
}

// shift makes all static signatures as if they had been made that many seconds
// later.
func (h *signedHouse) shift(seconds int64) {
	z := h.snapshot.Load().sorted[0]
	for _, n := range z.nodes.all() {
		for i := range n.sets {
			if sig := n.sets[i].sig; sig != nil {
				sig.inception += seconds
				sig.expiration += seconds
			}
		}
	}
	for _, s := range []*span{&z.signed.static.span, &z.signed.span} {
		s.begin, s.oldest = s.begin+seconds, s.oldest+seconds
		s.renewal, s.urgent, s.end = s.renewal+seconds, s.urgent+seconds, s.end+seconds
	}
}

// TestTheClockIsSet: after a jump of the clock there is no signature that is not
// valid, at once for a jump, at the next look without a change.
func TestTheClockIsSet(t *testing.T) {
	inSignedHouse(t, oneKey(t, dnssec.Ed25519), func(h *signedHouse) {
		// The clock of a bubble only goes on. To have made everything later or
		// earlier is the same.
		for name, shift := range map[string]time.Duration{"forward": -30 * 24 * time.Hour, "back": 5 * time.Hour} {
			h.requests <- func(*builder) { h.shift(int64(shift / time.Second)) } // nobody else may be there
			synctest.Wait()
			before := h.counts().signed.Load()
			if name == "back" {
				h.f.down[netip.MustParseAddr("198.51.100.1")] = !h.f.down[netip.MustParseAddr("198.51.100.1")]
				h.change()
			} else {
				time.Sleep(2 * renewEvery)
			}
			synctest.Wait()
			z := h.snapshot.Load().sorted[0]
			if z.signed.due(time.Now()) {
				t.Errorf("%s: a signature is due", name)
			}
			for _, owner := range z.signed.chain.names {
				for _, set := range z.node(owner).sets {
					if set.sig == nil || !set.sig.usable(z.signed.ring.signers, time.Now()) {
						t.Errorf("%s: %s of %s has the signature %+v", name, dns.Type(set.typ), owner, set.sig)
					}
				}
			}
			if h.counts().signed.Load() == before && name == "back" {
				t.Errorf("%s: nothing was signed", name)
			}
			h.check()
		}
	})
}

// TestFlapsReuseSignatures: a state that comes back costs one signature, that of
// the SOA, as long as the old ones are young.
func TestFlapsReuseSignatures(t *testing.T) {
	inSignedHouse(t, oneKey(t, dnssec.ECDSAP256), func(h *signedHouse) {
		flap := func() uint64 {
			before := h.counts().signed.Load()
			a := netip.MustParseAddr("198.51.100.1")
			h.f.down[a] = !h.f.down[a]
			h.change()
			h.check()
			return h.counts().signed.Load() - before
		}
		if n := flap(); n != 2 {
			t.Errorf("the first change made %d signatures, want those of A and SOA", n)
		}
		for range 10 {
			if n := flap(); n != 1 {
				t.Errorf("a state that came back made %d signatures, want that of the SOA", n)
			}
		}
		// Without addresses the NSEC record changes too.
		h.f.down[netip.MustParseAddr("198.51.100.1")], h.f.down[netip.MustParseAddr("198.51.100.2")] = true, true
		before := h.counts().signed.Load()
		h.change()
		if n := h.counts().signed.Load() - before; n != 2 {
			t.Errorf("the last backend down made %d signatures, want those of NSEC and SOA", n)
		}
		if m := h.askSigned(t, "web.example.com", dns.TypeA); len(m.Answer) != 0 || h.validatorOf(t, "example.com").judge(m) != nil {
			t.Errorf("without a backend: %v", m)
		}
	})
}

// TestRollover is the one of docs/dnssec.md: a standby, the change, the end of the
// old key.
func TestRollover(t *testing.T) {
	var old, new *dnssec.Key
	inSignedHouse(t, func() []pool.KeyFile {
		old = must(dnssec.Generate("example.com", dnssec.ECDSAP256, false, time.Now()))
		return []pool.KeyFile{fileOf(t, old)}
	}, func(h *signedHouse) {
		expect := func(published, signing string) {
			t.Helper()
			p, s := h.check()
			say := func(tags map[uint16]bool) string {
				var out []string
				if tags[old.Tag] {
					out = append(out, "old")
				}
				if new != nil && tags[new.Tag] {
					out = append(out, "new")
				}
				return strings.Join(out, " ")
			}
			if say(p) != published || say(s) != signing {
				t.Fatalf("published %s, signing %s; want %s and %s\n%s", say(p), say(s), published, signing, h.log.String())
			}
			cds := only[*dns.CDS](h.askSigned(t, "example.com", dns.TypeCDS).Answer)
			if len(cds) != len(p) {
				t.Errorf("%d CDS for %d keys", len(cds), len(p))
			}
		}
		expect("old", "old")
		new = must(dnssec.Generate("example.com", dnssec.ECDSAP256, true, time.Now()))
		before := h.counts().signed.Load()
		h.rekey(fileOf(t, old), fileOf(t, new))
		expect("old new", "old")
		if n := h.counts().signed.Load() - before; n != 4 {
			t.Errorf("a standby cost %d signatures, want those of DNSKEY, CDS, CDNSKEY and SOA", n)
		}
		// By times in the files, without a reload.
		at := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
		new.Times.Activate, old.Times.Inactive, old.Times.Delete = at, at, at.Add(time.Hour)
		h.rekey(fileOf(t, old), fileOf(t, new))
		expect("old new", "old")
		time.Sleep(47 * time.Hour)
		expect("old new", "old")
		time.Sleep(time.Hour + 2*renewEvery)
		expect("old new", "new")
		time.Sleep(time.Hour)
		expect("new", "new")
		// What the keys cannot do is refused, and the zone stays as it is.
		new.Times.Inactive = time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
		h.rekey(fileOf(t, new))
		expect("new", "new")
		if !strings.Contains(h.log.String(), "is active now") {
			t.Error(h.log.String())
		}
	})
}

// TestAlgorithmRollover: both algorithms sign while both are published.
func TestAlgorithmRollover(t *testing.T) {
	var old pool.KeyFile
	inSignedHouse(t, func() []pool.KeyFile {
		old = keyFile(t, "example.com", dnssec.ECDSAP256, nil)
		return []pool.KeyFile{old}
	}, func(h *signedHouse) {
		standby := keyFile(t, "example.com", dnssec.Ed25519, func(times *dnssec.Times) { times.Activate = time.Time{} })
		h.rekey(old, standby)
		if p, _ := h.check(); len(p) != 1 || !strings.Contains(h.log.String(), "no key of its algorithm is active") {
			t.Errorf("%d keys are published: %s", len(p), h.log.String())
		}
		new := keyFile(t, "example.com", dnssec.Ed25519, nil)
		h.rekey(old, new)
		synctest.Wait()
		if p, s := h.check(); len(p) != 2 || len(s) != 2 {
			t.Errorf("%d keys are published, %d sign", len(p), len(s))
		}
		m := h.askSigned(t, "www.example.com", dns.TypeA)
		if n := len(only[*dns.RRSIG](m.Answer)); n != 2 {
			t.Errorf("%d signatures, want one of each algorithm", n)
		}
		h.rekey(new)
		synctest.Wait()
		if p, s := h.check(); len(p) != 1 || len(s) != 1 {
			t.Errorf("%d keys are published, %d sign", len(p), len(s))
		}
	})
}

// TestSigningOnAndOff: a zone becomes signed, asks its parent to forget it, and
// is not signed again.
func TestSigningOnAndOff(t *testing.T) {
	inSignedHouse(t, oneKey(t, dnssec.ECDSAP256), func(h *signedHouse) {
		z := *h.zone
		z.DNSSEC.CDS = pool.CDSWithdraw
		h.zone, h.f.dns.Zones = &z, []*pool.Zone{&z}
		h.change()
		h.check()
		cds := h.askSigned(t, "example.com", dns.TypeCDS).Answer[0].(*dns.CDS)
		key := h.askSigned(t, "example.com", dns.TypeCDNSKEY).Answer[0].(*dns.CDNSKEY)
		if cds.KeyTag != 0 || cds.Algorithm != 0 || cds.DigestType != 0 || cds.Digest != "00" || key.Flags != 0 || key.Protocol != 3 || key.Algorithm != 0 || key.PublicKey != "AA==" {
			t.Errorf("%v and %v are not those of RFC 8078 section 4", cds, key)
		}
		signed := h.zone.DNSSEC
		for _, off := range []bool{true, false} {
			z := *h.zone
			z.DNSSEC = signed
			if off {
				z.DNSSEC = pool.DNSSEC{}
			}
			h.f.dns.Zones = []*pool.Zone{&z}
			h.change()
			m := h.askSigned(t, "www.example.com", dns.TypeA)
			if n := len(only[*dns.RRSIG](m.Answer)); n > 0 == off || len(only[*dns.A](m.Answer)) != 1 {
				t.Errorf("off %v: %v", off, m)
			}
		}
		h.check()
	})
}

// A liar signs what does not verify.
type liar struct{ crypto.Signer }

func (l liar) Sign(random io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	wrong := append([]byte(nil), digest...)
	wrong[0] ^= 1
	return l.Signer.Sign(random, wrong, o)
}

// TestWhatDoesNotVerifyIsNotPublished: the old answers stay until it does.
func TestWhatDoesNotVerifyIsNotPublished(t *testing.T) {
	f := &fixture{down: make(map[netip.Addr]bool)}
	z := f.zone(&pool.Zone{Name: "example.com", Records: ns})
	z.DNSSEC = pool.DNSSEC{Folder: "keys", Keys: []pool.KeyFile{keyFile(t, z.Name, dnssec.ECDSAP256, nil)}}
	f.direct("web.example.com", "198.51.100.1", "198.51.100.2")
	h := newHouse(t, nil)
	h.publish(f)
	before := h.snapshot.Load().sorted[0]
	key := before.signed.ring.signers.keys[0]
	honest := key.Signer
	key.Signer = liar{honest}
	f.down[netip.MustParseAddr("198.51.100.1")] = true
	for range 3 {
		h.publish(f)
	}
	if now := h.snapshot.Load().sorted[0]; now != before {
		t.Error("a zone was published that does not verify")
	}
	if n := strings.Count(h.log.String(), "cannot be signed"); n != 1 || h.counts.unsigned.Load() != 3 {
		t.Errorf("%d lines, %d failures: %s", n, h.counts.unsigned.Load(), h.log.String())
	}
	key.Signer = honest
	h.builder.look(t.Context(), time.Now())
	m := h.askSigned(t, "web.example.com", dns.TypeA)
	if len(only[*dns.A](m.Answer)) != 1 || h.validatorOf(t, "example.com").judge(m) != nil {
		t.Errorf("after the key is well again: %v", m)
	}
	if !strings.Contains(h.log.String(), "signed again") {
		t.Error(h.log.String())
	}

	// One that never could be signed is not answered unsigned.
	fresh := newHouse(t, nil)
	z.DNSSEC.Keys[0].Private = "Private-key-format: v1.3\n"
	fresh.publish(f)
	if err := fresh.Serving(); err == nil || !strings.Contains(err.Error(), "example.com is not loaded") {
		t.Errorf("serving: %v", err)
	}
}
