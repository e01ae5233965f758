//go:build linux

package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// An epollEngine is the engine for Linux: a few loops, each with its own
// epoll. A connection lives and dies in the loop that accepted it, so nothing
// of it needs a lock.
type epollEngine struct {
	core  *core
	loops []*loop
	wg    sync.WaitGroup

	// Local ports that the system gives to outgoing connections: only to a
	// backend with one of these can a socket be connected to itself.
	firstPort, lastPort uint16
}

// newEpollEngine starts an engine of some loops; 0: GOMAXPROCS.
func newEpollEngine(c *core, loops int) (engine, error) {
	if loops == 0 {
		loops = runtime.GOMAXPROCS(0)
	}
	e := &epollEngine{core: c, firstPort: 1024, lastPort: 1<<16 - 1}
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		_, _ = fmt.Sscan(string(text), &e.firstPort, &e.lastPort) // what it does not say stays wide
	}
	for i := range loops {
		l, err := newLoop(e, i, loops)
		if err != nil {
			e.close()
			return nil, err
		}
		e.loops = append(e.loops, l)
		e.wg.Go(l.run)
	}
	return e, nil
}

// listen opens a socket for each loop, over which the kernel spreads the
// connections (SO_REUSEPORT). Of inherited sockets none may be left out: the
// kernel goes on giving each its share. So where there are more than loops, a
// loop has several.
func (e *epollEngine) listen(l *listener, inherited []int) (opened, error) {
	var acceptors []*acceptor // the i-th belongs to the loop i, modulo their number
	stop := func() {
		for i, a := range acceptors {
			loop := e.loops[i%len(e.loops)]
			loop.do(func() { loop.remove(a) })
		}
	}
	bound := l.address
	joinable := len(e.loops) > 1
	for i := range max(len(e.loops), len(inherited)) {
		a, loop := &acceptor{listener: l}, e.loops[i%len(e.loops)]
		var err error
		if i < len(inherited) {
			a.fd = inherited[i]
			bound, err = adoptListener(a.fd, joinable)
		} else {
			a.fd, bound, err = openListener(bound, i > 0, joinable)
		}
		if err == nil {
			a.bound = bound
			acceptors = append(acceptors, a)
			loop.do(func() { err = loop.add(a) })
		}
		if err != nil {
			stop()
			for _, fd := range inherited[min(len(acceptors), len(inherited)):] {
				sysClose(fd)
			}
			return opened{}, err
		}
	}
	return opened{bound, stop, func(visit func(int)) {
		for _, a := range acceptors {
			visit(a.fd)
		}
	}}, nil
}

func (e *epollEngine) sweep() {
	for _, l := range e.loops {
		l.sweepWanted.Store(true)
		l.wakeUp()
	}
}

func (e *epollEngine) close() {
	for _, l := range e.loops {
		l.stopWanted.Store(true)
		l.wakeUp()
	}
	e.wg.Wait()
}

// openListener opens a listening socket, whose options the accepted ones
// inherit. With joins the address may be bound already by a socket with
// joinable, of the same user.
func openListener(address netip.AddrPort, joins, joinable bool) (fd int, bound netip.AddrPort, err error) {
	fd, err = sysSocket(address.Addr())
	if err != nil {
		return -1, bound, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			sysClose(fd)
		}
	}()
	set := func(level, option, value int) {
		if err == nil {
			err = os.NewSyscallError("setsockopt", sysSetInt(fd, level, option, value))
		}
	}
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if joins {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if address.Addr().Is6() {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	setInheritable(set)
	if err != nil {
		return fd, bound, err
	}
	var name unix.RawSockaddrAny
	size := toSockaddr(address, &name)
	if err = sysBind(fd, &name, size); err != nil {
		return fd, bound, fmt.Errorf("bind %s: %w", address, err)
	}
	// Only after the bind, which has made sure that the address is nobody
	// else's: with SO_REUSEPORT another elbow would go unnoticed, and a free
	// port need not be free.
	if joinable && !joins {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, backlog))
	}
	if err == nil {
		err = os.NewSyscallError("getsockname", sysGetsockname(fd, &name))
	}
	return fd, fromSockaddr(&name), err
}

// adoptListener makes a socket that listens already what openListener would
// have made it, as far as that can be changed, and returns where it is bound.
func adoptListener(fd int, joinable bool) (bound netip.AddrPort, err error) {
	set := func(level, option, value int) {
		if err == nil {
			err = os.NewSyscallError("setsockopt", sysSetInt(fd, level, option, value))
		}
	}
	setInheritable(set)
	if joinable { // the process before may have had one loop
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	var name unix.RawSockaddrAny
	if err == nil {
		err = os.NewSyscallError("getsockname", sysGetsockname(fd, &name))
	}
	return fromSockaddr(&name), err
}

// backlog is what is asked for; the kernel lowers it to net.core.somaxconn.
const backlog = 1<<16 - 1

// setInheritable sets what the accepted sockets inherit.
func setInheritable(set func(level, option, value int)) {
	set(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	setKeepAlive(set)
}

func setKeepAlive(set func(level, option, value int)) {
	set(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepAlive.Idle.Seconds()))
	set(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepAlive.Interval.Seconds()))
	set(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepAlive.Count)
	set(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}
