//go:build linux

package proxy

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// eventsAtOnce bounds how many events one look at the epoll takes.
	eventsAtOnce = 128
	// acceptsAtOnce bounds how many connections one event of a listener brings.
	acceptsAtOnce = 16
	// smallBuffer holds what is left of a write, where that suffices.
	smallBuffer = 16 << 10
	// spareBuffers bounds how many buffers of each size a loop keeps.
	spareBuffers = 32
)

// What an event belongs to: a side of a pair (its index doubled, plus the
// direction), or one of these.
const (
	keyWake     = -1
	keyTimer    = -2
	keyAcceptor = -3 // and below, by the index of the acceptor
)

// A loop serves its connections one event after the other. All of it belongs
// to the goroutine of run, but for the mailbox.
type loop struct {
	engine *epollEngine
	core   *core
	epoll  int
	timer  int // timerfd: wakes the loop at the alarm
	waiter *waiter

	// The time of the events at hand.
	now   time.Time
	at    moment
	round uint64 // counts the looks at the epoll

	fine, coarse wheel
	alarm        moment // when the next deadline is to be looked at
	armed        moment // what timer is set to

	acceptors []*acceptor
	acceptAt  moment // when the paused acceptors go on; never: none is paused
	name      unix.RawSockaddrAny

	pairs  slab
	again  []handle // pairs that have more to do than they were given time for
	before []handle // the spare of again

	hot   *[bufferSize]byte // what is read into; handed over to a way that cannot write it all
	large []*[bufferSize]byte
	small []*[smallBuffer]byte

	// The mailbox.
	wake        int // eventfd
	woken       atomic.Bool
	sweepWanted atomic.Bool
	stopWanted  atomic.Bool
	mu          sync.Mutex
	resumed     []handle // guarded by mu
	orders      []func() // guarded by mu
}

func newLoop(e *epollEngine) (l *loop, err error) {
	l = &loop{
		engine: e, core: e.core, epoll: -1, timer: -1, wake: -1,
		fine: wheel{tick: fineTick}, coarse: wheel{tick: coarseTick},
		alarm: never, armed: never, acceptAt: never,
		hot: new([bufferSize]byte),
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return l, os.NewSyscallError("epoll_create1", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return l, os.NewSyscallError("eventfd", err)
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC); err != nil {
		return l, os.NewSyscallError("timerfd_create", err)
	}
	for fd, key := range map[int]int32{l.wake: keyWake, l.timer: keyTimer} {
		// Edge-triggered: neither is ever read.
		if err := sysEpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: key}); err != nil {
			return l, os.NewSyscallError("epoll_ctl", err)
		}
	}
	l.waiter, err = newWaiter(l.epoll)
	return l, err
}

func (l *loop) close() {
	if l.waiter != nil {
		_ = l.waiter.file.Close() // the epoll too
		l.epoll = -1
	}
	for _, fd := range []int{l.epoll, l.wake, l.timer} {
		if fd >= 0 {
			sysClose(fd)
		}
	}
}

// run serves until close is called.
func (l *loop) run() {
	defer l.close()
	l.tell()
	for !l.stopWanted.Load() {
		var events []unix.EpollEvent
		if len(l.again) > 0 {
			events = l.waiter.look(l.epoll)
		} else {
			events = l.waiter.wait()
		}
		l.round++
		l.tell()
		for i := range events {
			l.event(&events[i])
		}
		if l.woken.Load() {
			l.openMailbox()
		}
		if l.at >= l.alarm || l.at/fineTick > l.fine.at {
			l.resumeAccepting()
			l.turn()
		}
		l.continueUnfinished()
		l.arm()
	}
}

// tell takes the time.
func (l *loop) tell() {
	l.now = time.Now()
	l.at = l.core.moment(l.now)
}

func (l *loop) event(e *unix.EpollEvent) {
	switch {
	case e.Fd >= 0:
		if p := l.pairs.find(handle{e.Fd >> 1, e.Pad}); p != nil { // else of a socket that is closed by now
			p.event(direction(e.Fd&1), e.Events)
		}
	case e.Fd <= keyAcceptor:
		if i := int(keyAcceptor - e.Fd); i < len(l.acceptors) && l.acceptors[i] != nil {
			l.accept(l.acceptors[i])
		}
	}
}

// continueUnfinished goes on with the pairs that had more to do.
func (l *loop) continueUnfinished() {
	if len(l.again) == 0 {
		return
	}
	l.before, l.again = l.again, l.before[:0]
	for _, h := range l.before {
		if p := l.pairs.find(h); p != nil && p.stage == relaying {
			p.relay()
		}
	}
}

// arm sets the timer, unless it wakes the loop early enough as it is.
func (l *loop) arm() {
	if l.armed <= l.at {
		l.armed = never
	}
	if l.alarm >= l.armed {
		return
	}
	l.armed = l.alarm
	after := max(1, l.alarm-l.core.moment(time.Now()))
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(after)}
	if err := unix.TimerfdSettime(l.timer, 0, &spec, nil); err != nil {
		panic(fmt.Sprintf("timerfd_settime: %v", err)) // cannot be: the descriptor and the time are valid
	}
}

// wakeUp has the loop open its mailbox. It may be called from any goroutine.
func (l *loop) wakeUp() {
	if !l.woken.Swap(true) {
		one := [8]byte{1}
		_, _ = unix.Write(l.wake, one[:]) // fails only when the counter is full, which takes centuries
	}
}

// do has the loop run order and waits for it. It may be called from any
// goroutine but that of the loop.
func (l *loop) do(order func()) {
	done := make(chan struct{})
	l.mu.Lock()
	l.orders = append(l.orders, func() {
		defer close(done)
		order()
	})
	l.mu.Unlock()
	l.wakeUp()
	<-done
}

func (l *loop) openMailbox() {
	l.woken.Store(false) // first: what is posted from now on wakes the loop again
	l.mu.Lock()
	resumed, orders := l.resumed, l.orders
	l.resumed, l.orders = nil, nil
	l.mu.Unlock()
	for _, order := range orders {
		order()
	}
	for _, h := range resumed {
		if p := l.pairs.find(h); p != nil && p.stage == parked {
			p.run(p.resumed(l.now))
		}
	}
	if l.sweepWanted.Swap(false) {
		l.tell() // an older time might spare what the sweep is for
		l.pairs.each((*pair).sweep)
	}
}
