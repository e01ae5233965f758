package proxy

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/pool"
)

// The hot path counts in plain atomics that hang on the slots of services and
// backends. A collector reads them when it is asked, so a series goes with its
// slot: with the service or backend, as soon as its last connection has ended.
type collector struct {
	server *Server

	connections, active, failures, bytes, refused, retries *prometheus.Desc
	queued, spillover, resets, pauses, up, connectTime     *prometheus.Desc
	dropped, unmatched                                     *prometheus.Desc

	flows, flowsActive, datagrams, datagramBytes, datagramsDropped *prometheus.Desc
}

func newCollector(s *Server) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("elbow_proxy_"+name, help, labels, nil)
	}
	return &collector{
		server:      s,
		connections: desc("connections_total", "Connections made to a backend, UDP flows included.", "service", "backend"),
		active:      desc("connections_active", "Connections of a service now, those that wait for a backend and UDP flows included.", "service"),
		failures:    desc("connect_failures_total", "Connects to a backend that failed: refused, timeout, unreachable, reset, other.", "service", "backend", "reason"),
		bytes:       desc("bytes_total", "Bytes relayed; in: client to backend, out: backend to client.", "service", "direction"),
		refused:     desc("refused_total", "Connections turned away, by the reason in the connection log.", "service", "reason"),
		retries:     desc("retries_total", "Connects tried again on another backend after one failed.", "service"),
		queued:      desc("queue_length", "Connections that wait because every backend is full.", "service"),
		spillover:   desc("spillover_total", "Connections turned away because the queue was full.", "service"),
		resets:      desc("resets_total", "Connections reset by one side: client, backend.", "service", "side"),
		pauses:      desc("accept_pauses_total", "Pauses of accepting because this host was out of descriptors, ports or memory."),
		up:          desc("listener_up", "1 where the listener is open, else 0.", "listener"),
		connectTime: desc("connect_duration_seconds", "Time that successful connects to backends took, in seconds.", "service"),
		unmatched:   desc("unmatched_total", "Connections to a listener of several services that no match took, by why, and what became of them: default, refused.", "listener", "why", "to"),
		dropped:     desc("log_dropped_total", "Connection log lines lost because the log could not be written in time."),

		flows:            desc("udp_flows_total", "UDP flows begun.", "service"),
		flowsActive:      desc("udp_flows_active", "UDP flows now.", "service"),
		datagrams:        desc("udp_datagrams_total", "UDP datagrams received; in: from clients, out: from backends.", "service", "direction"),
		datagramBytes:    desc("udp_bytes_total", "Bytes of these datagrams, without headers.", "service", "direction"),
		datagramsDropped: desc("udp_dropped_total", "UDP datagrams not forwarded: not-allowed, no-backend, limit, max-flows, backends-full, local-fault, buffer-full, truncated, unsent.", "service", "reason"),
	}
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.connections, c.active, c.failures, c.bytes, c.refused, c.retries,
		c.queued, c.spillover, c.resets, c.pauses, c.up, c.connectTime, c.dropped, c.unmatched,
		c.flows, c.flowsActive, c.datagrams, c.datagramBytes, c.datagramsDropped,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	core := c.server.core
	for _, s := range core.snapshot() {
		gauge(c.active, s.active.Load(), s.name)
		gauge(c.queued, s.queue.waiting.Load(), s.name)
		counter(c.bytes, s.bytes[in].Load(), s.name, in.String())
		counter(c.bytes, s.bytes[out].Load(), s.name, out.String())
		counter(c.retries, s.retries.Load(), s.name)
		counter(c.spillover, s.spillover.Load(), s.name)
		counter(c.resets, s.resets[in].Load(), s.name, "client")
		counter(c.resets, s.resets[out].Load(), s.name, "backend")
		for r := range reasons {
			if r.refused() && r != noMatch { // that is before it is known which service
				counter(c.refused, s.refused[r].Load(), s.name, r.String())
			}
		}
		c.collectUDP(s, gauge, counter)
		s.connectTime.collect(ch, c.connectTime, s.name)
		for _, b := range core.backendsOf(s) {
			counter(c.connections, b.connections.Load(), s.name, b.text)
			for f := range failures {
				counter(c.failures, b.failures[f].Load(), s.name, b.text, f.String())
			}
		}
	}
	counter(c.pauses, core.pauses.Load())
	for _, l := range c.server.Listeners() {
		up := int64(0)
		if l.Err == nil {
			up = 1
		}
		gauge(c.up, up, pool.Port{UDP: l.UDP, Address: l.Configured}.String())
	}
	c.server.eachRouted(func(l *listener) {
		for m := matched + 1; m < mismatches; m++ {
			counter(c.unmatched, l.unmatched.defaulted[m].Load(), l.text, m.String(), "default")
			counter(c.unmatched, l.unmatched.refused[m].Load(), l.text, m.String(), "refused")
		}
	})
	if core.lines != nil {
		counter(c.dropped, core.lines.dropped.Load())
	}
}

// collectUDP reads the counters of s that are of UDP alone, if it has any UDP
// listener.
func (c *collector) collectUDP(s *service, gauge func(*prometheus.Desc, int64, ...string), counter func(*prometheus.Desc, uint64, ...string)) {
	if !s.udp.used.Load() {
		return
	}
	gauge(c.flowsActive, s.udp.active.Load(), s.name)
	counter(c.flows, s.udp.flows.Load(), s.name)
	for _, d := range [...]direction{in, out} {
		counter(c.datagrams, s.udp.packets[d].Load(), s.name, d.String())
		counter(c.datagramBytes, s.udp.bytes[d].Load(), s.name, d.String())
	}
	for d := forwarded + 1; d < drops; d++ {
		counter(c.datagramsDropped, s.udp.dropped[d].Load(), s.name, d.String())
	}
}

// connectBuckets are the upper bounds of the histogram of connect times.
var connectBuckets = [...]time.Duration{
	250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond,
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond,
}

// A histogram counts connect times without a lock.
type histogram struct {
	counts [len(connectBuckets) + 1]atomic.Uint64 // each bucket by itself, the last without bound
	sum    atomic.Int64                           // nanoseconds
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(connectBuckets) && d > connectBuckets[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) collect(ch chan<- prometheus.Metric, d *prometheus.Desc, labels ...string) {
	buckets := make(map[float64]uint64, len(connectBuckets))
	var total uint64
	for i, bound := range connectBuckets {
		total += h.counts[i].Load()
		buckets[bound.Seconds()] = total
	}
	total += h.counts[len(connectBuckets)].Load()
	sum := time.Duration(h.sum.Load()).Seconds()
	ch <- prometheus.MustNewConstHistogram(d, total, sum, buckets, labels...)
}
