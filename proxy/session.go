package proxy

import (
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/pool"
)

const (
	headerTimeout = 5 * time.Second
	// maxAttempts bounds how many backends one connection is tried on.
	maxAttempts = 16
	// minUserTimeout is the least time that sent bytes may stay unacknowledged.
	minUserTimeout = 30 * time.Second
)

// A session is the shared part of one connection: a machine of steps that an
// engine keeps beside its sockets. The zero value is ready for accepted and
// may be reset to zero for another connection after ended.
type session struct {
	core     *core
	listener *listener
	service  *service                // nil: the listener belongs to none, or to several and it is not known yet to which
	backend  atomic.Pointer[backend] // where it counts as active; nil: nowhere
	waker    waker

	begin      time.Time
	peer       netip.AddrPort // who connected
	addresses  header         // the client and where it connected to, after a PROXY header what that says
	generation uint64
	failOpen   bool
	counted    bool   // in service.active
	asked      *asked // for the connection log; nil: nothing

	send      pool.ProxyVersion
	idle      time.Duration
	halfClose time.Duration

	now       step // what the engine does
	dialled   time.Time
	timeout   time.Duration // of a connect
	connect   time.Duration // what it took
	faultEnds time.Time     // when to give up on local faults; zero: there was none
	tried     [maxAttempts]*backend
	attempts  int // how many of tried are set
	retries   int
	last      *backend // that was tried or reached, for the log

	before, after *session // in service.queue, guarded by its mu

	bytes [2]atomic.Int64 // by direction
	tally int             // its place in a tally
}

// accepted begins the session of a connection that l accepted: peer is the
// other end of the socket, local is this one.
func (s *session) accepted(c *core, l *listener, w waker, peer, local netip.AddrPort, now time.Time) step {
	s.core, s.listener, s.waker, s.begin = c, l, w, now
	s.peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	s.addresses = header{s.peer, netip.AddrPortFrom(local.Addr().Unmap(), local.Port())}
	c.sessions.Add(1)
	l.active.Add(1)
	c.works(now)
	if l.pause.Load() != 0 {
		l.pause.Store(0)
	}
	for {
		s.service = nil
		v := c.view()
		p := v.byListener[l.address]
		if p == nil {
			return s.refuse(noBackend)
		}
		r := p.only
		if r == nil {
			if p.listener.Trusts(s.peer.Addr()) {
				s.now = step{do: doHeader, until: now.Add(headerTimeout)}
				return s.now
			}
			return s.awaitHello(nil, now)
		}
		s.service = r.service
		trusted := contains(r.pool.ProxyProtocol.Accept, s.peer.Addr())
		if !trusted && !allowed(r.pool, s.peer.Addr()) {
			return s.refuse(notAllowed)
		}
		if !acquire(&r.service.active, r.pool.MaxConnections) {
			return s.refuse(overLimit)
		}
		if !c.isNewest(v) {
			r.service.active.Add(-1)
			continue
		}
		s.counted = true
		if trusted {
			s.now = step{do: doHeader, until: now.Add(headerTimeout)}
			return s.now
		}
		return s.place(now)
	}
}

func allowed(p *pool.Pool, client netip.Addr) bool {
	return len(p.Allow) == 0 || contains(p.Allow, client)
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a.WithZone("")) { // a Prefix contains no address with a zone
			return true
		}
	}
	return false
}

// received takes the client's first bytes during the steps header and hello:
// all that have come so far, which it may overwrite. Of those, consume belong to
// the header; the rest is the begin of the stream. consume is 0 where more
// bytes are needed, and during hello.
func (s *session) received(data []byte, now time.Time) (consume int, next step) {
	if why := s.cut(now); why != goesOn {
		return 0, s.refuse(why)
	}
	if s.now.do == doHello {
		return 0, s.greeted(data, now)
	}
	h, n, err := parseHeader(data)
	if err != nil {
		return 0, s.headerless()
	}
	if n == 0 {
		return 0, s.now
	}
	if h.source.IsValid() {
		s.addresses = h
	}
	if s.service == nil {
		return n, s.awaitHello(data[n:], now)
	}
	r := s.core.view().byName[s.service.name]
	if r == nil {
		return n, s.refuse(noBackend)
	}
	if !allowed(r.pool, s.addresses.source.Addr()) {
		return n, s.refuse(notAllowed)
	}
	return n, s.place(now)
}

// halted tells, during the steps header and hello, that the client has ended
// its stream: what has come so far is all.
func (s *session) halted(now time.Time) step {
	if why := s.cut(now); why != goesOn {
		return s.refuse(why)
	}
	if s.now.do == doHello {
		return s.enter(pool.Hello{}, helloCut, now)
	}
	return s.headerless()
}

// headerless refuses a peer that sends no PROXY header.
func (s *session) headerless() step {
	if s.service == nil {
		s.listener.unmatched.refused[badHeader].Add(1)
	}
	return s.refuse(proxyHeader)
}

// place finds a backend, or a place in the queue.
func (s *session) place(now time.Time) step {
	if s.service.queue.waiting.Load() == 0 {
		if next, full := s.pick(now); !full {
			return next
		}
	}
	r := s.core.view().byName[s.service.name]
	if r == nil {
		return s.refuse(noBackend)
	}
	joined, first := s.service.queue.join(s, r.pool.Queue.Length)
	if !joined {
		s.service.spillover.Add(1)
		return s.refuse(queueFull)
	}
	s.now = step{do: doPark, until: now.Add(r.pool.Queue.Timeout)}
	if first {
		return s.resumed(now)
	}
	return s.now
}

// pick picks a backend and counts the session in there. It reports full where
// every backend that it could have is.
func (s *session) pick(now time.Time) (next step, full bool) {
	var positions [maxAttempts]int
	request := pool.Request{
		Client: s.addresses.source.Addr(),
		Random: rand.Uint64(),
		Now:    now,
	}
	for {
		v := s.core.view()
		r := v.byName[s.service.name]
		if r == nil {
			return s.refuse(noBackend), false
		}
		request.Tried = positions[:0]
		for _, b := range s.tried[:s.attempts] {
			request.Tried = append(request.Tried, r.position(b)) // -1 is nobody's position
		}
		request.Turn = s.service.turn.Add(1)
		i, choice := r.pool.Pick(request, r)
		switch choice {
		case pool.AllFull:
			return step{}, true
		case pool.NobodyUp, pool.AllTried:
			if s.attempts > 0 {
				return s.refuse(connectFailed), false
			}
			return s.refuse(noBackend), false
		}
		b := r.backends[i]
		if !acquire(&b.active, r.pool.MaxConnectionsPerBackend) {
			continue // somebody else was faster
		}
		if !s.core.isNewest(v) {
			b.leave()
			continue
		}
		s.backend.Store(b)
		s.last = b
		s.generation, s.failOpen = v.table.Generation, r.pool.Traffic.FailOpen
		s.send, s.idle, s.halfClose = r.pool.ProxyProtocol.Send, r.pool.IdleTimeout, r.pool.HalfCloseTimeout
		s.timeout = r.pool.Connect.Timeout
		again := s.attempts > 0 || s.now.do == doPark || s.now.do == doWait // else the client was heard of just now
		if s.attempts > 0 && s.faultEnds.IsZero() {
			s.retries++
			s.service.retries.Add(1)
		}
		s.dialled = now
		s.now = step{do: doDial, backend: b.address, until: now.Add(s.timeout), again: again}
		return s.now, false
	}
}

// resumed tells that the waker was called.
func (s *session) resumed(now time.Time) step {
	if why := s.cut(now); why != goesOn {
		return s.refuse(why)
	}
	if s.now.do != doPark || !s.service.queue.isFirst(s) {
		return s.now
	}
	parked := s.now
	next, full := s.pick(now)
	if full {
		return parked
	}
	if next.do == doDial { // refuse has left by itself
		s.service.queue.leave(s)
	}
	return next
}

// expired tells that the time of the step is over.
func (s *session) expired(now time.Time) step {
	if why := s.cut(now); why != goesOn {
		return s.refuse(why)
	}
	switch s.now.do {
	case doHeader:
		return s.headerless()
	case doHello:
		return s.enter(pool.Hello{}, helloLate, now)
	case doFarewell:
		return s.refuse(s.now.reason)
	case doPark:
		return s.refuse(queueTimeout)
	case doWait:
		return s.place(now)
	case doDial:
		return s.dialFailed(errConnectTimeout, now)
	}
	return s.now
}

// connected tells that the backend is reached.
func (s *session) connected(now time.Time) step {
	if why := s.cut(now); why != goesOn {
		return s.refuse(why)
	}
	s.core.works(now)
	s.connect = now.Sub(s.dialled)
	s.service.connectTime.observe(s.connect)
	s.backend.Load().connections.Add(1)
	s.now = step{do: doRelay}
	return s.now
}

// dialFailed tells that the backend was not reached.
func (s *session) dialFailed(err error, now time.Time) step {
	if why := s.cut(now); why != goesOn {
		return s.refuse(why)
	}
	b := s.backend.Swap(nil)
	b.leave()
	if isLocal(err) {
		s.core.fault("connect", err, dialPause, now)
		if s.faultEnds.IsZero() {
			s.faultEnds = now.Add(s.timeout)
		}
		again := now.Add(dialPause)
		if again.After(s.faultEnds) {
			return s.refuse(localFault)
		}
		s.now = step{do: doWait, until: again}
		return s.now
	}
	s.faultEnds = time.Time{}
	what, words := classify(err, s.timeout)
	b.failures[what].Add(1)
	if s.core.observer != nil {
		s.core.observer.ConnectFailed(s.service.name, b.address, words)
	}
	s.tried[s.attempts] = b
	s.attempts++
	if r := s.core.view().byName[s.service.name]; r == nil || s.attempts >= min(r.pool.Connect.Attempts, maxAttempts) {
		return s.refuse(connectFailed)
	}
	return s.place(now)
}

// gone tells, during the step dial, that the client has reset the connection.
func (s *session) gone() step { return s.refuse(clientReset) }

// preface appends what the backend must get before the client's bytes: the
// PROXY header, if one is sent.
func (s *session) preface(dst []byte) []byte {
	switch s.send {
	case pool.ProxyV1:
		return appendHeaderV1(dst, s.addresses)
	case pool.ProxyV2:
		return appendHeaderV2(dst, s.addresses)
	}
	return dst
}

// patience returns how long no byte may move; 0: for ever.
func (s *session) patience(halfClosed bool) time.Duration {
	if halfClosed && s.halfClose > 0 {
		return s.halfClose
	}
	return s.idle
}

// impatience is the reason of a session that patience has ended.
func (s *session) impatience(halfClosed bool) reason {
	if halfClosed && s.halfClose > 0 {
		return halfCloseTimeout
	}
	return idleTimeout
}

// userTimeout returns TCP_USER_TIMEOUT for both sockets; 0: the system's
// default, some fifteen minutes.
//
// It finds a peer that vanished with sent bytes unacknowledged. But Linux lets
// it also end a connection whose peer lives and does not read: its window
// stays closed for that long. So it is never shorter than idleTimeout, which
// would end that connection anyway.
func (s *session) userTimeout() time.Duration {
	if s.idle == 0 {
		return 0
	}
	return max(minUserTimeout, s.idle)
}

// moved counts n bytes that were written to the other side.
func (s *session) moved(d direction, n int) {
	s.bytes[d].Add(int64(n))
	s.service.bytes[d].add(s.tally, uint64(n))
}

// cut returns why the session must end now, or goesOn.
func (s *session) cut(now time.Time) reason {
	at := s.core.moment(now)
	if s.core.cut.passed(at) {
		return shutdown
	}
	if s.listener.cut.passed(at) || s.service != nil && s.service.cut.passed(at) {
		return drainTimeout
	}
	if b := s.backend.Load(); b != nil && b.cut.passed(at) {
		return drainTimeout
	}
	return goesOn
}

// refuse makes the step that ends the session. Its claims are given back by
// ended.
func (s *session) refuse(why reason) step {
	waits := s.now.do == doPark
	s.now = step{do: doReset, reason: why}
	if waits {
		s.service.queue.leave(s)
	}
	return s.now
}

// ended gives back what the session holds, counts and logs it. Both sockets
// are closed.
func (s *session) ended(why reason, now time.Time) {
	b := s.backend.Swap(nil)
	if b != nil {
		b.leave()
	}
	s.listener.active.Add(-1)
	if s.service != nil {
		s.count(why)
		if s.counted {
			s.service.active.Add(-1)
		}
	}
	if s.core.lines != nil {
		var space [512]byte
		s.core.lines.add(s.appendLine(space[:0], why, now))
	}
	if s.asked != nil {
		s.core.names.Put(s.asked)
		s.asked = nil
	}
	left := s.core.sessions.Add(-1)
	if left == 0 && s.core.cut.isSet() || b != nil && b.cut.isSet() || s.listener.cut.isSet() || s.service != nil && s.service.cut.isSet() {
		s.core.poke()
	}
}

func (s *session) count(why reason) {
	switch {
	case why.refused():
		s.service.refused[why].Add(1)
	case why == clientReset:
		s.service.resets[in].Add(1)
	case why == backendReset:
		s.service.resets[out].Add(1)
		if s.bytes[out].Load() == 0 && s.core.observer != nil {
			s.core.observer.SessionReset(s.service.name, s.last.address)
		}
	}
}
