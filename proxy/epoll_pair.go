//go:build linux

package proxy

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// What every socket of a pair is registered for. Edge-triggered: an event
// tells what has changed, and what is there is remembered. EPOLLPRI is there
// because a read stops short of urgent data. EPOLLOUT, which every fresh socket
// would tell at once, is added where there is something to wait for: a
// connect, or room to write.
const pairEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET&(1<<32-1)

// A stage is what a pair does.
type stage uint8

const (
	unused stage = iota
	begun
	readsHeader
	parked
	waits
	dials
	relaying
	leaves
)

// A pair is one connection of the epoll engine: a session and its two sockets.
type pair struct {
	session
	id    handle
	timer timer
	loop  *loop
	free  *pair // the next that is unused
	stage stage

	ends [2]socket // by the direction they send into: ends[in] is the client
	ways [2]way    // by direction: ways[in] goes from the client to the backend

	seen int // bytes of the header or hello that were looked at; while it leaves, that were thrown away

	// While relaying.
	since      moment // it began
	active     moment // when the last byte moved
	settled    bool   // the options for connections that last are set
	halfClosed bool   // one side has closed
	first      reason // who closed first; goesOn: nobody
	broken     reason // what was found out when writing to a side that can still be read
	acked      uint64 // bytes that both peers had acknowledged when lookIdle last asked
}

// A socket is one side of a pair, and what its events have told.
type socket struct {
	fd         int // -1: none
	registered bool
	awaits     uint32 // what it is registered for besides pairEvents
	readable   bool   // there may be something to read
	writable   bool   // there may be room to write
	ended      bool   // the peer has ended its stream: what can be read now is the last
	exhaust    bool   // a short read does not mean that nothing is left: read until EAGAIN
	written    bool   // something was written to it
	quick      bool   // it has TCP_NODELAY
}

// clear makes p ready for another connection.
func (p *pair) clear() {
	*p = pair{id: p.id, loop: p.loop, timer: timer{deadline: never}}
	p.ends[in].fd, p.ends[out].fd = -1, -1
	p.ends[in].quick = true
}

// resume implements [waker].
func (p *pair) resume() {
	l := p.loop
	l.mu.Lock()
	l.resumed = append(l.resumed, p.id)
	l.mu.Unlock()
	l.wakeUp()
}

// run does step after step until one has to wait for something.
func (p *pair) run(next step) {
	l := p.loop
	for {
		switch next.do {
		case doReset:
			p.end(next.reason, true)
			return
		case doHeader, doHello:
			p.stage = readsHeader
			l.set(p, l.core.moment(next.until))
			if !p.ends[in].registered && !p.register(in) {
				next = p.refuse(localFault)
				continue
			}
			return
		case doPark:
			p.stage = parked
			l.set(p, l.core.moment(next.until))
			return
		case doWait:
			p.stage = waits
			l.set(p, l.core.moment(next.until))
			return
		case doDial:
			p.stage = dials
			l.set(p, l.core.moment(next.until))
			if next.again && p.clientIsGone() {
				next = p.gone()
				continue
			}
			if err := p.dial(next); err != nil {
				p.hangUp(out)
				next = p.dialFailed(err, l.now)
				continue
			}
			return
		case doRelay:
			p.begin()
			return
		case doFarewell:
			p.stage, p.seen = leaves, 0
			l.set(p, l.core.moment(next.until))
			_, _ = sysWrite(p.ends[in].fd, next.words.bytes()) // fails on a socket that is gone, as the next read will
			sysShutdown(p.ends[in].fd)
			p.discard()
			return
		}
	}
}

// event takes what the epoll tells of one side.
func (p *pair) event(side direction, mask uint32) {
	s := &p.ends[side]
	if mask&(unix.EPOLLERR|unix.EPOLLHUP|unix.EPOLLPRI) != 0 {
		s.readable, s.writable, s.exhaust = true, true, true
	}
	if mask&unix.EPOLLRDHUP != 0 {
		s.readable, s.ended = true, true
	}
	if mask&unix.EPOLLIN != 0 {
		s.readable = true
	}
	if mask&unix.EPOLLOUT != 0 {
		s.writable = true
	}
	switch {
	case p.stage == relaying:
		if mask&unix.EPOLLERR != 0 && p.ways[side].done {
			// Nothing reads from there any more, so this is where it is found out.
			if err := sysError(s.fd); err != nil {
				p.failed(side, err, true)
				if p.stage != relaying {
					return
				}
			}
		}
		p.relay()
	case p.stage == dials && side == out:
		p.connectEnded(mask)
	case p.stage == readsHeader && side == in:
		p.readHeader()
	case p.stage == leaves && side == in:
		p.discard()
	}
}

// expire tells that the deadline is over.
func (p *pair) expire() {
	switch p.stage {
	case relaying:
		p.lookIdle()
	case dials:
		p.hangUp(out)
		p.run(p.expired(p.loop.now))
	case readsHeader, parked, waits, leaves:
		p.run(p.expired(p.loop.now))
	}
}

// sweep ends the connection if it must.
func (p *pair) sweep() {
	why := p.cut(p.loop.now)
	switch {
	case why == goesOn:
	case p.stage == relaying:
		p.end(why, true)
	default:
		p.run(p.refuse(why))
	}
}

// register adds a side to the epoll.
func (p *pair) register(side direction) bool {
	s := &p.ends[side]
	s.registered = p.control(unix.EPOLL_CTL_ADD, side)
	return s.registered
}

func (p *pair) control(operation int, side direction) bool {
	s := &p.ends[side]
	e := unix.EpollEvent{Events: pairEvents | s.awaits, Fd: p.id.index<<1 | int32(side), Pad: p.id.generation}
	return sysEpollCtl(p.loop.epoll, operation, s.fd, &e) == nil
}

// hangUp closes a side that nothing was said on.
func (p *pair) hangUp(side direction) {
	if s := &p.ends[side]; s.fd >= 0 {
		sysClose(s.fd)
		*s = socket{fd: -1}
	}
}

// readHeader looks at what the client has sent without consuming it, until
// the session has seen the whole header or hello; then the header alone is
// consumed.
func (p *pair) readHeader() {
	client, now := &p.ends[in], p.loop.now
	b := p.loop.hot[:maxPeek]
	n, err := sysPeek(client.fd, b)
	switch {
	case err == unix.EAGAIN || err == nil && n > 0 && n == p.seen && !client.ended:
		return
	case err != nil:
		p.run(p.gone())
		return
	case n == 0:
		p.run(p.halted(now))
		return
	}
	p.seen = n
	consume, next := p.received(b[:n], now)
	if consume > 0 && next.do != doReset {
		p.seen -= consume
		if _, err := readFull(client.fd, b[:consume]); err != nil {
			next = p.gone()
		}
	}
	if client.ended && (next.do == doHeader || next.do == doHello) {
		next = p.halted(now)
	}
	p.run(next)
}

// discard reads what the client still sends, until it has closed: an RST before
// that could take the farewell with it.
func (p *pair) discard() {
	for {
		n, err := sysRead(p.ends[in].fd, p.loop.hot[:])
		if err == unix.EAGAIN {
			return
		}
		p.seen += n
		if err != nil || n == 0 || p.seen > maxDiscard {
			p.end(p.now.reason, n > 0)
			return
		}
	}
}

// clientIsGone reports whether the client has reset the connection. One that
// has only closed its side may still wait for an answer.
func (p *pair) clientIsGone() bool {
	var b [1]byte
	_, err := sysPeek(p.ends[in].fd, b[:])
	return err != nil && err != unix.EAGAIN
}

// dial begins to connect to the backend. The end is told by an event.
func (p *pair) dial(s step) error {
	l := p.loop
	if err := l.core.faults.onDial(s.backend); err != nil {
		return err
	}
	fd, err := sysSocket(s.backend.Addr())
	if err != nil {
		return err
	}
	backend := &p.ends[out]
	*backend = socket{fd: fd, awaits: unix.EPOLLOUT}
	size := toSockaddr(s.backend, &l.name)
	if err := sysConnect(fd, &l.name, size); err != nil && err != unix.EINPROGRESS {
		return err
	}
	if !p.register(out) {
		return syscall.ENOMEM
	}
	return nil
}

// connectEnded takes the event that ends a connect.
func (p *pair) connectEnded(mask uint32) {
	backend := &p.ends[out]
	var err error
	switch {
	case mask&(unix.EPOLLERR|unix.EPOLLHUP) != 0:
		if err = sysError(backend.fd); err == nil {
			err = syscall.ECONNRESET
		}
	case mask&unix.EPOLLOUT == 0:
		return
	case p.isConnectedToItself():
		err = syscall.ECONNREFUSED
	}
	if err != nil {
		p.hangUp(out)
		p.run(p.dialFailed(err, p.loop.now))
		return
	}
	p.run(p.connected(p.loop.now))
}

// isConnectedToItself reports whether the kernel chose the port of the backend
// for our side, which on this host connects the socket to itself (RFC 9293,
// section 3.5, simultaneous open) where nobody listens.
func (p *pair) isConnectedToItself() bool {
	e, to := p.loop.engine, p.now.backend
	if to.Port() < e.firstPort || to.Port() > e.lastPort {
		return false
	}
	if err := sysGetsockname(p.ends[out].fd, &p.loop.name); err != nil {
		return false
	}
	from := fromSockaddr(&p.loop.name)
	return from.Port() == to.Port() && from.Addr().Unmap() == to.Addr().Unmap()
}

// settleAfter is how long a connection lives before it gets the options that
// matter only to those that last. Most end earlier.
const settleAfter = moment(10 * time.Second)

// settle sets the options for connections that last: the client has its
// keep-alive from the listener.
func (p *pair) settle() {
	p.settled = true
	backend := p.ends[out].fd
	set := func(level, option, value int) {
		_ = sysSetInt(backend, level, option, value) // fails on a socket that is gone, as the next read will
	}
	setKeepAlive(set)
	if ms := p.userTimeout().Milliseconds(); ms > 0 {
		ms := int(min(ms, 1<<31-1))
		set(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
		_ = sysSetInt(p.ends[in].fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, ms)
	}
}

// watchIdle has lookIdle called when the patience may end.
func (p *pair) watchIdle() {
	deadline := never
	if limit := p.patience(p.halfClosed); limit > 0 {
		deadline = p.active + moment(limit)
	}
	if !p.settled {
		deadline = min(deadline, p.since+settleAfter)
	}
	p.loop.set(p, deadline)
}

// lookIdle runs when the patience may have ended. Bytes do not set the
// deadline anew, they leave a stamp only.
//
// To a slow receiver much may be under way in the kernel, megabytes, while
// nothing is written for long. So where something is under way and some of it
// has arrived since lookIdle last asked, the connection has another term.
func (p *pair) lookIdle() {
	at := p.loop.at
	if !p.settled && at-p.since >= settleAfter {
		p.settle()
	}
	limit := moment(p.patience(p.halfClosed))
	if limit == 0 || at-p.active < limit {
		p.watchIdle()
		return
	}
	ackedIn, waitsIn := underWayOn(p.ends[in].fd)
	ackedOut, waitsOut := underWayOn(p.ends[out].fd)
	if acked := ackedIn + ackedOut; (waitsIn || waitsOut) && acked != p.acked {
		p.acked = acked
		p.loop.set(p, at+limit)
		return
	}
	p.end(p.impatience(p.halfClosed), true)
}

// end closes both sides, with RST or cleanly, and gives the pair back.
func (p *pair) end(why reason, withReset bool) {
	l := p.loop
	l.set(p, never)
	for d := range p.ends {
		p.ways[d].drop(l)
		switch fd := p.ends[d].fd; {
		case fd < 0:
		case withReset:
			sysReset(fd)
		default:
			sysClose(fd)
		}
	}
	p.ended(why, l.now)
	l.pairs.put(p)
}
