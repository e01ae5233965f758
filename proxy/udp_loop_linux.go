package proxy

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// What an event belongs to: a flow (its index), or one of these.
const (
	keyUDPWake  = -1
	keyUDPTimer = -2
	keyUDPPort  = -3 // and below, by the index of the port
)

// An udpPort is what one loop has of a UDP listener.
type udpPort struct {
	listener *listener
	fd       int
	local    netip.Addr // that it is bound to
	index    int32      // in loop.ports
	closing  bool       // no datagram of a client is read any more
	flows    map[flowKey]*udpFlow
}

// An udpFlow is a flow with its socket.
type udpFlow struct {
	flow
	port *udpPort
	fd   int
	id   udpHandle
	live bool

	name     unix.RawSockaddrAny // of the client
	nameSize uint32
	control  [pktinfoSize / 8]uint64 // makes answers leave from flow.local
	controls int                     // bytes of control in use

	next, previous *udpFlow // in a slot of the wheel, or next alone in the list of the free
	slot           int
}

// An udpHandle names a flow for as long as it lives.
type udpHandle struct{ index, generation int32 }

// An udpLoop serves its flows one event after the other. All of it belongs to
// the goroutine of run, but for the mailbox.
type udpLoop struct {
	core   *core
	index  int // among the loops
	epoll  int
	timer  int // timerfd: wakes the loop for the wheel
	waiter *waiter
	now    time.Time
	at     moment

	ports []*udpPort
	flows []*udpFlow // by index, live or free
	free  *udpFlow
	wheel udpWheel
	alarm moment // when the wheel is to be turned
	armed moment // what timer is set to

	name    unix.RawSockaddrAny
	dial    func(netip.AddrPort) error // made once: sets dialled
	dialled int
	tried   [1]*backend
	traffic *udpTraffic

	// The mailbox.
	wake        int // eventfd
	woken       atomic.Bool
	sweepWanted atomic.Bool
	stopWanted  atomic.Bool
	mu          sync.Mutex
	orders      []func() // guarded by mu
}

func newUDPLoop(c *core, index int) (l *udpLoop, err error) {
	l = &udpLoop{core: c, index: index, epoll: -1, timer: -1, wake: -1, alarm: never, armed: never, traffic: newUDPTraffic()}
	l.dial = func(backend netip.AddrPort) (err error) {
		l.dialled, err = l.connectUDP(backend)
		return err
	}
	l.tell()
	l.wheel.at = l.at / udpTick
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
	for fd, key := range map[int]int32{l.wake: keyUDPWake, l.timer: keyUDPTimer} {
		// Edge-triggered: neither is ever read.
		if err := sysEpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: key}); err != nil {
			return l, os.NewSyscallError("epoll_ctl", err)
		}
	}
	l.waiter, err = newWaiter(l.epoll)
	return l, err
}

func (l *udpLoop) close() {
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
func (l *udpLoop) run() {
	defer l.close()
	for !l.stopWanted.Load() {
		events := l.waiter.wait()
		l.tell()
		for i := range events {
			l.event(&events[i])
		}
		l.flush()
		if l.woken.Load() {
			l.openMailbox()
		}
		if l.at >= l.alarm {
			l.turn()
		}
		l.arm()
	}
}

// tell takes the time.
func (l *udpLoop) tell() {
	l.now = time.Now()
	l.at = l.core.moment(l.now)
}

func (l *udpLoop) event(e *unix.EpollEvent) {
	switch {
	case e.Fd >= 0:
		if f := l.flows[e.Fd]; f.live && f.id.generation == e.Pad { // else of a socket that is closed by now
			l.fromBackend(f)
		}
	case e.Fd <= keyUDPPort:
		if p := l.ports[keyUDPPort-e.Fd]; p != nil && !p.closing {
			l.fromClients(p)
		}
	}
}

// arm sets the timer, unless it wakes the loop early enough as it is.
func (l *udpLoop) arm() {
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
func (l *udpLoop) wakeUp() {
	if !l.woken.Swap(true) {
		one := [8]byte{1}
		_, _ = unix.Write(l.wake, one[:]) // fails only when the counter is full, which takes centuries
	}
}

// do has the loop run order and waits for it. It may be called from any
// goroutine but that of the loop.
func (l *udpLoop) do(order func()) {
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

func (l *udpLoop) openMailbox() {
	l.woken.Store(false) // first: what is posted from now on wakes the loop again
	l.mu.Lock()
	orders := l.orders
	l.orders = nil
	l.mu.Unlock()
	l.tell() // an older time might spare what a sweep is for
	for _, order := range orders {
		order()
	}
	if l.sweepWanted.Swap(false) {
		for _, f := range l.flows {
			if f.live {
				if why := f.cut(l.at); why != goesOn {
					l.end(f, why)
				}
			}
		}
	}
}

// add serves p from now on.
func (l *udpLoop) add(p *udpPort) error {
	i := slices.Index(l.ports, nil)
	if i < 0 {
		i = len(l.ports)
		l.ports = append(l.ports, nil)
	}
	l.ports[i], p.index = p, int32(i)
	// Level-triggered: what one event does not read is left for the next.
	err := sysEpollCtl(l.epoll, unix.EPOLL_CTL_ADD, p.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: keyUDPPort - p.index})
	return os.NewSyscallError("epoll_ctl", err)
}

// remove stops reading p. Its socket is closed with its last flow.
func (l *udpLoop) remove(p *udpPort) {
	p.closing = true
	_ = sysEpollCtl(l.epoll, unix.EPOLL_CTL_DEL, p.fd, nil) // it may not be there if add has failed
	for _, f := range p.flows {
		if f.closing(l.at) {
			l.wheel.remove(f)
			l.watch(f)
		} else {
			l.end(f, f.expired())
		}
	}
	l.forget(p)
}

// forget closes the socket of p if nothing needs it any more.
func (l *udpLoop) forget(p *udpPort) {
	if p.closing && len(p.flows) == 0 && l.ports[p.index] == p {
		l.ports[p.index] = nil
		sysClose(p.fd)
	}
}

// begin makes a flow for n datagrams that belong to none; nil: they are dropped.
func (l *udpLoop) begin(p *udpPort, key flowKey, tried []*backend, n int) *udpFlow {
	f := l.free
	if f == nil {
		f = &udpFlow{id: udpHandle{index: int32(len(l.flows))}}
		l.flows = append(l.flows, f)
	} else {
		l.free = f.next
	}
	f.next = nil
	why := f.place(l.core, p.listener, key, tried, l.dial, l.now)
	if why == forwarded {
		f.port, f.fd, f.live, f.tally = p, l.dialled, true, l.index
		p.flows[key] = f
		err := sysEpollCtl(l.epoll, unix.EPOLL_CTL_ADD, f.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: f.id.index, Pad: f.id.generation})
		if err == nil {
			f.nameSize = toSockaddr(key.client, &f.name)
			f.controls = 0
			if p.local.IsUnspecified() {
				f.controls = len(appendSource(f.controlBytes()[:0], key.local))
			}
			l.watch(f)
			return f
		}
		l.core.flowFault(err, l.now)
		f.dropped(dropLocalFault, n)
		l.watch(f) // which end undoes
		l.end(f, localFault)
		return nil
	}
	f.dropped(why, n)
	f.next, l.free = l.free, f
	return nil
}

// end ends f. It must not be used again.
func (l *udpLoop) end(f *udpFlow, why reason) {
	l.wheel.remove(f)
	sysClose(f.fd)
	delete(f.port.flows, f.flowKey)
	f.ended(why, l.now)
	l.forget(f.port)
	f.live, f.port = false, nil
	f.id.generation++
	f.next, l.free = l.free, f
}

const (
	udpTick  = moment(64 * time.Millisecond)
	udpSlots = 512 // reach 32 s; what is later is put in again then
)

// An udpWheel holds flows by when their deadline is looked at. A datagram does
// not move its flow: whether the deadline has moved meanwhile is found out when
// it is looked at.
type udpWheel struct {
	at    int64 // the last tick that was looked at
	slots [udpSlots]*udpFlow
	count int
}

// watch has the deadline of f looked at.
func (l *udpLoop) watch(f *udpFlow) {
	w := &l.wheel
	if w.count == 0 {
		w.at = max(w.at, l.at/udpTick) // it stood still while it was empty
	}
	t := min(max(f.deadline()/udpTick+1, w.at+1), w.at+udpSlots-1)
	f.slot = int(t % udpSlots)
	f.previous, f.next = nil, w.slots[f.slot]
	if f.next != nil {
		f.next.previous = f
	}
	w.slots[f.slot] = f
	w.count++
	l.alarm = min(l.alarm, t*udpTick)
}

func (w *udpWheel) remove(f *udpFlow) {
	if f.next != nil {
		f.next.previous = f.previous
	}
	if f.previous != nil {
		f.previous.next = f.next
	} else {
		w.slots[f.slot] = f.next
	}
	f.next, f.previous = nil, nil
	w.count--
}

// turn looks at the deadlines that have come.
func (l *udpLoop) turn() {
	w := &l.wheel
	to := l.at / udpTick
	for t := max(w.at+1, to-udpSlots+1); t <= to; t++ {
		w.at = t
		for f := w.slots[t%udpSlots]; f != nil; {
			next := f.next
			if f.deadline() <= l.at {
				l.end(f, f.expired())
			} else {
				w.remove(f)
				l.watch(f)
			}
			f = next
		}
	}
	w.at = max(w.at, to)
	l.alarm = never
	for t := w.at + 1; w.count > 0 && t < w.at+udpSlots; t++ {
		if w.slots[t%udpSlots] != nil {
			l.alarm = t * udpTick
			break
		}
	}
}
