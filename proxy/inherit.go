package proxy

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// Sockets calls visit with each listening socket that is open: its network,
// tcp or udp, the address as it is configured, and the descriptor, which is
// valid during the call and must neither be shut down nor made blocking.
// Those of one address come in a fixed order. With a copy of all of them
// another process can take over, see Options.Inherited.
func (s *Server) Sockets(visit func(network, address string, fd int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.listeners {
		if l.close != nil {
			l.sockets(func(fd int) { visit(l.network(), l.address.String(), fd) })
		}
	}
}

// adoptListeners makes listeners of descriptors, which it takes over.
func adoptListeners(fds []int) (sockets []*net.TCPListener, err error) {
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "inherited")
		l, failed := net.FileListener(f) // a copy
		failed = errors.Join(failed, f.Close())
		socket, ok := l.(*net.TCPListener)
		if ok {
			sockets = append(sockets, socket)
		} else if l != nil {
			failed = errors.Join(fmt.Errorf("an inherited socket listens on %s, which is not TCP", l.Addr()), l.Close())
		}
		err = errors.Join(err, failed)
	}
	if err != nil {
		for _, socket := range sockets {
			_ = socket.Close() // err says what is wrong
		}
		return nil, err
	}
	return sockets, nil
}

// visitSocket calls visit with the descriptor of l. The Fd of
// its File would make the socket blocking, here and in every other process.
func visitSocket(l *net.TCPListener, visit func(fd int)) {
	raw, err := l.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { visit(int(fd)) }) // fails on a listener that is closed
	}
}
