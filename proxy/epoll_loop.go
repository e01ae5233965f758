//go:build linux

package proxy

import (
	"fmt"
	"os"
	"runtime"
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
	keyAcceptor = -2 // and below, by the index of the acceptor
)

// A loop serves its connections one event after the other. All of it belongs
// to the goroutine of run, but for the mailbox.
type loop struct {
	engine *epollEngine
	core   *core
	index  int // in engine.loops
	epoll  int
	events [eventsAtOnce]unix.EpollEvent

	// The time of the events at hand.
	now   time.Time
	at    moment
	round uint64 // counts the looks at the epoll

	fine, coarse wheel
	alarm        moment // when the next deadline is to be looked at
	yielded      moment // when other goroutines last had their turn

	acceptors []*acceptor
	acceptAt  moment // when the paused acceptors go on; never: none is paused
	name      unix.RawSockaddrAny

	pairs  slab
	again  []handle // pairs that have more to do than they were given time for
	before []handle // the spare of again

	hot   *[bufferSize]byte // what is read into; handed over to a way that cannot write it all
	large []*[bufferSize]byte
	small []*[smallBuffer]byte
	pipes pipePool

	// The mailbox.
	wake        int // eventfd
	woken       atomic.Bool
	sweepWanted atomic.Bool
	stopWanted  atomic.Bool
	mu          sync.Mutex
	resumed     []handle // guarded by mu
	orders      []func() // guarded by mu
}

func newLoop(e *epollEngine, index, loops int) (l *loop, err error) {
	l = &loop{
		engine: e, core: e.core, index: index, epoll: -1, wake: -1,
		fine: wheel{tick: fineTick}, coarse: wheel{tick: coarseTick},
		alarm: never, acceptAt: never,
		hot:   new([bufferSize]byte),
		pipes: pipePool{most: max(1, maxPipes/loops)},
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
	// Edge-triggered: it is never read.
	err = sysEpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.wake, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: keyWake})
	return l, os.NewSyscallError("epoll_ctl", err)
}

func (l *loop) close() {
	l.pipes.close()
	for _, fd := range []int{l.epoll, l.wake} {
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
		events := l.wait()
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
		l.yield()
	}
}

// wait returns the events that are there, or waits for some until the alarm.
// They are valid until the next call.
//
// It is the one system call of the loop that may block, so it is the one that
// the scheduler is told of. The loop keeps its P meanwhile, and finds it again
// without a search when the wait was short. For the rest of the process there is
// a P more than there are loops, see [Options.Loops].
func (l *loop) wait() []unix.EpollEvent {
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

// yieldAfter is below the ten milliseconds after which the scheduler takes
// the P from a goroutine by force, which costs a wake-up of another thread
// and, as the loop stays the one to run, comes again and again.
const yieldAfter = moment(8 * time.Millisecond)

// yield lets the scheduler see that the loop is none that runs for ever.
func (l *loop) yield() {
	if l.at-l.yielded >= yieldAfter {
		l.yielded = l.at
		runtime.Gosched()
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
