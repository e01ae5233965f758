package proxy

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout sets TCP_USER_TIMEOUT.
func setUserTimeout(raw syscall.RawConn, d time.Duration) {
	if d <= 0 {
		return
	}
	_ = raw.Control(func(fd uintptr) { // fails on a socket that is gone, as the first read will
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(min(d.Milliseconds(), 1<<31-1)))
	})
}

// hasEnded reports whether the peer has ended its stream, bytes that still wait
// to be read notwithstanding.
func hasEnded(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&unix.POLLRDHUP != 0
}

// underWay tells how many bytes the peer has acknowledged so far, and whether
// some that were written still wait for that.
func underWay(raw syscall.RawConn) (acked uint64, waits bool) {
	_ = raw.Control(func(fd uintptr) { acked, waits = underWayOn(int(fd)) }) // fails on a socket that is gone: nothing waits
	return acked, waits
}

func underWayOn(fd int) (acked uint64, waits bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, false
	}
	return info.Bytes_acked, info.Unacked > 0 || info.Notsent_bytes > 0
}
