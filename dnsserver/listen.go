package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// An address that cannot be opened is tried again after this, and after
	// longer each time.
	retryFirst = 100 * time.Millisecond
	retryMost  = 30 * time.Second

	// maxSockets is how many UDP sockets share an address.
	maxSockets = 8

	// portTries is how many ports are tried for an address with port 0: the one
	// that is free for TCP may be taken for UDP.
	portTries = 20

	// udpBuffer is what the system is asked to hold for a socket, in octets. It
	// gives what it allows.
	udpBuffer = 1 << 20

	// udpLastWrite bounds how long the last answers of a socket that is closed
	// wait for the network.
	udpLastWrite = time.Second
)

// A listener is one address of the Table, open for UDP and TCP.
type listener struct {
	addr  netip.AddrPort // as in the Table
	bound netip.AddrPort
	tcp   tcpSocket
	udp   []udpSocket

	reading sync.WaitGroup // the goroutines that read from udp
	closing atomic.Bool
	closed  chan struct{}
}

// sockets opens and closes listeners. It belongs to one goroutine.
type sockets struct {
	server *Server
	open   map[netip.AddrPort]*listener
	failed map[netip.AddrPort]*attempt
}

// An attempt to open an address has failed.
type attempt struct {
	err   error
	next  time.Time
	delay time.Duration
}

// apply closes the listeners that are not wanted any more and opens those that
// are not there. The channel it returns tells when to call it again; nil:
// everything is open.
func (s *sockets) apply(ctx context.Context, want []netip.AddrPort) <-chan time.Time {
	if s.open == nil {
		s.open = make(map[netip.AddrPort]*listener)
		s.failed = make(map[netip.AddrPort]*attempt)
	}
	for addr, l := range s.open {
		if !slices.Contains(want, addr) {
			s.server.close(l)
			delete(s.open, addr)
			s.server.log.Info("dns listener closed", "address", addr)
		}
	}
	for addr := range s.failed {
		if !slices.Contains(want, addr) {
			delete(s.failed, addr)
		}
	}
	var soonest time.Time
	for _, addr := range want {
		if s.open[addr] == nil {
			if next := s.try(ctx, addr); !next.IsZero() && (soonest.IsZero() || next.Before(soonest)) {
				soonest = next
			}
		}
	}
	s.publish()
	if soonest.IsZero() {
		return nil
	}
	return time.After(time.Until(soonest))
}

// try opens an address, unless it was tried just now. It returns when to try
// again; the zero time: it is open.
func (s *sockets) try(ctx context.Context, addr netip.AddrPort) time.Time {
	before := s.failed[addr]
	if before != nil && time.Now().Before(before.next) {
		return before.next
	}
	l, err := s.server.listen(ctx, addr)
	if err == nil {
		s.open[addr] = l
		delete(s.failed, addr)
		s.server.serve(l)
		s.server.log.Info("dns listener open", "address", l.bound, "udp_sockets", len(l.udp))
		return time.Time{}
	}
	a := &attempt{err: err, delay: retryFirst}
	if before != nil {
		a.delay = min(2*before.delay, retryMost)
	}
	if before == nil || before.err.Error() != err.Error() {
		s.server.log.Error("dns listener cannot be opened, it is tried again", "address", addr, "err", err)
	}
	a.next = time.Now().Add(a.delay)
	s.failed[addr] = a
	return a.next
}

// publish makes known what is open.
func (s *sockets) publish() {
	states := make(map[netip.AddrPort]listenerState)
	for addr, l := range s.open {
		states[addr] = listenerState{bound: l.bound, listener: l}
	}
	for addr, a := range s.failed {
		states[addr] = listenerState{err: a.err}
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.listeners = states
}

// listen opens an address for TCP and UDP.
func (s *Server) listen(ctx context.Context, addr netip.AddrPort) (*listener, error) {
	from := adopt(s.inherited, addr)
	defer from.close()
	tries := 1
	if addr.Port() == 0 {
		tries = portTries
	}
	var err error
	for range tries {
		var l *listener
		if l, err = listenOnce(ctx, addr, from, s.sockets, s.loops); err == nil {
			return l, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, err
}

// listenOnce opens TCP first: UDP sockets share their port even with another
// process, TCP shows that somebody is there. It takes what there is in from.
func listenOnce(ctx context.Context, addr netip.AddrPort, from *adopted, sockets, loops int) (*listener, error) {
	// An IPv6 address stands for IPv6 alone, so that 0.0.0.0 and [::] go together.
	family := "6"
	if addr.Addr().Is4() || addr.Addr().Is4In6() {
		family = "4"
	}
	l := &listener{addr: addr, closed: make(chan struct{})}
	tcp := from.takeTCP()
	if tcp == nil {
		// Idle connections end before the system would ask whether they live.
		config := net.ListenConfig{KeepAlive: -1}
		config.SetMultipathTCP(false) // an exchange of two packets has one path
		opened, err := config.Listen(ctx, "tcp"+family, addr.String())
		if err != nil {
			return nil, fmt.Errorf("listening: %w", err)
		}
		tcp = opened.(*net.TCPListener)
	}
	l.bound = netip.AddrPortFrom(addr.Addr(), uint16(tcp.Addr().(*net.TCPAddr).Port))
	l.addTCP(tcp, loops)
	for _, c := range from.takeUDP() {
		l.addUDP(c)
	}
	for len(l.udp) < sockets {
		config := net.ListenConfig{Control: controlUDP(addr.Addr())}
		udp, err := config.ListenPacket(ctx, "udp"+family, l.bound.String())
		if err != nil {
			l.shut()
			return nil, fmt.Errorf("listening: %w", err)
		}
		l.addUDP(udp.(*net.UDPConn))
	}
	return l, nil
}

// addTCP serves c in some loops; 0: with a goroutine for each connection.
func (l *listener) addTCP(c *net.TCPListener, loops int) {
	l.tcp = netSocket{c}
	if loops > 0 {
		if b, ok := detachTCP(c, loops); ok {
			l.tcp = b
		}
	}
}

func (l *listener) addUDP(c *net.UDPConn) {
	_ = c.SetReadBuffer(udpBuffer) // less is no reason not to serve
	if b, ok := detach(c, l.addr.Addr().IsUnspecified()); ok {
		l.udp = append(l.udp, b)
	} else {
		l.udp = append(l.udp, singleSocket{c})
	}
}

// shut closes the sockets.
func (l *listener) shut() {
	l.tcp.close()
	for _, c := range l.udp {
		c.close()
	}
}

// serve starts the goroutines that read from l.
func (s *Server) serve(l *listener) {
	for shard, c := range l.udp {
		l.reading.Add(1)
		s.serving.Go(func() {
			defer l.reading.Done()
			c.serve(s, l, shard)
		})
	}
	s.serving.Go(func() { l.tcp.serve(s, l) })
}

// close closes l. Whatever was read from it is answered first, as another
// process may have its sockets, and nobody notices this. Its connections end
// after the answer they are at.
func (s *Server) close(l *listener) {
	l.closing.Store(true)
	close(l.closed)
	for _, c := range l.udp {
		c.stop()
	}
	l.reading.Wait()
	l.tcp.stop()
	l.shut()
	s.connections.expire(l)
}
