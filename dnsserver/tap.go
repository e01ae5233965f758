package dnsserver

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/dnstap"
	"haslohas.com/elbow/pool"
)

const (
	tapEvery = 100 * time.Millisecond // a message waits at most as long
	tapChunk = 64 << 10               // octets that are sent with one call

	// tapPatience bounds each step with the reader. One that takes longer is
	// given up.
	tapPatience = 2 * time.Second

	// After a failure the reader is called again after this, and after longer
	// each time.
	tapRetryFirst = time.Second
	tapRetryMost  = 30 * time.Second

	// tapWires is how much room a slot has for a query and its response. What
	// does not fit, which by UDP is rare, costs an allocation.
	tapWires = 1536
	// tapLarge is how many of those there may be at a time.
	tapLarge = 256
)

// A tap sends samples of the queries and responses to a reader of dnstap.
type tap struct {
	conf    pool.Dnstap
	encoder dnstap.Encoder
	queue   *queue[tapped]
	counts  *watchCounts
	log     *slog.Logger
	open    atomic.Bool  // there is a reader
	large   atomic.Int32 // values with large set that wait

	// Those belong to the goroutine of run.
	frames  []byte
	waiting uint64 // messages in frames
	err     error  // of the connection; nil: it works
	stream  *dnstap.Stream
}

// A tapped is a query and the response to it.
type tapped struct {
	at              time.Time
	client, server  netip.AddrPort
	tcp             bool
	zone            [maxName]byte
	zoneLen         int
	query, response int // octets in wires or large, one after the other; no response: 0
	wires           [tapWires]byte
	large           []byte // nil: they fit into wires
}

func newTap(conf pool.Dnstap, s *Server) *tap {
	version := conf.Version
	if version == "" {
		version = s.version
	}
	return &tap{
		conf:    conf,
		encoder: dnstap.Encoder{Identity: conf.Identity, Version: version},
		queue:   newQueue[tapped](s.sockets),
		counts:  &s.watched,
		log:     s.log,
	}
}

// see is called by the goroutines that answer.
func (t *tap) see(r *responder, packet, response []byte, client netip.Addr, worker int, tcp bool) {
	if !t.open.Load() {
		t.counts.tapLost.Add(1)
		return
	}
	fits := len(packet)+len(response) <= tapWires
	if !fits && t.large.Load() >= tapLarge {
		t.counts.tapLost.Add(1)
		return
	}
	s := t.queue.claim(worker)
	if s == nil {
		return
	}
	v := &s.value
	v.at = time.Now()
	v.client, v.server, v.tcp = netip.AddrPortFrom(client, r.port), r.asked(), tcp
	v.zoneLen = 0
	if z := r.outcome.zone; z != nil {
		v.zoneLen = copy(v.zone[:], z.apex)
	}
	v.query, v.response, v.large = len(packet), len(response), nil
	wires := v.wires[:0]
	if !fits {
		t.large.Add(1)
		wires = make([]byte, 0, len(packet)+len(response))
	}
	wires = append(append(wires, packet...), response...)
	if !fits {
		v.large = wires
	}
	t.queue.commit(s)
}

// run sends until ctx ends, and then what is left.
func (t *tap) run(ctx context.Context) {
	delay := tapRetryFirst
	for ctx.Err() == nil {
		begun := time.Now()
		t.serve(ctx)
		if time.Since(begun) > tapRetryMost {
			delay = tapRetryFirst
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		delay = min(2*delay, tapRetryMost)
	}
}

// serve calls the reader and sends until something fails or ctx ends.
func (t *tap) serve(ctx context.Context) {
	dialer := net.Dialer{Timeout: tapPatience}
	conn, err := dialer.DialContext(ctx, t.conf.Network, t.conf.Address)
	if err != nil {
		t.failed(err)
		return
	}
	defer conn.Close()
	if t.stream, err = dnstap.Open(conn, tapPatience); err != nil {
		t.failed(err)
		return
	}
	t.log.Info("dnstap reader connected", "address", t.conf.Address)
	t.err = nil
	t.setOpen(true)
	failed, stop := context.WithCancel(ctx)
	defer stop()
	reader(failed, t.queue.wake, tapEvery, func() {
		t.queue.drain(t.add)
		t.flush()
		t.counts.tapLost.Add(t.queue.takeLost())
		if t.err != nil {
			t.setOpen(false)
			stop()
		}
	})
	if t.err == nil {
		t.err = t.stream.Finish()
	}
	t.setOpen(false)
}

func (t *tap) setOpen(open bool) {
	t.open.Store(open)
	t.counts.tapConnected.Store(open)
}

func (t *tap) add(v *tapped) {
	wires := v.wires[:]
	if v.large != nil {
		wires, v.large = v.large, nil
		t.large.Add(-1)
	}
	m := dnstap.Message{TCP: v.tcp, Client: v.client, Server: v.server, QueryTime: v.at, ResponseTime: v.at}
	if v.zoneLen > 0 {
		m.Zone = v.zone[:v.zoneLen]
	}
	if t.conf.Queries {
		m.Wire = wires[:v.query]
		t.frames = t.encoder.Append(t.frames, &m)
		t.waiting++
	}
	if t.conf.Responses && v.response > 0 {
		m.IsResponse, m.Wire = true, wires[v.query:v.query+v.response]
		t.frames = t.encoder.Append(t.frames, &m)
		t.waiting++
	}
	if len(t.frames) >= tapChunk {
		t.flush()
	}
}

// flush sends the frames that wait. After a failure they are lost.
func (t *tap) flush() {
	if t.waiting == 0 {
		return
	}
	if t.err == nil {
		if err := t.stream.Write(t.frames); err != nil {
			t.failed(err)
		}
	}
	if t.err == nil {
		t.counts.tapSent.Add(t.waiting)
	} else {
		t.counts.tapLost.Add(t.waiting)
	}
	t.frames, t.waiting = t.frames[:0], 0
}

// failed says once that there is no reader.
func (t *tap) failed(err error) {
	if t.err == nil {
		t.log.Warn("dnstap reader is away; messages are lost until it is back", "address", t.conf.Address, "err", err)
	}
	t.err = err
}
