package proxy

import (
	"sync/atomic"
	"time"

	"haslohas.com/elbow/pool"
)

// Where services share a listener, what the client says first decides to which
// of them a connection belongs. Until then it belongs to none.

const (
	// helloTimeout is how long the client may take to say for which service
	// it has come.
	helloTimeout = 5 * time.Second
	// farewellTimeout is how long a client may take to close after it was told
	// that nobody is here for it.
	farewellTimeout = time.Second
	// maxDiscard bounds the bytes that are read meanwhile.
	maxDiscard = 1 << 20
	// maxPeek is what an engine shows the session at once: then no PROXY
	// header, which alone is consumed, hides a part of the hello behind it.
	maxPeek = maxHeader + maxHello
	// maxAsked bounds what the connection log shows of a name.
	maxAsked = 253
)

// A mismatch is why no service's match took a connection.
type mismatch uint8

const (
	matched     mismatch = iota // one did
	unknownName                 // no service has the name that was asked for
	noName                      // TLS without a server name, HTTP without a host
	noProtocol                  // neither TLS nor HTTP/1
	badHello                    // against the rules of TLS or HTTP, or too long
	helloLate                   // the time was over before it was complete
	helloCut                    // the client had closed before it was complete
	badHeader                   // there was no valid PROXY header before it
	mismatches                  // how many there are
)

var mismatchTexts = [mismatches]string{
	unknownName: "unknown-name",
	noName:      "no-name",
	noProtocol:  "not-tls-or-http",
	badHello:    "malformed",
	helloLate:   "timeout",
	helloCut:    "closed",
	badHeader:   "proxy-header",
}

func (m mismatch) String() string { return mismatchTexts[m] }

// unmatched counts the connections of a listener that no match took.
type unmatched struct{ defaulted, refused [mismatches]atomic.Uint64 }

// asked is the name that a client has asked for.
type asked struct {
	tls  bool
	n    uint8
	name [maxAsked]byte // the first n bytes, as they came
}

// awaitHello begins the step hello; data is what of it has come already.
func (s *session) awaitHello(data []byte, now time.Time) step {
	s.now = step{do: doHello, until: now.Add(helloTimeout)}
	return s.greeted(data, now)
}

// greeted takes the client's first bytes, all that have come so far.
func (s *session) greeted(data []byte, now time.Time) step {
	hello, o := parseHello(data)
	switch o {
	case unfinished:
		return s.now
	case foreign:
		return s.enter(hello, noProtocol, now)
	case malformed:
		hello.TLS = data[0] == recordHandshake
		return s.enter(hello, badHello, now)
	}
	s.note(hello)
	return s.enter(hello, matched, now)
}

// note keeps the name for the connection log.
func (s *session) note(h pool.Hello) {
	if s.core.lines == nil || len(h.Name) == 0 {
		return
	}
	s.asked = s.core.names.Get().(*asked)
	s.asked.tls = h.TLS
	s.asked.n = uint8(copy(s.asked.name[:], h.Name))
}

// enter brings the session into the service that h belongs to; flaw says why
// h is none to go by.
func (s *session) enter(h pool.Hello, flaw mismatch, now time.Time) step {
	for {
		s.service = nil
		v := s.core.view()
		p := v.byListener[s.listener.address]
		if p == nil {
			return s.refuse(noBackend)
		}
		why := flaw
		var r *route
		if why == matched {
			if r = v.of(p.listener.Route(h)); r == nil {
				why = unknownName
				if len(h.Name) == 0 {
					why = noName
				}
			}
		}
		if r == nil {
			if r = p.rest; r == nil {
				return s.turnAway(h, why, now)
			}
		}
		s.service = r.service
		if !allowed(r.pool, s.addresses.source.Addr()) {
			return s.refuse(notAllowed)
		}
		if !acquire(&r.service.active, r.pool.MaxConnections) {
			return s.refuse(overLimit)
		}
		if !s.core.isNewest(v) {
			r.service.active.Add(-1)
			continue
		}
		s.counted = true
		if why != matched {
			s.listener.unmatched.defaulted[why].Add(1)
		}
		return s.place(now)
	}
}

// turnAway refuses a client that no service is there for. One that would
// understand it is told.
func (s *session) turnAway(h pool.Hello, why mismatch, now time.Time) step {
	s.listener.unmatched.refused[why].Add(1)
	words := saysNothing
	switch {
	case why == unknownName && h.TLS:
		words = saysUnrecognizedName
	case why == noName && h.TLS:
		words = saysMissingExtension
	case why == unknownName:
		words = saysMisdirected
	case (why == noName || why == badHello) && !h.TLS:
		words = saysBadRequest
	}
	if words == saysNothing {
		return s.refuse(noMatch)
	}
	s.now = step{do: doFarewell, until: now.Add(farewellTimeout), words: words, reason: noMatch}
	return s.now
}

// A farewell is what a client is told before its connection ends.
type farewell uint8

const (
	saysNothing          farewell = iota
	saysUnrecognizedName          // RFC 6066, section 3
	saysMissingExtension          // RFC 8446, section 9.2
	saysMisdirected               // RFC 9110, section 15.5.20
	saysBadRequest                // RFC 9112, section 3.2
)

// A fatal alert, RFC 8446 section 6, before its description.
const alert = "\x15\x03\x03\x00\x02\x02"

const noBody = "Connection: close\r\nContent-Length: 0\r\n\r\n"

var farewells = [...][]byte{
	saysUnrecognizedName: []byte(alert + "\x70"),
	saysMissingExtension: []byte(alert + "\x6d"),
	saysMisdirected:      []byte("HTTP/1.1 421 Misdirected Request\r\n" + noBody),
	saysBadRequest:       []byte("HTTP/1.1 400 Bad Request\r\n" + noBody),
}

// bytes returns what is sent, which must not be changed.
func (f farewell) bytes() []byte { return farewells[f] }
