package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newUDPEngine returns what makes the engine for UDP beside that for TCP.
func newUDPEngine(o Options) func(*core) (engine, error) {
	if o.Engine == Portable {
		return newUDPNetEngine
	}
	loops := o.Loops
	if loops == 0 {
		loops = runtime.GOMAXPROCS(0)
	}
	return func(c *core) (engine, error) { return makeUDPLoops(c, loops) }
}

// udpLoops is the engine for Linux: a few loops, each with its own epoll and a
// socket of its own for each listener. The kernel leads the datagrams of one
// client to one of them, so a flow lives and dies in one loop and needs no lock.
type udpLoops struct {
	loops []*udpLoop
	wg    sync.WaitGroup
}

func makeUDPLoops(c *core, loops int) (engine, error) {
	e := &udpLoops{}
	for i := range loops {
		l, err := newUDPLoop(c, i)
		if err != nil {
			e.close()
			return nil, err
		}
		e.loops = append(e.loops, l)
		e.wg.Go(l.run)
	}
	return e, nil
}

// listen opens a socket for each loop, over which the kernel spreads the clients
// (SO_REUSEPORT). Of inherited sockets none may be left out: the kernel would
// still lead clients there.
func (e *udpLoops) listen(l *listener, inherited []int) (opened, error) {
	var ports []*udpPort // the i-th belongs to the loop i, modulo their number
	stop := func() {
		for i, p := range ports {
			loop := e.loops[i%len(e.loops)]
			loop.do(func() { loop.remove(p) })
		}
	}
	bound := l.address
	for i := range max(len(e.loops), len(inherited)) {
		loop := e.loops[i%len(e.loops)]
		fd, at, err := openUDP(bound, i, len(e.loops), inherited)
		if err == nil {
			bound = at
			p := &udpPort{listener: l, fd: fd, local: at.Addr(), flows: make(map[flowKey]*udpFlow)}
			ports = append(ports, p)
			loop.do(func() { err = loop.add(p) })
		}
		if err != nil {
			stop()
			closeAll(inherited[min(i+1, len(inherited)):])
			return opened{}, err
		}
	}
	return opened{bound, stop, func(visit func(int)) {
		for _, p := range ports {
			visit(p.fd)
		}
	}}, nil
}

func (e *udpLoops) sweep() {
	for _, l := range e.loops {
		l.sweepWanted.Store(true)
		l.wakeUp()
	}
}

func (e *udpLoops) close() {
	for _, l := range e.loops {
		l.stopWanted.Store(true)
		l.wakeUp()
	}
	e.wg.Wait()
}

// receiveBuffer is what is asked for; the kernel lowers it to net.core.rmem_max.
const receiveBuffer = 4 << 20

// openUDP opens the socket with that index, of as many as there are loops, for
// one listener, or takes over the inherited one with that index. The address of
// the first may have port 0; the others join where it was bound.
func openUDP(address netip.AddrPort, index, loops int, inherited []int) (fd int, bound netip.AddrPort, err error) {
	if index < len(inherited) {
		fd = inherited[index]
		bound, err = adoptUDP(fd, loops > 1)
		if err != nil {
			sysClose(fd)
		}
		return fd, bound, err
	}
	fd, err = sysSocketUDP(address.Addr())
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
	if address.Addr().Is6() {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if index > 0 {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil && address.Addr().IsUnspecified() {
		err = os.NewSyscallError("setsockopt", setPktinfo(fd, address.Addr()))
	}
	if err != nil {
		return fd, bound, err
	}
	_ = sysSetInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // less is no reason not to serve
	var name unix.RawSockaddrAny
	size := toSockaddr(address, &name)
	if err = sysBind(fd, &name, size); err != nil {
		return fd, bound, fmt.Errorf("bind %s: %w", address, err)
	}
	// Only after the bind, as for TCP: another program's socket must not be
	// shared without a word.
	if index == 0 && loops > 1 {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil {
		err = os.NewSyscallError("getsockname", sysGetsockname(fd, &name))
	}
	return fd, fromSockaddr(&name), err
}

// adoptUDP makes fd, a bound socket of another process, one of this engine.
func adoptUDP(fd int, joinable bool) (bound netip.AddrPort, err error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err == nil && kind != unix.SOCK_DGRAM {
		err = fmt.Errorf("an inherited socket is not one of UDP: %w", unix.ESOCKTNOSUPPORT)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	var name unix.RawSockaddrAny
	if err == nil {
		err = sysGetsockname(fd, &name)
	}
	bound = fromSockaddr(&name)
	if err == nil && joinable {
		err = sysSetInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if err == nil && bound.Addr().IsUnspecified() {
		err = setPktinfo(fd, bound.Addr())
	}
	if err != nil {
		return bound, fmt.Errorf("taking over the socket of %s: %w", bound, err)
	}
	unix.CloseOnExec(fd)
	return bound, nil
}

// connectUDP returns a socket that is connected to backend.
func (l *udpLoop) connectUDP(backend netip.AddrPort) (fd int, err error) {
	fd, err = sysSocketUDP(backend.Addr())
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	size := toSockaddr(backend, &l.name)
	if err = sysConnect(fd, &l.name, size); err == nil && backend.Port() >= l.core.firstPort && backend.Port() <= l.core.lastPort {
		// The port that the socket was given may be that of the backend, which
		// is not there then: the datagrams would come back as their own answer.
		if err = sysGetsockname(fd, &l.name); err == nil && fromSockaddr(&l.name) == backend {
			err = syscall.ECONNREFUSED
		}
	}
	if err != nil {
		sysClose(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

func sysSocketUDP(a netip.Addr) (int, error) {
	domain := unix.AF_INET6
	if a.Is4() {
		domain = unix.AF_INET
	}
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, uintptr(domain),
		unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	return int(fd), asError(errno)
}

// A message is struct mmsghdr, see recvmmsg(2).
type message struct {
	header unix.Msghdr
	length uint32 // of the datagram
}

// sysReceiveMany receives the datagrams that are there.
func sysReceiveMany(fd int, to []message) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd),
			uintptr(unsafe.Pointer(&to[0])), uintptr(len(to)), unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// sysSendMany sends datagrams up to the first that fails. The error is of the
// first of all: n is 0 then.
func sysSendMany(fd int, from []message) (n int, err error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd),
			uintptr(unsafe.Pointer(&from[0])), uintptr(len(from)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
