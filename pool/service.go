package pool

import (
	"net/netip"
	"time"
)

// A Set is everything that ought to be served, complete and free of
// contradictions: no hostname belongs to two services, and no [MatchKey] of
// one listener.
// It is immutable once it has been handed on.
type Set struct {
	Host     Host
	DNS      DNS
	Services []*Service // sorted by Name, which is unique
}

// Host is the machine that elbow runs on.
type Host struct {
	Name      string
	Addresses []netip.Addr // the public ones: what Proxied services are answered with

	// Withheld are those that must not be answered with now, as they may be
	// another host's. None of them is among Addresses.
	Withheld []netip.Addr
}

// Silent reports whether there is no address left to answer Proxied services
// with. Who asks is told that this server cannot say, and asks another one: that
// there is no address would be a lie, and cached.
func (h Host) Silent() bool { return len(h.Addresses) == 0 && len(h.Withheld) > 0 }

// DNS says where names are answered and which.
type DNS struct {
	Listen    []netip.AddrPort // UDP and TCP on each
	Zones     []*Zone          // sorted by Name, which is unique
	RateLimit RateLimit
	Keys      []Key          // that secondaries share with this server
	Cookies   []CookieSecret // the first makes cookies, all are accepted; none: a host has its own
	NSID      string         // what clients are told who ask which server answers, RFC 5001; empty: nothing

	// TrustECS are the resolvers that may say for whose subnet they ask, RFC 7871;
	// empty: all.
	TrustECS []netip.Prefix
	QueryLog QueryLog
	Dnstap   Dnstap
	Top      bool // what is asked most is kept for a few minutes
}

// A CookieSecret is a secret of DNS cookies that several servers of one
// address share, RFC 9018. It does not show itself when it is printed.
type CookieSecret [16]byte

func (CookieSecret) String() string { return "secret" }

// GoString is for the verb %#v.
func (CookieSecret) GoString() string { return "secret" }

// RateLimit bounds the UDP responses for one client prefix (an IPv4 /24, an
// IPv6 /56). The zero value limits nothing.
type RateLimit struct {
	PerSecond int            // responses a second; 0: no limit
	Slip      int            // every Slip-th response over the limit leaves truncated; 0: none does
	Exempt    []netip.Prefix // clients that are never limited
}

// A Zone is one zone of authority. Values are immutable; whoever derives
// something costly from a Zone may key it by the pointer.
type Zone struct {
	Name        string // lower case, without the final dot
	Hostmaster  string // a mailbox, user@host
	NameServers []NameServer
	TTL         ZoneTTL
	File        string // path of an RFC 1035 master file, empty: none
	Records     string // that file's text as it was when the Set was made
	Transfer    Transfer
	DNSSEC      DNSSEC
}

// A NameServer is one NS record of a zone and, where its name lies inside the
// zone, its address records.
type NameServer struct {
	Name      string // lower case, without the final dot
	Addresses []netip.Addr
}

// ZoneTTL holds the times that answers of a zone may be cached, whole seconds.
type ZoneTTL struct {
	Normal   time.Duration // in calm
	Degraded time.Duration // while a backend's state could flip, see [Pool.Lifetime]
	Negative time.Duration // NXDOMAIN and NODATA, RFC 2308
}

// A Service is what users see under one name, with the full set of its
// endpoints. Values are immutable.
type Service struct {
	Name      string
	Hostnames []string // lower case, without the final dot
	Answer    Answer
	Listen    []netip.AddrPort // TCP
	Match     Match            // which connections of Listen, where services share an address
	ListenUDP []netip.AddrPort // never shared
	UDP       UDP              // how the flows of ListenUDP are kept

	Balance          Balance
	WhenAllDown      WhenAllDown
	Probe            Probe
	Connect          Connect
	IdleTimeout      time.Duration // without a byte in either direction; 0: never
	HalfCloseTimeout time.Duration // without a byte once one side has closed; 0: as IdleTimeout
	DrainTimeout     time.Duration // how long established connections of a draining backend may go on
	SlowStart        time.Duration // a backend that came up reaches its full weight after this; 0: at once

	MaxConnections           int // at the same time; 0: no limit
	MaxConnectionsPerBackend int // at the same time; 0: no limit
	Queue                    Queue

	ProxyProtocol ProxyProtocol
	Allow         []netip.Prefix // clients that may connect; empty: all

	Naming Naming

	Endpoints []Endpoint // sorted by Address, which is unique
}

// Connect says how a backend is connected to.
type Connect struct {
	Timeout  time.Duration // for one attempt
	Attempts int           // at least 1; each goes to another backend
}

// Queue holds connections that wait while every backend is full.
type Queue struct {
	Length  int           // 0: nobody waits
	Timeout time.Duration // how long one waits before it is refused
}

// ProxyProtocol says from whom a PROXY protocol header is expected and which
// one is sent to backends.
type ProxyProtocol struct {
	Accept []netip.Prefix // peers that must begin with a header, v1 or v2
	Send   ProxyVersion
}

// UDP says how flows are kept: what one client address and port sends to one
// listener, and what comes back.
type UDP struct {
	IdleTimeout time.Duration // without a datagram in either direction; 0: never
	Responses   int           // a flow ends when so many have answered each datagram of the client; 0: not known
	MaxFlows    int           // at the same time; 0: no limit
}

// An Endpoint is one place that could serve.
type Endpoint struct {
	Address netip.AddrPort // dialled by the proxy and the probes
	Node    string         // the node it runs on; empty: not known
	Public  []netip.Addr   // where clients reach it by themselves; empty: at Address
	Zone    string         // the zone of the cloud it lies in; empty: not known
	Weight  int            // 0 to 256; 0: no new connections

	// Priority is 0 to 255. Backends serve whose priority is the lowest of any
	// that is well; the others stand by.
	Priority int

	Phase Phase
}

// Reachable returns the addresses at which clients reach e by themselves: the
// public ones, else the one that is dialled.
func (e *Endpoint) Reachable() []netip.Addr {
	if len(e.Public) > 0 {
		return e.Public
	}
	return []netip.Addr{e.Address.Addr().Unmap()}
}

// Probe says how the health of an endpoint is found out. It is comparable:
// endpoints of several services with the same address and an equal Probe
// share one.
type Probe struct {
	Type     ProbeType
	Interval time.Duration // while the state is certain
	Timeout  time.Duration // for one probe, connect and answer together
	Rise     int           // successes in a row to come up
	Fall     int           // failures in a row to go down

	FastInterval time.Duration // while the state is in doubt
	DownInterval time.Duration // while it is down

	Port    uint16       // 0: the endpoint's
	Path    string       // http, https: the request target
	Host    string       // http, https: Host header; https, tls: server name; grpc: authority
	Status  StatusRanges // http, https
	Body    string       // http, https, udp: must stand in the first 5 KiB; empty: anything
	Send    string       // udp: the datagram that is to be answered, any bytes
	Service string       // grpc: the service asked for; empty: the server as a whole
	Verify  bool         // https, tls: the certificate must be valid for Host

	Proxy ProxyVersion // header sent ahead of the probe, without client addresses
}

// MaxStatusRanges bounds how many ranges of HTTP status a [Probe] accepts.
const MaxStatusRanges = 8

// StatusRanges is a set of HTTP status codes; unused places are zero.
type StatusRanges [MaxStatusRanges]StatusRange

// StatusRange is the codes from First to Last, both included.
type StatusRange struct{ First, Last uint16 }

// Contain reports whether code lies in one of the ranges.
func (r StatusRanges) Contain(code int) bool {
	for _, s := range r {
		if s.First != 0 && int(s.First) <= code && code <= int(s.Last) {
			return true
		}
	}
	return false
}
