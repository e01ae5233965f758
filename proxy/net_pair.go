package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A netPair is one connection of the portable engine: a session and its two
// sockets.
type netPair struct {
	session
	engine *netEngine
	wake   chan struct{} // holds one when resume was called

	shard          *shard
	next, previous *netPair // guarded by shard.mu

	ends   [2]end       // by the direction they send into: ends[in] is the client
	active atomic.Int64 // moment of the last byte, while relaying

	mu         sync.Mutex
	cancel     context.CancelFunc // of the connect that goes on; nil: none
	relaying   bool
	halfClosed bool        // one side has closed
	first      reason      // who closed first; goesOn: nobody
	broken     reason      // what was found out when writing to a side that can still be read
	verdict    reason      // why both sockets were closed; goesOn: they are open
	timer      *time.Timer // ends the patience
	acked      uint64      // bytes that both peers had acknowledged when lookIdle last asked
}

// resume implements [waker].
func (p *netPair) resume() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run does step after step until the connection has ended.
func (p *netPair) run(next step) {
	for {
		switch next.do {
		case doHeader, doHello:
			next = p.readHeader(next)
		case doPark, doWait:
			next = p.wait(next)
		case doDial:
			next = p.dial(next)
		case doRelay:
			p.finish(p.relay())
			return
		case doFarewell:
			next = p.sayFarewell(next)
		case doReset:
			p.ends[in].reset()
			p.ends[out].reset()
			p.finish(next.reason)
			return
		}
	}
}

func (p *netPair) finish(why reason) {
	p.shard.remove(p) // first: nobody asks cut of a session that has ended
	p.ended(why, time.Now())
}

// interrupt ends the connection: at once while it relays, else by letting the
// step end, after which the session finds out for itself.
func (p *netPair) interrupt(why reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.relaying {
		p.resetBoth(why)
		return
	}
	if p.cancel != nil {
		p.cancel()
	}
	_ = p.ends[in].conn.SetReadDeadline(time.Unix(1, 0)) // ends readHeader; fails where nothing is left to end
	p.resume()
}

func (p *netPair) wait(s step) step {
	timer := time.NewTimer(time.Until(s.until))
	defer timer.Stop()
	select {
	case <-p.wake:
		return p.resumed(time.Now())
	case <-timer.C:
		return p.expired(time.Now())
	}
}

// readHeader looks at what the client has sent without consuming it, until
// the session has seen the whole header or hello; then the header alone is
// consumed.
func (p *netPair) readHeader(s step) step {
	client := &p.ends[in]
	if err := client.conn.SetReadDeadline(s.until); err != nil {
		return p.gone()
	}
	if why := p.cut(time.Now()); why != goesOn { // an interrupt may have come before the deadline
		return p.refuse(why)
	}
	next := s
	seen := 0
	var failed error
	err := client.raw.Read(func(fd uintptr) bool {
		buffer := p.engine.buffers.Get().(*[bufferSize]byte) // not held while it waits
		defer p.engine.buffers.Put(buffer)
		n, err := peek(int(fd), buffer[:maxPeek])
		switch {
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			failed = err
			return true
		case n == 0 || n == seen && hasEnded(int(fd)):
			next = p.halted(time.Now())
			return true
		case n == seen:
			return false
		}
		seen = n
		consume, after := p.received(buffer[:n], time.Now())
		if after.do == s.do {
			if hasEnded(int(fd)) {
				next = p.halted(time.Now())
				return true
			}
			return false
		}
		next = after
		if consume > 0 {
			_, failed = readFull(int(fd), buffer[:consume])
		}
		return true
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return p.expired(time.Now())
	case err != nil:
		return p.gone()
	case failed != nil && next.do != doReset:
		return p.gone()
	}
	return next
}

// sayFarewell tells the client that nobody is here for it and waits until it
// has closed: an RST before that could take the farewell with it.
func (p *netPair) sayFarewell(s step) step {
	client := p.ends[in].conn
	_ = client.SetReadDeadline(s.until) // fails on a socket that is gone, as the read will
	if why := p.cut(time.Now()); why != goesOn {
		return p.refuse(why)
	}
	_, _ = client.Write(s.words.bytes())
	_ = client.CloseWrite()
	_, err := io.CopyN(io.Discard, client, maxDiscard)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return p.expired(time.Now())
	}
	if err == io.EOF {
		p.ends[in].close()
	}
	return p.refuse(s.reason)
}

// dial connects to the backend.
func (p *netPair) dial(s step) step {
	if s.again && p.clientIsGone() {
		return p.gone()
	}
	ctx, cancel := context.WithDeadline(context.Background(), s.until)
	defer cancel()
	p.mu.Lock()
	p.cancel = cancel
	p.mu.Unlock()
	err := p.engine.core.faults.onDial(s.backend)
	if why := p.cut(time.Now()); why != goesOn { // an interrupt may have come before p.cancel was there
		return p.refuse(why)
	}
	var conn *net.TCPConn
	if err == nil {
		dialer := net.Dialer{KeepAliveConfig: keepAlive}
		dialer.SetMultipathTCP(false)
		// Not DialTCP: that binds to a port first, which then cannot serve
		// other destinations too, nor again for a minute.
		var c net.Conn
		if c, err = dialer.DialContext(ctx, network(s.backend.Addr()), s.backend.String()); err == nil {
			conn = c.(*net.TCPConn)
		}
	}
	p.mu.Lock()
	p.cancel = nil
	if err == nil {
		p.ends[out].conn = conn
		p.ends[out].raw, err = conn.SyscallConn()
	}
	p.mu.Unlock()
	if err != nil {
		return p.dialFailed(err, time.Now())
	}
	return p.connected(time.Now())
}

// clientIsGone reports whether the client has reset the connection. One that
// has only closed its side may still wait for an answer.
func (p *netPair) clientIsGone() bool {
	gone := false
	err := p.ends[in].raw.Control(func(fd uintptr) {
		var b [1]byte
		_, err := peek(int(fd), b[:])
		gone = err != nil && err != syscall.EAGAIN
	})
	return gone || err != nil
}

// relay moves bytes both ways until the connection has ended, closes both
// sockets and says why.
func (p *netPair) relay() reason {
	for i := range p.ends {
		setUserTimeout(p.ends[i].raw, p.userTimeout())
	}
	p.touch()
	p.mu.Lock()
	p.relaying = true
	_ = p.ends[in].conn.SetReadDeadline(time.Time{}) // of readHeader; fails on a socket that is gone, as the first read will
	if limit := p.patience(false); limit > 0 {
		p.timer = time.AfterFunc(limit, p.lookIdle)
	}
	if why := p.cut(time.Now()); why != goesOn {
		p.resetBoth(why)
	}
	p.mu.Unlock()

	var space [maxHeaderV1]byte
	preface := p.preface(space[:0])
	var other sync.WaitGroup
	other.Go(func() { newStream(p, out).run(nil) })
	newStream(p, in).run(preface)
	other.Wait()

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.verdict == goesOn {
		p.verdict = p.first
		p.ends[in].close()
		p.ends[out].close()
	}
	return p.verdict
}

func (p *netPair) touch() { p.active.Store(p.engine.core.moment(time.Now())) }

// resetBoth resets both sides unless they are closed. The caller holds p.mu.
func (p *netPair) resetBoth(why reason) {
	if p.verdict != goesOn {
		return
	}
	p.verdict = why
	p.ends[in].reset()
	p.ends[out].reset()
}

// lookIdle runs when the patience may have ended. Bytes do not set the timer
// anew, they leave a stamp only.
//
// To a slow receiver much may be under way in the kernel, megabytes, while
// nothing is written for long. So where something is under way and some of it
// has arrived since lookIdle last asked, the connection has another term.
func (p *netPair) lookIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := p.patience(p.halfClosed)
	if limit == 0 || p.verdict != goesOn {
		return
	}
	idle := time.Duration(p.engine.core.moment(time.Now()) - p.active.Load())
	if idle < limit {
		p.timer.Reset(limit - idle)
		return
	}
	ackedIn, waitsIn := underWay(p.ends[in].raw)
	ackedOut, waitsOut := underWay(p.ends[out].raw)
	if acked := ackedIn + ackedOut; (waitsIn || waitsOut) && acked != p.acked {
		p.acked = acked
		p.timer.Reset(limit)
		return
	}
	p.resetBoth(p.impatience(p.halfClosed))
}

// closed tells that the stream in direction d has come to its end, with all
// its bytes written.
func (p *netPair) closed(d direction) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.verdict != goesOn {
		return
	}
	if p.broken != goesOn { // the end of a stream whose other way is broken is no clean one
		p.resetBoth(p.broken)
		return
	}
	if p.first == goesOn {
		p.first = clientClosed
		if d == out {
			p.first = backendClosed
		}
	}
	if p.halfClosed {
		return // relay closes both
	}
	p.halfClosed = true
	p.touch()
	_ = p.ends[1-d].conn.CloseWrite() // fails where that side is gone, which its own stream finds out
	if limit := p.patience(true); limit > 0 {
		if p.timer == nil {
			p.timer = time.AfterFunc(limit, p.lookIdle)
		} else {
			p.timer.Reset(limit)
		}
	}
}

// failed tells that a side has failed: from was read from or, with writing,
// written to.
//
// A side that was written to may have sent something before it reset the
// connection, say an answer that says why. So where it can still be read,
// that stream goes on and comes to its end by itself.
func (p *netPair) failed(side direction, err error, writing bool) {
	why := brokenBy(side, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.broken != goesOn:
		p.resetBoth(p.broken)
	case writing && !p.halfClosed:
		p.broken = why
	default:
		p.resetBoth(why)
	}
}

// peek returns what can be read without consuming it.
func peek(fd int, b []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_PEEK)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// readFull consumes len(b) bytes, which are there.
func readFull(fd int, b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := syscall.Read(fd, b[done:])
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return done, err
		case n == 0:
			return done, syscall.ECONNRESET
		default:
			done += n
		}
	}
	return done, nil
}
