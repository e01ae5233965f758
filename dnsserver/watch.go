package dnsserver

import (
	"context"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/pool"
)

// A watch is who looks on while queries are answered: the query log, dnstap,
// and the count of what is asked most. All of them get samples, by chance, and
// none keeps a query waiting: what they cannot take is lost, and counted.
type watch struct {
	log *queryLog // nil: there is none
	tap *tap      // nil: there is none
	top *top      // nil: there is none

	// For whom a query is decided by one random number, which is not above the
	// limit of each. The samples are not independent of each other, and each of
	// them is fair.
	logLimit, tapLimit uint32
	any                bool // one of log and tap is there
	limit              uint32
}

// limitOf is what a random number must not be above for one in so many.
func limitOf(sample int) uint32 { return math.MaxUint32 / uint32(max(1, sample)) }

// wants reports whether anybody looks at the query with that random number.
func (w *watch) wants(random uint32) bool {
	return w.any && random <= w.limit || w.top != nil && random <= w.top.limit.Load()
}

// A peer is between whom a query travels, besides the address of the client.
// Whoever reads from a socket fills it in.
type peer struct {
	port    uint16         // of the client
	local   netip.AddrPort // where the socket listens
	control []byte         // what says to which address the packet was sent; empty: that is local

	// handsOver says that a query for a zone goes to somebody else, who answers
	// it, and takes down that it was asked.
	handsOver bool
}

// asked is the address that the query was sent to.
func (p *peer) asked() netip.AddrPort {
	addr := p.local.Addr().Unmap()
	if addr.IsUnspecified() {
		addr = destination(p.control)
	}
	return netip.AddrPortFrom(addr, p.local.Port())
}

// see lets those who want it see the query in r, and the response to it; nil:
// there is none.
func (w *watch) see(random uint32, r *responder, packet, response []byte, client netip.Addr, worker int, tcp bool) {
	if w.log != nil && random <= w.logLimit {
		w.log.see(r, response, client, worker, tcp)
	}
	if w.tap != nil && random <= w.tapLimit {
		w.tap.see(r, packet, response, client, worker, tcp)
	}
	if w.top != nil {
		w.top.see(random, r, client, worker)
	}
}

// watchCounts are what became of the samples. They outlive a change of the
// configuration.
type watchCounts struct {
	logWritten, logLost, logFailed atomic.Uint64 // lines
	tapSent, tapLost               atomic.Uint64 // messages
	tapConnected                   atomic.Bool
}

// watchers starts and ends those who look on, as the Table says. It belongs to
// the goroutine of Run.
type watchers struct {
	server  *Server
	log     pool.QueryLog
	tap     pool.Dnstap
	endLog  context.CancelFunc
	endTap  context.CancelFunc
	endTop  context.CancelFunc
	running sync.WaitGroup
}

// apply follows the Table. What ends writes down what it has, meanwhile.
func (w *watchers) apply(ctx context.Context, dns *pool.DNS) {
	old := w.server.watch.Load()
	if old == nil {
		old = &watch{}
	}
	next := *old
	if dns.QueryLog != w.log {
		w.log, next.log = dns.QueryLog, nil
		end(&w.endLog)
		if dns.QueryLog.File != "" {
			next.log = newQueryLog(dns.QueryLog, w.server)
			w.endLog = w.start(ctx, next.log.run)
		}
	}
	if dns.Dnstap != w.tap {
		w.tap, next.tap = dns.Dnstap, nil
		end(&w.endTap)
		if dns.Dnstap.Network != "" {
			next.tap = newTap(dns.Dnstap, w.server)
			w.endTap = w.start(ctx, next.tap.run)
		}
	}
	if dns.Top != (next.top != nil) {
		next.top = nil
		end(&w.endTop)
		if dns.Top {
			next.top = newTop(w.server.sockets)
			w.endTop = w.start(ctx, next.top.run)
		}
	}
	next.complete()
	if next == (watch{}) {
		w.server.watch.Store(nil)
		return
	}
	w.server.watch.Store(&next)
}

// complete derives the limits.
func (w *watch) complete() {
	w.logLimit, w.tapLimit = 0, 0
	if w.log != nil {
		w.logLimit = limitOf(w.log.conf.Sample)
	}
	if w.tap != nil {
		w.tapLimit = limitOf(w.tap.conf.Sample)
	}
	w.any = w.log != nil || w.tap != nil
	w.limit = max(w.logLimit, w.tapLimit)
}

func (w *watchers) start(ctx context.Context, run func(context.Context)) context.CancelFunc {
	ctx, cancel := context.WithCancel(ctx)
	w.running.Go(func() { run(ctx) })
	return cancel
}

func end(cancel *context.CancelFunc) {
	if *cancel != nil {
		(*cancel)()
		*cancel = nil
	}
}

// end ends all of them, after the last query was answered.
func (w *watchers) end() {
	end(&w.endLog)
	end(&w.endTap)
	end(&w.endTop)
	w.running.Wait()
	w.server.watch.Store(nil)
}

// Reopen has a query log that goes to a file open it anew, soon, so that
// logrotate can move it away.
func (s *Server) Reopen() {
	if w := s.watch.Load(); w != nil && w.log != nil {
		select {
		case w.log.again <- struct{}{}:
		default: // it is about to
		}
	}
}

// reader calls drain when a queue asks for it, and every so often, until ctx
// ends; then once more.
func reader(ctx context.Context, wake <-chan struct{}, every time.Duration, drain func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-wake:
		case <-tick.C:
		case <-ctx.Done():
			drain()
			return
		}
		drain()
	}
}
