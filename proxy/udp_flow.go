package proxy

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"time"

	"haslohas.com/elbow/pool"
)

const (
	// freshTimeout bounds the idle time of a flow whose client has sent one
	// datagram only. The sender of that may be forged, and whoever forges
	// senders must not fill the table for as long as honest clients need it.
	freshTimeout = 10 * time.Second
	// lastWords is how long a flow whose listener was closed waits for the
	// answer to the last datagram of its client.
	lastWords = time.Second
)

// A flowKey is what the datagrams of one flow have in common, within their
// listener.
type flowKey struct {
	client netip.AddrPort
	local  netip.Addr // that the client has sent to, and must be answered from
}

// A flow is for UDP what a session is for TCP: the shared part of what one
// client sends to one listener and gets back, that an engine keeps beside the
// socket to the backend. The calls on one flow are made by one goroutine at a
// time. The zero value is ready for place, and may be reset to it after ended.
type flow struct {
	flowKey
	core     *core
	listener *listener
	service  *service
	backend  *backend
	view     *view // by which it was last looked at

	begun      time.Time
	generation uint64
	failOpen   bool
	idle       time.Duration
	responses  uint64

	tally   int    // place in the tallies; set by the engine after place
	last    moment // of the last datagram either way
	asks    bool   // that was the client's
	until   moment // must end then whatever happens; 0: not so
	packets [2]uint64
	bytes   [2]uint64
}

// A drop is why a datagram was not forwarded, the label of its metric.
type drop uint8

const (
	forwarded      drop = iota // it was not dropped
	dropNotAllowed             // the client is not in the allow list
	dropNoBackend              // no backend is eligible, or none of those that were tried can be reached
	dropLimit                  // maxConnections is reached
	dropMaxFlows               // udp.maxFlows is reached
	dropFull                   // every backend is at maxConnectionsPerBackend
	dropLocalFault             // this host is out of descriptors, ports or memory
	dropBuffer                 // the send buffer of a socket is full
	dropTruncated              // it is longer than any that UDP can carry
	dropUnsent                 // the system refuses to send it
	drops                      // how many there are
)

var dropTexts = [drops]string{
	dropNotAllowed: "not-allowed",
	dropNoBackend:  "no-backend",
	dropLimit:      "limit",
	dropMaxFlows:   "max-flows",
	dropFull:       "backends-full",
	dropLocalFault: "local-fault",
	dropBuffer:     "buffer-full",
	dropTruncated:  "truncated",
	dropUnsent:     "unsent",
}

func (d drop) String() string { return dropTexts[d] }

// errFlows is the fault of a host that has as many flows as it can.
var errFlows = errors.New("as many UDP flows as the limit of open files or the local ports allow; raise LimitNOFILE= (ulimit -n) or net.ipv4.ip_local_port_range")

// place begins a flow of key to l: it picks a backend that dial connects to,
// leaving out those that were tried, and counts the flow there. If it does not
// return forwarded, nothing is held, and the caller is to call dropped.
func (f *flow) place(c *core, l *listener, key flowKey, tried []*backend, dial func(netip.AddrPort) error, now time.Time) drop {
	*f = flow{flowKey: key, core: c, listener: l, begun: now, last: c.moment(now)}
	for {
		if d := f.pick(tried, now); d != forwarded {
			return d
		}
		err := c.faults.onDial(f.backend.address)
		if err == nil {
			err = dial(f.backend.address)
		}
		if err == nil {
			f.backend.connections.Add(1)
			f.service.udp.flows.Add(1)
			c.flowWorks(now)
			return forwarded
		}
		f.release()
		if isLocal(err) {
			c.flowFault(err, now)
			return dropLocalFault
		}
		f.blame(err)
		tried = append(tried, f.backend)
		if r := c.view().byUDP[l.address]; r == nil || len(tried) >= min(r.pool.Connect.Attempts, maxAttempts) {
			return dropNoBackend
		}
		f.service.retries.Add(1)
	}
}

// pick picks a backend and counts the flow in there. But for the queue it
// follows the way of a TCP connection: accepted and pick of [session].
func (f *flow) pick(tried []*backend, now time.Time) drop {
	var positions [maxAttempts]int
	request := pool.Request{Client: f.client.Addr(), Random: rand.Uint64(), Now: now}
	for {
		f.backend = nil
		v := f.core.view()
		r := v.byUDP[f.listener.address]
		if r == nil {
			return dropNoBackend // the listener is about to be closed
		}
		f.service = r.service
		if !allowed(r.pool, f.client.Addr()) {
			return dropNotAllowed
		}
		if most := f.core.mostFlows; !acquire(&f.core.flows, most) {
			f.core.flowFault(errFlows, now)
			return dropLocalFault
		}
		if !acquire(&r.service.udp.active, r.pool.UDP.MaxFlows) {
			f.core.flows.Add(-1)
			return dropMaxFlows
		}
		if !acquire(&r.service.active, r.pool.MaxConnections) {
			f.core.flows.Add(-1)
			r.service.udp.active.Add(-1)
			return dropLimit
		}
		f.core.sessions.Add(1)
		f.listener.active.Add(1)

		request.Tried = positions[:0]
		for _, b := range tried {
			request.Tried = append(request.Tried, r.position(b))
		}
		request.Turn = r.service.turn.Add(1)
		i, choice := r.pool.Pick(request, r)
		if choice == pool.Picked {
			f.backend = r.backends[i]
			if !acquire(&f.backend.active, r.pool.MaxConnectionsPerBackend) {
				f.backend = nil // somebody else was faster
			}
		}
		switch {
		case choice == pool.AllFull:
			f.release()
			return dropFull
		case choice != pool.Picked:
			f.release()
			return dropNoBackend
		case f.backend == nil || !f.core.isNewest(v):
			f.release()
			continue
		}
		f.generation, f.failOpen = v.table.Generation, r.pool.Traffic.FailOpen
		f.follow(v, r)
		return forwarded
	}
}

// release gives back what pick has counted.
func (f *flow) release() {
	if f.backend != nil {
		f.backend.leave()
	}
	f.service.active.Add(-1)
	f.service.udp.active.Add(-1)
	f.listener.active.Add(-1)
	f.core.flows.Add(-1)
	f.core.sessions.Add(-1)
}

func (f *flow) follow(v *view, r *route) {
	f.view, f.idle, f.responses = v, r.pool.UDP.IdleTimeout, uint64(r.pool.UDP.Responses)
}

// stays reports whether the flow goes on with the client's next datagram. It
// does not where the listener leads to another service now, or where the
// backend has gone down: nobody would tell the client, who might send for ever.
// The flow is to be ended with the reason moved, and the datagram begins
// another.
func (f *flow) stays() bool {
	v := f.core.view()
	if v == f.view {
		return true
	}
	r := v.byUDP[f.listener.address]
	if r == nil || r.service != f.service {
		return false
	}
	if i := r.position(f.backend); i >= 0 { // one that is not there any more may finish, as cut says
		state := r.pool.Backends[i].State
		if (state == pool.Down || state == pool.ForcedDown) && !r.pool.Traffic.Has(i) {
			return false
		}
	}
	f.follow(v, r)
	return true
}

// received counts datagrams that came from one side for the other, of so many
// bytes together.
func (f *flow) received(d direction, packets, bytes int, at moment) {
	f.service.bytes[d].add(f.tally, uint64(bytes))
	f.service.udp.bytes[d].add(f.tally, uint64(bytes))
	f.service.udp.packets[d].add(f.tally, uint64(packets))
	f.carries(d, packets, bytes, at)
}

// carries is received for datagrams that were counted before, with another flow.
func (f *flow) carries(d direction, packets, bytes int, at moment) {
	f.last, f.asks = at, d == in
	f.packets[d] += uint64(packets)
	f.bytes[d] += uint64(bytes)
}

// answered reports whether the client has all that it is known to get, or, as
// the listener is closed, all that it will.
func (f *flow) answered() bool {
	return f.responses > 0 && f.packets[out] >= f.packets[in]*f.responses || f.until != 0 && !f.asks
}

// finished is the reason of a flow that was answered.
func (f *flow) finished() reason {
	if f.until == 0 {
		return answered
	}
	return f.expired()
}

// dropped counts n datagrams that were not forwarded.
func (f *flow) dropped(why drop, n int) {
	if f.service != nil { // else the listener is about to be closed
		f.service.udp.dropped[why].Add(uint64(n))
	}
}

// closing tells that the listener is closed. It reports whether the flow may
// wait for an answer to what the client has asked last.
func (f *flow) closing(at moment) bool {
	f.until = at + f.core.lastWords
	return f.asks
}

// noEnd is a moment that does not come.
const noEnd = moment(1<<63 - 1)

// deadline is when the flow ends unless something moves.
func (f *flow) deadline() moment {
	idle := moment(f.idle)
	if f.packets[in] <= 1 && (idle == 0 || idle > f.core.fresh) {
		idle = f.core.fresh
	}
	end := noEnd
	if idle > 0 {
		end = f.last + idle
	}
	if f.until != 0 {
		end = min(end, f.until)
	}
	return end
}

// expired is the reason of a flow whose deadline has come.
func (f *flow) expired() reason {
	switch {
	case f.until == 0:
		return idleTimeout
	case f.core.cut.isSet():
		return shutdown
	}
	return listenerClosed
}

// cut returns why the flow must end now, or goesOn.
func (f *flow) cut(at moment) reason {
	switch {
	case f.core.cut.passed(at):
		return shutdown
	case f.service.cut.passed(at), f.backend.cut.passed(at):
		return drainTimeout
	}
	return goesOn
}

// isAbsent reports whether err, of a socket that is connected to a backend,
// says that nobody is there: an ICMP message, or no route.
func isAbsent(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.ENOPROTOOPT,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isFull reports whether a datagram was not sent for want of room to hold it.
func isFull(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM)
}

// blame charges the backend with err.
func (f *flow) blame(err error) {
	what, words := classify(err, 0)
	f.backend.failures[what].Add(1)
	if f.core.observer != nil {
		f.core.observer.ConnectFailed(f.service.name, f.backend.address, words)
	}
}

// absent takes an error for which isAbsent holds, and returns the reason to end
// the flow with.
func (f *flow) absent(err error) reason {
	f.blame(err)
	if f.packets[out] > 0 {
		return backendReset
	}
	return connectFailed
}

// ended gives back what the flow holds, counts and logs it. Its socket is
// closed.
func (f *flow) ended(why reason, now time.Time) {
	switch {
	case why.refused():
		f.service.refused[why].Add(1)
	case why == backendReset:
		f.service.resets[out].Add(1)
	}
	f.release()
	if f.core.lines != nil {
		var space [512]byte
		f.core.lines.add(f.appendLine(space[:0], why, now))
	}
	if f.until != 0 || f.core.cut.isSet() || f.backend.cut.isSet() || f.service.cut.isSet() || f.listener.cut.isSet() {
		f.core.poke()
	}
}
