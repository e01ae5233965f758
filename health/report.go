package health

import (
	"net/netip"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// backendKey names one backend of one service.
type backendKey struct {
	service string
	address netip.AddrPort
}

// An inbox holds what the proxy reported about one backend until the event
// loop takes it. There is one for each backend, so that a storm of reports
// about one takes neither memory nor the place of a report about another.
type inbox struct {
	member *member

	failed atomic.Pointer[string] // why the first connect since the last take failed
	reset  atomic.Bool

	queued atomic.Bool // in the queue, or about to be
	next   *inbox      // written by whoever set queued, read by the taker before it clears it

	connectFailures, resets prometheus.Counter
}

// A reportQueue is a list of inboxes with something in them. Pushing takes no
// lock, never blocks and allocates nothing; an inbox is in the list once at
// most, which bounds it.
type reportQueue struct {
	head atomic.Pointer[inbox]
	wake chan struct{} // capacity 1
}

func (q *reportQueue) push(in *inbox) {
	if in.queued.Load() || !in.queued.CompareAndSwap(false, true) {
		return // whoever takes it will find what was put in
	}
	for {
		in.next = q.head.Load()
		if q.head.CompareAndSwap(in.next, in) {
			break
		}
	}
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take empties the queue and hands each inbox's content to f.
func (q *reportQueue) take(f func(m *member, failed string, hasFailed, reset bool)) {
	for in := q.head.Swap(nil); in != nil; {
		next := in.next
		in.queued.Store(false) // from here on a new report queues it again
		reset := in.reset.Swap(false)
		if reason := in.failed.Swap(nil); reason != nil {
			f(in.member, *reason, true, reset)
		} else if reset {
			f(in.member, "", false, true)
		}
		in = next
	}
}

// ConnectFailed takes a failed connect of real traffic as evidence against the
// backend; reason is a few words such as "connect refused". The first one
// makes the backend suspect at once, see the package documentation; while one
// is waiting to be seen, or the backend is suspect or down already, further
// ones are only counted. Faults of this host must not be reported.
//
// It takes no lock, never blocks, and may be called by several goroutines. An
// unknown service or backend is ignored: the table it was read from is old.
func (c *Checker) ConnectFailed(service string, backend netip.AddrPort, reason string) {
	in := c.inbox(service, backend)
	if in == nil {
		return
	}
	in.connectFailures.Inc()
	if in.failed.Load() == nil {
		in.failed.CompareAndSwap(nil, new(reason))
	}
	c.reports.push(in)
}

// SessionReset tells that the backend reset a connection before its first
// byte. That is what a server does whose process just died behind a port
// forwarder, but also what a healthy one does to a request it does not like.
// So it counts for nothing by itself: it has the backend probed at once, at
// most once in each fastInterval, and the probe decides.
//
// It takes no lock, never blocks, and may be called by several goroutines.
func (c *Checker) SessionReset(service string, backend netip.AddrPort) {
	in := c.inbox(service, backend)
	if in == nil {
		return
	}
	in.resets.Inc()
	if !in.reset.Load() {
		in.reset.Store(true)
	}
	c.reports.push(in)
}

func (c *Checker) inbox(service string, backend netip.AddrPort) *inbox {
	if index := c.inboxes.Load(); index != nil {
		return (*index)[backendKey{service, backend}]
	}
	return nil
}
