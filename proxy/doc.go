// Package proxy relays TCP connections and UDP flows to the backends of the
// newest [pool.Table].
//
// # Shape
//
// What is decided exists once, in the core: which service a connection
// belongs to, whether it may enter, which backend it gets, when it is retried,
// queued, drained or cut, what is counted and logged. The core never blocks:
// it is a machine of steps, one [session] for each connection, that is told
// what happened (accepted, received, halted, connected, dialFailed, resumed, expired)
// and answers with the [step] to do next.
//
// How bytes move is the business of an [engine]. It accepts, dials, copies and
// reports; it takes no decision. There are two: the epoll engine, Linux only,
// where a few loops serve all connections, and the portable engine on package
// net with two goroutines for each connection.
//
// # UDP
//
// What one client sends to one listener, and gets back, is a [flow]. It takes
// the place of the session: whether it may begin, which backend it gets, when it
// moves and ends is decided there, by the same slots, limits and cutoffs. Two
// engines move the datagrams, as for TCP: loops on epoll, and package net.
//
// # Connection log
//
// Each connection is one line of JSON, written when it has ended:
//
//	time         when it was accepted, RFC 3339 with milliseconds, UTC
//	client       address and port of the client; behind a trusted PROXY header the one it names
//	peer         who really connected, only where that is not the client
//	listener     the listener as it is configured
//	service      empty where the listener belonged to none any more, or it ended before it was known to which
//	sni, host    the name that a TLS or HTTP client asked for, where services share the listener
//	backend      the last one that was tried, empty if there was none
//	connect_ms   how long the successful connect took; 0 without one
//	duration_ms  from accept to end
//	bytes_in     client to backend, without PROXY headers
//	bytes_out    backend to client
//	reason       why it ended, see below
//	retries      connects that were tried again after one failed
//	generation   of the Table that the backend was picked by
//	fail_open    whether no backend was well and all were tried
//
// A UDP flow is one line too, without peer, connect_ms and retries, with the
// time of its first datagram and, besides,
//
//	protocol     udp
//	packets_in   datagrams, client to backend
//	packets_out  backend to client
//
// The reasons:
//
//	client-closed       both sides have closed, the client first
//	backend-closed      both sides have closed, the backend first
//	client-reset        the client has reset the connection
//	backend-reset       the backend has reset the connection; UDP: nobody is there any more
//	client-lost         the client does not answer any more (TCP timeout)
//	backend-lost        the backend does not answer any more
//	idle-timeout        no byte in either direction for idleTimeout
//	half-close-timeout  one side had closed, then no byte for halfCloseTimeout
//	connect-failed      no attempt to connect to a backend succeeded; UDP: nobody is there and nothing came back
//	no-backend          no backend is eligible
//	not-allowed         the client is not in the allow list
//	limit               maxConnections is reached
//	queue-full          every backend is full, and so is the queue
//	queue-timeout       every backend stayed full for queue.timeout
//	proxy-header        a trusted peer sent no valid PROXY header in time
//	no-match            services share the listener, and what the client asked for belongs to none
//	drain-timeout       the backend, service or listener went and the time to finish ran out
//	shutdown            the proxy ends and the time to finish ran out
//	answered            UDP: the backend has sent as many datagrams as udp.responses says
//	moved               UDP: the backend went down or the listener leads to another service; the next datagram begins another flow
//	listener-closed     UDP: the listener was closed
//	local-fault         this host ran out of descriptors, ports or memory
package proxy
