package proxy

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A waiter waits until its loop has events, and takes them.
//
// It waits in Go's own poller, which sees the epoll of the loop as one more
// descriptor that becomes readable. So a loop with nothing to do is a parked
// goroutine: unlike in a blocking epoll_wait, it keeps no processor of the
// scheduler from the loops for TCP and the other goroutines of the daemon.
type waiter struct {
	file   *os.File
	raw    syscall.RawConn
	take   func(fd uintptr) bool // made once
	events [eventsAtOnce]unix.EpollEvent
	n      int // how many take has taken
}

func newWaiter(epoll int) (*waiter, error) {
	if err := unix.SetNonblock(epoll, true); err != nil { // os.File leaves other descriptors to blocking calls
		return nil, os.NewSyscallError("fcntl", err)
	}
	w := &waiter{file: os.NewFile(uintptr(epoll), "epoll")}
	if err := w.file.SetDeadline(time.Time{}); err != nil {
		return w, fmt.Errorf("an epoll cannot wait for another one here: %w", err)
	}
	var err error
	w.raw, err = w.file.SyscallConn()
	w.take = func(fd uintptr) bool {
		w.n = sysEpollWait(int(fd), w.events[:])
		return w.n > 0
	}
	return w, err
}

// wait waits for events and returns them, valid until the next call.
func (w *waiter) wait() []unix.EpollEvent {
	if err := w.raw.Read(w.take); err != nil {
		panic(fmt.Sprintf("waiting for the epoll: %v", err)) // cannot be: it is open, and there is no deadline
	}
	return w.events[:w.n]
}

// sysEpollWait takes the events that are there; n is 0 if there are none.
func sysEpollWait(epoll int, events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll),
		uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0 // EINTR
	}
	return int(n)
}
