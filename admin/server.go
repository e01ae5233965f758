package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	readTimeout  = 10 * time.Second // for a request's header, and again for its body
	writeTimeout = 30 * time.Second // for an answer, and for each piece of a stream
	idleTimeout  = 2 * time.Minute  // between two requests on one connection
	lastWords    = 2 * time.Second  // for requests under way when Run ends

	maxHeader      = 16 << 10 // bytes
	maxBody        = 64 << 10 // bytes
	maxConnections = 256      // on each of the two listeners
	maxStreams     = 64       // of events, on both together
)

// A Server answers on admin.listen and on the control socket. Make one with
// [New].
type Server struct {
	opts    Options
	log     *slog.Logger
	started time.Time

	history history
	load    load
	streams chan struct{} // holds one value for each stream of events

	listening chan struct{}    // closed once both are open
	tcp       *net.TCPListener // nil: there is none; valid once listening is closed, and so is control
	control   *socket
	addr      atomic.Pointer[netip.AddrPort]
}

// New returns a Server that does nothing until it is run.
func New(opts Options) *Server {
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		opts:      opts,
		log:       log,
		started:   time.Now(),
		streams:   make(chan struct{}, maxStreams),
		listening: make(chan struct{}),
	}
}

// Listening is closed once everything that was asked for is open.
func (s *Server) Listening() <-chan struct{} { return s.listening }

// Addr returns where HTTP is served over TCP, with the port that was chosen if
// port 0 was asked for. It is the zero value before that is open, see
// [Server.Listening], and where there is none.
func (s *Server) Addr() netip.AddrPort {
	if a := s.addr.Load(); a != nil {
		return *a
	}
	return netip.AddrPort{}
}

// Run opens what Options asks for and serves until ctx ends; then streams end
// at once, requests under way get two seconds, and Run returns nil. A port or a
// socket that cannot be had is an error. Run must be called once.
func (s *Server) Run(ctx context.Context) error {
	var err error
	if s.opts.Listen.IsValid() {
		if s.tcp, err = s.listenTCP(ctx, s.opts.Listen); err != nil {
			return err
		}
		addr := s.tcp.Addr().(*net.TCPAddr).AddrPort()
		addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
		s.addr.Store(&addr)
		s.log.Info("status page open", "url", "http://"+addr.String()+"/")
	}
	if s.opts.Socket != "" {
		if s.control, err = s.listenSocket(ctx, s.opts.Socket); err != nil {
			if s.tcp != nil {
				err = errors.Join(err, s.tcp.Close())
			}
			return err
		}
		s.log.Info("control socket open", "path", s.opts.Socket)
	}
	close(s.listening)

	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return s.watch(ctx) })
	if s.tcp != nil {
		all.Go(func() error { return s.serve(ctx, s.tcp, s.handler(false)) })
	}
	if s.control != nil {
		all.Go(func() error { return s.serve(ctx, s.control, s.handler(true)) })
	}
	return all.Wait()
}

// watch keeps the history and the load up to date.
func (s *Server) watch(ctx context.Context) error {
	changed, stop := s.opts.Table.Watch()
	defer stop()
	sample := time.NewTicker(sampleEvery)
	defer sample.Stop()
	for {
		if t := s.opts.Table.Load(); t.Generation > 0 {
			s.history.observe(t)
		}
		select {
		case <-changed:
		case <-sample.C:
			s.load.sample(s.connections(s.opts.Table.Load()))
		case <-ctx.Done():
			return nil
		}
	}
}

// serve answers on l until ctx ends.
func (s *Server) serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	var open sync.WaitGroup // connections, whether anything was said on them or not
	server.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Done()
		}
	}
	limited := limit(l, maxConnections)
	stop := context.AfterFunc(ctx, func() { _ = limited.Close() })
	err := server.Serve(limited)
	if stop() { // Serve ended by itself
		return fmt.Errorf("serving on %s: %w", l.Addr(), errors.Join(err, server.Close()))
	}
	// Not Shutdown: a request that it finds just read, on a connection that was
	// accepted a moment ago, would be dropped without an answer.
	server.SetKeepAlivesEnabled(false)
	answered := make(chan struct{})
	go func() { open.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(lastWords):
	}
	_ = server.Close() // whoever is still there had the time
	<-answered
	return nil
}
