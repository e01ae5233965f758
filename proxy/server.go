package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/pool"
)

// Options are what a [Server] is made of. Only Table must be set.
type Options struct {
	Table           *pool.Publisher
	Observer        Observer              // nil: nobody is told
	ConnLog         io.Writer             // one line of JSON for each connection, see the package; nil: none
	Log             *slog.Logger          // nil: nothing is logged
	Registerer      prometheus.Registerer // nil: no metrics
	ShutdownTimeout time.Duration         // how long connections may go on when Run ends; 0: not at all
	Engine          Engine                // what moves the bytes; the zero value is the best there is for this system

	// Loops is how many event loops the epoll engine has, for TCP and as many
	// for UDP; 0: GOMAXPROCS. A
	// loop that waits holds on to its processor of the scheduler, so it does
	// best where GOMAXPROCS is one more than there are loops.
	Loops int

	// Inherited returns the sockets that the process before this one has
	// opened for an address, as [Server.Sockets] named them there, once. They
	// belong to the caller. nil: there was none.
	Inherited func(network, address string) []int
}

// An Engine is a way to move bytes. What is seen of the proxy from outside is
// the same with each.
type Engine string

const (
	// Epoll is event loops on Linux's epoll, see Options.Loops. It is the
	// default on Linux and not there on other systems.
	Epoll Engine = "epoll"
	// Portable is package net with two goroutines for each connection. It is
	// the default everywhere else.
	Portable Engine = "portable"
)

// An Observer hears what traffic finds out about backends. Its methods are
// called on the way of a connection and must not block.
type Observer interface {
	// ConnectFailed tells that backend could not be connected to, with the
	// reason in words. A fault of this host is never told.
	ConnectFailed(service string, backend netip.AddrPort, reason string)

	// SessionReset tells that backend has reset a connection before its first byte.
	SessionReset(service string, backend netip.AddrPort)
}

// A Server relays the connections and UDP flows of all services. Make one with [New]. Its
// methods may be called by several goroutines, Run once.
type Server struct {
	core      *core
	newEngine func(*core) (engine, error)
	newUDP    func(*core) (engine, error)
	patience  time.Duration
	inherited func(network, address string) []int
	leaving   chan time.Duration // capacity 1, see Leave

	mu        sync.Mutex
	listeners map[pool.Port]*listener // guarded by mu; by the configured address
}

// New returns a Server that serves nothing before Run. Whether there is the
// engine asked for, Run tells.
func New(o Options) *Server {
	switch {
	case o.Engine == Portable, o.Engine == "" && runtime.GOOS != "linux":
		return newServer(o, newNetEngine)
	case o.Engine == Epoll, o.Engine == "":
		return newServer(o, func(c *core) (engine, error) { return newEpollEngine(c, o.Loops) })
	}
	return newServer(o, func(*core) (engine, error) {
		return nil, fmt.Errorf("there is no engine %q; there are %q and %q", o.Engine, Epoll, Portable)
	})
}

func newServer(o Options, newEngine func(*core) (engine, error)) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Inherited == nil {
		o.Inherited = func(string, string) []int { return nil }
	}
	s := &Server{
		core:      newCore(o),
		newEngine: newEngine,
		newUDP:    newUDPEngine(o),
		patience:  o.ShutdownTimeout,
		inherited: o.Inherited,
		leaving:   make(chan time.Duration, 1),
		listeners: make(map[pool.Port]*listener),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(newCollector(s))
	}
	return s
}

// Run opens and closes listeners as the Table says and relays what they
// accept. When ctx ends it closes the listeners at once, lets the connections
// finish for ShutdownTimeout, resets the rest and returns nil; it returns
// earlier if the last connection ends earlier. [Server.Leave] ends it too.
func (s *Server) Run(ctx context.Context) error {
	changed, stop := s.core.table.Watch()
	defer stop()
	tcp, err := s.newEngine(s.core)
	if err != nil {
		return fmt.Errorf("proxy: starting the engine: %w", err)
	}
	e := &transports{engine: tcp, core: s.core, newUDP: s.newUDP}
	if s.core.lines != nil {
		defer s.core.lines.start(s.core.log)()
	}
	defer e.close()

	alarm := time.NewTimer(0)
	defer alarm.Stop()
	done, ending, late := ctx.Done(), false, false
	for {
		v := s.core.view()
		now := time.Now()
		next := now.Add(time.Hour)
		if ending {
			s.closeListeners()
		} else {
			next = earlier(next, s.follow(e, v, now))
		}
		s.core.wakeQueues()
		if ending && s.core.sessions.Load() == 0 {
			return nil
		}
		if n := s.core.sessions.Load(); !late && n > 0 && s.core.cut.passed(s.core.moment(now)) {
			late = true
			s.core.log.Warn("the time to finish is over, the connections that are left are reset", "connections", n)
		}
		next = earlier(next, s.enforce(e, now, next))
		alarm.Reset(time.Until(next))
		select {
		case <-changed:
		case <-s.core.poked:
		case <-alarm.C:
		case patience := <-s.leaving:
			ending = true
			s.cutWithin(patience)
		case <-done:
			done, ending = nil, true
			s.cutWithin(s.patience)
		}
	}
}

// cutWithin lets connections go on for d, unless they have less already.
func (s *Server) cutWithin(d time.Duration) {
	at := s.core.moment(time.Now().Add(d))
	if before := s.core.cut.at.Load(); before == 0 || at < before {
		s.core.cut.set(at)
	}
}

// Leave has Run end as the end of its context does, but connections may go on
// for patience: another process has the sockets and takes the new ones. The
// end of the context still cuts that short. It does not block.
func (s *Server) Leave(patience time.Duration) {
	select {
	case s.leaving <- patience:
	default: // it was said already
	}
}

// Connections returns how many connections and UDP flows there are.
func (s *Server) Connections() int { return int(s.core.sessions.Load()) }

// sweepAgain is how soon a sweep is repeated that has not ended all it should.
const sweepAgain = 20 * time.Millisecond

// enforce has the engine end the connections whose time is over, forgets
// what nobody uses, and returns when to be called again, at the latest at idle.
func (s *Server) enforce(e engine, now, idle time.Time) time.Time {
	next, ok := s.core.purge()
	at := s.core.moment(now)
	if l, found := s.purgeListeners(); found && (!ok || l < next) {
		next, ok = l, true
	}
	if !ok {
		return idle
	}
	if next > at {
		return now.Add(time.Duration(next - at))
	}
	e.sweep()
	return now.Add(sweepAgain)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// Active returns how many connections and UDP flows lead to a backend of a
// service, those that are being made included.
func (s *Server) Active(service string, backend netip.AddrPort) int {
	return s.core.active(service, backend)
}
