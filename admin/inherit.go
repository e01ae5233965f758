package admin

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Sockets calls visit with each listening socket that is open: its network,
// tcp or unix, the address or path as it is configured, and the descriptor,
// which is valid during the call and must neither be shut down nor made blocking.
// With a copy of both another process can take over, see Options.Inherited.
func (s *Server) Sockets(visit func(network, address string, fd int)) {
	select {
	case <-s.listening:
	default:
		return
	}
	if s.tcp != nil {
		visitSocket(s.tcp, func(fd int) { visit("tcp", s.opts.Listen.String(), fd) })
	}
	if s.control != nil {
		visitSocket(s.control, func(fd int) { visit("unix", s.opts.Socket, fd) })
	}
}

// Leave says that another process has the sockets and goes on: the file of
// the control socket stays when Run ends.
func (s *Server) Leave() {
	select {
	case <-s.listening:
		if s.control != nil {
			s.control.left.Store(true)
		}
	default:
	}
}

// visitSocket does not use File, whose Fd would make the socket blocking,
// here and in every other process that has it.
func visitSocket(c syscall.Conn, visit func(fd int)) {
	raw, err := c.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { visit(int(fd)) }) // fails on a socket that is closed
	}
}

// listenTCP takes the inherited socket, or opens one.
func (s *Server) listenTCP(ctx context.Context, at netip.AddrPort) (*net.TCPListener, error) {
	if l, ok := s.adopt("tcp", at.String()).(*net.TCPListener); ok {
		return l, nil
	}
	return listenTCP(ctx, at)
}

// listenSocket takes the inherited control socket, or opens one. The process
// before answers on the inherited one, which is as it should be.
func (s *Server) listenSocket(ctx context.Context, path string) (*socket, error) {
	l, ok := s.adopt("unix", path).(*net.UnixListener)
	if !ok {
		return listenSocket(ctx, path)
	}
	l.SetUnlinkOnClose(false) // socket does that
	own, err := os.Lstat(path)
	if err != nil { // somebody has removed it, and nobody can connect
		_ = l.Close() // nothing waits there
		return listenSocket(ctx, path)
	}
	return &socket{UnixListener: l, path: path, own: own}, nil
}

// adopt makes a listener of the inherited descriptor; nil: there is none that
// can be used.
func (s *Server) adopt(network, address string) (adopted net.Listener) {
	if s.opts.Inherited == nil {
		return nil
	}
	for _, fd := range s.opts.Inherited(network, address) {
		f := os.NewFile(uintptr(fd), "inherited")
		l, err := net.FileListener(f) // a copy
		_ = f.Close()                 // the copy is what counts
		switch {
		case err != nil:
		case adopted == nil && l.Addr().Network() == network:
			adopted = l
		default:
			_ = l.Close() // another kind, or one too many
		}
	}
	return adopted
}
