//go:build linux

package proxy

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of the loop. None of them waits, so they go past the
// scheduler (RawSyscall), which saves the entry and exit of each. What they
// move at once is bounded by bufferSize, so that they do not hold up a garbage
// collection; splice moves more and goes the usual way.

func sysEpollCtl(epoll, operation, fd int, event *unix.EpollEvent) error {
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epoll), uintptr(operation), uintptr(fd),
		uintptr(unsafe.Pointer(event)), 0, 0)
	return asError(errno)
}

func sysRead(fd int, b []byte) (int, error) { return sysReceive(fd, b, 0) }

func sysPeek(fd int, b []byte) (int, error) { return sysReceive(fd, b, unix.MSG_PEEK) }

func sysReceive(fd int, b []byte, flags int) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

func sysWrite(fd int, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// sysAccept accepts one connection, whose peer it stores in name.
func sysAccept(listener int, name *unix.RawSockaddrAny) (int, error) {
	size := uint32(unix.SizeofSockaddrAny)
	fd, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener),
		uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(fd), asError(errno)
}

func sysGetsockname(fd int, name *unix.RawSockaddrAny) error {
	size := uint32(unix.SizeofSockaddrAny)
	_, _, errno := syscall.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd),
		uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&size)))
	return asError(errno)
}

// sysSocket makes a TCP socket, never one of Multipath TCP.
func sysSocket(a netip.Addr) (int, error) {
	domain := unix.AF_INET6
	if a.Is4() {
		domain = unix.AF_INET
	}
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, uintptr(domain),
		unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	return int(fd), asError(errno)
}

func sysConnect(fd int, name *unix.RawSockaddrAny, size uint32) error {
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(name)), uintptr(size))
	return asError(errno)
}

func sysBind(fd int, name *unix.RawSockaddrAny, size uint32) error {
	_, _, errno := syscall.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(name)), uintptr(size))
	return asError(errno)
}

func sysSetInt(fd, level, option, value int) error {
	v := int32(value)
	_, _, errno := syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	return asError(errno)
}

// sysError returns and clears the error that waits on a socket; nil if there
// is none.
func sysError(fd int) error {
	var v, size int32 = 0, 4
	_, _, errno := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_ERROR,
		uintptr(unsafe.Pointer(&v)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return asError(syscall.Errno(v))
}

// sysShutdown ends the stream that fd sends.
func sysShutdown(fd int) {
	_, _, _ = syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0) // fails where that side is gone, which its event tells
}

// sysClose closes fd, which takes it out of its epoll too unless another
// process has it. With the sockets of connections that is so for as long as a
// child that was forked has not executed its program yet (they close on exec):
// their events name a pair that is gone by then, and are edge-triggered.
func sysClose(fd int) {
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) // the descriptor is free whatever it says
}

// sysReset closes fd so that the peer sees an error.
func sysReset(fd int) {
	linger := unix.Linger{Onoff: 1}
	_, _, _ = syscall.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&linger)), unsafe.Sizeof(linger), 0) // fails only on a socket that is gone already
	sysClose(fd)
}

// asError avoids an error that holds 0 and is not nil.
func asError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// fromSockaddr returns the address that the kernel has stored in name.
func fromSockaddr(name *unix.RawSockaddrAny) netip.AddrPort {
	switch name.Addr.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), fromPort(&a.Port))
	case unix.AF_INET6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(name))
		ip := netip.AddrFrom16(a.Addr)
		if a.Scope_id != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(a.Scope_id), 10))
		}
		return netip.AddrPortFrom(ip, fromPort(&a.Port))
	}
	return netip.AddrPort{}
}

// toSockaddr stores a in name and returns its size there.
func toSockaddr(a netip.AddrPort, name *unix.RawSockaddrAny) uint32 {
	if a.Addr().Is4() {
		to := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		*to = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
		setPort(&to.Port, a.Port())
		return unix.SizeofSockaddrInet4
	}
	to := (*unix.RawSockaddrInet6)(unsafe.Pointer(name))
	*to = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.Addr().As16(), Scope_id: scope(a.Addr().Zone())}
	setPort(&to.Port, a.Port())
	return unix.SizeofSockaddrInet6
}

// Ports lie in network byte order whatever that of the machine is.
func fromPort(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }

func setPort(p *uint16, to uint16) { binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(p))[:], to) }

// scope returns the number of a zone, 0 where there is no such interface.
func scope(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}
