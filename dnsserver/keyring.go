package dnsserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

const (
	// validity is how long a signature lasts. A part of it, by chance, is taken
	// off, so that those that were made together are not renewed together.
	validity     = 7 * 24 * time.Hour
	validitySpan = 24 * time.Hour

	// overdue is how much of its life a signature should never be down to: it is
	// renewed at the half.
	overdue = validity / 4

	// backdate is how long before it is made a signature begins to be valid:
	// for clocks that are late. By chance it is up to twice that.
	backdate = time.Hour

	// maxSigning is how many keys may sign at the same time: the old and the new
	// one of a rollover.
	maxSigning = 2
)

// A keyring is the keys of a zone as they stand at one moment. It is immutable.
type keyring struct {
	*signers
	keys  []*dnssec.Key // all whose records are in the zone
	sets  []rrset       // DNSKEY, CDS and CDNSKEY of the apex, not signed
	until time.Time     // when a key begins to play another part; zero: never
}

// signers are the keys that sign. They stay the same value as long as the keys
// do, so that a signature tells by the pointer whether it is by them.
type signers struct {
	apex string // with the final dot
	keys []*dnssec.Key
}

// newKeyring makes the keyring of a zone at now, nil if it is not to be signed.
// Where there are findings, it is good for nothing until something changes. Where
// before has the same keys, its signers are taken over.
func newKeyring(apex name, conf *pool.DNSSEC, before *keyring, now time.Time) (*keyring, []finding) {
	if conf.Folder == "" {
		return nil, nil
	}
	var findings []finding
	fault := func(file, format string, args ...any) {
		findings = append(findings, finding{file: file, message: fmt.Sprintf(format, args...)})
	}
	r := &keyring{signers: &signers{apex: apex.String()}}
	byTag := make(map[[2]uint16]string)
	for _, f := range conf.Keys {
		k, err := dnssec.Parse(apex.String(), f.Public, string(f.Private))
		if err != nil {
			fault(f.Path, "%v", err)
			continue
		}
		id := [2]uint16{uint16(k.Record.Algorithm), k.Tag}
		if first, doubled := byTag[id]; doubled {
			fault(f.Path, "has algorithm and tag in common with %s: make another key", first)
			continue
		}
		byTag[id] = f.Path
		if next := k.Times.Next(now); !next.IsZero() && (r.until.IsZero() || next.Before(r.until)) {
			r.until = next
		}
		if k.Times.Published(now) {
			r.keys = append(r.keys, k)
		}
		if k.Times.Signs(now) {
			r.signers.keys = append(r.signers.keys, k)
		}
	}
	if len(findings) == 0 {
		r.judge(conf.Folder, fault)
	}
	if len(findings) > 0 {
		return r, findings
	}
	if before != nil && before.signers.same(r.signers) {
		r.signers = before.signers
	}
	r.publish(conf.CDS)
	return r, nil
}

// judge finds what is wrong between the keys.
func (r *keyring) judge(folder string, fault func(file, format string, args ...any)) {
	zone := strings.TrimSuffix(r.apex, ".")
	switch signing := len(r.signers.keys); {
	case signing == 0:
		fault("", "no key of %s in %s is active now: see them with elbow dnssec ds, or make one with elbow dnssec keygen", zone, folder)
		return
	case signing > maxSigning:
		fault("", "%d keys of %s in %s are active: at most %d may be, in a change of the algorithm", signing, zone, folder, maxSigning)
		return
	}
	for _, k := range r.keys {
		// RFC 4035 section 2.2: each algorithm among the keys signs everything.
		if !slices.ContainsFunc(r.signers.keys, func(s *dnssec.Key) bool { return s.Record.Algorithm == k.Record.Algorithm }) {
			fault("", "%s is published and no key of its algorithm is active: activate it together with the old one to change the algorithm", k.Name())
		}
	}
}

// publish makes the records about the keys.
func (r *keyring) publish(action pool.CDS) {
	var keys, cds, cdnskey [][]byte
	for _, k := range r.keys {
		keys = append(keys, packedData(k.Record))
		cds = append(cds, packedData(k.DS()))
	}
	cdnskey = keys
	if action == pool.CDSWithdraw { // RFC 8078 section 4
		cds, cdnskey = [][]byte{{0, 0, 0, 0, 0}}, [][]byte{{0, 0, 3, 0, 0}}
	}
	r.sets = []rrset{newSet(dns.TypeDNSKEY, dnssec.TTL, keys...)}
	if action != pool.CDSOff {
		r.sets = append(r.sets, newSet(dns.TypeCDS, dnssec.TTL, cds...), newSet(dns.TypeCDNSKEY, dnssec.TTL, cdnskey...))
	}
}

// packedData is the data of a record that was made here and fits.
func packedData(rr dns.RR) []byte {
	buf := make([]byte, dns.Len(rr)+maxName)
	end, err := dns.PackRR(rr, buf, 0, nil, false)
	owner, ok := skipName(buf, 0)
	if err != nil || !ok {
		return nil
	}
	return buf[owner+10 : end]
}

// equal reports whether both rings lead to the same records.
func (r *keyring) equal(other *keyring) bool {
	if r == nil || other == nil {
		return r == other
	}
	return r.signers == other.signers && slices.EqualFunc(r.sets, other.sets, func(a, b rrset) bool { return a.same(&b) })
}

func (s *signers) same(other *signers) bool {
	return s.apex == other.apex && slices.EqualFunc(s.keys, other.keys, func(a, b *dnssec.Key) bool {
		return a.Record.Algorithm == b.Record.Algorithm && a.Record.PublicKey == b.Record.PublicKey
	})
}

// A signature is the RRSIG records of an rrset, one of each signer. It is
// immutable.
type signature struct {
	by    *signers
	wire  []byte // as that of an rrset
	count int

	// Unix seconds.
	inception, expiration int64
}

// renewal is the time from which on the signature is to be replaced.
func (s *signature) renewal() int64 { return s.inception + (s.expiration-s.inception)/2 }

// fresh reports whether the signature is one by these keys and needs no renewal
// at now. After the clock was set back it may not be valid yet.
func (s *signature) fresh(by *signers, now time.Time) bool {
	return s != nil && s.by == by && s.inception <= now.Unix() && now.Unix() < s.renewal()
}

// usable reports whether the signature may wait for its renewal.
func (s *signature) usable(by *signers, now time.Time) bool {
	return s != nil && s.by == by && s.inception <= now.Unix() &&
		now.Unix() < s.urgent()
}

// urgent is the time at which a quarter of its life is left.
func (s *signature) urgent() int64 { return s.expiration - (s.expiration-s.inception)/4 }

// lasting returns the signature of the same set with a lower TTL. It
// covers what the TTL was when it was made, RFC 4035 section 2.2.
func (s *signature) lasting(ttl uint32) *signature {
	out := *s
	out.wire = slices.Clone(s.wire)
	for at := 0; at < len(out.wire); {
		binary.BigEndian.PutUint32(out.wire[at+6:], ttl)
		at += headerLen + int(binary.BigEndian.Uint16(out.wire[at+10:]))
	}
	return &out
}

var errUnverified = errors.New("a signature that was just made does not verify")

// sign makes the signature of a set, and verifies it.
func (s *signers) sign(owner name, set *rrset, now time.Time) (*signature, error) {
	rrs, err := set.unpack(owner)
	if err != nil {
		return nil, fmt.Errorf("signing %s of %s: %w", dns.Type(set.typ), owner, err)
	}
	if text := rrs[0].Header().Name; strings.HasPrefix(text, "*") && !strings.HasPrefix(text, "*.") {
		// An asterisk beside other octets is no wildcard, RFC 4592 section 2.1.1,
		// but for the codec, unless it is written as a number.
		for _, rr := range rrs {
			rr.Header().Name = `\042` + text[1:]
		}
	}
	inception := now.Add(-backdate - rand.N(backdate)).Unix()
	expiration := now.Add(validity - rand.N(validitySpan)).Unix()
	out := &signature{by: s, inception: inception, expiration: expiration}
	for _, k := range s.keys {
		sig := &dns.RRSIG{
			Hdr:        dns.RR_Header{Ttl: set.ttl},
			Algorithm:  k.Record.Algorithm,
			Inception:  uint32(inception), // RFC 4034 section 3.1.5: as a serial
			Expiration: uint32(expiration),
			KeyTag:     k.Tag,
			SignerName: s.apex,
		}
		if err := sig.Sign(k.Signer, rrs); err != nil {
			return nil, fmt.Errorf("signing %s of %s: %w", dns.Type(set.typ), owner, err)
		}
		if err := sig.Verify(k.Record, rrs); err != nil {
			return nil, fmt.Errorf("signing %s of %s: %w", dns.Type(set.typ), owner, errUnverified)
		}
		out.wire = appendRecord(out.wire, dns.TypeRRSIG, set.ttl, packedData(sig))
		out.count++
	}
	return out, nil
}

// unpack returns the records of the set in the form of the codec.
func (s *rrset) unpack(owner name) ([]dns.RR, error) {
	var out []dns.RR
	wire := s.wire
	for range s.count {
		end := headerLen + int(binary.BigEndian.Uint16(wire[10:]))
		rr, _, err := dns.UnpackRR(slices.Concat([]byte(owner), wire[2:end]), 0)
		if err != nil {
			return nil, err
		}
		out, wire = append(out, rr), wire[end:]
	}
	return out, nil
}
