package dnsserver

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// answeredStore is the name, in the Store, of when the answers that were given
// run out, by address.
const answeredStore = "answered"

// Sockets calls visit with each socket that is open: its network, tcp or udp,
// the address as it is configured, and the descriptor, which is valid during the call
// and must neither be shut down nor made blocking or non-blocking. Those of one address come in a fixed
// order. With a copy of all of them another process can take over, see
// Options.Inherited.
func (s *Server) Sockets(visit func(network, address string, fd int)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, state := range s.listeners {
		if l := state.listener; l != nil {
			l.tcp.visit(func(fd int) { visit("tcp", addr.String(), fd) })
			for _, c := range l.udp {
				c.visit(func(fd int) { visit("udp", addr.String(), fd) })
			}
		}
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

// A Saver takes what is given to a process that takes over.
type Saver interface {
	Save(name string, v any) error
}

// SaveTo saves, to nothing but to, what a Server needs that takes over now: the serials as they are in use, with what they stand for,
// and how long caches may hold what this one has answered. The newest Table
// has been built when it returns. It must be called while Run runs.
func (s *Server) SaveTo(ctx context.Context, to Saver) error {
	done := make(chan error, 1)
	select {
	case s.requests <- func(b *builder) { done <- b.saveTo(ctx, to) }:
		return <-done
	case <-s.ended:
		return errors.New("the DNS server has ended")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *builder) saveTo(ctx context.Context, to Saver) error {
	if t := b.table.Load(); t.Generation != b.snapshot.Load().generation {
		b.build(ctx, t)
	}
	return errors.Join(
		to.Save(serialStore, b.serials.exact(b.contents())),
		to.Save(cookieStore, b.secrets.own),
		to.Save(answeredStore, b.handedOut.untils(b.snapshot.Load(), time.Now())),
	)
}

// untils returns when the last answer that names an address and was given by
// now, or by the process before, has left every cache.
func (h *handedOut) untils(current *snapshot, now time.Time) map[netip.Addr]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make(map[netip.Addr]time.Time)
	add := func(a netip.Addr, until time.Time) {
		if until.After(now) && until.After(all[a]) {
			all[a] = until.Round(0)
		}
	}
	for a, until := range h.before {
		add(a, until)
	}
	for a, list := range h.retired {
		for _, r := range list {
			add(a, r.until())
		}
	}
	for _, z := range current.sorted {
		for _, n := range z.live.all() {
			if n.live == nil {
				continue
			}
			r := retired{live: n.live, at: now} // as if it were replaced now
			for _, a := range n.live.addresses {
				add(a, r.until())
			}
		}
	}
	return all
}

// restore takes over what untils returned in the process before.
func (h *handedOut) restore(store Store, log *slog.Logger) {
	if store == nil {
		return
	}
	var all map[netip.Addr]time.Time
	if _, err := store.Load(answeredStore, &all); err != nil {
		log.Error("it is not known what was answered before: a drain may be too short", "err", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.before = all
}

// adopted are the sockets of an address that the process before has opened.
type adopted struct {
	tcp *net.TCPListener
	udp []*net.UDPConn
}

// adopt makes them of descriptors. One that cannot be used is closed: it is
// opened anew then.
func adopt(inherited func(network, address string) []int, addr netip.AddrPort) *adopted {
	a := new(adopted)
	for _, fd := range inherited("tcp", addr.String()) {
		f := os.NewFile(uintptr(fd), "inherited")
		l, err := net.FileListener(f) // a copy
		_ = f.Close()                 // the copy is what counts
		if tcp, ok := l.(*net.TCPListener); ok && a.tcp == nil {
			a.tcp = tcp
		} else if err == nil {
			_ = l.Close() // not TCP, or one too many
		}
	}
	for _, fd := range inherited("udp", addr.String()) {
		f := os.NewFile(uintptr(fd), "inherited")
		c, err := net.FilePacketConn(f) // a copy
		_ = f.Close()                   // as above
		if udp, ok := c.(*net.UDPConn); ok {
			a.udp = append(a.udp, udp)
		} else if err == nil {
			_ = c.Close() // not UDP
		}
	}
	return a
}

func (a *adopted) takeTCP() *net.TCPListener {
	l := a.tcp
	a.tcp = nil
	return l
}

// takeUDP returns all: each gets its share of the queries from the system, also
// where there are more than this process would have opened.
func (a *adopted) takeUDP() []*net.UDPConn {
	all := a.udp
	a.udp = nil
	return all
}

// close closes what was not taken.
func (a *adopted) close() {
	if a.tcp != nil {
		_ = a.tcp.Close() // nobody has used it
	}
	for _, c := range a.udp {
		_ = c.Close() // as above
	}
}
