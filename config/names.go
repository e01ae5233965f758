package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// hostname makes a rule for the name of a host or zone.
func hostname(to *string) rule { return text(to, "a hostname", parseHostname) }

// parseHostname returns s in lower case and without a final dot. Its labels
// are letters, digits, hyphens and underscores, at most 63 bytes each and 253
// together (RFC 1035 section 2.3.4).
func parseHostname(s string) (string, error) {
	name := strings.TrimSuffix(s, ".")
	switch {
	case name == "":
		return "", errors.New("want a hostname, got an empty one")
	case strings.HasPrefix(name, "*."):
		return "", fmt.Errorf("%s is a wildcard, which is not supported; list each hostname", quote(s))
	case len(name) > 253:
		return "", fmt.Errorf("%s has %d bytes; a hostname has at most 253", quote(s), len(name))
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", fmt.Errorf("%s is an address; want a hostname", quote(s))
	}
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return "", fmt.Errorf("%s is no hostname: %w", quote(s), err)
		}
	}
	return strings.ToLower(name), nil
}

func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("there is nothing between two dots")
	case len(label) > 63:
		return fmt.Errorf("the label %s has %d bytes, at most 63 are allowed", quote(label), len(label))
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Errorf("the label %s begins or ends with a hyphen", quote(label))
	}
	for _, r := range label {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
		case r >= utf8.RuneSelf:
			return fmt.Errorf("%q is not ASCII; write the name in its xn-- form", r)
		default:
			return fmt.Errorf("%q is not allowed in it", r)
		}
	}
	return nil
}

// mailbox makes a rule for the mail address of a person, user@host.
func mailbox(to *string) rule { return text(to, "a mailbox", parseMailbox) }

func parseMailbox(s string) (string, error) {
	user, host, ok := strings.Cut(s, "@")
	// The user becomes one label of the SOA record (RFC 1035 section 8).
	if !ok || user == "" || len(user) > 63 || strings.ContainsFunc(user, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),:;<>@[\]`, r)
	}) {
		return "", fmt.Errorf("%s is no mailbox; write it like hostmaster@example.com", quote(s))
	}
	host, err := parseHostname(host)
	if err != nil {
		return "", fmt.Errorf("%s is no mailbox: %w", quote(s), err)
	}
	if len(user)+len(host) > 252 {
		return "", fmt.Errorf("%s has more than 253 bytes", quote(s))
	}
	return user + "@" + host, nil
}

// name makes a rule for what services, nodes and cloud zones are called here:
// letters, digits and - . _, so that it is unmistakable in a command line.
func name(to *string) rule {
	return text(to, "a name", func(s string) (string, error) {
		switch {
		case s == "":
			return "", errors.New("want a name, got an empty one")
		case len(s) > 253:
			return "", fmt.Errorf("%s has %d bytes; a name has at most 253", quote(s), len(s))
		}
		for i, r := range s {
			if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || i > 0 && (r == '-' || r == '.' || r == '_') {
				continue
			}
			return "", fmt.Errorf("%s is no name: letters, digits and - . _ are allowed, a letter or digit first", quote(s))
		}
		return s, nil
	})
}

// words makes a rule for a string of printable characters and spaces, with at
// least one byte and at most limit.
func words(to *string, limit int) rule {
	return text(to, "a string", func(s string) (string, error) {
		switch {
		case s == "":
			return "", errors.New("is empty; leave the key out instead")
		case len(s) > limit:
			return "", fmt.Errorf("has %d bytes, at most %d are allowed", len(s), limit)
		case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\r' && r != '\t' }):
			return "", fmt.Errorf("%s has characters that cannot be printed", quote(s))
		}
		return s, nil
	})
}
