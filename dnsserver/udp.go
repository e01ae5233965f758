package dnsserver

import (
	"errors"
	"net"
	"time"
)

// serveUDP answers what arrives at a socket until it is closed.
func (s *Server) serveUDP(l *listener, c *net.UDPConn, shard int) {
	var (
		r        responder
		packet   = make([]byte, maxQuery)
		response = make([]byte, 0, maxPayload)
		control  = make([]byte, controlLen)
		failing  = false
	)
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
		out := s.respond(&r, response[:0], packet[:n], client.Addr().Unmap(), shard, false)
		if out == nil {
			continue
		}
		// RFC 2181 section 4: from the address that was asked.
		if _, _, err := c.WriteMsgUDPAddrPort(out, replySource(control[:controls]), client); err != nil {
			s.counts.drop(shard, dropSend) // no route, or a full queue: the client asks again
		}
	}
}
