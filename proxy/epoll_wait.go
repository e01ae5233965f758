//go:build linux

package proxy

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A waiter waits until its loop has events and takes them.
type waiter interface {
	wait(l *loop) (n int)
	close()
}

// A parkingWaiter waits in Go's own poller, which sees the epoll of the loop as
// one more descriptor that becomes readable.
type parkingWaiter struct {
	file *os.File
	raw  syscall.RawConn
	take func(fd uintptr) bool
	n    int
}

func newParkingWaiter(l *loop) (waiter, error) {
	fd, err := unix.FcntlInt(uintptr(l.epoll), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		sysClose(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &parkingWaiter{file: os.NewFile(uintptr(fd), "epoll")}
	w.raw, err = w.file.SyscallConn()
	if err != nil {
		w.close()
		return nil, err
	}
	w.take = func(uintptr) bool {
		w.n = sysEpollWait(l.epoll, l.events[:])
		return w.n > 0
	}
	return w, nil
}

func (w *parkingWaiter) wait(l *loop) int {
	w.n = 0
	if err := w.raw.Read(w.take); err != nil {
		if !errors.Is(err, os.ErrClosed) {
			panic(err)
		}
	}
	return w.n
}

func (w *parkingWaiter) close() { _ = w.file.Close() }

// A blockingWaiter blocks its thread in epoll_wait.
type blockingWaiter struct{}

func newBlockingWaiter(*loop) (waiter, error) { return blockingWaiter{}, nil }

func (blockingWaiter) wait(l *loop) int {
	n, err := unix.EpollWait(l.epoll, l.events[:], -1)
	if err != nil {
		return 0
	}
	return n
}

func (blockingWaiter) close() {}
