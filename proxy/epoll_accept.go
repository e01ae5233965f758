//go:build linux

package proxy

import (
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// An acceptor is what one loop has of a listener.
type acceptor struct {
	listener *listener
	fd       int
	bound    netip.AddrPort
	index    int32  // in loop.acceptors
	watched  bool   // false: accepting pauses
	batch    int    // how many to accept at the next event
	round    uint64 // of the loop, when there was the last event
}

// add accepts on a from now on.
func (l *loop) add(a *acceptor) error {
	i := slices.Index(l.acceptors, nil)
	if i < 0 {
		i = len(l.acceptors)
		l.acceptors = append(l.acceptors, nil)
	}
	l.acceptors[i], a.index = a, int32(i)
	return l.watch(a)
}

func (l *loop) watch(a *acceptor) error {
	// Level-triggered: what one event does not accept is left for the next.
	err := sysEpollCtl(l.epoll, unix.EPOLL_CTL_ADD, a.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: keyAcceptor - a.index})
	a.watched, a.batch = err == nil, 1
	return os.NewSyscallError("epoll_ctl", err)
}

func (l *loop) unwatch(a *acceptor) {
	if a.watched {
		_ = sysEpollCtl(l.epoll, unix.EPOLL_CTL_DEL, a.fd, nil) // it is there
		a.watched = false
	}
}

// remove closes the socket of a. Whoever was connected to it by the kernel and
// has not been accepted is reset, unless another process has the socket too.
// In that case closing alone would leave it in the epoll, whose events never
// end then: an epoll holds the open file, not the descriptor.
func (l *loop) remove(a *acceptor) {
	l.acceptors[a.index] = nil
	l.unwatch(a)
	sysClose(a.fd)
}

// accept accepts what waits.
//
// An accept that finds nothing costs nearly as much as one that succeeds. So
// as long as every event is for one connection, one is accepted for each; the
// number grows while that does not keep up.
func (l *loop) accept(a *acceptor) {
	if a.round+1 != l.round {
		a.batch = 1
	}
	a.round = l.round
	for range a.batch {
		pause := l.core.acceptDelay(l.now)
		if pause == 0 {
			var fd int
			err := l.core.faults.onAccept()
			if err == nil {
				if fd, err = sysAccept(a.fd, &l.name); err == unix.EAGAIN {
					a.batch = 1
					return
				}
			}
			if err == nil {
				l.begin(a, fd)
				continue
			}
			pause = l.core.acceptFailed(a.listener, err, l.now)
		}
		if pause > 0 {
			l.pauseAccepting(a, pause)
			return
		}
	}
	a.batch = min(2*a.batch, acceptsAtOnce)
}

func (l *loop) begin(a *acceptor, fd int) {
	p := l.pairs.get(l)
	p.ends[in].fd, p.tally = fd, l.index
	peer, local := fromSockaddr(&l.name), a.bound
	if local.Addr().IsUnspecified() {
		if sysGetsockname(fd, &l.name) == nil {
			local = fromSockaddr(&l.name)
		}
	}
	p.run(p.accepted(l.core, a.listener, p, peer, local, l.now))
}

func (l *loop) pauseAccepting(a *acceptor, pause time.Duration) {
	l.unwatch(a)
	l.acceptAt = min(l.acceptAt, l.at+moment(pause))
	l.alarm = min(l.alarm, l.acceptAt)
}

// resumeAccepting ends the pause when it is over.
func (l *loop) resumeAccepting() {
	if l.at < l.acceptAt {
		return
	}
	l.acceptAt = never
	for _, a := range l.acceptors {
		if a != nil && !a.watched && l.watch(a) != nil {
			l.acceptAt = l.at + moment(minPause) // the host is still short of something
		}
	}
}
