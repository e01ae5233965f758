//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	flows = 128 // sockets, and so ports, that queries come from

	// A socket sends a burst and the next socket goes on; the responses are
	// fetched when so many queries are on their way. No server's queue
	// overflows with that, and none is ever empty if the load can help it.
	burst    = 4 // as a resolver with few ports
	inFlight = 128

	lossTimeout = 500 * time.Millisecond
)

// A mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	size uint32
}

// A client asks a server by UDP from many ports.
type client struct {
	sockets []int
	atOnce  int                  // queries that a socket sends, at most burst
	asked   [flows][burst]uint32 // numbers of what is on its way
	headers [burst]mmsghdr
	parts   [burst]unix.Iovec
	buffers [burst][1500]byte
	number  uint32 // of the next query
}

func newClient(addr string, atOnce int) (*client, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	c := &client{atOnce: atOnce}
	for i := range c.headers {
		c.parts[i].Base = &c.buffers[i][0]
		c.headers[i].Iov = &c.parts[i]
		c.headers[i].SetIovlen(1)
	}
	for i := range flows {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			c.close()
			return nil, fmt.Errorf("making a socket: %w", err)
		}
		c.sockets = append(c.sockets, fd)
		wait := unix.NsecToTimeval(lossTimeout.Nanoseconds())
		if err := errors.Join(
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
			unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(1 + i)}}),
			unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}),
		); err != nil {
			c.close()
			return nil, fmt.Errorf("connecting a socket to %s: %w", addr, err)
		}
	}
	return c, nil
}

func (c *client) close() {
	for _, fd := range c.sockets {
		_ = unix.Close(fd) // nothing is left to be told
	}
}

// flood asks as fast as it is answered until the span is over, verifies every
// answer and returns how many there were.
func (c *client) flood(questions []question, span time.Duration) (float64, error) {
	sent, answered := 0, 0 // bursts
	for end := time.Now().Add(span); time.Now().Before(end); sent++ {
		if sent >= inFlight/c.atOnce {
			if err := c.collect(answered%flows, questions); err != nil {
				return 0, err
			}
			answered++
		}
		if err := c.ask(sent%flows, questions); err != nil {
			return 0, err
		}
	}
	for ; answered < sent; answered++ {
		if err := c.collect(answered%flows, questions); err != nil {
			return 0, err
		}
	}
	return float64(answered * c.atOnce), nil
}

// flood makes a client for each call, whose sockets ask for that much at a time.
func flood(questions []question, atOnce int) loadFunc {
	return func(addr string, span time.Duration) (float64, error) {
		c, err := newClient(addr, atOnce)
		if err != nil {
			return 0, err
		}
		defer c.close()
		return c.flood(questions, span)
	}
}

// ask sends a burst from a socket.
func (c *client) ask(socket int, questions []question) error {
	for i := range c.atOnce {
		q := &questions[int(c.number)%len(questions)]
		n := copy(c.buffers[i][:], q.packet)
		binary.BigEndian.PutUint16(c.buffers[i][:], uint16(c.number))
		c.parts[i].SetLen(n)
		c.asked[socket][i] = c.number
		c.number++
	}
	for at := 0; at < c.atOnce; {
		n, _, errno := syscall.Syscall6(unix.SYS_SENDMMSG, uintptr(c.sockets[socket]), uintptr(unsafe.Pointer(&c.headers[at])), uintptr(c.atOnce-at), 0, 0, 0)
		if errno != 0 {
			return fmt.Errorf("asking: %w", errno)
		}
		at += int(n)
	}
	return nil
}

// collect waits for the answers to the burst of a socket, which may come in
// any order.
func (c *client) collect(socket int, questions []question) error {
	for i := range c.parts {
		c.parts[i].SetLen(len(c.buffers[i]))
	}
	for at := 0; at < c.atOnce; {
		n, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, uintptr(c.sockets[socket]), uintptr(unsafe.Pointer(&c.headers[at])), uintptr(c.atOnce-at), 0, 0, 0)
		switch errno {
		case 0:
			at += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return fmt.Errorf("%d of %d queries were not answered within %s", c.atOnce-at, c.atOnce, lossTimeout)
		default:
			return fmt.Errorf("waiting for an answer: %w", errno)
		}
	}
	seen := 0
	for i := range c.atOnce {
		response := c.buffers[i][:c.headers[i].size]
		if len(response) < 12 {
			return fmt.Errorf("a response has %d octets", len(response))
		}
		id := binary.BigEndian.Uint16(response)
		for j, number := range c.asked[socket][:c.atOnce] {
			if uint16(number) != id || seen>>j&1 != 0 {
				continue
			}
			seen |= 1 << j
			if err := questions[int(number)%len(questions)].verify(id, response); err != nil {
				return err
			}
		}
	}
	if seen != 1<<c.atOnce-1 {
		return errors.New("a response has an ID that was not asked with, or one came twice")
	}
	return nil
}

// openLoop asks perSecond times a second, each at its time whether or not
// those before have been answered, and returns how long after its time each
// answer came: a server that stalls is charged for those that had to wait.
func (c *client) openLoop(questions []question, perSecond float64, span time.Duration) ([]time.Duration, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an epoll: %w", err)
	}
	defer unix.Close(epoll)
	for i, fd := range c.sockets {
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
			return nil, fmt.Errorf("adding to the epoll: %w", err)
		}
	}
	total := int(perSecond * span.Seconds())
	took := make([]time.Duration, 0, total)
	begin := time.Now()
	due := func(n int) time.Duration { return time.Duration(float64(n) / perSecond * float64(time.Second)) }
	var (
		numbers [1 << 16]int32 // by ID, what is on its way
		events  [flows]unix.EpollEvent
		buffer  [1500]byte
	)
	for sent := 0; len(took) < total; {
		now := time.Since(begin)
		for sent < total && due(sent) <= now {
			q := &questions[sent%len(questions)]
			n := copy(buffer[:], q.packet)
			id := uint16(sent)
			binary.BigEndian.PutUint16(buffer[:], id)
			numbers[id] = int32(sent)
			if _, err := unix.Write(c.sockets[sent%flows], buffer[:n]); err != nil {
				return nil, fmt.Errorf("asking: %w", err)
			}
			sent++
		}
		if now > span+lossTimeout { // what is missing has taken at least that long
			if len(took) < total/2 {
				return nil, fmt.Errorf("%d of %d queries were not answered within %s", total-len(took), total, lossTimeout)
			}
			return append(took, slices.Repeat([]time.Duration{lossTimeout}, total-len(took))...), nil
		}
		ready, err := unix.EpollWait(epoll, events[:], 0) // in turns with the clock: nothing sleeps
		if err != nil && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("waiting for answers: %w", err)
		}
		for _, e := range events[:max(ready, 0)] {
			n, err := unix.Read(c.sockets[e.Fd], buffer[:])
			if err != nil || n < 12 {
				return nil, fmt.Errorf("reading an answer of %d octets: %w", n, err)
			}
			id := binary.BigEndian.Uint16(buffer[:])
			number := int(numbers[id])
			if err := questions[number%len(questions)].verify(id, buffer[:n]); err != nil {
				return nil, err
			}
			took = append(took, time.Since(begin)-due(number))
		}
	}
	return took, nil
}
