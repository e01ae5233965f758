package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func listenTCP(ctx context.Context, at netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp4"
	if at.Addr().Is6() {
		network = "tcp6" // [::] takes nothing away from a listener on 0.0.0.0
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, network, at.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("admin.listen: %s is taken by another program (ss -ltnp 'sport = :%d' names it): %w", at, at.Port(), err)
	case err != nil:
		return nil, fmt.Errorf("admin.listen: %w", err)
	}
	return l.(*net.TCPListener), nil
}

// maxSocketPath is what sun_path of a unix socket holds, without its final zero.
const maxSocketPath = 107

// listenSocket opens the control socket at path with mode 0660. The socket of
// a daemon that has died is replaced, that of a living one is an error.
//
// The socket is bound in a folder that only its owner can enter and moved to
// its place once its mode is right, so that at no moment anybody else could
// connect, whatever the umask.
func listenSocket(ctx context.Context, path string) (*socket, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("admin.socket: making its folder: %w", err)
	}
	if err := replaceable(ctx, path); err != nil {
		return nil, fmt.Errorf("admin.socket: %w", err)
	}
	private, err := os.MkdirTemp(dir, ".e")
	if err != nil {
		return nil, fmt.Errorf("admin.socket: %w", err)
	}
	defer os.RemoveAll(private)
	hidden := filepath.Join(private, "s")
	if n := max(len(path), len(hidden)); n > maxSocketPath {
		return nil, fmt.Errorf("admin.socket: %s: the path of a socket has at most %d bytes, this needs %d", path, maxSocketPath, n)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("admin.socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // it knows the socket by its hidden name
	if err := errors.Join(os.Chmod(hidden, 0o660)); err != nil {
		return nil, fmt.Errorf("admin.socket: %w", errors.Join(err, l.Close()))
	}
	own, err := os.Lstat(hidden)
	if err == nil {
		err = os.Rename(hidden, path)
	}
	if err != nil {
		return nil, fmt.Errorf("admin.socket: %w", errors.Join(err, l.Close()))
	}
	return &socket{UnixListener: l, path: path, own: own}, nil
}

// replaceable reports, as nil, that nothing of value is at path.
func replaceable(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is in the way: it is no socket", path)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = c.Close() // nothing was said
		return fmt.Errorf("another elbow is running: it answers on %s", path)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil // nobody listens any more
	}
	return fmt.Errorf("another elbow may be running: %w", err)
}

// A socket is a listener that removes its file when it is closed, unless the
// file has become somebody else's.
type socket struct {
	*net.UnixListener
	path string
	own  fs.FileInfo
	left atomic.Bool // another process has it too: the file stays
}

func (s *socket) Close() error {
	if s.left.Load() {
		return s.UnixListener.Close()
	}
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.own) {
		_ = os.Remove(s.path) // a stale file is replaced by the next daemon
	}
	return s.UnixListener.Close()
}

// limit returns a listener that has at most n connections open at a time;
// further ones wait in the kernel's backlog.
func limit(l net.Listener, n int) net.Listener {
	return &limited{Listener: l, places: make(chan struct{}, n), closed: make(chan struct{})}
}

type limited struct {
	net.Listener
	places chan struct{} // holds one value for each open connection
	closed chan struct{}
	once   sync.Once
}

func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &limitedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.leave()
	return err
}
