package dnsserver

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many packets are received and sent with one system call.
	// More would only make the first of them wait for the last.
	batchSize = 32

	// A slot of packets begins in another line of the cache than its neighbours,
	// which it would not at a power of two.
	querySlot = maxQuery + 192

	// Where so many packets in a row came alone, the next ones are received one
	// by one until it is looked again whether more are there.
	aloneInRow = 8
	singlesRun = 15

	// clockEvery is for how many batches a reader does not look at the clock.
	clockEvery = 16

	// yieldEvery is how long a reader keeps its processor of the scheduler: it
	// gives it away before it is taken, which costs more (docs/decisions/0008).
	yieldEvery = 8 * time.Millisecond

	// receivePatience bounds a wait. It has to be bounded for a signal to end it,
	// socket(7), SO_RCVTIMEO in signal(7).
	receivePatience = time.Second

	// stopEvery is how often a reader is told to stop until it has.
	stopEvery = time.Millisecond
)

// A mmsghdr is struct mmsghdr of recvmmsg(2): the size of the message it
// describes stands behind each header.
type mmsghdr struct {
	unix.Msghdr
	size uint32
}

// A batch receives queries, many with one system call, and has their responses
// sent. It is made once for each socket; nothing in it moves, since the headers
// hold addresses of the rest.
type batch struct {
	fd       int
	wildcard bool // packets tell to which address they were sent

	in      [batchSize]mmsghdr
	from    [batchSize]unix.RawSockaddrInet6 // or IPv4, which is shorter
	control [batchSize][controlLen]byte
	queries [batchSize][querySlot]byte
	parts   [batchSize]unix.Iovec

	received int // of in, how many the last call has filled
	alone    int // how many packets in a row came alone
	singles  int // how many are received one by one from now on

	asked    [batchSize]query // what they say
	verdicts [batchSize]verdict
	ahead    [batchSize]*node // see fetch
	sink     byte             // of what is read for nothing else, lest the compiler leaves it out

	out sender
}

// newBatch points the headers at their slots.
func newBatch(fd int, wildcard bool) *batch {
	b := &batch{fd: fd, wildcard: wildcard}
	for i := range batchSize {
		b.parts[i].Base = &b.queries[i][0]
		b.parts[i].SetLen(maxQuery)
		b.in[i].Iov = &b.parts[i]
		b.in[i].SetIovlen(1)
		b.in[i].Name = (*byte)(unsafe.Pointer(&b.from[i]))
	}
	b.out.start(fd)
	b.received = batchSize
	return b
}

// receive waits for a packet and takes what is there then, at most a batch. It
// fails with EAGAIN after receivePatience, or at once where another process
// has made the socket non-blocking, and with EINTR when a signal comes.
func (b *batch) receive() syscall.Errno {
	for i := range b.in[:b.received] { // the system has written what it has used
		h := &b.in[i]
		h.Namelen = unix.SizeofSockaddrInet6
		if b.wildcard {
			h.Control = &b.control[i][0]
			h.SetControllen(controlLen)
		}
	}
	b.received = 0
	if b.singles > 0 {
		return b.receiveSingle()
	}
	n, errno := b.receiveUpTo(batchSize)
	switch {
	case errno != 0:
	case n > 1:
		b.alone = 0
	default: // that no other was there has cost a sixth of the work
		if b.alone++; b.alone >= aloneInRow {
			b.singles = singlesRun
		}
	}
	return errno
}

// receiveSingle takes one packet, even where more are there.
func (b *batch) receiveSingle() syscall.Errno {
	b.singles--
	if b.wildcard {
		_, errno := b.receiveUpTo(1)
		return errno
	}
	h := &b.in[0]
	// recvfrom(2) reads and writes two structures less.
	n, _, errno := syscall.Syscall6(unix.SYS_RECVFROM, uintptr(b.fd), uintptr(unsafe.Pointer(h.Iov.Base)), maxQuery, 0,
		uintptr(unsafe.Pointer(h.Name)), uintptr(unsafe.Pointer(&h.Namelen)))
	if errno == 0 {
		h.size, b.received = uint32(n), 1
	}
	return errno
}

// receiveUpTo is recvmmsg(2).
func (b *batch) receiveUpTo(most int) (int, syscall.Errno) {
	n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.in)), uintptr(most),
		unix.MSG_WAITFORONE, 0, 0)
	if errno == 0 {
		b.received = int(n)
	}
	return b.received, errno
}

// query returns a packet that was received and who has sent it.
func (b *batch) query(i int) ([]byte, netip.AddrPort) {
	return b.packet(i), senderOf(&b.from[i])
}

func (b *batch) packet(i int) []byte { return b.queries[i][:min(b.in[i].size, maxQuery)] }

// senderOf reads a socket address of IPv6 or IPv4. An IPv4 address is never in
// IPv6 form.
func senderOf(name *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:]) // at the same place for both
	if name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), port)
}

// answer puts the response to a query among those to be sent: to whom the
// query came from and, RFC 2181 section 4, from the address that was asked.
func (b *batch) answer(i int, response []byte) {
	in := &b.in[i]
	var source []byte
	if b.wildcard {
		source = replySource(b.control[i][:in.Controllen])
	}
	b.out.add(response, &b.from[i], in.Namelen, source)
}

// A batchSocket is a UDP socket of its own: Go's poller does not know it. It
// would be woken by every packet and find that nobody has asked it to wait.
type batchSocket struct {
	fd       int
	wildcard bool
	done     chan struct{} // closed when serve has returned
}

// detach takes the socket of c out of Go's poller. It reports false, and
// leaves c as it is, where the system cannot receive and send in batches.
func detach(c *net.UDPConn, wildcard bool) (udpSocket, bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, false
	}
	b := &batchSocket{fd: -1, wildcard: wildcard, done: make(chan struct{})}
	if err := raw.Control(func(fd uintptr) {
		if batchesAvailable(int(fd)) {
			b.fd, _ = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) // -1 where it fails
		}
	}); err != nil || b.fd < 0 {
		return nil, false
	}
	wait := unix.NsecToTimeval(receivePatience.Nanoseconds())
	if unix.SetsockoptTimeval(b.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait) != nil {
		_ = unix.Close(b.fd) // a copy that nobody has used
		return nil, false
	}
	_ = c.Close() // the copy is what counts
	// For every process that has the socket: one that is to be replaced by this
	// one reads the same way or, if it has been told otherwise, polls.
	_ = unix.SetNonblock(b.fd, false) // else this one polls
	return b, true
}

// batchesAvailable reports whether the system has the calls and lets this
// process make them.
func batchesAvailable(fd int) bool {
	for _, call := range [...]uintptr{unix.SYS_RECVMMSG, unix.SYS_SENDMMSG} {
		_, _, errno := syscall.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&mmsghdr{})), 0, unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.ENOSYS || errno == unix.EPERM {
			return false
		}
	}
	return true
}

func (b *batchSocket) visit(f func(fd int)) { f(b.fd) }

// stop ends the wait with the signal that the scheduler of Go uses to the same
// end and takes from anybody. Every thread gets it: binding the reader to one
// that is known would cost with each packet. A signal just before the wait
// ends nothing, hence the next; without /proc the wait ends by itself.
func (b *batchSocket) stop() {
	again := time.NewTicker(stopEvery)
	defer again.Stop()
	for {
		threads, _ := os.ReadDir("/proc/self/task")
		for _, t := range threads {
			if id, err := strconv.Atoi(t.Name()); err == nil {
				_ = unix.Tgkill(os.Getpid(), id, unix.SIGURG) // fails where it has ended
			}
		}
		select {
		case <-b.done:
			return
		case <-again.C:
		}
	}
}

func (b *batchSocket) close() { _ = unix.Close(b.fd) } // nobody could be told

// serve waits in recvmmsg itself: parked by Go's poller, a reader would pay
// three more system calls and a turn of the scheduler for every time it waits.
func (b *batchSocket) serve(s *Server, l *listener, shard int) {
	defer close(b.done)
	var (
		r       responder
		batch   = newBatch(b.fd, b.wildcard)
		fds     = [...]unix.PollFd{{Fd: int32(b.fd), Events: unix.POLLIN}}
		yielded = time.Now()
		failing = false
		batches uint
	)
	r.local = l.bound
	for !l.closing.Load() {
		errno := batch.receive()
		switch errno {
		case 0:
			failing = false
			s.answerBatch(&r, batch, shard)
		case unix.EINTR:
		case unix.EAGAIN:
			_, _ = unix.Poll(fds[:], int(receivePatience.Milliseconds())) // ends by a signal, too
		default:
			if !failing {
				s.log.Warn("reading from dns socket", "address", l.bound, "err", errno)
			}
			failing = true
			select {
			case <-l.closed:
			case <-time.After(acceptRetryFirst): // it would only fail again at once
			}
		}
		if batches++; batches%clockEvery == 0 {
			if now := time.Now(); now.Sub(yielded) > yieldEvery {
				yielded = now
				runtime.Gosched()
			}
		}
	}
}

// answerBatch answers what was received last, all of it by one snapshot.
func (s *Server) answerBatch(r *responder, b *batch, shard int) {
	snap := s.snapshot.Load()
	for i := range b.received {
		b.verdicts[i] = b.asked[i].read(b.packet(i))
	}
	if b.received > 1 && snap.names >= fetchFrom {
		b.fetch(snap)
	}
	for i := range b.received {
		packet, client := b.query(i)
		if client.Port() == 0 {
			s.counts.drop(shard, dropPort)
			continue
		}
		r.port, r.control = client.Port(), b.control[i][:b.in[i].Controllen]
		r.query = &b.asked[i]
		if out := s.reply(r, snap, b.verdicts[i], b.out.response(), packet, client.Addr(), shard, false); out != nil {
			b.answer(i, out)
		}
	}
	s.tell(r, shard)
	for range b.out.send() {
		s.counts.drop(shard, dropSend)
	}
}
