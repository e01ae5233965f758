//go:build linux

package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxPayload bounds the bytes of a packet. A few of them fit into the
	// buffer of a socket as it is by default.
	maxPayload = 32 << 10

	// maxDescriptors bounds the descriptors with a packet; the kernel takes 253
	// (SCM_MAX_FD).
	maxDescriptors = 128
)

// A kind is what a packet says.
type kind byte

const (
	prepared kind = 'p'
	sockets  kind = 's' // a JSON list of names, and as many descriptors
	document kind = 'd' // the length of its name, the name, a piece of the text
	allGiven kind = 'a'
	ready    kind = 'r'
	leaving  kind = 'l'
	givesUp  kind = 'e' // the reason, in words
)

func (k kind) String() string {
	switch k {
	case prepared:
		return "prepared"
	case sockets:
		return "sockets"
	case document:
		return "document"
	case allGiven:
		return "all given"
	case ready:
		return "ready"
	case leaving:
		return "leaving"
	case givesUp:
		return "gives up"
	}
	return fmt.Sprintf("packet %q", byte(k))
}

// A link is one end of the socketpair. One goroutine at a time may use it.
type link struct {
	conn *net.UnixConn
	in   []byte // of the last packet
	out  []byte
	oob  []byte
}

// newPair returns one end as a link and the other as a file for a child.
func newPair() (*link, *os.File, error) {
	// Packets, so that each arrives whole with its descriptors, and a
	// connection, so that the end of the other side is seen.
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "handover")
	ours, err := newLink(fds[0])
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return ours, theirs, nil
}

// newLink makes a link of a descriptor, which it takes over.
func newLink(fd int) (*link, error) {
	f := os.NewFile(uintptr(fd), "handover")
	if f == nil {
		return nil, fmt.Errorf("%d is no descriptor", fd)
	}
	conn, err := net.FileConn(f) // a copy, which the child of a child does not inherit
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("descriptor %d is no unix socket", fd), conn.Close())
	}
	return &link{conn: c, in: make([]byte, 1+maxPayload), oob: make([]byte, unix.CmsgSpace(4*maxDescriptors))}, nil
}

func (l *link) Close() error { return l.conn.Close() }

// until has what waits on the link return when ctx ends, until stop is called.
func (l *link) until(ctx context.Context) (stop func()) {
	_ = l.conn.SetDeadline(time.Time{}) // fails on a closed link, as the next call will
	interrupted := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { interrupted() }
}

// send sends one packet.
func (l *link) send(ctx context.Context, k kind, payload []byte, fds ...int) error {
	defer l.until(ctx)()
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	l.out = append(append(l.out[:0], byte(k)), payload...)
	if _, _, err := l.conn.WriteMsgUnix(l.out, rights, nil); err != nil {
		return l.failed(ctx, "sending", k, err)
	}
	return nil
}

// receive returns the next packet; its payload is valid until the next call.
// The descriptors belong to the caller. With none expected, those that come
// are closed by the kernel.
func (l *link) receive(ctx context.Context, descriptors bool) (k kind, payload []byte, fds []int, err error) {
	defer l.until(ctx)()
	var oob []byte
	if descriptors {
		oob = l.oob
	}
	// Go asks for MSG_CMSG_CLOEXEC.
	n, oobn, flags, _, err := l.conn.ReadMsgUnix(l.in, oob)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return 0, nil, nil, err
	}
	if fds, err = parseRights(l.oob[:oobn]); err != nil {
		return 0, nil, nil, err
	}
	if n == 0 || flags&unix.MSG_TRUNC != 0 || descriptors && flags&unix.MSG_CTRUNC != 0 {
		closeAll(fds)
		return 0, nil, nil, fmt.Errorf("a packet of more than %d bytes or %d descriptors", maxPayload, maxDescriptors)
	}
	return kind(l.in[0]), l.in[1:n], fds, nil
}

func parseRights(oob []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			continue
		}
		some, err := unix.ParseUnixRights(&m)
		if err != nil {
			closeAll(fds)
			return nil, fmt.Errorf("control message: %w", err)
		}
		fds = append(fds, some...)
	}
	return fds, nil
}

func (l *link) failed(ctx context.Context, doing string, k kind, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s %q: %w", doing, k, err)
}

// isGone reports whether err says that the other side has ended.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // the descriptor is free whatever it says
	}
}
