package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// An udpNetEngine is the portable engine for UDP: package net, one goroutine
// for each listener and one for each flow, which holds a buffer for the largest
// datagram. Where the send buffer of a socket is full it waits; what cannot be
// read meanwhile the kernel drops.
type udpNetEngine struct {
	core    *core
	wg      sync.WaitGroup
	buffers sync.Pool // of *[bufferSize]byte

	mu    sync.Mutex
	ports map[*udpNetPort]bool // guarded by mu
}

// An udpNetPort is the socket of a UDP listener.
type udpNetPort struct {
	engine   *udpNetEngine
	listener *listener
	conn     *net.UDPConn
	local    netip.Addr // that it is bound to

	mu      sync.Mutex // guards what follows, and its flows
	flows   map[flowKey]*udpNetFlow
	closing bool // no datagram of a client is read any more
}

// An udpNetFlow is a flow with its socket.
type udpNetFlow struct {
	flow
	port  *udpNetPort
	conn  *net.UDPConn
	over  bool
	reply []byte // control message that makes answers leave from flow.local
}

func newUDPNetEngine(c *core) (engine, error) {
	e := &udpNetEngine{core: c, ports: make(map[*udpNetPort]bool)}
	e.buffers.New = func() any { return new([bufferSize]byte) }
	return e, nil
}

// udpNetwork is "udp4" or "udp6", as network is for TCP.
func udpNetwork(a netip.Addr) string { return strings.Replace(network(a), "tcp", "udp", 1) }

func (e *udpNetEngine) listen(l *listener, inherited []int) (opened, error) {
	conns, err := e.open(l.address, inherited)
	if err != nil {
		return opened{}, err
	}
	bound := conns[0].LocalAddr().(*net.UDPAddr).AddrPort()
	bound = netip.AddrPortFrom(bound.Addr().Unmap(), bound.Port())
	e.mu.Lock()
	maps.DeleteFunc(e.ports, func(p *udpNetPort, _ bool) bool { return p.isOver() })
	var ports []*udpNetPort
	for _, conn := range conns {
		p := &udpNetPort{engine: e, listener: l, conn: conn, local: bound.Addr(), flows: make(map[flowKey]*udpNetFlow)}
		ports = append(ports, p)
		e.ports[p] = true
	}
	e.mu.Unlock()
	var reading sync.WaitGroup
	for _, p := range ports {
		reading.Add(1)
		e.wg.Go(func() {
			defer reading.Done()
			p.fromClients()
		})
	}
	return opened{
		bound: bound,
		close: func() {
			for _, p := range ports {
				p.close()
			}
			reading.Wait()
		},
		sockets: func(visit func(int)) {
			for _, p := range ports {
				if raw, err := p.conn.SyscallConn(); err == nil {
					_ = raw.Control(func(fd uintptr) { visit(int(fd)) }) // fails on a socket that is closed
				}
			}
		},
	}, nil
}

// open opens the socket of one listener, or takes over all that are inherited.
func (e *udpNetEngine) open(address netip.AddrPort, inherited []int) (conns []*net.UDPConn, err error) {
	if len(inherited) == 0 {
		opened, err := new(net.ListenConfig).ListenPacket(context.Background(), udpNetwork(address.Addr()), address.String())
		if err != nil {
			return nil, err
		}
		conns = append(conns, opened.(*net.UDPConn))
	}
	for _, fd := range inherited {
		f := os.NewFile(uintptr(fd), "inherited")
		c, failed := net.FilePacketConn(f) // a copy
		failed = errors.Join(failed, f.Close())
		if conn, ok := c.(*net.UDPConn); ok {
			conns = append(conns, conn)
		} else if c != nil {
			failed = errors.Join(fmt.Errorf("an inherited socket is on %s, which is not UDP", c.LocalAddr()), c.Close())
		}
		err = errors.Join(err, failed)
	}
	for _, conn := range conns {
		_ = conn.SetReadBuffer(4 << 20) // less is no reason not to serve
		if err == nil && address.Addr().IsUnspecified() {
			raw, failed := conn.SyscallConn()
			if failed == nil {
				failed = wantPktinfo(raw, address.Addr())
			}
			err = os.NewSyscallError("setsockopt", failed)
		}
	}
	if err != nil {
		for _, conn := range conns {
			_ = conn.Close() // err says what is wrong
		}
		return nil, err
	}
	return conns, nil
}

func (e *udpNetEngine) sweep() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for p := range e.ports {
		p.mu.Lock()
		for _, f := range p.flows {
			if why := f.cut(e.core.moment(now)); why != goesOn {
				f.end(why, now)
			}
		}
		p.mu.Unlock()
	}
}

func (e *udpNetEngine) close() { e.wg.Wait() }

// close stops reading. The socket is closed with its last flow.
func (p *udpNetPort) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	_ = p.conn.SetReadDeadline(time.Unix(1, 0)) // ends fromClients; fails on no open socket
	now := time.Now()
	for _, f := range p.flows {
		if f.closing(p.engine.core.moment(now)) {
			_ = f.conn.SetReadDeadline(now.Add(time.Duration(p.engine.core.lastWords))) // as above
		} else {
			f.end(f.expired(), now)
		}
	}
	p.forget()
}

// forget closes the socket if nothing needs it any more. The caller holds p.mu.
func (p *udpNetPort) forget() {
	if p.closing && len(p.flows) == 0 {
		_ = p.conn.Close() // it is gone either way
	}
}

// fromClients forwards what clients send until the socket is closed.
func (p *udpNetPort) fromClients() {
	buffer := make([]byte, bufferSize)
	control := make([]byte, pktinfoSize)
	for {
		n, controls, flags, client, err := p.conn.ReadMsgUDPAddrPort(buffer, control)
		if err != nil {
			if p.isClosing() || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(minPause) // it may fail again at once
			continue
		}
		key := flowKey{netip.AddrPortFrom(client.Addr().Unmap(), client.Port()), p.local}
		if p.local.IsUnspecified() {
			key.local = sentTo(control[:controls])
		}
		p.forward(key, buffer[:n], flags&syscall.MSG_TRUNC != 0)
	}
}

func (p *udpNetPort) isClosing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closing
}

func (p *udpNetPort) isOver() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closing && len(p.flows) == 0
}

// forward sends one datagram to the backend of its flow.
func (p *udpNetPort) forward(key flowKey, data []byte, cut bool) {
	f := p.flowOf(key, len(data))
	if f == nil {
		return
	}
	if cut {
		f.dropped(dropTruncated, 1)
		return
	}
	for attempt := 0; ; attempt++ {
		_, err := f.conn.Write(data)
		switch {
		case err == nil:
			return
		case errors.Is(err, net.ErrClosed): // the flow has ended just now
			f.dropped(dropUnsent, 1)
			return
		case isFull(err):
			f.dropped(dropBuffer, 1)
			return
		case isAbsent(err):
			// It is the error of an earlier datagram, which is lost, or of the
			// route. This one need not be lost.
			if f = p.again(f, key, err, len(data), attempt == 0); f == nil {
				return
			}
		case attempt > 0:
			f.dropped(dropUnsent, 1)
			return
		}
	}
}

// flowOf returns the flow for a datagram of n bytes; nil: it is dropped.
func (p *udpNetPort) flowOf(key flowKey, n int) *udpNetFlow {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	f := p.flows[key]
	if f != nil && !f.stays() {
		f.end(moved, now)
		f = nil
	}
	if f == nil {
		f = p.begin(key, nil, now)
	}
	if f != nil {
		f.received(in, 1, n, p.engine.core.moment(now))
	}
	return f
}

// again ends f, whose backend is absent by err, and begins another flow for a
// datagram of n bytes unless it was tried again already; nil: it is dropped.
func (p *udpNetPort) again(f *udpNetFlow, key flowKey, err error, n int, first bool) *udpNetFlow {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !f.over {
		f.end(f.absent(err), now)
	}
	if !first {
		f.dropped(dropNoBackend, 1)
		return nil
	}
	if f = p.begin(key, []*backend{f.backend}, now); f != nil {
		f.service.retries.Add(1)
		f.carries(in, 1, n, p.engine.core.moment(now))
	}
	return f
}

// begin makes a flow for a datagram that belongs to none; nil: it is dropped.
// The caller holds p.mu.
func (p *udpNetPort) begin(key flowKey, tried []*backend, now time.Time) *udpNetFlow {
	f := &udpNetFlow{port: p}
	why := f.place(p.engine.core, p.listener, key, tried, f.dial, now)
	if why != forwarded {
		f.dropped(why, 1)
		return nil
	}
	if p.local.IsUnspecified() {
		f.reply = appendSource(nil, key.local)
	}
	p.flows[key] = f
	p.engine.wg.Go(f.fromBackend)
	return f
}

func (f *udpNetFlow) dial(backend netip.AddrPort) error {
	conn, err := net.DialUDP(udpNetwork(backend.Addr()), nil, net.UDPAddrFromAddrPort(backend))
	if err == nil && conn.LocalAddr().String() == conn.RemoteAddr().String() {
		_ = conn.Close() // it would answer itself: the port is the backend's, which is not there
		err = fmt.Errorf("connect %s: %w", backend, syscall.ECONNREFUSED)
	}
	f.conn = conn
	return err
}

// fromBackend sends what the backend answers to the client until f has ended.
func (f *udpNetFlow) fromBackend() {
	p := f.port
	buffer := p.engine.buffers.Get().(*[bufferSize]byte)
	defer p.engine.buffers.Put(buffer)
	for f.await() {
		n, _, flags, _, err := f.conn.ReadMsgUDPAddrPort(buffer[:], nil)
		if send := f.read(n, flags&syscall.MSG_TRUNC != 0, err); send {
			_, _, err := p.conn.WriteMsgUDPAddrPort(buffer[:n], f.reply, f.client)
			switch {
			case err == nil:
			case isFull(err):
				f.dropped(dropBuffer, 1)
			default:
				f.dropped(dropUnsent, 1)
			}
		}
		p.mu.Lock()
		if !f.over && err == nil && f.answered() {
			f.end(f.finished(), time.Now())
		}
		p.mu.Unlock()
	}
}

// await sets how long to wait for the backend. It reports false where f has
// ended.
func (f *udpNetFlow) await() bool {
	f.port.mu.Lock()
	defer f.port.mu.Unlock()
	if f.over {
		return false
	}
	deadline := time.Time{}
	if at := f.deadline(); at != noEnd {
		deadline = f.core.epoch.Add(time.Duration(at))
	}
	_ = f.conn.SetReadDeadline(deadline) // fails on no open socket
	return true
}

// read takes how a read from the backend ended. It reports whether there is
// something for the client.
func (f *udpNetFlow) read(n int, cut bool, err error) bool {
	f.port.mu.Lock()
	defer f.port.mu.Unlock()
	now := time.Now()
	at := f.core.moment(now)
	switch {
	case f.over:
		return false
	case err == nil && cut:
		f.dropped(dropTruncated, 1)
		return false
	case err == nil:
		f.received(out, 1, n, at)
		return true
	case isAbsent(err):
		f.end(f.absent(err), now)
	case errors.Is(err, os.ErrDeadlineExceeded) && f.deadline() <= at:
		f.end(f.expired(), now)
	}
	return false // another error is of a datagram that the backend did not get
}

// end ends f. The caller holds port.mu.
func (f *udpNetFlow) end(why reason, now time.Time) {
	f.over = true
	_ = f.conn.Close() // it is gone either way
	delete(f.port.flows, f.flowKey)
	f.ended(why, now)
	f.port.forget()
}
