package dnsserver

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tcpEvents  = 128 // that one look at the epoll takes
	tcpAccepts = 16  // connections that one event of the listening socket brings

	// tcpTick is how much later than its deadline a connection may end.
	tcpTick = 50 * time.Millisecond
)

// What an event belongs to: a connection, by its place, or one of these.
const (
	keyWake     = -1
	keyListener = -2
)

// A moment is nanoseconds since the loop began.
type moment = int64

const never = moment(1<<63 - 1)

// A loopSocket is a listening socket whose connections live in a few loops,
// without a goroutine each. Go's poller does not know it: any new connection
// would wake it.
type loopSocket struct {
	fd        int
	loops     []*tcpLoop
	accepting sync.WaitGroup // the loops that have not stopped to accept
}

// detachTCP takes the socket of c out of Go's poller, for some loops. It reports
// false, and leaves c as it is, where the system has not what they need.
func detachTCP(c *net.TCPListener, loops int) (tcpSocket, bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, false
	}
	b := &loopSocket{fd: -1}
	if err := raw.Control(func(fd uintptr) {
		b.fd, _ = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) // -1 where it fails
	}); err != nil || b.fd < 0 {
		return nil, false
	}
	// Where one of these fails, connections take more time and no more. The first
	// is inherited. By the second, one is there with its first octets: until
	// then, at most for the time of a message, the kernel keeps it cheaply.
	_ = unix.SetsockoptInt(b.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(b.fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(tcpMessage.Seconds()))
	for range loops {
		l, err := newTCPLoop(b, len(b.loops))
		if err != nil {
			b.close()
			return nil, false
		}
		b.loops = append(b.loops, l)
	}
	b.accepting.Add(loops)
	_ = c.Close() // the copy is what counts
	return b, true
}

func (b *loopSocket) visit(f func(fd int)) { f(b.fd) }

func (b *loopSocket) serve(s *Server, l *listener) {
	var running sync.WaitGroup
	for _, loop := range b.loops {
		running.Go(func() { loop.run(s, l) })
	}
	running.Wait()
}

func (b *loopSocket) stop() {
	for _, l := range b.loops {
		l.stop.Store(true)
		l.wakeUp()
	}
	b.accepting.Wait()
}

func (b *loopSocket) close() {
	for _, l := range b.loops {
		if !l.running.Swap(true) {
			l.release()
		}
	}
	_ = unix.Close(b.fd) // nobody could be told
}

// A tcpLoop serves its connections one event after the other. All of it belongs
// to the goroutine of run, but for the mailbox.
type tcpLoop struct {
	socket   *loopSocket
	server   *Server
	listener *listener
	index    int // in socket.loops
	epoll    int
	events   [tcpEvents]unix.EpollEvent
	running  atomic.Bool // run was called, or will not be any more

	// The time of the events at hand.
	begun   time.Time
	now     time.Time
	at      moment
	alarm   moment // when deadlines are looked at, at the latest when the first of them has come
	yielded moment // when other goroutines last had their turn

	round    uint64 // counts the looks at the epoll
	accepted uint64 // the round of the last event of the listening socket
	batch    int    // how many to accept at the next one
	watching bool   // connections are accepted
	failures int    // to accept, one after the other
	acceptAt moment // when accepting goes on; never: it has not stopped
	ending   bool   // it will not go on

	places []*loopConnection
	free   []*loopConnection // of places
	open   int               // the others
	again  []*loopConnection // which may have more to read although no event will tell
	before []*loopConnection // the spare of again

	in   [tcpInput]byte
	out  []byte
	name unix.RawSockaddrInet6 // of who was accepted last, or IPv4
	r    responder

	// The mailbox.
	wake    int // eventfd
	woken   atomic.Bool
	stop    atomic.Bool
	mu      sync.Mutex
	ended   bool         // wake is closed; guarded by mu
	evicted []loopHandle // guarded by mu
}

// A loopHandle names a place for as long as it serves one connection.
type loopHandle struct{ place, generation int32 }

func newTCPLoop(b *loopSocket, index int) (l *tcpLoop, err error) {
	l = &tcpLoop{socket: b, index: index, begun: time.Now(), alarm: never, batch: 1, acceptAt: never, epoll: -1, wake: -1}
	defer func() {
		if err != nil {
			l.release()
		}
	}()
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return l, os.NewSyscallError("epoll_create1", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return l, os.NewSyscallError("eventfd", err)
	}
	// Edge-triggered: it is never read.
	if errno := l.control(unix.EPOLL_CTL_ADD, l.wake, unix.EPOLLIN|unix.EPOLLET, loopHandle{place: keyWake}); errno != 0 {
		err = os.NewSyscallError("epoll_ctl", errno)
	}
	return l, err
}

func (l *tcpLoop) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for _, fd := range [...]int{l.epoll, l.wake} {
		if fd >= 0 {
			_ = unix.Close(fd) // nobody could be told
		}
	}
}

// run serves until the socket is stopped and every connection has ended.
func (l *tcpLoop) run(s *Server, listener *listener) {
	if l.running.Swap(true) {
		return
	}
	defer l.release()
	l.server, l.listener = s, listener
	l.tell()
	l.watch()
	for !l.ending || l.open > 0 {
		events := l.wait()
		l.round++
		l.tell()
		for i := range events {
			l.event(&events[i])
		}
		if l.woken.Load() {
			l.openMailbox()
		}
		l.continueUnfinished()
		if l.at >= l.alarm {
			l.sweep()
		}
		if l.at-l.yielded >= moment(yieldEvery) {
			l.yielded = l.at
			runtime.Gosched()
		}
	}
}

// wait returns the events that are there, or waits for some until the alarm.
// They are valid until the next call. It is the one system call that may block
// and that the scheduler is told of (docs/decisions/0008).
func (l *tcpLoop) wait() []unix.EpollEvent {
	timeout := -1
	switch {
	case len(l.again) > 0:
		timeout = 0
	case l.alarm != never:
		timeout = int(max(0, (l.alarm-l.at+moment(time.Millisecond)-1)/moment(time.Millisecond)))
	}
	n, err := unix.EpollWait(l.epoll, l.events[:], timeout)
	switch err {
	case nil:
		return l.events[:n]
	case unix.EINTR:
		return nil
	}
	panic(fmt.Sprintf("waiting for the epoll: %v", err)) // cannot be: it is open, and the events are ours
}

// tell takes the time.
func (l *tcpLoop) tell() {
	l.now = time.Now()
	l.at = moment(l.now.Sub(l.begun))
}

func (l *tcpLoop) event(e *unix.EpollEvent) {
	switch {
	case e.Fd >= 0:
		if c := l.find(loopHandle{e.Fd, e.Pad}); c != nil { // else of one that is closed by now
			c.event(e.Events)
		}
	case e.Fd == keyListener:
		l.accept()
	}
}

// continueUnfinished goes on with the connections that may have more to read.
func (l *tcpLoop) continueUnfinished() {
	if len(l.again) == 0 {
		return
	}
	l.before, l.again = l.again, l.before[:0]
	for _, c := range l.before {
		if c.later {
			c.later = false
			c.read()
		}
	}
}

// sweep ends the connections whose deadline has come. There are never so many
// that an order of them would pay.
func (l *tcpLoop) sweep() {
	l.alarm = never
	if l.at >= l.acceptAt {
		l.acceptAt = never
		l.watch()
	}
	for _, c := range l.places {
		if c.fd >= 0 && c.deadline <= l.at {
			c.end()
		} else if c.fd >= 0 {
			l.alarm = min(l.alarm, c.deadline)
		}
	}
	l.alarm = max(min(l.alarm, l.acceptAt), l.at+moment(tcpTick))
	if l.open == 0 && l.acceptAt == never {
		l.alarm = never
	}
}

// wakeUp has the loop open its mailbox. It may be called from any goroutine.
func (l *tcpLoop) wakeUp() {
	if l.woken.Swap(true) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		one := [8]byte{1}
		_, _ = unix.Write(l.wake, one[:]) // fails only when the counter is full, which takes centuries
	}
}

func (l *tcpLoop) openMailbox() {
	l.woken.Store(false) // first: what is posted from now on wakes the loop again
	l.mu.Lock()
	evicted := l.evicted
	l.evicted = nil
	l.mu.Unlock()
	for _, h := range evicted {
		if c := l.find(h); c != nil {
			c.end()
		}
	}
	if l.stop.Load() && !l.ending {
		l.ending = true
		l.unwatch()
		l.socket.accepting.Done()
		for _, c := range l.places {
			if c.fd >= 0 {
				c.lastMessage()
			}
		}
	}
}

// watch has new connections accepted from now on. The kernel wakes one of the
// loops for each. Level-triggered: what one event does not accept is left for
// the next.
func (l *tcpLoop) watch() {
	if l.ending || l.watching {
		return
	}
	if l.control(unix.EPOLL_CTL_ADD, l.socket.fd, unix.EPOLLIN|unix.EPOLLEXCLUSIVE, loopHandle{place: keyListener}) != 0 {
		l.pauseAccepting() // the host is short of something
		return
	}
	l.watching = true
}

// unwatch is needed also where the socket is closed next: another process may
// have it, and an epoll holds the open file, not the descriptor.
func (l *tcpLoop) unwatch() {
	if l.watching {
		l.control(unix.EPOLL_CTL_DEL, l.socket.fd, 0, loopHandle{})
		l.watching = false
	}
}

// accept accepts what waits. An accept that finds nothing costs nearly as much
// as one that succeeds: as long as every event is for one connection one is
// accepted, and more while that does not keep up.
func (l *tcpLoop) accept() {
	if l.accepted+1 != l.round {
		l.batch = 1
	}
	l.accepted = l.round
	for range l.batch {
		size := uint32(unsafe.Sizeof(l.name))
		fd, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(l.socket.fd), uintptr(unsafe.Pointer(&l.name)),
			uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			l.failures = 0
			l.tell() // of two in one round, too, one is idle longer
			l.begin(int(fd))
		case unix.EAGAIN:
			l.batch = 1
			return
		case unix.EINTR, unix.ECONNABORTED:
		default:
			// Out of descriptors, most likely: it gets better when others close.
			if l.failures == 0 { // once, not for each try
				l.server.log.Warn("accepting dns connections", "address", l.listener.bound, "err", errno)
			}
			l.unwatch()
			l.pauseAccepting()
			return
		}
	}
	l.batch = min(2*l.batch, tcpAccepts)
}

func (l *tcpLoop) pauseAccepting() {
	l.acceptAt = l.at + moment(min(acceptRetryFirst<<min(l.failures, 16), acceptRetryMost))
	l.alarm = min(l.alarm, l.acceptAt)
	l.failures++
}

// find returns the connection of h, nil if it has ended.
func (l *tcpLoop) find(h loopHandle) *loopConnection {
	if c := l.places[h.place]; c.handle == h && c.fd >= 0 {
		return c
	}
	return nil
}

func (l *tcpLoop) control(operation, fd int, events uint32, h loopHandle) syscall.Errno {
	e := unix.EpollEvent{Events: events, Fd: h.place, Pad: h.generation}
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(l.epoll), uintptr(operation), uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
	return errno
}
