// Package dnsserver answers names: it is an authoritative DNS server for the
// zones of the pool.Table, over UDP and TCP.
//
// # The way of an answer
//
// One goroutine, the builder, watches the Table. It turns each into a snapshot:
// for every zone the static part, made of the RFC 1035 master file once for
// each *pool.Zone, and above it the hostnames of services with the addresses
// and the TTL that the Table says. Records lie in a snapshot in wire form, so
// that an answer is the client's question and a copy. A snapshot is immutable
// and reached through one atomic pointer; a query loads it once.
//
// Every packet goes the same way, whatever it came by: query.read admits or
// rejects it, responder.answer makes the response from the snapshot and
// nothing else. Between them stands, for UDP, the rate limit. There is no
// goroutine per query and no lock. On Linux, packets come and go in batches, TCP
// connections live in a few epoll loops, and the sockets of both are unknown to
// Go's poller (docs/decisions/0014).
//
// Whenever an answer changes, the serial of the zone grows, over restarts too.
//
// # Secondaries
//
// What is signed (TSIG) or asks for a zone (AXFR, IXFR) goes the slow way, from
// Server.special on. A transfer is cut from the snapshot, a difference from the
// history that the builder keeps of each zone, and the notifier tells secondaries
// of new serials.
package dnsserver
