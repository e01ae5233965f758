package pool

import (
	"fmt"
	"strings"
)

// Answer says which addresses the hostnames of a service resolve to.
type Answer uint8

const (
	Proxied Answer = iota // the host's: clients reach the proxy
	Direct                // the healthy backends' own: clients reach them past the proxy
)

var answers = names{"proxied", "direct"}

func (a Answer) String() string { return answers.name(int(a)) }

// ParseAnswer is the inverse of String.
func ParseAnswer(s string) (Answer, error) { return parse[Answer](answers, s) }

// AnswerPolicy says which of several addresses an answer names.
type AnswerPolicy uint8

const (
	AnswerAll      AnswerPolicy = iota // all of them, in changing order, as far as the limit goes
	AnswerWeighted                     // some, drawn in proportion to the weights
)

var answerPolicies = names{"all", "weighted"}

func (a AnswerPolicy) String() string { return answerPolicies.name(int(a)) }

// ParseAnswerPolicy is the inverse of String.
func ParseAnswerPolicy(s string) (AnswerPolicy, error) {
	return parse[AnswerPolicy](answerPolicies, s)
}

// Balance says how one of several eligible backends is picked.
type Balance uint8

const (
	LeastConn  Balance = iota // of two drawn at random, the one with fewer connections for its weight
	RoundRobin                // in turn, by weight
	Source                    // the same client address the same backend: weighted rendezvous hash
)

var balances = names{"leastconn", "roundrobin", "source"}

func (b Balance) String() string { return balances.name(int(b)) }

// ParseBalance is the inverse of String.
func ParseBalance(s string) (Balance, error) { return parse[Balance](balances, s) }

// WhenAllDown says what is done when no backend of a service is well.
type WhenAllDown uint8

const (
	ServeAll WhenAllDown = iota // try them all: the probes may be what is broken
	Refuse                      // refuse connections, answer no addresses
)

var whenAllDowns = names{"all", "refuse"}

func (w WhenAllDown) String() string { return whenAllDowns.name(int(w)) }

// ParseWhenAllDown is the inverse of String.
func ParseWhenAllDown(s string) (WhenAllDown, error) { return parse[WhenAllDown](whenAllDowns, s) }

// KeyAlgorithm is how messages are signed with a [Key].
type KeyAlgorithm uint8

const (
	HMACSHA256 KeyAlgorithm = iota
	HMACSHA384
	HMACSHA512
)

var keyAlgorithms = names{"hmac-sha256", "hmac-sha384", "hmac-sha512"}

func (a KeyAlgorithm) String() string { return keyAlgorithms.name(int(a)) }

// ParseKeyAlgorithm is the inverse of String.
func ParseKeyAlgorithm(s string) (KeyAlgorithm, error) {
	return parse[KeyAlgorithm](keyAlgorithms, s)
}

// ProbeType says what is spoken to an endpoint to find out its health.
type ProbeType uint8

const (
	ProbeTCP   ProbeType = iota // the connect is enough
	ProbeHTTP                   // a GET with the expected status and body
	ProbeHTTPS                  // the same over TLS
	ProbeTLS                    // a TLS handshake
	ProbeGRPC                   // grpc.health.v1.Health/Check says SERVING
	ProbeUDP                    // a datagram is answered, with the expected body
)

var probeTypes = names{"tcp", "http", "https", "tls", "grpc", "udp"}

func (t ProbeType) String() string { return probeTypes.name(int(t)) }

// ParseProbeType is the inverse of String.
func ParseProbeType(s string) (ProbeType, error) { return parse[ProbeType](probeTypes, s) }

// ProxyVersion is a version of the PROXY protocol.
type ProxyVersion uint8

const (
	ProxyOff ProxyVersion = iota
	ProxyV1               // the text form
	ProxyV2               // the binary form
)

var proxyVersions = names{"off", "v1", "v2"}

func (v ProxyVersion) String() string { return proxyVersions.name(int(v)) }

// ParseProxyVersion is the inverse of String.
func ParseProxyVersion(s string) (ProxyVersion, error) { return parse[ProxyVersion](proxyVersions, s) }

// Phase is what a source knows about the life of an endpoint.
type Phase uint8

const (
	Serving     Phase = iota
	Terminating       // going away: it is drained
)

var phases = names{"serving", "terminating"}

func (p Phase) String() string { return phases.name(int(p)) }

// ParsePhase is the inverse of String.
func ParsePhase(s string) (Phase, error) { return parse[Phase](phases, s) }

// State is the verdict on a backend.
type State uint8

const (
	Unknown    State = iota // not probed yet
	Up                      // probes succeed
	Down                    // probes fail
	Draining                // being taken out, see [DrainStage]
	ForcedUp                // an operator says so
	ForcedDown              // an operator says so
)

var states = names{"unknown", "up", "down", "draining", "forced-up", "forced-down"}

func (s State) String() string { return states.name(int(s)) }

// ParseState is the inverse of String.
func ParseState(s string) (State, error) { return parse[State](states, s) }

// DrainStage says how far the drain of a backend has come.
type DrainStage uint8

const (
	NotDraining DrainStage = iota
	LeavingDNS             // no longer answered, but answers that name it may still be cached: the proxy goes on
	Finishing              // takes no new connection; established ones go on until the drain timeout
	Drained                // none is left: it is safe to power off
)

var drainStages = names{"", "leaving-dns", "finishing", "drained"}

func (s DrainStage) String() string { return drainStages.name(int(s)) }

// names are the texts of an enumeration, in the order of its values.
type names []string

func (n names) name(i int) string {
	if i < len(n) {
		return n[i]
	}
	return fmt.Sprintf("invalid(%d)", i)
}

func parse[T ~uint8](n names, s string) (T, error) {
	for i, name := range n {
		if name == s {
			return T(i), nil
		}
	}
	return 0, fmt.Errorf("unknown value %q, want one of %s", s, strings.Join(n, ", "))
}
