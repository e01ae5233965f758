package dnsserver

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// What a TCP connection may take, RFC 7766 section 6 and RFC 9210 section 4.
const (
	tcpIdle = 10 * time.Second // without a message begun
	// tcpIdleCrowded is tcpIdle when more than half of maxConnections are open.
	tcpIdleCrowded = 2 * time.Second

	tcpMessage = 2 * time.Second // from the first octet of a message to its last
	tcpWrite   = 2 * time.Second

	maxConnections          = 1000
	maxConnectionsPerPrefix = 64

	// tcpCoalesce is from how many octets on responses are sent although the
	// next query is there already.
	tcpCoalesce = 32 << 10

	acceptRetryFirst = 5 * time.Millisecond
	acceptRetryMost  = time.Second
)

// connections are the open TCP connections of all listeners. The zero value is
// ready for use.
type connections struct {
	crowd atomic.Int32 // how many are open

	mu       sync.Mutex
	open     map[*connection]struct{}
	prefixes map[uint64]int // how many each client prefix has
}

// A connection is a client's TCP connection.
type connection struct {
	*net.TCPConn
	listener *listener
	prefix   uint64
	client   netip.Addr

	fresh        atomic.Bool // no message was answered yet
	transferring atomic.Bool // the answer is a zone, which may take long

	// idleSince is since when only the client can go on: by sending the rest
	// of a message or taking an answer. Unix nanoseconds; 0: a message is being
	// answered.
	idleSince atomic.Int64
}

func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

// admit takes conn in. Where there are too many the one that is idle the
// longest is closed for it, be it in the middle of a message: who sends an
// octet a second keeps nobody out. Admit reports false where none is idle.
func (c *connections) admit(conn *connection) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = make(map[*connection]struct{})
		c.prefixes = make(map[uint64]int)
	}
	crowded := c.prefixes[conn.prefix] >= maxConnectionsPerPrefix
	if crowded || len(c.open) >= maxConnections {
		oldest := c.idlest(conn.prefix, crowded)
		if oldest == nil {
			return false
		}
		oldest.Close()
		c.drop(oldest)
	}
	c.open[conn] = struct{}{}
	c.prefixes[conn.prefix]++
	c.crowd.Store(int32(len(c.open)))
	return true
}

// idle is how long a connection may go without a message now: less when there
// are many, RFC 7766 section 6.2.3.
func (c *connections) idle() time.Duration {
	if c.crowd.Load() > maxConnections/2 {
		return tcpIdleCrowded
	}
	return tcpIdle
}

// idlest returns the connection that is idle the longest, of that prefix alone
// or of all; nil if none is.
func (c *connections) idlest(prefix uint64, alone bool) (oldest *connection) {
	var since int64
	for o := range c.open {
		if alone && o.prefix != prefix {
			continue
		}
		if at := o.idleSince.Load(); at != 0 && (oldest == nil || at < since) {
			oldest, since = o, at
		}
	}
	return oldest
}

// remove forgets conn, if it is not forgotten yet.
func (c *connections) remove(conn *connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(conn)
}

func (c *connections) drop(conn *connection) {
	if _, open := c.open[conn]; !open {
		return
	}
	delete(c.open, conn)
	c.crowd.Store(int32(len(c.open)))
	if c.prefixes[conn.prefix]--; c.prefixes[conn.prefix] == 0 {
		delete(c.prefixes, conn.prefix)
	}
}

// expire ends the waiting of the connections of a listener that is closing. One
// that has said nothing yet gets a little time: its first message is on its way.
func (c *connections) expire(l *listener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		if conn.listener != l {
			continue
		}
		deadline := time.Unix(1, 0)
		if conn.fresh.Load() {
			deadline = time.Now().Add(tcpMessage)
		}
		_ = conn.SetReadDeadline(deadline) // else it is closed already
		if conn.transferring.Load() {
			_ = conn.SetWriteDeadline(time.Unix(1, 0)) // as above
		}
	}
}

// acceptTCP accepts connections until l is closed. One that does nothing keeps
// no other waiting.
func (s *Server) acceptTCP(l *listener) {
	delay := acceptRetryFirst
	for shard := 0; ; shard++ {
		tcp, err := l.tcp.AcceptTCP()
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
		client := tcp.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		c := &connection{TCPConn: tcp, listener: l, client: client, prefix: prefixOf(client)}
		c.fresh.Store(true)
		c.idleSince.Store(time.Now().UnixNano())
		if !s.connections.admit(c) {
			s.counts.drop(shard, dropConnections)
			tcp.Close()
			continue
		}
		s.serving.Go(func() {
			defer s.connections.remove(c)
			defer c.Close()
			s.serveTCP(c, shard)
		})
	}
}

// serveTCP answers the messages of a connection in their order, until the
// client is done, too slow, or talks nonsense.
func (s *Server) serveTCP(c *connection, shard int) {
	scratch := s.scratches.Get().(*tcpScratch)
	defer s.free(scratch)
	scratch.in.Reset(c)
	r, in, out := &scratch.r, scratch.in, scratch.out
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
func (c *connection) waitMessage(in *bufio.Reader, idle time.Duration) bool {
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
func (c *connection) setReadDeadline(d time.Duration) bool {
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
func (s *Server) refuseLong(c *connection, r *responder, in *bufio.Reader, size, shard int) {
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
