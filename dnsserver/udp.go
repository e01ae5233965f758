package dnsserver

import (
	"errors"
	"net"
	"time"
)

// A udpSocket is one of the sockets of an address.
type udpSocket interface {
	// serve answers what arrives until l is closing and stop was called.
	serve(s *Server, l *listener, shard int)
	stop()
	close() // after serve has returned

	// visit calls f with the descriptor, which is valid during the call.
	visit(f func(fd int))
}

// A singleSocket receives and sends one packet with each system call. It is for
// systems without anything better.
type singleSocket struct{ *net.UDPConn }

func (c singleSocket) visit(f func(fd int)) { visitSocket(c.UDPConn, f) }

func (c singleSocket) stop() {
	_ = c.SetReadDeadline(time.Unix(1, 0)) // fails, as reading does, on a closed socket
	_ = c.SetWriteDeadline(time.Now().Add(udpLastWrite))
}

func (c singleSocket) close() { _ = c.Close() } // nobody could be told

func (c singleSocket) serve(s *Server, l *listener, shard int) {
	var (
		r        responder
		packet   = make([]byte, maxQuery)
		response = make([]byte, 0, maxPayload)
		control  = make([]byte, controlLen)
		failing  = false
	)
	r.local = l.bound
	for {
		n, controls, _, client, err := c.ReadMsgUDPAddrPort(packet, control)
		if err != nil {
			if l.closing.Load() || errors.Is(err, net.ErrClosed) {
				return
			}
			if !failing {
				s.log.Warn("reading from dns socket", "address", l.bound, "err", err)
			}
			failing = true
			select {
			case <-l.closed:
			case <-time.After(acceptRetryFirst): // it would only fail again at once
			}
			continue
		}
		failing = false
		if client.Port() == 0 {
			s.counts.drop(shard, dropPort)
			continue
		}
		r.port, r.control = client.Port(), control[:controls]
		out := s.respond(&r, response[:0], packet[:n], client.Addr().Unmap(), shard, false)
		s.tell(&r, shard)
		if out == nil {
			continue
		}
		// RFC 2181 section 4: from the address that was asked.
		if _, _, err := c.WriteMsgUDPAddrPort(out, replySource(control[:controls]), client); err != nil {
			s.counts.drop(shard, dropSend) // no route, or a full queue: the client asks again
		}
	}
}
