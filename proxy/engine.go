package proxy

import (
	"net/netip"
	"time"
)

// An engine accepts, dials and moves bytes, and reports to the core what
// happens. It decides nothing: after each event it does the [step] that the
// session answers with.
//
// The order of calls for one connection: accepted, then whatever the steps
// ask for, then ended, exactly once. The calls on one session are made by one
// goroutine at a time, except cut, which may come from any while the session
// has been accepted and has not ended. Before the step relay an engine may
// ask cut by itself and turn what it says into a step with refuse; while it
// relays, the reason goes to ended.
//
// Nothing of the client's stream is consumed before the step is relay, but
// the PROXY header that received asks to consume, and after a farewell what
// nobody will read.
type engine interface {
	// listen opens l.addr and accepts on it. Where there are inherited
	// sockets, which it takes over whatever happens, it accepts on each of
	// those. l may be opened again after it was closed. Before each accept the
	// engine asks core.acceptDelay, and after one that failed core.acceptFailed.
	listen(l *listener, inherited []int) (opened, error)

	// sweep asks cut of every session, soon, and resets those that must
	// end. It may be called from any goroutine and does not block.
	sweep()

	// close ends the engine. Every listener is closed and every session has
	// ended before it is called. It returns when no goroutine is left.
	close()
}

// An opened is an open listener of an engine.
type opened struct {
	bound netip.AddrPort

	// close closes the sockets. When it has returned, nothing more is
	// accepted. Another process that has them too goes on.
	close func()

	// sockets calls visit with each socket, valid during the call.
	sockets func(visit func(fd int))
}

// A waker is how the core reaches a session that the engine has parked.
type waker interface {
	// resume has session.resumed called soon, in the session's own turn. It
	// may be called from any goroutine, must not block and must not call the
	// core. One that comes late or too often is harmless.
	resume()
}

// An action is what an engine is to do next for a session.
type action uint8

const (
	doReset    action = iota // close both sides with RST, then call ended(step.reason)
	doHeader                 // read (peek) what the client sends and call received with all of it, again after each new byte; where no more can come, call halted
	doHello                  // as doHeader
	doPark                   // nothing; the waker calls
	doWait                   // nothing, until the time is over
	doDial                   // connect to step.backend, then call connected or dialFailed
	doRelay                  // send what preface appends to the backend, then move bytes both ways
	doFarewell               // send step.words to the client and end that stream, read what it sends until it closes, then call ended(step.reason)
)

// A step is an action with its arguments.
type step struct {
	do action

	// until is when expired is to be called if nothing else has happened; it
	// is set for every action but doReset and doRelay. For doHeader and
	// doHello it is the same as long as the action is.
	until time.Time

	backend netip.AddrPort // doDial
	again   bool           // doDial: time went by; call gone where the client has reset meanwhile
	reason  reason         // doReset, doFarewell
	words   farewell       // doFarewell
}

// A direction is one of the two ways of bytes.
type direction uint8

const (
	in  direction = iota // client to backend
	out                  // backend to client
)

func (d direction) String() string {
	if d == in {
		return "in"
	}
	return "out"
}

// faults lets tests inject what the kernel would answer; nil functions and nil
// errors inject nothing. An engine asks before the call in question.
type faults struct {
	accept func() error
	dial   func(netip.AddrPort) error
}

func (f *faults) onAccept() error {
	if f.accept == nil {
		return nil
	}
	return f.accept()
}

func (f *faults) onDial(backend netip.AddrPort) error {
	if f.dial == nil {
		return nil
	}
	return f.dial(backend)
}
