package dnsserver

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"time"

	"haslohas.com/elbow/pool"
)

// What transfers may take.
const (
	maxTransfers          = 32 // at the same time
	maxTransfersPerClient = 4

	transferMessage = 16 << 10         // octets of a message: as far as a compression pointer reaches
	transferWrite   = 5 * time.Second  // that a client may take for a message
	transferTime    = 30 * time.Minute // and for all of them
)

// Of how a transfer was asked for, and what has become of it, for the metrics.
const (
	askedAXFR = iota
	askedIXFR
	transferKinds
)

const (
	sentWhole      = iota // the zone
	sentDifference        // what has changed
	sentCurrent           // nothing: the client has the newest
	sentTooLarge          // by UDP: come again by TCP
	sentRefused
	sentBusy
	sentFailed // the client has gone or is too slow
	transferResults
)

var (
	transferKindNames   = [transferKinds]string{"axfr", "ixfr"}
	transferResultNames = [transferResults]string{"whole", "difference", "current", "too_large", "refused", "busy", "failed"}
)

// A transfer answers a query with a zone of one snapshot, or what has changed
// of it.
type transfer struct {
	zone   *zone
	signer *tsigSigner
	kind   int
	result int         // what is sent if nothing goes wrong
	since  *difference // where that is sentDifference
}

// transfers counts those that are going on. The zero value is ready for use.
type transfers struct {
	mu      sync.Mutex
	all     int
	clients map[netip.Addr]int
}

func (t *transfers) begin(client netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all >= maxTransfers || t.clients[client] >= maxTransfersPerClient {
		return false
	}
	if t.clients == nil {
		t.clients = make(map[netip.Addr]int)
	}
	t.all++
	t.clients[client]++
	return true
}

func (t *transfers) end(client netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all--
	if t.clients[client]--; t.clients[client] == 0 {
		delete(t.clients, client)
	}
}

// allows reports whether a client may copy a zone. Key is what it has signed
// with, nil if it has not.
func allows(t *pool.Transfer, client netip.Addr, key *tsigKey) bool {
	for _, a := range t.Allow {
		if a.Network.IsValid() && !a.Network.Contains(client) {
			continue
		}
		if a.Key == "" || key != nil && key.label == a.Key {
			return true
		}
	}
	return false
}

// special responds to a query that is signed or asks for a zone. It is respond
// for those, and the slow way. Where the response is more than one message it
// returns dst and leaves the rest to r.transfer.
func (s *Server) special(r *responder, dst, packet []byte, snap *snapshot, client netip.Addr, shard int, tcp bool) []byte {
	now := time.Now()
	var sig *tsigSigner
	v := reject
	r.rcode = rcodeSuccess
	if r.tsigKey != nil {
		sig, r.rcode = snap.keys.verify(packet, r.query, now)
	}
	if r.rcode == rcodeSuccess {
		v = r.judge()
	}
	if v == special {
		t := s.transfer(r, packet, snap, client, sig, tcp)
		switch {
		case t == nil:
			v = reject
		case tcp && t.result != sentCurrent:
			r.transfer = t
			return dst
		default:
			return s.sendOne(r, t, dst, client, shard, tcp)
		}
	}
	base := len(dst)
	out, result := r.answer(dst, snap, v, conversation{tcp: tcp, random: randomOf(now), client: client, room: sig.room(), idle: s.connections.idle()})
	s.count(r, shard, tcp, result)
	return sig.sign(out, base, now)
}

// randomOf is chance enough for the order of addresses.
func randomOf(now time.Time) uint32 { return uint32(now.UnixNano()) * 2654435761 }

// transfer decides on a query for a zone. It returns nil where r.rcode is to
// be the response.
func (s *Server) transfer(r *responder, packet []byte, snap *snapshot, client netip.Addr, sig *tsigSigner, tcp bool) *transfer {
	z := snap.zones.find(r.hashes[0], r.wire())
	if z == nil || r.qclass != classIN {
		r.rcode = rcodeNotAuth // RFC 5936 section 2.2.1
		return nil
	}
	t := &transfer{zone: z, signer: sig, kind: askedAXFR}
	if r.qtype == typeIXFR {
		t.kind = askedIXFR
	}
	var key *tsigKey
	if sig != nil {
		key = sig.key
	}
	conf := snap.transfers[z.apex]
	if !allows(conf, client, key) || t.kind == askedAXFR && !tcp { // RFC 5936 section 4.2
		r.rcode, r.prohibited = rcodeRefused, true
		s.transferred(t, client, sentRefused)
		return nil
	}
	if t.kind == askedAXFR {
		return t
	}
	serial, ok := serialOf(packet, z.apex)
	if !ok {
		r.rcode = rcodeFormat
		return nil
	}
	if !serialAfter(z.serial, serial) { // RFC 1995 section 2
		t.result = sentCurrent
	} else if t.since = z.history.since(serial); t.since != nil {
		t.result = sentDifference
	} else if !tcp {
		t.result = sentTooLarge
	}
	return t
}

var errTooLong = errors.New("the records do not fit into one message")

// sendOne appends the one message of a transfer by UDP, or of one that needs
// no more, to dst.
func (s *Server) sendOne(r *responder, t *transfer, dst []byte, client netip.Addr, shard int, tcp bool) []byte {
	var out []byte
	e := envelope{responder: r, transfer: t, tcp: tcp, buf: dst, size: maxMessage, send: func(message []byte) error {
		out = message
		return nil
	}}
	if !tcp {
		e.size = minPayload
		if r.edns {
			e.size = min(max(int(r.payload), minPayload), maxPayload)
		}
	}
	if e.write() != nil { // RFC 1995 section 2: the SOA alone
		t.result = sentTooLarge
		e.restart(dst)
		_ = e.write() // it fits, and nothing else can go wrong
	}
	s.count(r, shard, tcp, result{t.zone, rcodeSuccess, false})
	s.transferred(t, client, t.result)
	return out
}

// stream sends the messages of r.transfer over c, after what is pending. It
// reports false where the connection is of no more use.
func (s *Server) stream(c *netConnection, r *responder, pending []byte, shard int) bool {
	t := r.transfer
	r.transfer = nil
	if len(pending) > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(tcpWrite)) // fails as the write then does
		if _, err := c.Write(pending); err != nil {
			return false
		}
	}
	until := time.Now().Add(transferTime)
	c.transferring.Store(true)
	defer c.transferring.Store(false)
	write := func(message []byte) error {
		_ = c.SetWriteDeadline(time.Now().Add(transferWrite)) // fails as the write then does
		// After the deadline, as expire sets another one.
		if c.listener.closing.Load() || time.Now().After(until) {
			return errors.New("no time is left")
		}
		_, err := c.Write(message)
		return err
	}
	if !s.transfers.begin(c.client) {
		s.transferred(t, c.client, sentBusy)
		r.rcode = rcodeServFail
		out, result := r.answer([]byte{0, 0}, s.snapshot.Load(), reject, conversation{tcp: true, room: t.signer.room(), idle: s.connections.idle()})
		s.count(r, shard, true, result)
		return write(withLength(t.signer.sign(out, 2, time.Now()))) == nil
	}
	defer s.transfers.end(c.client)
	e := envelope{responder: r, transfer: t, tcp: true, many: true, size: transferMessage, send: func(message []byte) error {
		return write(withLength(message))
	}}
	e.restart([]byte{0, 0})
	if err := e.write(); err != nil {
		s.transferred(t, c.client, sentFailed)
		return false
	}
	s.count(r, shard, true, result{t.zone, rcodeSuccess, false})
	s.transferred(t, c.client, t.result)
	return true
}

// withLength puts the length of a message into its two first octets.
func withLength(message []byte) []byte {
	binary.BigEndian.PutUint16(message, uint16(len(message)-2))
	return message
}

// An envelope puts the records of a transfer into messages.
type envelope struct {
	*responder
	*transfer
	tcp  bool
	many bool   // more than one message is sent where one is not enough
	size int    // of a message in octets; a record that is longer has a message of its own
	buf  []byte // what stands before each message
	send func(message []byte) error

	open  bool // a message is begun
	owner name // of the last record
	at    int  // where it stands in the message; past 0x3fff: no pointer reaches it
}

// restart forgets what was written and puts prefix before each message.
func (e *envelope) restart(prefix []byte) { e.buf, e.open = prefix, false }

// write sends everything.
func (e *envelope) write() error {
	z := e.transfer.zone
	soa := z.soa.wire
	if err := e.add(z.apex, soa); err != nil {
		return err
	}
	switch e.result {
	case sentCurrent, sentTooLarge:
		return e.flush()
	case sentDifference: // RFC 1995 section 4
		if err := e.add(z.apex, e.since.soa); err != nil {
			return err
		}
		if err := e.pieces(e.since.removed); err != nil {
			return err
		}
		if err := e.add(z.apex, soa); err != nil {
			return err
		}
		if err := e.pieces(e.since.added); err != nil {
			return err
		}
	default:
		for owner, set := range z.each() {
			if err := e.add(owner, set.records()); err != nil {
				return err
			}
		}
	}
	if err := e.add(z.apex, soa); err != nil {
		return err
	}
	return e.flush()
}

func (e *envelope) pieces(all []piece) error {
	for _, p := range all {
		if err := e.add(p.owner, p.wire); err != nil {
			return err
		}
	}
	return nil
}

// add adds records of one owner, which is in the zone.
func (e *envelope) add(owner name, wire []byte) error {
	relative := owner[:len(owner)-len(e.transfer.zone.apex)]
	for len(wire) > 0 {
		var record []byte
		record, wire = split(wire)
		need := len(relative) + len(record)
		if e.open && e.out.at()+need > e.out.limit {
			if !e.many {
				return errTooLong
			}
			if err := e.flush(); err != nil {
				return err
			}
		}
		if !e.open {
			e.begin()
			if !e.many && e.out.at()+need > e.out.limit {
				return errTooLong
			}
		}
		m := &e.out
		if owner == e.owner && e.at <= 0x3fff {
			m.buf = binary.BigEndian.AppendUint16(m.buf, 0xc000|uint16(e.at))
		} else {
			e.owner, e.at = owner, m.at()
			if relative == "" {
				e.at = headerLen
			}
			m.buf = append(m.buf, relative...)
			m.buf = binary.BigEndian.AppendUint16(m.buf, ownerPointer) // the question is the apex
		}
		m.buf = append(m.buf, record[2:]...)
		m.counts[answerSection]++
	}
	return nil
}

// begin begins a message. Each has the question, RFC 5936 section 2.2.1.
func (e *envelope) begin() {
	e.out.begin(e.buf, e.query, e.size-e.signer.room(), e.tcp)
	e.out.setFlags(flagAA)
	e.open, e.owner = true, ""
}

// flush sends the message.
func (e *envelope) flush() error {
	e.out.finish(e.query, rcodeSuccess, e.transfer.zone, 0, e.tcp)
	message := e.signer.sign(e.out.buf, e.out.base, time.Now())
	e.open = false
	e.edns = false // RFC 5936 section 2.2.5: the first message is enough
	err := e.send(message)
	e.buf = message[:e.out.base] // the memory is used again
	return err
}
