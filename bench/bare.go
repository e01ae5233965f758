//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// newBare is a relay that only moves bytes: one epoll, one buffer, accept,
// connect, receive, send, close. It has no timeouts, limits, counters, second
// attempts or half-closed connections, and loses what a full socket does not
// take. No proxy can do with less, so it shows what is left to win.
func newBare() *cobra.Command {
	return &cobra.Command{
		Use:    "bare LISTEN BACKEND",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			listen, err := netip.ParseAddrPort(args[0])
			if err != nil {
				return err
			}
			backend, err := netip.ParseAddrPort(args[1])
			if err != nil {
				return err
			}
			return relayBare(listen, backend)
		},
	}
}

// barePeers is by descriptor: the other side of each.
type barePeers [1 << 16]int32

func relayBare(listen, backend netip.AddrPort) error {
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	for _, err := range []error{
		unix.SetsockoptInt(l, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(l, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), // accepted sockets inherit it
		unix.Bind(l, &unix.SockaddrInet4{Addr: listen.Addr().As4(), Port: int(listen.Port())}),
		unix.Listen(l, 1024),
		watchBare(epoll, l, unix.EPOLLIN),
	} {
		if err != nil {
			return fmt.Errorf("listening on %s: %w", listen, err)
		}
	}
	var (
		peers  barePeers
		buffer [64 << 10]byte
		events [128]unix.EpollEvent
	)
	to := &unix.SockaddrInet4{Addr: backend.Addr().As4(), Port: int(backend.Port())}
	for {
		n, err := unix.EpollWait(epoll, events[:], -1)
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:max(0, n)] {
			fd := int(e.Fd)
			if fd == l {
				acceptBare(epoll, l, to, &peers)
				continue
			}
			other := int(peers[fd])
			if other == 0 { // closed with the other side, in this round
				continue
			}
			n, errno := rawBare(unix.SYS_RECVFROM, fd, buffer[:])
			switch {
			case errno == unix.EAGAIN:
			case errno != 0 || n == 0:
				peers[fd], peers[other] = 0, 0
				_, _ = unix.Close(fd), unix.Close(other)
			default:
				_, _ = rawBare(unix.SYS_SENDTO, other, buffer[:n])
			}
		}
	}
}

func acceptBare(epoll, l int, to unix.Sockaddr, peers *barePeers) {
	client, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return
	}
	backend, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		_ = unix.Close(client)
		return
	}
	const events = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET&(1<<32-1)
	for _, err := range []error{
		unix.SetsockoptInt(backend, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.Connect(backend, to), // waits, which takes no time on the same machine
		watchBare(epoll, backend, events),
		watchBare(epoll, client, events),
	} {
		if err != nil {
			_, _ = unix.Close(client), unix.Close(backend)
			return
		}
	}
	peers[client], peers[backend] = int32(backend), int32(client)
}

func watchBare(epoll, fd int, events uint32) error {
	return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

func rawBare(call uintptr, fd int, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}
