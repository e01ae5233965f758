package dnsserver

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

const (
	maxName   = 255 // octets of a name in wire form, RFC 1035 section 2.3.4
	maxLabel  = 63
	maxLabels = 127 // without the root
)

// A name is a domain name in wire form, whole and in lower case. It ends with
// the zero octet of the root and serves as a key.
type name string

const root name = "\x00"

var errLongName = errors.New("the name is longer than 255 octets")

// parseName reads a name as people write it; the final dot may be missing.
func parseName(text string) (name, error) {
	wire, err := packName(dns.Fqdn(text))
	if err != nil {
		return "", fmt.Errorf("%q is no domain name: %w", text, err)
	}
	lower(wire)
	return name(wire), nil
}

// packName returns the wire form of an absolute name, its case kept.
func packName(text string) ([]byte, error) {
	buf := make([]byte, len(text)+1) // an escape is never shorter than what it stands for
	end, err := dns.PackDomainName(text, buf, 0, nil, false)
	switch {
	case err != nil:
		return nil, err
	case end > maxName:
		return nil, errLongName
	case end == 0:
		return nil, errors.New("the name is empty")
	}
	return buf[:end], nil
}

// String returns the name as people write it, with the final dot.
func (n name) String() string {
	text, _, err := dns.UnpackDomainName([]byte(n), 0)
	if err != nil {
		return fmt.Sprintf("%q", string(n))
	}
	return text
}

// label returns the name as the rest of the program writes it: without the
// final dot, except for the root.
func (n name) label() string {
	if n == root {
		return "."
	}
	return strings.TrimSuffix(n.String(), ".")
}

// parent returns the name without its first label. The root has none.
func (n name) parent() name { return n[1+int(n[0]):] }

// labels counts the labels, the root not among them.
func (n name) labels() int {
	count := 0
	for ; n != root; n = n.parent() {
		count++
	}
	return count
}

// below reports whether n is zone or lies below it.
func (n name) below(zone name) bool {
	for len(n) > len(zone) {
		n = n.parent()
	}
	return n == zone
}

// wildcard returns the name *.n, which is too long to exist where n has more
// than 253 octets.
func (n name) wildcard() name { return "\x01*" + n }

// isWildcard reports whether the first label is an asterisk.
func (n name) isWildcard() bool { return len(n) > 2 && n[:2] == "\x01*" }

// lower folds the letters of a name in wire form. Length octets are below 64
// and so are left as they are. Only ASCII has case, RFC 4343.
func lower(wire []byte) {
	for i, c := range wire {
		if 'A' <= c && c <= 'Z' {
			wire[i] = c + 'a' - 'A'
		}
	}
}
