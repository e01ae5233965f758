package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

// Options are what a Server is made of.
type Options struct {
	Table      *pool.Publisher
	Store      Store                 // keeps the serials of zones; nil: they begin with the date each time
	Log        *slog.Logger          // nil: nothing is logged
	Registerer prometheus.Registerer // nil: there are no metrics

	Version string // of the program, for dnstap; empty: nothing is said

	// Stdout and Stderr are where a query log goes that is to go there; nil:
	// those of the process.
	Stdout, Stderr io.Writer

	// Sockets is how many UDP sockets share an address, each with a goroutine
	// that waits in the system; 0: GOMAXPROCS, at most 8. Where the system does
	// not spread packets over several, there is one.
	Sockets int

	// Prepared are zones of the first Table that are loaded and signed already;
	// nil: none.
	Prepared *Prepared

	// Inherited returns the sockets that the process before this one has
	// opened for an address, as [Server.Sockets] named them there, once. They
	// belong to the caller. nil: there was none.
	Inherited func(network, address string) []int
}

// A Server is the DNS server. Its methods may be called by several goroutines
// at any time.
type Server struct {
	table     *pool.Publisher
	store     Store
	log       *slog.Logger
	sockets   int // UDP sockets of an address
	loops     int // for the TCP connections of an address; 0: each has a goroutine
	inherited func(network, address string) []int
	prepared  *Prepared           // nil: nothing was
	requests  chan func(*builder) // to the goroutine of Run
	ended     chan struct{}       // Run has returned

	snapshot  atomic.Pointer[snapshot] // never nil
	loadings  loadings
	handedOut handedOut
	limiter   *limiter

	connections connections
	transfers   transfers
	secondaries secondaries
	begun       time.Time
	scratches   sync.Pool      // of *tcpScratch
	serving     sync.WaitGroup // every goroutine that reads from a socket

	watch          atomic.Pointer[watch] // nil: nobody looks on
	watched        watchCounts
	version        string
	stdout, stderr io.Writer

	counts    serverCounts
	buildTime atomic.Int64 // of the newest snapshot, nanoseconds

	mu        sync.Mutex
	listeners map[netip.AddrPort]listenerState // by the address in the Table; guarded by mu
}

// A listenerState is how an address of the Table is served.
type listenerState struct {
	bound    netip.AddrPort
	listener *listener // nil: it is not open
	err      error     // nil: it is open
}

// New makes a Server. It answers nothing before Run.
func New(o Options) *Server {
	s := &Server{
		table:     o.Table,
		store:     o.Store,
		log:       o.Log,
		inherited: o.Inherited,
		prepared:  o.Prepared,
		requests:  make(chan func(*builder)),
		ended:     make(chan struct{}),
		limiter:   newLimiter(),
		begun:     time.Now(),
		sockets:   o.Sockets,
		version:   o.Version,
		stdout:    o.Stdout,
		stderr:    o.Stderr,
	}
	if s.stdout == nil {
		s.stdout = os.Stdout
	}
	if s.stderr == nil {
		s.stderr = os.Stderr
	}
	s.scratches.New = newTCPScratch
	if s.sockets <= 0 {
		s.sockets = min(runtime.GOMAXPROCS(0), maxSockets)
	}
	s.loops = s.sockets
	if !sharedPorts {
		s.sockets = 1
	}
	if s.inherited == nil {
		s.inherited = func(string, string) []int { return nil }
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.snapshot.Store(&snapshot{})
	s.loadings.log = s.log
	if o.Registerer != nil {
		if err := o.Registerer.Register(newMetrics(s)); err != nil {
			s.log.Error("metrics of the DNS server are missing", "err", err)
		}
	}
	return s
}

// Run serves the zones of the newest Table on its listeners until ctx ends.
// Nothing is opened before there is a Table. An address that cannot be opened
// is tried again, see [Server.Serving]. Run returns nil, after every goroutine
// has ended, and must not be called twice.
func (s *Server) Run(ctx context.Context) error {
	defer close(s.ended)
	changed, stop := s.table.Watch()
	defer stop()
	s.handedOut.restore(s.store, s.log)
	b := &builder{Server: s, serials: newSerials(s.store, s.log)}
	if s.prepared != nil {
		b.preparations = s.prepared.zones
		s.prepared = nil // the zones change, and these would be kept
	}
	sockets := &sockets{server: s}
	watchers := &watchers{server: s}
	notifier := newNotifier(s.log, exchangeNotify)
	defer notifier.end()
	look := time.NewTicker(renewEvery)
	defer look.Stop()
	for {
		var retry <-chan time.Time
		if t := s.table.Load(); t.Generation > 0 {
			if t.Generation != s.snapshot.Load().generation {
				b.build(ctx, t)
				watchers.apply(ctx, &t.DNS)
			}
			retry = sockets.apply(ctx, t.DNS.Listen)
			// Whoever is told now may ask at once.
			notifier.announce(s.snapshot.Load())
		}
		select {
		case <-changed:
			continue
		case <-retry:
			continue
		case do := <-s.requests:
			do(b)
			continue
		case <-look.C:
			b.look(ctx, time.Now())
			continue
		case <-ctx.Done():
		}
		break
	}
	sockets.apply(context.WithoutCancel(ctx), nil)
	s.serving.Wait()
	watchers.end()
	b.end()
	return nil
}

// Serving returns nil if every zone of the newest Table is answered and every
// listener of it is open, else an error that says which is not and why. It is
// an ErrLoading before the first snapshot. A large zone that is new later counts
// when it is loaded.
func (s *Server) Serving() error {
	t := s.table.Load()
	snap := s.snapshot.Load()
	if t.Generation == 0 {
		return errors.New("dns: there is no table of services yet")
	}
	if snap.generation == 0 {
		if l := s.loadings.newest.Load(); l != nil {
			return fmt.Errorf("dns: %w: %s: %s", ErrLoading, l.zone, l.stage())
		}
		return fmt.Errorf("dns: %w", ErrLoading)
	}
	var all []error
	for _, z := range t.DNS.Zones {
		if apex, err := parseName(z.Name); err != nil || snap.zones.get(apex) == nil && !snap.pending[apex] {
			all = append(all, fmt.Errorf("dns zone %s is not loaded", z.Name))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, addr := range t.DNS.Listen {
		if state, known := s.listeners[addr]; !known {
			all = append(all, fmt.Errorf("dns listener %s is not open yet", addr))
		} else if state.err != nil {
			all = append(all, fmt.Errorf("dns listener %s: %w", addr, state.err))
		}
	}
	return errors.Join(all...)
}

// Addrs returns the addresses that are open, UDP and TCP both, in the order of
// the Table's listeners. A port 0 there is the one that was bound here.
func (s *Server) Addrs() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []netip.AddrPort
	for _, addr := range s.table.Load().DNS.Listen {
		if state, known := s.listeners[addr]; known && state.err == nil {
			out = append(out, state.bound)
		}
	}
	return out
}

// A ZoneStatus is a zone as it is served.
type ZoneStatus struct {
	Name   string // without the final dot
	Serial uint32
	Names  int // that own records or belong to a service

	Keys    []ZoneKey // whose records are in the zone; none: it is not signed
	Expires time.Time // when the first signature does; zero: there is none
	Overdue bool      // signatures are not renewed as they should be
}

// A ZoneKey is a key of a signed zone.
type ZoneKey struct {
	Tag       uint16
	Algorithm string // as elbow dnssec keygen names it
	Stage     string // what it is for now, see [dnssec.Times.Stage]
}

// Zones returns the zones that are answered, in the order of the Table.
func (s *Server) Zones() []ZoneStatus {
	var out []ZoneStatus
	now := time.Now()
	for _, z := range s.snapshot.Load().sorted {
		status := ZoneStatus{Name: z.conf.Name, Serial: z.serial, Names: z.owners()}
		if z.signed != nil {
			status.Expires = time.Unix(z.signed.end, 0)
			status.Overdue = status.Expires.Sub(now) < overdue
			for _, k := range z.signed.ring.keys {
				status.Keys = append(status.Keys, ZoneKey{k.Tag, dnssec.Algorithm(k.Record.Algorithm).String(), k.Times.Stage(now)})
			}
		}
		out = append(out, status)
	}
	return out
}

// respond appends the response to a packet to dst; it returns nil where there
// is none. It is the one way from a packet to a response. Over TCP it may leave
// the response to r.transfer. What it counts by UDP is known after tell.
func (s *Server) respond(r *responder, dst, packet []byte, client netip.Addr, shard int, tcp bool) []byte {
	return s.reply(r, s.snapshot.Load(), r.read(packet), dst, packet, client, shard, tcp)
}

// reply is respond by a snapshot, for a packet that r has read.
func (s *Server) reply(r *responder, snap *snapshot, v verdict, dst, packet []byte, client netip.Addr, shard int, tcp bool) []byte {
	if v == ignore {
		s.counts.drop(shard, dropMalformed)
		return nil
	}
	r.outcome = result{rcode: noResponse}
	chance := rand.Uint64()
	out := s.decide(r, snap, v, dst, packet, client, shard, tcp, uint32(chance))
	if r.handsOver && r.transfer != nil {
		return out
	}
	size := max(0, len(out)-len(dst))
	if out != nil {
		r.tally.add(r.query, len(packet), size)
		if tcp {
			r.tally.tell(&s.counts.shards[shard%shards].tally, tcp)
		}
	}
	if w := s.watch.Load(); w != nil && w.wants(uint32(chance>>32)) {
		w.see(uint32(chance>>32), r, packet, out[len(out)-size:], client, shard, tcp)
	}
	return out
}

// tell makes known what r has counted by UDP.
func (s *Server) tell(r *responder, shard int) {
	r.tally.tellZone(shard)
	r.tally.tell(&s.counts.shards[shard%shards].tally, false)
}

// decide is respond for a packet that was read.
func (s *Server) decide(r *responder, snap *snapshot, v verdict, dst, packet []byte, client netip.Addr, shard int, tcp bool, random uint32) []byte {
	r.generation = snap.generation
	if r.cookie != nil {
		snap.cookies.serve(r.query, client, time.Now())
		if r.question == nil && len(r.cookie) > clientCookieLen && !r.proven {
			r.rcode = rcodeBadCookie // RFC 7873 section 5.4
		}
	}
	slip := false
	if !tcp && !r.proven && snap.limit.cost != 0 && s.limiter.over(&snap.limit, client, time.Now()) {
		s.counts.shards[shard%shards].limited.Add(1)
		// Chance instead of a count: nobody's queries can be timed so that
		// another's never slip.
		if slip = snap.limit.slip > 0 && rand.Uint32N(snap.limit.slip) == 0; !slip {
			s.counts.drop(shard, dropRate)
			return nil
		}
		if v == special { // what is not signed would be of no use
			s.counts.drop(shard, dropRate)
			return nil
		}
		r.tally.slipped++
		if v == resolve && r.cookie != nil {
			// RFC 7873 section 5.2.3: the client knows cookies and comes back with
			// ours, which is less trouble for both than TCP.
			v, slip = r.rejected(rcodeBadCookie), false
		}
	}
	if v == special {
		return s.special(r, dst, packet, snap, client, shard, tcp)
	}
	out, result := r.answer(dst, snap, v, conversation{tcp: tcp, random: random, slip: slip, client: client, idle: s.connections.idle()})
	s.count(r, shard, tcp, result)
	return out
}

// count takes down what became of the query in r.
func (s *Server) count(r *responder, shard int, tcp bool, res result) {
	r.outcome = res
	if tcp {
		s.counts.count(shard, tcp, res)
		return
	}
	counts := &s.counts.outside
	if res.zone != nil {
		counts = res.zone.counts
	}
	r.tally.respond(counts, res.rcode, shard)
	if res.truncated {
		s.counts.shards[shard%shards].truncated.Add(1)
	}
}
