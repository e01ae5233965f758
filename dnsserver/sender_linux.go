package dnsserver

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	responseSlot = maxPayload + 48

	// sendPatience is how long responses wait for room in a full queue.
	sendPatience = 20 * time.Millisecond
)

// segmentSpace is what the control message takes that tells where to cut.
var segmentSpace = unix.CmsgSpace(2)

// A sender sends responses, many with one system call. It is made once for each
// socket; nothing in it moves, since the headers hold addresses of the rest.
//
// Responses to one client that have one length, the last of them at most that,
// are one message: the kernel finds the way for it once and cuts it into
// datagrams then (UDP_SEGMENT, udp(7)). Who asks much from few ports, as a
// forwarder does, is answered at a lower cost.
type sender struct {
	fd   int
	cuts bool // the system cuts messages for this socket

	responses [batchSize][responseSlot]byte
	parts     [batchSize]unix.Iovec // one for each response
	of        [batchSize]uint8      // the message that each response belongs to
	waiting   int                   // of them, how many are to be sent

	messages [batchSize]mmsghdr // before send, Iov is the first part
	whole    [batchSize]bool    // nothing can follow in that message
	count    int                // of them, how many those are
	control  [batchSize][controlLen + 32]byte
	gathered [batchSize]unix.Iovec // parts, those of a message together

	// latest is, for some clients each, which message went to one of them last,
	// maybe of an earlier batch: no more than a guess where to look.
	latest [clientPlaces]uint8
}

// clientPlaces is how many clients a sender tells apart at most.
const clientPlaces = 64

// start makes s the sender of a socket.
func (s *sender) start(fd int) {
	_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	s.fd, s.cuts = fd, err == nil // Linux 4.18
}

// response is where the next response goes.
func (s *sender) response() []byte { return s.responses[s.waiting][:0] }

// add puts a response among those to be sent to a client: from the address that
// source, a control message, tells; nil: the socket has one.
func (s *sender) add(response []byte, to *unix.RawSockaddrInet6, size uint32, source []byte) {
	part := &s.parts[s.waiting]
	part.Base = &response[0]
	part.SetLen(len(response))
	latest := &s.latest[clientPlace(to)]
	if !s.continues(int(*latest), part, to, source) {
		*latest = uint8(s.count)
		m := &s.messages[s.count]
		m.Name, m.Namelen = (*byte)(unsafe.Pointer(to)), size
		m.Iov = part
		m.SetIovlen(1)
		m.Control = unsafe.SliceData(source)
		m.SetControllen(len(source))
		s.whole[s.count] = false
		s.count++
	}
	s.of[s.waiting] = *latest
	s.waiting++
}

// clientPlace is where latest has a client. One half of a port is as good as the
// other.
func clientPlace(to *unix.RawSockaddrInet6) uint16 { return (to.Port>>8 ^ to.Port) % clientPlaces }

// continues adds a part to a message, if it can be the next of that.
func (s *sender) continues(at int, part *unix.Iovec, to *unix.RawSockaddrInet6, source []byte) bool {
	if at >= s.count || !s.cuts || s.whole[at] {
		return false
	}
	m := &s.messages[at]
	other := (*unix.RawSockaddrInet6)(unsafe.Pointer(m.Name))
	if to.Port != other.Port || *to != *other || part.Len > m.Iov.Len ||
		!bytes.Equal(source, unsafe.Slice(m.Control, int(m.Controllen))) {
		return false
	}
	s.whole[at] = part.Len < m.Iov.Len // only the last may be shorter
	m.SetIovlen(int(m.Iovlen) + 1)
	return true
}

// send sends the responses and returns how many the system did not take.
func (s *sender) send() (failed int) {
	if s.waiting > s.count {
		s.gather()
	}
	patient := true
	for at := 0; at < s.count; {
		n, errno := s.try(s.messages[at:s.count])
		switch {
		case errno == 0:
			at += n
		case errno == unix.EAGAIN && patient:
			patient = false
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, int(sendPatience.Milliseconds())) // it is tried anyway
		default: // no route, or the queue stays full: the client asks again
			if m := &s.messages[at]; m.Iovlen > 1 {
				failed += s.apart(m, errno)
			} else {
				failed++
			}
			at++
		}
	}
	s.waiting, s.count = 0, 0
	return failed
}

// gather puts the parts of each message behind each other, and has the system
// cut those of several.
func (s *sender) gather() {
	var next [batchSize]uint8
	at := uint8(0)
	for i := range s.messages[:s.count] {
		m := &s.messages[i]
		if m.Iovlen > 1 {
			s.cut(m, &s.control[i])
		}
		m.Iov = &s.gathered[at]
		next[i] = at
		at += uint8(m.Iovlen)
	}
	for i, message := range s.of[:s.waiting] {
		s.gathered[next[message]] = s.parts[i]
		next[message]++
	}
}

// try sends the first messages and returns how many, at least one without an
// error. A single one goes with sendto(2): sendmmsg(2) reads three structures
// more, which is much for one packet.
func (s *sender) try(messages []mmsghdr) (int, syscall.Errno) {
	m := &messages[0]
	single := len(messages) == 1 && m.Iovlen == 1 && m.Controllen == 0
	for {
		var n uintptr
		var errno syscall.Errno
		if single {
			_, _, errno = syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(m.Iov.Base)),
				uintptr(m.Iov.Len), unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(m.Name)), uintptr(m.Namelen))
			n = 1
		} else {
			n, _, errno = syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(m)),
				uintptr(len(messages)), unix.MSG_DONTWAIT, 0, 0)
		}
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}

// cut has the system cut a message, by a control message behind that of the source.
func (s *sender) cut(m *mmsghdr, control *[controlLen + 32]byte) {
	n := copy(control[:], unsafe.Slice(m.Control, int(m.Controllen)))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[n]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(control[n+unix.CmsgLen(0):], uint16(m.Iov.Len))
	m.Control = &control[0]
	m.SetControllen(n + segmentSpace)
}

// apart sends the responses of a message that was not taken as a whole, each
// by itself, and returns how many failed.
func (s *sender) apart(m *mmsghdr, why syscall.Errno) (failed int) {
	// EIO: on the way out nobody computes checksums, or it is encrypted. EINVAL:
	// it is narrower than a response, which says nothing about other ways.
	if why == unix.EIO {
		s.cuts = false
	}
	m.SetControllen(int(m.Controllen) - segmentSpace)
	if m.Controllen == 0 {
		m.Control = nil
	}
	parts := unsafe.Slice(m.Iov, int(m.Iovlen))
	m.SetIovlen(1)
	for i := range parts {
		m.Iov = &parts[i]
		if _, errno := s.try(unsafe.Slice(m, 1)); errno != 0 {
			failed++
		}
	}
	return failed
}
