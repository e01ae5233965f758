package dnsserver

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// shards is into how many counters each count is split, so that sockets that
// are read on different processors do not share one.
const shards = 8

// rcodeNames are the label values by response code; others do not occur.
var rcodeNames = [rcodes]string{
	rcodeSuccess: "NOERROR", rcodeFormat: "FORMERR", rcodeServFail: "SERVFAIL", rcodeNXDomain: "NXDOMAIN", rcodeNotImpl: "NOTIMP",
	rcodeRefused: "REFUSED", rcodeYXDomain: "YXDOMAIN", rcodeNotAuth: "NOTAUTH", rcodeBadVers: "BADVERS", rcodeBadCookie: "BADCOOKIE",
}

var transports = [...]string{"udp", "tcp"}

// A zoneCounts counts the responses of one zone. It outlives snapshots.
type zoneCounts struct {
	transfers [transferKinds][transferResults]atomic.Uint64
	notifies  [notifyResults]atomic.Uint64

	shards [shards]struct {
		responses [len(transports)][rcodes]atomic.Uint64
		_         [64]byte // keeps two shards off one cache line
	}
	signed, reused atomic.Uint64 // signatures
}

func (c *zoneCounts) add(shard int, tcp bool, rcode uint16) {
	transport := 0
	if tcp {
		transport = 1
	}
	c.shards[shard%shards].responses[transport][rcode].Add(1)
}

func (c *zoneCounts) sum(transport, rcode int) (total uint64) {
	for i := range c.shards {
		total += c.shards[i].responses[transport][rcode].Load()
	}
	return total
}

// Why a packet or a connection got no answer.
const (
	dropMalformed = iota // no DNS message, or itself a response
	dropPort             // from port 0, where no answer arrives
	dropRate             // the client is over its rate
	dropSend             // the system did not take the answer
	dropConnections
	drops
)

var dropNames = [drops]string{"malformed", "port_zero", "rate_limit", "send_error", "tcp_connections"}

// A serverCounts counts what belongs to no zone.
type serverCounts struct {
	outside  zoneCounts    // responses about names in no zone, or about none
	unsigned atomic.Uint64 // states of zones that could not be signed
	shards   [shards]struct {
		truncated, limited atomic.Uint64
		dropped            [drops]atomic.Uint64
		tally              tallyCounts
		_                  [64]byte
	}
}

func (c *serverCounts) drop(shard, reason int) { c.shards[shard%shards].dropped[reason].Add(1) }

// count takes down a response.
func (c *serverCounts) count(shard int, tcp bool, r result) {
	counts := &c.outside
	if r.zone != nil {
		counts = r.zone.counts
	}
	counts.add(shard, tcp, r.rcode)
	if r.truncated {
		c.shards[shard%shards].truncated.Add(1)
	}
}

// metrics shows a Server to Prometheus. It reads when it is asked, so that
// nothing but counters is touched by a query, and a series goes with its zone.
type metrics struct {
	server *Server

	queries, truncated, dropped, limited, serial, connections, ttl, build *prometheus.Desc

	transfers, notifies, secondaryAge, secondarySerial *prometheus.Desc
	signatures, age, expiry, failures                  *prometheus.Desc

	types, edns, do, slipped, bytesIn, bytesOut *prometheus.Desc
	logLines, tapMessages, tapConnected         *prometheus.Desc
}

func newMetrics(s *Server) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("elbow_dns_"+name, help, labels, nil)
	}
	return &metrics{
		server:      s,
		queries:     desc("queries_total", "Queries that were answered; zone is empty for names outside of all zones.", "zone", "rcode", "transport"),
		truncated:   desc("truncated_total", "Responses that said: come again by TCP."),
		dropped:     desc("dropped_total", "Packets and TCP connections that got no answer.", "reason"),
		limited:     desc("rate_limited_total", "UDP responses over the rate limit, dropped or truncated."),
		serial:      desc("zone_serial", "Serial of the zone.", "zone"),
		connections: desc("tcp_connections", "Open TCP connections."),
		ttl:         desc("answer_ttl_seconds", "TTL of the addresses that the hostname of a service is answered with.", "name"),
		build:       desc("snapshot_build_seconds", "How long making the newest set of answers took."),

		transfers:       desc("transfers_total", "Zone transfers that were asked for (axfr, ixfr), by what was sent.", "zone", "asked", "result"),
		notifies:        desc("notifies_total", "Messages to secondaries that a zone has changed, by what came back.", "zone", "result"),
		secondaryAge:    desc("secondary_transfer_age_seconds", "Time since the secondary was last sent the newest state of the zone, or told that it has it; where that was never, since the start.", "zone", "secondary"),
		secondarySerial: desc("secondary_serial", "Serial of that state.", "zone", "secondary"),
		signatures:      desc("signatures_total", "Signatures that states of the zone needed; made: new, reused: there already.", "zone", "source"),
		age:             desc("signature_age_seconds", "For how long the oldest signature of the zone has been valid.", "zone"),
		expiry:          desc("signature_expiry_seconds", "For how long every signature of the zone is still valid.", "zone"),
		failures:        desc("signing_failures_total", "States of zones that were not published as they could not be signed."),
		types:           desc("query_types_total", "Queries that were answered, by what they asked for; none: for nothing, other: whatever is not named.", "type"),
		edns:            desc("edns_queries_total", "Queries with EDNS that were answered."),
		do:              desc("do_queries_total", "Of those, the ones that want signatures (DO)."),
		slipped:         desc("rate_limit_slipped_total", "UDP responses over the rate limit that left all the same, truncated or with BADCOOKIE."),
		bytesIn:         desc("query_bytes_total", "Octets of the queries that were answered, without headers of UDP, TCP and IP.", "transport"),
		bytesOut:        desc("response_bytes_total", "Octets of the responses, without those of zone transfers by TCP.", "transport"),
		logLines:        desc("query_log_lines_total", "Lines of the query log; dropped: it could not keep up, failed: they could not be written.", "result"),
		tapMessages:     desc("dnstap_messages_total", "Messages of dnstap; dropped: there was no reader, or it could not keep up.", "result"),
		tapConnected:    desc("dnstap_connected", "Whether the reader of dnstap is there: 1 or 0."),
	}
}

func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.queries, m.truncated, m.dropped, m.limited, m.serial, m.connections, m.ttl, m.build,
		m.transfers, m.notifies, m.secondaryAge, m.secondarySerial,
		m.signatures, m.age, m.expiry, m.failures,
		m.types, m.edns, m.do, m.slipped, m.bytesIn, m.bytesOut, m.logLines, m.tapMessages, m.tapConnected} {
		ch <- d
	}
}

func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	responses := func(zone string, c *zoneCounts) {
		for t, transport := range transports {
			for rcode, text := range rcodeNames {
				if n := c.sum(t, rcode); n > 0 {
					counter(m.queries, n, zone, text, transport)
				}
			}
		}
	}
	s := m.server
	responses("", &s.counts.outside)
	snap := s.snapshot.Load()
	for _, z := range snap.sorted {
		zone := z.apex.label()
		responses(zone, z.counts)
		gauge(m.serial, float64(z.serial), zone)
		if z.signed != nil {
			now := time.Now().Unix()
			counter(m.signatures, z.counts.signed.Load(), zone, "made")
			counter(m.signatures, z.counts.reused.Load(), zone, "reused")
			gauge(m.age, float64(now-z.signed.oldest), zone)
			gauge(m.expiry, float64(z.signed.end-now), zone)
		}
		for kind := range z.counts.transfers {
			for result := range z.counts.transfers[kind] {
				if n := z.counts.transfers[kind][result].Load(); n > 0 {
					counter(m.transfers, n, zone, transferKindNames[kind], transferResultNames[result])
				}
			}
		}
		for result := range z.counts.notifies {
			if n := z.counts.notifies[result].Load(); n > 0 {
				counter(m.notifies, n, zone, notifyResultNames[result])
			}
		}
		for _, a := range named(snap.transfers[z.apex]) {
			state, _ := s.secondaries.of(secondaryKey{z.apex, a})
			if state.at.IsZero() {
				gauge(m.secondaryAge, time.Since(s.begun).Seconds(), zone, a.String())
				continue
			}
			gauge(m.secondaryAge, time.Since(state.at).Seconds(), zone, a.String())
			gauge(m.secondarySerial, float64(state.serial), zone, a.String())
		}
		for owner, n := range z.live.all() {
			if n.live != nil {
				gauge(m.ttl, n.live.ttl.Seconds(), owner.label())
			}
		}
	}
	var truncated, limited, edns, do, slipped uint64
	var dropped [drops]uint64
	var types [len(typeNames)]uint64
	var in, out [len(transports)]uint64
	for i := range s.counts.shards {
		shard := &s.counts.shards[i]
		truncated += shard.truncated.Load()
		limited += shard.limited.Load()
		for reason := range dropped {
			dropped[reason] += shard.dropped[reason].Load()
		}
		for place := range types {
			types[place] += shard.tally.types[place].Load()
		}
		for transport := range transports {
			in[transport] += shard.tally.in[transport].Load()
			out[transport] += shard.tally.out[transport].Load()
		}
		edns += shard.tally.edns.Load()
		do += shard.tally.do.Load()
		slipped += shard.tally.slipped.Load()
	}
	for place, n := range types {
		if n > 0 {
			counter(m.types, n, typeNames[place])
		}
	}
	for transport, label := range transports {
		counter(m.bytesIn, in[transport], label)
		counter(m.bytesOut, out[transport], label)
	}
	counter(m.edns, edns)
	counter(m.do, do)
	counter(m.slipped, slipped)
	counter(m.logLines, s.watched.logWritten.Load(), "written")
	counter(m.logLines, s.watched.logLost.Load(), "dropped")
	counter(m.logLines, s.watched.logFailed.Load(), "failed")
	counter(m.tapMessages, s.watched.tapSent.Load(), "sent")
	counter(m.tapMessages, s.watched.tapLost.Load(), "dropped")
	connected := 0.0
	if s.watched.tapConnected.Load() {
		connected = 1
	}
	gauge(m.tapConnected, connected)
	counter(m.truncated, truncated)
	counter(m.failures, s.counts.unsigned.Load())
	counter(m.limited, limited)
	for reason, n := range dropped {
		counter(m.dropped, n, dropNames[reason])
	}
	gauge(m.connections, float64(s.connections.count()))
	gauge(m.build, time.Duration(s.buildTime.Load()).Seconds())
}
