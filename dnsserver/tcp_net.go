package dnsserver

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// A netSocket serves each connection with a goroutine of its own, as package
// net has it. It is for systems without anything better.
type netSocket struct{ *net.TCPListener }

func (n netSocket) serve(s *Server, l *listener) { s.acceptTCP(n.TCPListener, l) }

func (n netSocket) stop() { _ = n.Close() } // it is open

func (n netSocket) close() { _ = n.Close() } // it may have been stopped

func (n netSocket) visit(f func(fd int)) { visitSocket(n.TCPListener, f) }

// A netConnection is a connection with a goroutine of its own.
type netConnection struct {
	connection
	*net.TCPConn
	before []byte // was read from the client before there was a goroutine

	transferring atomic.Bool // the answer is a zone, which may take long
}

func (s *Server) newNetConnection(tcp *net.TCPConn, l *listener) *netConnection {
	from, local := tcp.RemoteAddr().(*net.TCPAddr).AddrPort(), tcp.LocalAddr().(*net.TCPAddr).AddrPort()
	client := from.Addr().Unmap()
	c := &netConnection{TCPConn: tcp}
	c.peer = peer{port: from.Port(), local: netip.AddrPortFrom(local.Addr().Unmap(), local.Port())}
	c.transport, c.listener, c.client, c.prefix = c, l, client, prefixOf(client)
	c.fresh.Store(true)
	c.idleSince.Store(time.Now().UnixNano())
	return c
}

func (c *netConnection) evict() { _ = c.Close() } // it may be closed already

func (c *netConnection) expire() {
	deadline := time.Unix(1, 0)
	if c.fresh.Load() {
		deadline = time.Now().Add(tcpMessage)
	}
	_ = c.SetReadDeadline(deadline) // else it is closed already
	if c.transferring.Load() {
		_ = c.SetWriteDeadline(time.Unix(1, 0)) // as above
	}
}

// acceptTCP accepts connections until l is closed. One that does nothing keeps
// no other waiting.
func (s *Server) acceptTCP(socket *net.TCPListener, l *listener) {
	delay := acceptRetryFirst
	for shard := 0; ; shard++ {
		tcp, err := socket.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: it gets better when others close.
			if delay == acceptRetryFirst { // once, not for each try
				s.log.Warn("accepting dns connections", "address", l.bound, "err", err)
			}
			select {
			case <-l.closed:
			case <-time.After(delay):
			}
			delay = min(2*delay, acceptRetryMost)
			continue
		}
		delay = acceptRetryFirst
		c := s.newNetConnection(tcp, l)
		if !s.connections.admit(&c.connection) {
			s.counts.drop(shard, dropConnections)
			tcp.Close()
			continue
		}
		s.serving.Go(func() { s.serveTCP(c, shard) })
	}
}

// takeOver serves a connection that somebody else has begun, after what is
// pending.
func (s *Server) takeOver(c *netConnection, pending []byte, shard int) {
	if len(pending) > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(tcpWrite)) // fails as the write then does
		if _, err := c.Write(pending); err != nil {
			_ = c.Close() // it may be closed already
			s.connections.remove(&c.connection)
			return
		}
		c.fresh.Store(false)
	}
	s.serveTCP(c, shard)
}

// serveTCP answers the messages of a connection in their order, until the
// client is done, too slow, or talks nonsense.
func (s *Server) serveTCP(c *netConnection, shard int) {
	defer s.connections.remove(&c.connection)
	defer c.Close()
	scratch := s.scratches.Get().(*tcpScratch)
	defer s.free(scratch)
	scratch.in.Reset(c)
	if len(c.before) > 0 {
		scratch.in.Reset(io.MultiReader(bytes.NewReader(c.before), c))
	}
	r, in, out := &scratch.r, scratch.in, scratch.out
	r.peer = c.peer
	for {
		if !c.waitMessage(in, s.connections.idle()) {
			return
		}
		head, err := in.Peek(2)
		if err != nil {
			return
		}
		size := int(binary.BigEndian.Uint16(head))
		if size > maxQuery {
			s.refuseLong(c, r, in, size, shard)
			return
		}
		whole, err := in.Peek(2 + size)
		if err != nil {
			return
		}
		c.idleSince.Store(0)
		begin := len(out)
		out = append(out, 0, 0)
		response := s.respond(r, out, whole[2:], c.client, shard, true)
		if response == nil {
			return
		}
		if r.transfer != nil {
			if !s.stream(c, r, out[:begin], shard) {
				return
			}
			c.fresh.Store(false)
			c.idleSince.Store(time.Now().UnixNano())
			out = out[:0]
			_, _ = in.Discard(2 + size) // they were peeked at
			continue
		}
		out = response
		binary.BigEndian.PutUint16(out[begin:], uint16(len(out)-begin-2))
		_, _ = in.Discard(2 + size) // they were peeked at
		if len(out) < tcpCoalesce && another(in) {
			continue
		}
		now := time.Now()
		c.idleSince.Store(now.UnixNano())
		_ = c.SetWriteDeadline(now.Add(tcpWrite)) // fails as the write then does
		if _, err := c.Write(out); err != nil {
			return
		}
		c.fresh.Store(false)
		if out = out[:0]; cap(out) > 2*tcpCoalesce {
			out = nil // a rare large answer is not kept for the life of the connection
		}
		scratch.out = out
	}
}

// A tcpScratch is what serving a connection takes. It goes from one that has
// ended to a new one.
type tcpScratch struct {
	r   responder
	in  *bufio.Reader
	out []byte
}

func newTCPScratch() any { return &tcpScratch{in: bufio.NewReaderSize(nil, 2+maxQuery)} }

func (s *Server) free(t *tcpScratch) {
	t.in.Reset(nil)
	t.out = t.out[:0]
	s.scratches.Put(t)
}

// another reports whether a whole message is there already.
func another(in *bufio.Reader) bool {
	if in.Buffered() < 2 {
		return false
	}
	head, err := in.Peek(2)
	return err == nil && in.Buffered() >= 2+int(binary.BigEndian.Uint16(head))
}

// waitMessage waits for the first octet of a message and sets the deadline for
// the rest.
func (c *netConnection) waitMessage(in *bufio.Reader, idle time.Duration) bool {
	if in.Buffered() == 0 {
		if !c.setReadDeadline(idle) {
			return false
		}
		if _, err := in.Peek(1); err != nil {
			return false
		}
	}
	return another(in) || c.setReadDeadline(tcpMessage)
}

// setReadDeadline reports false where the listener is closing and nothing more
// is to be read. See expire.
func (c *netConnection) setReadDeadline(d time.Duration) bool {
	err := c.SetReadDeadline(time.Now().Add(d))
	if err == nil && c.listener.closing.Load() {
		if !c.fresh.Load() {
			return false
		}
		err = c.SetReadDeadline(time.Now().Add(min(d, tcpMessage)))
	}
	return err == nil
}

// refuseLong answers FORMERR to a message that is longer than any query, and
// reads it to its end so that the answer is not lost with the connection.
func (s *Server) refuseLong(c *netConnection, r *responder, in *bufio.Reader, size, shard int) {
	whole, err := in.Peek(2 + headerLen)
	if err != nil {
		return
	}
	if r.read(whole[2:]) == ignore {
		s.counts.drop(shard, dropMalformed)
		return
	}
	r.rcode = rcodeFormat
	out, result := r.answer([]byte{0, headerLen}, s.snapshot.Load(), reject, conversation{tcp: true, idle: s.connections.idle()})
	s.counts.count(shard, true, result)
	_ = c.SetWriteDeadline(time.Now().Add(tcpWrite)) // fails as the write then does
	if _, err := c.Write(out); err != nil {
		return
	}
	_ = c.CloseWrite()                             // the client may be gone, which ends the copy too
	_, _ = io.CopyN(io.Discard, in, int64(2+size)) // as above
}
