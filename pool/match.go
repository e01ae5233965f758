package pool

// A Match says which connections of a listener belong to a service, by what
// the client says first. The zero value matches none by itself: its service
// takes what no other one on the listener matches.
//
// Names are lower case, without the final dot. One that begins with "*."
// stands for every name with one or more labels in that place.
type Match struct {
	SNI  []string // server names of a TLS ClientHello
	Host []string // hosts of an HTTP request without TLS; also IP addresses, as [netip.Addr.String] writes them
	ALPN []string // with SNI: only where the client offers one of these; without: any TLS client that does
}

// IsZero reports whether m is that of a default service.
func (m *Match) IsZero() bool { return len(m.SNI) == 0 && len(m.Host) == 0 && len(m.ALPN) == 0 }

// A MatchKey is one of the things that a [Match] asks for. On one listener
// only one service can have it.
type MatchKey struct {
	Name string // of SNI or Host; empty: any server name, or with By MatchRest
	ALPN string // empty: whatever the client offers
	By   MatchBy
}

// MatchBy is what a [MatchKey] looks at.
type MatchBy uint8

const (
	MatchRest MatchBy = iota // nothing: all that no other key stands for
	MatchSNI                 // the server name and the protocols of a TLS ClientHello
	MatchHost                // the host of an HTTP request
)

// Keys returns what m asks for, MatchRest alone for the zero value.
func (m *Match) Keys() []MatchKey {
	if m.IsZero() {
		return []MatchKey{{By: MatchRest}}
	}
	var keys []MatchKey
	names := m.SNI
	if len(names) == 0 && len(m.ALPN) > 0 {
		names = []string{""}
	}
	for _, name := range names {
		if len(m.ALPN) == 0 {
			keys = append(keys, MatchKey{Name: name, By: MatchSNI})
		}
		for _, protocol := range m.ALPN {
			keys = append(keys, MatchKey{name, protocol, MatchSNI})
		}
	}
	for _, name := range m.Host {
		keys = append(keys, MatchKey{Name: name, By: MatchHost})
	}
	return keys
}

// String returns k as a person would say it: "sni *.example.com with alpn h2".
func (k MatchKey) String() string {
	switch {
	case k.By == MatchRest:
		return "all that no other service matches"
	case k.By == MatchHost:
		return "host " + k.Name
	case k.Name == "":
		return "alpn " + k.ALPN
	case k.ALPN == "":
		return "sni " + k.Name
	}
	return "sni " + k.Name + " with alpn " + k.ALPN
}
