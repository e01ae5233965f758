package dnsserver

import (
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

// A tcpSocket is the listening TCP socket of an address.
type tcpSocket interface {
	// serve accepts and serves connections until stop was called. It may return
	// before they have ended.
	serve(s *Server, l *listener)
	stop()  // accepting; not before serve was called
	close() // after stop, or instead of serve

	// visit calls f with the descriptor, which is valid during the call.
	visit(f func(fd int))
}

// A transport is what carries a connection. Its methods may be called from any
// goroutine.
type transport interface {
	evict() // closes it: another one needs the place

	// expire ends the waiting for the client. One that has said nothing yet
	// gets a little time: its first message is on its way.
	expire()
}

// A connection is a client's TCP connection.
type connection struct {
	transport
	listener *listener
	prefix   uint64
	client   netip.Addr
	peer     peer

	fresh atomic.Bool // no message was answered yet

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
		oldest.evict()
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

// replace gives the place of one connection to another. It reports false where
// it was lost already.
func (c *connections) replace(old, conn *connection) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, open := c.open[old]; !open {
		return false
	}
	delete(c.open, old)
	c.open[conn] = struct{}{}
	return true
}

// expire expires the connections of a listener that is closing.
func (c *connections) expire(l *listener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		if conn.listener == l {
			conn.expire()
		}
	}
}
