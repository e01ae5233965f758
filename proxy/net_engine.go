package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Keep-alive probes find a peer that vanished while nobody sends: after a
// minute, or where TCP_USER_TIMEOUT is set after that, which counts instead of
// the unanswered probes then (tcp(7)).
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3}

// bufferSize is how much is read at once. A buffer is held only while it has
// something in it; a connection that is idle holds none.
const bufferSize = 64 << 10

// registryShards spreads the lock that a connection takes when it begins and
// when it ends, so that accept loops seldom wait for each other.
const registryShards = 16

// A netEngine is the portable engine: package net, two goroutines for each
// connection.
type netEngine struct {
	core    *core
	wg      sync.WaitGroup
	turn    atomic.Uint64
	shards  [registryShards]shard
	buffers sync.Pool // of *[bufferSize]byte
	pipes   *pipes
}

// A shard is a part of the registry of connections, which sweep needs.
type shard struct {
	mu    sync.Mutex
	first *netPair // linked by netPair.after
}

func newNetEngine(c *core) (engine, error) {
	e := &netEngine{core: c, pipes: newPipes()}
	e.buffers.New = func() any { return new([bufferSize]byte) }
	return e, nil
}

// network is "tcp4" or "tcp6", so that a listener on [::] takes nothing away
// from one on 0.0.0.0 and an address means what it says.
func network(a netip.Addr) string {
	if a.Is4() {
		return "tcp4"
	}
	return "tcp6"
}

func (e *netEngine) listen(l *listener, inherited []int) (opened, error) {
	var sockets []*net.TCPListener
	if len(inherited) > 0 {
		var err error
		if sockets, err = adoptListeners(inherited); err != nil {
			return opened{}, err
		}
	} else {
		config := net.ListenConfig{KeepAliveConfig: keepAlive}
		// Multipath TCP costs options and its sockets lack some of TCP's.
		config.SetMultipathTCP(false)
		socket, err := config.Listen(context.Background(), network(l.address.Addr()), l.address.String())
		if err != nil {
			return opened{}, err
		}
		sockets = append(sockets, socket.(*net.TCPListener))
	}
	bound := sockets[0].Addr().(*net.TCPAddr).AddrPort()
	stop := make(chan struct{})
	var accepting sync.WaitGroup
	for _, socket := range sockets {
		accepting.Add(1)
		e.wg.Go(func() {
			defer accepting.Done()
			e.accept(l, socket, stop)
		})
	}
	return opened{
		bound: netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port()),
		close: func() {
			close(stop)
			for _, socket := range sockets {
				_ = socket.Close() // it is gone either way
			}
			accepting.Wait()
		},
		sockets: func(visit func(int)) {
			for _, socket := range sockets {
				visitSocket(socket, visit)
			}
		},
	}, nil
}

// accept accepts on l until its socket is closed.
func (e *netEngine) accept(l *listener, socket *net.TCPListener, stop <-chan struct{}) {
	for {
		now := time.Now()
		pause := e.core.acceptDelay(now)
		if pause == 0 {
			var conn *net.TCPConn
			err := e.core.faults.onAccept()
			if err == nil {
				conn, err = socket.AcceptTCP()
			}
			if err == nil {
				e.begin(l, conn)
				continue
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			pause = e.core.acceptFailed(l, err, time.Now())
		}
		select {
		case <-time.After(pause):
		case <-stop:
			return
		}
	}
}

func (e *netEngine) begin(l *listener, conn *net.TCPConn) {
	p := &netPair{engine: e, wake: make(chan struct{}, 1), shard: &e.shards[e.turn.Add(1)%registryShards]}
	p.ends[in] = end{conn: conn}
	p.ends[in].raw, _ = conn.SyscallConn() // fails for an invalid conn only
	peer := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	next := p.accepted(e.core, l, p, peer, local, time.Now())
	p.shard.add(p)
	e.wg.Go(func() { p.run(next) })
}

func (e *netEngine) sweep() {
	now := time.Now()
	for i := range e.shards {
		e.shards[i].each(func(p *netPair) {
			if why := p.cut(now); why != goesOn {
				p.interrupt(why)
			}
		})
	}
}

func (e *netEngine) close() {
	e.wg.Wait()
	e.pipes.close()
}

func (s *shard) add(p *netPair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.next = s.first
	if s.first != nil {
		s.first.previous = p
	}
	s.first = p
}

func (s *shard) remove(p *netPair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.next != nil {
		p.next.previous = p.previous
	}
	if p.previous != nil {
		p.previous.next = p.next
	} else {
		s.first = p.next
	}
}

func (s *shard) each(do func(*netPair)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := s.first; p != nil; p = p.next {
		do(p)
	}
}

// An end is one of the two sockets of a connection.
type end struct {
	conn *net.TCPConn
	raw  syscall.RawConn
}

// reset closes the socket so that the peer sees an error. Where there is no
// socket it does nothing.
func (e *end) reset() {
	if e.conn != nil {
		_ = e.conn.SetLinger(0) // fails only on a socket that is gone already
		_ = e.conn.Close()
	}
}

func (e *end) close() {
	if e.conn != nil {
		_ = e.conn.Close() // both sides have ended their streams, nothing is lost
	}
}
