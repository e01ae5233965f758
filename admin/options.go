package admin

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/pool"
)

// Options are what a Server is made of. Only Table must be set; whatever else
// is missing is not shown or, where it is a command, refused.
type Options struct {
	Listen  netip.AddrPort // read-only HTTP over TCP; port 0: any free one; the zero value: none
	Socket  string         // path of the control socket; empty: none
	Version string         // of the program

	Table    *pool.Publisher
	Gatherer prometheus.Gatherer // what /metrics shows; nil: nothing
	Ready    func() error        // nil error: ready, else what /readyz says; nil: always ready

	Listeners func() []Listener                                // of the proxy
	Active    func(service string, backend netip.AddrPort) int // established connections
	Zones     func() []Zone                                    // of the DNS server
	Sources   func() []Source                                  // of the discovery
	Explain   func(name string) (Explanation, bool)            // what DNS would answer; false: the name is in no zone
	Top       func() (Top, bool)                               // what DNS was asked most; false: that is not counted
	ElasticIP func() (ElasticIP, bool)                         // false: there is none
	Operator  Operator

	Delegations func() []Delegation // how the parent zones lead to ours, sorted by zone

	Minions Minions // of the demo; nil: there is no demo

	// Inherited returns the sockets that the process before this one has
	// opened for an address, as [Server.Sockets] named them there, once. They
	// belong to the caller. nil: there was none.
	Inherited func(network, address string) []int

	Log *slog.Logger // nil: none
}

// A Listener is a public port of the proxy.
type Listener struct {
	UDP         bool
	Address     netip.AddrPort // where it listens: the port that was chosen where port 0 is configured
	Configured  netip.AddrPort // as the table names it; the zero value: Address
	Service     string         // whose it is; several: their names, with commas
	Connections int            // for UDP, flows
	Err         error          // why it is not open; nil: it is
}

// A Zone is a zone as the DNS server serves it.
type Zone struct {
	Name   string
	Serial uint32
	Names  int

	Keys    []ZoneKey // none: it is not signed
	Expires time.Time // when the first signature does; zero: there is none
	Overdue bool      // signatures are not renewed as they should be
}

// A Source is one place where endpoints come from.
type Source struct {
	Name      string
	Endpoints int       // in its last good set
	Updated   time.Time // when that arrived; zero: none did
	Err       string    // what is wrong now; empty: nothing
}

// An Explanation is what the DNS server would answer for a name.
type Explanation struct {
	Zone, Name string
	Kind       string   // service, static, delegation, empty non-terminal, wildcard, does not exist
	Records    []string // in presentation format
	Serial     uint32
	Generation uint64
}

// An Operator carries out the commands. A target is a node, "address:port" or
// "service/address:port". An error that comes without any Affected says that
// the target means no backend; one that comes with them says that the command
// is in force all the same. A nil function: the command is refused.
type Operator struct {
	Drain    func(target string) ([]Affected, error)
	Undrain  func(target string) ([]Affected, error)
	Force    func(target string, up bool, d time.Duration) ([]Affected, error) // d is 0: until unforced
	Unforce  func(target string) ([]Affected, error)
	Affected func(target string) ([]Affected, error) // changes nothing
}

// Affected is a backend that a command was about, as it is afterwards.
type Affected struct {
	Service     string    `json:"service"`
	Backend     string    `json:"backend"`
	Node        string    `json:"node"`
	State       string    `json:"state"`
	Drain       string    `json:"drain"` // its progress in words; empty: it is not draining
	Connections int       `json:"connections"`
	Until       time.Time `json:"until,omitzero"` // while leaving DNS: when the answers given have run out
}

// Minions are the web servers of the demo.
type Minions interface {
	List() []Minion
	Set(name string, running bool) error
}

// A Minion is one web server of the demo.
type Minion struct {
	Name     string `json:"name"`
	Address  string `json:"address"`
	Running  bool   `json:"running"`
	Requests uint64 `json:"requests"`
}
