package dnssec

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Flags of a key that signs a zone and that the parent has a DS of, RFC 4034
// section 2.1.1.
const flags = dns.ZONE | dns.SEP

// Algorithm is one of those that a key may have, by its number in DNSSEC.
type Algorithm uint8

const (
	ECDSAP256 Algorithm = 13 // RFC 6605
	Ed25519   Algorithm = 15 // RFC 8080
)

func (a Algorithm) String() string {
	switch a {
	case ECDSAP256:
		return "ecdsap256"
	case Ed25519:
		return "ed25519"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

// ParseAlgorithm is the inverse of String.
func ParseAlgorithm(s string) (Algorithm, error) {
	for _, a := range []Algorithm{ECDSAP256, Ed25519} {
		if s == a.String() {
			return a, nil
		}
	}
	return 0, fmt.Errorf("unknown algorithm %q, want one of %s, %s", s, ECDSAP256, Ed25519)
}

// A Key signs a zone. It is immutable.
type Key struct {
	Record *dns.DNSKEY // the public half
	Signer crypto.Signer
	Tag    uint16
	Times  Times

	private string // the text of its file, without the times
}

// Times say when a key plays which part. A zero time never comes.
type Times struct {
	Created  time.Time
	Publish  time.Time // from then on its DNSKEY and CDS records are in the zone
	Activate time.Time // from then on it signs
	Inactive time.Time // from then on it does not
	Delete   time.Time // from then on nothing of it is in the zone
}

// Published reports whether the DNSKEY record of the key is in the zone at now.
func (t Times) Published(now time.Time) bool {
	if came(t.Delete, now) {
		return false
	}
	return t.timeless() || came(t.Publish, now) || came(t.Activate, now)
}

// Signs reports whether the key signs at now.
func (t Times) Signs(now time.Time) bool {
	if came(t.Delete, now) || came(t.Inactive, now) {
		return false
	}
	return t.timeless() || came(t.Activate, now)
}

// Next returns the first time after now at which the key plays another part,
// zero if there is none.
func (t Times) Next(now time.Time) time.Time {
	var next time.Time
	for _, at := range []time.Time{t.Publish, t.Activate, t.Inactive, t.Delete} {
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// timeless reports whether the tool that made the key knows no times: the key
// is in use then, as dnssec-signzone has it.
func (t Times) timeless() bool {
	t.Created = time.Time{}
	return t == Times{}
}

func came(at, now time.Time) bool { return !at.IsZero() && !at.After(now) }

// Stage says in a word what the key is for at now.
func (t Times) Stage(now time.Time) string {
	switch {
	case t.Signs(now):
		return "active"
	case came(t.Delete, now):
		return "removed"
	case came(t.Inactive, now):
		return "retired"
	case t.Published(now):
		return "standby"
	}
	return "waiting"
}

// Generate makes a key of a zone at now. It is active at once, or, as a standby,
// only published.
func Generate(zone string, a Algorithm, standby bool, now time.Time) (*Key, error) {
	record := &dns.DNSKEY{
		Hdr:       dns.RR_Header{Name: dns.CanonicalName(zone), Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: TTL},
		Flags:     flags,
		Protocol:  3,
		Algorithm: uint8(a),
	}
	private, err := record.Generate(256)
	if err != nil {
		return nil, fmt.Errorf("making a key of algorithm %s: %w", a, err)
	}
	now = now.UTC().Truncate(time.Second)
	times := Times{Created: now, Publish: now, Activate: now}
	if standby {
		times.Activate = time.Time{}
	}
	return &Key{
		Record:  record,
		Signer:  private.(crypto.Signer), // as every private key of package crypto
		Tag:     record.KeyTag(),
		Times:   times,
		private: record.PrivateKeyString(private),
	}, nil
}

// TTL is that of DNSKEY, CDS and CDNSKEY records, in seconds.
const TTL = 3600

// timeFormat is that of the times in a file of a private key; they are in UTC.
const timeFormat = "20060102150405"

// fields are the times by their names in the file.
func (t *Times) fields() []timeField {
	return []timeField{
		{"Created", &t.Created}, {"Publish", &t.Publish}, {"Activate", &t.Activate},
		{"Inactive", &t.Inactive}, {"Delete", &t.Delete},
	}
}

type timeField struct {
	name string
	at   *time.Time
}

// Parse reads a key of a zone from the text of its two files. No error shows
// anything of the private half.
func Parse(zone, public, private string) (*Key, error) {
	record, err := parsePublic(zone, public)
	if err != nil {
		return nil, err
	}
	k := &Key{Record: record, Tag: record.KeyTag()}
	if err := k.parseTimes(private); err != nil {
		return nil, err
	}
	if !k.sized() {
		return nil, errors.New("the .private file holds no PrivateKey of 32 octets in base64")
	}
	read, err := record.NewPrivateKey(k.private)
	signer, ok := read.(crypto.Signer)
	if err != nil || !ok {
		return nil, errors.New("the .private file is not a private key of that algorithm in the format of BIND, version 1.2 or 1.3")
	}
	k.Signer = signer
	if err := k.try(); err != nil {
		return nil, errors.New("the .private file does not belong to the .key file: what it signs does not verify")
	}
	return k, nil
}

func parsePublic(zone, text string) (*dns.DNSKEY, error) {
	rr, err := dns.NewRR(text)
	if err != nil {
		return nil, fmt.Errorf("the .key file: %w", err)
	}
	record, ok := rr.(*dns.DNSKEY)
	switch {
	case !ok:
		return nil, errors.New("the .key file holds no DNSKEY record")
	case dns.CanonicalName(record.Hdr.Name) != dns.CanonicalName(zone):
		return nil, fmt.Errorf("it is a key of %s", record.Hdr.Name)
	case record.Algorithm != uint8(ECDSAP256) && record.Algorithm != uint8(Ed25519):
		return nil, fmt.Errorf("algorithm %d: want 13 (%s) or 15 (%s)", record.Algorithm, ECDSAP256, Ed25519)
	case record.Flags != flags:
		return nil, fmt.Errorf("flags %d: want %d, a key that signs the whole zone and that the parent has a DS of (CSK)", record.Flags, flags)
	case record.Protocol != 3:
		return nil, fmt.Errorf("protocol %d: want 3", record.Protocol)
	}
	record.Hdr.Name, record.Hdr.Ttl, record.Hdr.Class = dns.CanonicalName(zone), TTL, dns.ClassINET
	return record, nil
}

// parseTimes takes the times out of the text of a private key.
func (k *Key) parseTimes(text string) error {
	var rest strings.Builder
	fields := k.Times.fields()
lines:
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		for _, f := range fields {
			if strings.EqualFold(name, f.name) {
				at, err := time.Parse(timeFormat, strings.TrimSpace(value))
				if err != nil {
					return fmt.Errorf("the .private file: %s is no time such as %s", f.name, timeFormat)
				}
				*f.at = at
				continue lines
			}
		}
		if strings.EqualFold(name, "Revoke") {
			return errors.New("it is revoked (RFC 5011), which no parent zone needs: take its files away")
		}
		rest.WriteString(line)
	}
	k.private = rest.String()
	return nil
}

// sized reports whether the private key has the length that both algorithms
// want. Package ecdsa panics at one that is longer.
func (k *Key) sized() bool {
	for line := range strings.Lines(k.private) {
		if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "PrivateKey") {
			octets, err := base64.StdEncoding.DecodeString(strings.TrimSpace(value))
			return err == nil && len(octets) == 32
		}
	}
	return false
}

// try signs something and verifies it.
func (k *Key) try() error {
	set := []dns.RR{k.Record}
	sig := &dns.RRSIG{Algorithm: k.Record.Algorithm, KeyTag: k.Tag, SignerName: k.Record.Hdr.Name}
	if err := sig.Sign(k.Signer, set); err != nil {
		return err
	}
	return sig.Verify(k.Record, set)
}

// DS returns the record for the parent zone, with a digest of SHA-256.
func (k *Key) DS() *dns.DS { return k.Record.ToDS(dns.SHA256) }
