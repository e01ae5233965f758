//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The zones that every server is given.
const (
	smallZone  = "bench.example"
	smallNames = 1_000
	largeZone  = "large.example"
	largeNames = 100_000

	signedZone = "signed.example" // of smallNames, with signatures by one ECDSA P-256 key
)

// A form is how a question is asked, and so what its answer is made of.
type form uint8

const (
	withEDNS      form = 1 << iota // 1232 octets and DO
	withSignature                  // the zone is signed: the answer holds that or proves
)

// zoneText is a zone with names host0, host1, ... in the form of a master file.
func zoneText(zone string, names int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN %s.\n$TTL 300\n@ SOA ns1 hostmaster 1 3600 600 1209600 300\n@ NS ns1\nns1 A 127.0.0.1\n", zone)
	for i := range names {
		a := hostAddress(i)
		fmt.Fprintf(&b, "host%d A %d.%d.%d.%d\n", i, a[0], a[1], a[2], a[3])
	}
	return b.String()
}

func hostAddress(i int) [4]byte { return [4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)} }

// A question is a query and what its answer must be.
type question struct {
	packet  []byte  // with the ID 0
	end     int     // of the question section in packet
	address [4]byte // of the one A record
	exists  bool    // else the answer is NXDOMAIN with an SOA
	signed  bool
}

// newQuestion makes the query for the A records of a name.
func newQuestion(name string, f form) question {
	p := make([]byte, 12, 64)
	p[5] = 1 // a question
	for label := range strings.SplitSeq(name, ".") {
		p = append(p, byte(len(label)))
		p = append(p, label...)
	}
	p = append(p, 0, 0, 1, 0, 1)
	end := len(p)
	if f != 0 {
		p[11] = 1
		p = append(p, 0, 0, 41, 1232>>8, 1232&0xff, 0, 0, 0x80, 0, 0, 0)
	}
	return question{packet: p, end: end, signed: f&withSignature != 0}
}

// hosts asks for count names of a zone, spread over all of it.
func hosts(zone string, names, count int, f form) []question {
	all := make([]question, count)
	for i := range all {
		n := i * 7919 % names // a prime: neighbours in time are none in the zone
		all[i] = newQuestion(fmt.Sprintf("host%d.%s", n, zone), f)
		all[i].address, all[i].exists = hostAddress(n), true
	}
	return all
}

// strangers asks for names of a zone that do not exist.
func strangers(zone string, count int, f form) []question {
	all := make([]question, count)
	for i := range all {
		all[i] = newQuestion(fmt.Sprintf("nobody%d.%s", i, zone), f)
	}
	return all
}

// verify looks at a response to q that was sent with an ID.
func (q *question) verify(id uint16, r []byte) error {
	switch {
	case len(r) < q.end || binary.BigEndian.Uint16(r) != id:
		return fmt.Errorf("a response of %d octets to the query %d is not its own", len(r), id)
	case r[2]&0x86 != 0x84: // QR and AA, without TC
		return fmt.Errorf("a response has the flags %02x%02x", r[2], r[3])
	case !bytes.Equal(r[12:q.end], q.packet[12:q.end]):
		return errors.New("a response is about another question")
	}
	rcode, answers, authority := r[3]&0xf, binary.BigEndian.Uint16(r[6:]), binary.BigEndian.Uint16(r[8:])
	one, denial := uint16(1), uint16(1) // records of an answer, and of one that there is none
	if q.signed {
		one, denial = 2, 6 // the SOA, NSEC for the name and for the wildcard, and a signature of each
	}
	if !q.exists {
		if rcode != 3 || answers != 0 || authority != denial {
			return fmt.Errorf("a name that does not exist: rcode %d with %d answers and %d records of authority", rcode, answers, authority)
		}
		return nil
	}
	if rcode != 0 || answers != one {
		return fmt.Errorf("a name that exists: rcode %d with %d answers", rcode, answers)
	}
	owner := 2 // a pointer to the name of the question, or
	if q.end < len(r) && r[q.end] < 0xc0 {
		owner = q.end - 12 - 4 // that name again
	}
	if data := r[q.end:]; len(data) < owner+14 || [4]byte(data[owner+10:]) != q.address {
		return fmt.Errorf("a response does not hold the address %v", q.address)
	}
	return nil
}
