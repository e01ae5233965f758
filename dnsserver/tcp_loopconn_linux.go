package dnsserver

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// tcpInput is how much is read at once.
	tcpInput = 16 << 10

	// keptBuffer is how long the buffers of a connection may be to be kept for
	// the next one in its place.
	keptBuffer = 2 + maxQuery
)

// A loopConnection is a connection that lives in a loop, and then its place for
// the next. While it lives only the loop touches it, but for evict.
type loopConnection struct {
	connection
	loop   *tcpLoop
	handle loopHandle
	fd     int // -1: the place is free

	deadline moment // when it ends: idle, in the middle of a message, or not taking answers

	rest    []byte // what was read and not answered: part of a message or, while it is blocked, several
	pending []byte // what the client has not taken yet; while there is some, nothing is read
	skip    int    // octets to read over before it ends; 0: it does not end so

	watched bool // it is in the epoll
	wide    bool // for EPOLLOUT too
	later   bool // it is in loop.again
}

func (c *loopConnection) evict() {
	l := c.loop
	l.mu.Lock()
	l.evicted = append(l.evicted, c.handle)
	l.mu.Unlock()
	l.wakeUp()
}

func (c *loopConnection) expire() {} // the loop does it when it is stopped, see lastMessage

// begin serves the connection that was accepted last.
func (l *tcpLoop) begin(fd int) {
	if len(l.free) == 0 {
		c := &loopConnection{loop: l, fd: -1, handle: loopHandle{place: int32(len(l.places))}}
		c.transport = c
		l.places = append(l.places, c)
		l.free = append(l.free, c)
	}
	c := l.free[len(l.free)-1]
	from := senderOf(&l.name)
	client := from.Addr()
	c.listener, c.client, c.prefix = l.listener, client, prefixOf(client)
	c.peer = peer{port: from.Port(), local: l.listener.bound, handsOver: true}
	if l.server.watch.Load() != nil && l.listener.bound.Addr().IsUnspecified() {
		c.peer.local = localOf(fd, l.listener.bound)
	}
	c.fresh.Store(true)
	c.idleSince.Store(l.now.UnixNano())
	if !l.server.connections.admit(&c.connection) {
		l.server.counts.drop(l.index, dropConnections)
		_ = unix.Close(fd) // nobody could be told
		return
	}
	l.free = l.free[:len(l.free)-1]
	l.open++
	c.fd = fd
	c.patience(l.server.connections.idle())
	// What has come already needs no event.
	if c.read(); c.fd >= 0 {
		c.watched = true
		if l.control(unix.EPOLL_CTL_ADD, c.fd, c.interest(), c.handle) != 0 {
			c.watched = false
			c.end() // the host is short of something
		}
	}
}

// localOf returns the address of the socket of a connection, else bound.
func localOf(fd int, bound netip.AddrPort) netip.AddrPort {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return bound
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return bound
}

func (c *loopConnection) interest() uint32 {
	if c.wide {
		return unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET | unix.EPOLLOUT
	}
	return unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET
}

// end closes the connection.
func (c *loopConnection) end() {
	// Closing takes it out of the epoll.
	_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(c.fd), 0, 0) // nobody could be told
	c.loop.server.connections.remove(&c.connection)
	c.leave()
}

// leave frees the place.
func (c *loopConnection) leave() {
	if cap(c.rest) > keptBuffer {
		c.rest = nil
	}
	if cap(c.pending) > keptBuffer {
		c.pending = nil
	}
	c.fd, c.rest, c.pending, c.skip = -1, c.rest[:0], c.pending[:0], 0
	c.watched, c.wide, c.later = false, false, false
	c.handle.generation++
	c.loop.free = append(c.loop.free, c)
	c.loop.open--
}

// patience sets the deadline.
func (c *loopConnection) patience(d time.Duration) {
	c.deadline = c.loop.at + moment(d)
	c.loop.alarm = min(c.loop.alarm, c.deadline)
}

// lastMessage is expire for a connection of a loop.
func (c *loopConnection) lastMessage() {
	switch {
	case c.fresh.Load():
		c.deadline = min(c.deadline, c.loop.at+moment(tcpMessage))
		c.loop.alarm = min(c.loop.alarm, c.deadline)
	case len(c.pending) == 0:
		c.end()
	}
}

func (c *loopConnection) event(events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		c.end()
		return
	}
	if len(c.pending) > 0 {
		if events&unix.EPOLLOUT != 0 {
			c.writable()
		}
		return
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP) != 0 {
		c.read()
		if events&unix.EPOLLRDHUP != 0 && c.fd >= 0 {
			c.readLater() // the end of the stream stands behind what was read
		}
	}
}

// readLater has the loop read once more after what else there is to do.
func (c *loopConnection) readLater() {
	if !c.later {
		c.later = true
		c.loop.again = append(c.loop.again, c)
	}
}

// read answers what has come. A read that does not fill the buffer has taken
// everything, and an event tells of more.
func (c *loopConnection) read() {
	if len(c.pending) > 0 {
		return
	}
	in := &c.loop.in
	held := copy(in[:], c.rest)
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&in[held])), uintptr(len(in)-held), unix.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == unix.EAGAIN:
		return
	case errno == unix.EINTR:
		c.readLater()
		return
	case errno != 0 || n == 0:
		c.end()
		return
	}
	if held+int(n) == len(in) {
		c.readLater()
	}
	c.rest = c.rest[:0]
	c.answer(in[:held+int(n)], held > 0)
}

// answer answers the messages in data, which is the loop's buffer, in their
// order; begun tells that the first of them was begun before.
func (c *loopConnection) answer(data []byte, begun bool) {
	l := c.loop
	if c.skip > 0 {
		c.discard(len(data))
		return
	}
	out, answered := l.out[:0], false
	for len(data) >= 2 {
		size := int(binary.BigEndian.Uint16(data))
		if size > maxQuery {
			if len(data) >= 2+headerLen {
				c.refuseLong(out, data, size)
				return
			}
			break
		}
		if len(data) < 2+size {
			break
		}
		begin := len(out)
		l.r.peer = c.peer
		response := l.server.respond(&l.r, append(out, 0, 0), data[2:2+size], c.client, l.index, true)
		if response == nil {
			if c.write(out) {
				c.end()
			}
			return
		}
		if l.r.transfer != nil {
			l.r.transfer = nil // it is decided on anew there
			c.handOver(out, data)
			return
		}
		binary.BigEndian.PutUint16(response[begin:], uint16(len(response)-begin-2))
		out, answered, data = response, true, data[2+size:]
		if len(out) >= tcpCoalesce {
			if !c.write(out) {
				c.rest = append(c.rest, data...)
				return
			}
			out = out[:0]
		}
	}
	c.rest = append(c.rest, data...)
	if answered {
		c.idleSince.Store(l.now.UnixNano())
	}
	if !c.write(out) {
		return
	}
	if l.out = out[:0]; cap(out) > 2*tcpCoalesce {
		l.out = nil // for a rare large answer
	}
	switch {
	case l.ending && !c.fresh.Load():
		c.end()
	case len(c.rest) == 0:
		c.patience(l.server.connections.idle())
	case answered || !begun:
		c.patience(tcpMessage)
	}
}

// write sends, at once if it can. It reports false where nothing more is to be
// done now: the connection has ended, or goes on when the client has taken
// what is pending.
func (c *loopConnection) write(out []byte) bool {
	if len(out) == 0 {
		return true
	}
	n, ok := c.send(out)
	if !ok {
		return false
	}
	c.fresh.Store(false)
	if n == len(out) {
		return true
	}
	c.pending = append(c.pending, out[n:]...)
	c.patience(tcpWrite)
	if !c.wide {
		c.wide = true
		if c.watched {
			c.loop.control(unix.EPOLL_CTL_MOD, c.fd, c.interest(), c.handle) // it is there
		}
	}
	return false
}

// send returns how much the system has taken. It reports false where the
// connection has ended.
func (c *loopConnection) send(out []byte) (int, bool) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&out[0])), uintptr(len(out)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), true
		case unix.EAGAIN:
			return 0, true
		case unix.EINTR:
		default:
			c.end()
			return 0, false
		}
	}
}

// writable goes on with what is pending, and then with what was read.
func (c *loopConnection) writable() {
	n, ok := c.send(c.pending)
	if !ok {
		return
	}
	if c.pending = slices.Delete(c.pending, 0, n); len(c.pending) > 0 {
		return
	}
	if c.skip > 0 {
		c.lastAnswer()
		return
	}
	in := &c.loop.in
	held := copy(in[:], c.rest)
	c.rest = c.rest[:0]
	if c.answer(in[:held], false); c.fd >= 0 {
		c.readLater() // no event has told of what has come meanwhile
	}
}

// refuseLong answers FORMERR to a message that is longer than any query, and
// has it read to its end so that the answer is not lost with the connection.
func (c *loopConnection) refuseLong(out, data []byte, size int) {
	l := c.loop
	if l.r.read(data[2:]) == ignore {
		l.server.counts.drop(l.index, dropMalformed)
		if c.write(out) {
			c.end()
		}
		return
	}
	l.r.rcode = rcodeFormat
	begin := len(out)
	out, result := l.r.answer(append(out, 0, headerLen), l.server.snapshot.Load(), reject, conversation{tcp: true, idle: l.server.connections.idle()})
	binary.BigEndian.PutUint16(out[begin:], uint16(len(out)-begin-2))
	l.server.counts.count(l.index, true, result)
	c.patience(tcpMessage)
	c.skip = max(2+size-len(data), 1) // at least the end of the stream
	if c.write(out) {
		c.lastAnswer()
	}
}

// lastAnswer ends the stream to the client.
func (c *loopConnection) lastAnswer() {
	_, _, _ = syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(c.fd), unix.SHUT_WR, 0) // the client may be gone, which an event tells
	c.patience(tcpMessage)
}

// discard reads over what is left of a message.
func (c *loopConnection) discard(n int) {
	if c.skip -= n; c.skip <= 0 {
		c.end()
	}
}

// handOver has the connection served from now on by a goroutine of its own: it
// asks for a zone, which may take long. Out is to be sent, data was read.
func (c *loopConnection) handOver(out, data []byte) {
	l := c.loop
	if c.watched {
		l.control(unix.EPOLL_CTL_DEL, c.fd, 0, loopHandle{}) // the copy would keep it there
	}
	f := os.NewFile(uintptr(c.fd), "connection")
	conn, err := net.FileConn(f) // a copy
	_ = f.Close()                // as in end
	tcp, ok := conn.(*net.TCPConn)
	if err != nil || !ok {
		l.server.connections.remove(&c.connection) // the host is short of something
		c.leave()
		return
	}
	fresh := c.fresh.Load()
	n := l.server.newNetConnection(tcp, l.listener)
	n.fresh.Store(fresh)
	n.before = slices.Clone(data)
	placed := l.server.connections.replace(&c.connection, &n.connection)
	c.leave()
	if !placed {
		_ = tcp.Close() // as in end
		return
	}
	pending := slices.Clone(out)
	l.server.serving.Go(func() { l.server.takeOver(n, pending, l.index) })
}
