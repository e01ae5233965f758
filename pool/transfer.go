package pool

import (
	"fmt"
	"net/netip"
)

// Transfer says who may copy a zone and who is told that it has changed. The
// zero value: nobody.
type Transfer struct {
	Allow  []TransferClient // one that fits is enough
	Notify []Secondary      // no address stands there twice
}

// A TransferClient may copy a zone.
type TransferClient struct {
	Network netip.Prefix // where it asks from; the zero value: anywhere
	Key     string       // of the [Key] that it signs with; empty: it need not sign
}

// A Secondary is told of changes (NOTIFY, RFC 1996).
type Secondary struct {
	Address netip.AddrPort
	Key     string // of the [Key] that messages to it and from it are signed with; empty: none
}

// A Key is shared with secondaries to sign messages (TSIG, RFC 8945).
type Key struct {
	Name      string // lower case, without the final dot; unique
	Algorithm KeyAlgorithm
	Secret    Secret
}

// A Secret holds octets that nobody else may see. Whatever prints it prints
// stars.
type Secret string

const hidden = "***"

// Format is for every verb of package fmt.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(hidden)) }

// String is for package log/slog and whoever asks by hand.
func (Secret) String() string { return hidden }

// MarshalText is for encodings such as JSON.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
