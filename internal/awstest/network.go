package awstest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// A Network carries HTTP in memory, so that it may be spoken where the time is
// that of a test. Its zero value has no hosts.
type Network struct {
	mu    sync.Mutex
	hosts map[string]*listener
}

// Serve serves h at http://host until the returned function is called.
func (n *Network) Serve(host string, h http.Handler) (stop func()) {
	l := &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	if n.hosts == nil {
		n.hosts = make(map[string]*listener)
	}
	n.hosts[host] = l
	n.mu.Unlock()
	server := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with Close
	}()
	return func() {
		server.Close()
		<-done
	}
}

// Cut makes a host unreachable, also for connections that are open, or reachable
// again.
func (n *Network) Cut(host string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.hosts[host]; l != nil {
		l.cut = cut
		if cut {
			for _, c := range l.open {
				c.Close()
			}
			l.open = nil
		}
	}
}

// Client returns an HTTP client of the network. A host whose name begins with
// own is known to it by the rest of the name, and to no other client: so each
// instance has its own metadata service at the one address of all.
func (n *Network) Client(own string) *http.Client {
	dial := func(ctx context.Context, _, address string) (net.Conn, error) { return n.dial(ctx, own, address) }
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}

func (n *Network) dial(ctx context.Context, own, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	l := n.hosts[own+host]
	if l == nil {
		l = n.hosts[host]
	}
	unreachable := l == nil || l.cut
	n.mu.Unlock()
	if unreachable {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("network is unreachable")}
	}
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		n.mu.Lock()
		l.open = append(l.open, theirs)
		n.mu.Unlock()
		return ours, nil
	case <-l.closed:
	case <-ctx.Done():
	}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
}

type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	cut    bool       // guarded by Network.mu
	open   []net.Conn // guarded by Network.mu: all that ever were, since the last cut
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
