package proxy

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// datagramsAtOnce is how many datagrams one system call moves at most.
	datagramsAtOnce = 32
	// answersAtOnce is how many of them one backend socket may bring at once.
	answersAtOnce = 8
	// datagramSize is more than a datagram can have: none is truncated.
	datagramSize = 1 << 16
)

// An udpTraffic is what a loop moves datagrams with. The buffers are large
// enough for any datagram; of their memory the system gives as much as the
// datagrams there were have touched.
type udpTraffic struct {
	buffers [datagramsAtOnce][datagramSize]byte

	// From clients. Name and control of each datagram have their place.
	received [datagramsAtOnce]message
	receive  [datagramsAtOnce]unix.Iovec
	names    [datagramsAtOnce]unix.RawSockaddrAny
	controls [datagramsAtOnce][pktinfoSize / 8]uint64

	// From backends.
	answers [datagramsAtOnce]message
	used    int // buffers that hold an answer that was not sent yet

	// To either side.
	sent   [datagramsAtOnce]message
	send   [datagramsAtOnce]unix.Iovec
	owners [datagramsAtOnce]*udpFlow // of answers
	port   *udpPort                  // where the answers leave
	ready  int                       // answers in sent
}

func newUDPTraffic() *udpTraffic {
	t := new(udpTraffic)
	for i := range datagramsAtOnce {
		t.receive[i].Base = &t.buffers[i][0]
		t.receive[i].SetLen(datagramSize)
		t.send[i].Base = &t.buffers[i][0]
		for _, m := range [...]*message{&t.received[i], &t.answers[i]} {
			m.header.Iov = &t.receive[i]
			m.header.SetIovlen(1)
		}
		t.sent[i].header.Iov = &t.send[i]
		t.sent[i].header.SetIovlen(1)
		t.received[i].header.Name = (*byte)(unsafe.Pointer(&t.names[i]))
	}
	return t
}

// fromClients reads what clients have sent to p and forwards it.
func (l *udpLoop) fromClients(p *udpPort) {
	l.flush() // the buffers are needed
	t := l.traffic
	everywhere := p.local.IsUnspecified()
	for i := range t.received {
		h := &t.received[i].header
		h.Namelen = unix.SizeofSockaddrAny
		if everywhere {
			h.Control = (*byte)(unsafe.Pointer(&t.controls[i]))
			h.SetControllen(pktinfoSize)
		} else {
			h.Control = nil
			h.SetControllen(0)
		}
	}
	n, err := sysReceiveMany(p.fd, t.received[:])
	if err != nil {
		return // nothing is there, or an ICMP message about an answer, which is nobody's
	}
	var before flowKey
	begin := 0
	for i := range n {
		key := flowKey{fromSockaddr(&t.names[i]), p.local}
		if everywhere {
			control := unsafe.Slice((*byte)(unsafe.Pointer(&t.controls[i])), pktinfoSize)
			key.local = sentTo(control[:min(int(t.received[i].header.Controllen), pktinfoSize)])
		}
		if i > begin && key != before {
			l.forward(p, before, begin, i)
			begin = i
		}
		before = key
	}
	if n > 0 {
		l.forward(p, before, begin, n)
	}
}

// forward sends the datagrams from begin to end, which are of one flow, to its
// backend.
func (l *udpLoop) forward(p *udpPort, key flowKey, begin, end int) {
	t := l.traffic
	f := p.flows[key]
	if f != nil && !f.stays() {
		l.end(f, moved)
		f = nil
	}
	if f == nil {
		if f = l.begin(p, key, nil, end-begin); f == nil {
			return
		}
	}
	for i := begin; i < end; i++ {
		t.setMessage(i, i, int(t.received[i].length), nil)
	}
	f.received(in, end-begin, t.size(begin, end), l.at)
	again := false // the datagram at begin has failed once
	for begin < end {
		n, err := sysSendMany(f.fd, t.sent[begin:end])
		switch {
		case err == nil:
			begin, again = begin+n, false
		case isFull(err):
			f.dropped(dropBuffer, end-begin)
			return
		case isAbsent(err) && again:
			f.dropped(dropNoBackend, end-begin)
			l.end(f, f.absent(err))
			return
		case isAbsent(err):
			// It is the error of an earlier datagram, which is lost, or of the
			// route. These ones need not be lost.
			l.tried[0] = f.backend
			l.end(f, f.absent(err))
			if f = l.begin(p, key, l.tried[:], end-begin); f == nil {
				return
			}
			f.service.retries.Add(1)
			f.carries(in, end-begin, t.size(begin, end), l.at)
			again = true
		case again:
			f.dropped(dropUnsent, 1)
			begin, again = begin+1, false
		default:
			again = true // the error may be an earlier datagram's
		}
	}
}

// size is how many bytes the received datagrams from begin to end have.
func (t *udpTraffic) size(begin, end int) (n int) {
	for i := begin; i < end; i++ {
		n += int(t.received[i].length)
	}
	return n
}

// setMessage makes message i the datagram in a buffer: an answer to f or, where
// f is nil, one to whom the socket is connected to.
func (t *udpTraffic) setMessage(i, buffer, length int, f *udpFlow) {
	t.send[i].Base = &t.buffers[buffer][0]
	t.send[i].SetLen(length)
	h := &t.sent[i].header
	h.Name, h.Namelen, h.Control = nil, 0, nil
	h.SetControllen(0)
	if f == nil {
		return
	}
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&f.name)), f.nameSize
	if f.controls > 0 {
		h.Control = (*byte)(unsafe.Pointer(&f.control))
		h.SetControllen(f.controls)
	}
}

func (f *udpFlow) controlBytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&f.control)), pktinfoSize)
}

// fromBackend reads what the backend of f has sent. It leaves with what other
// backends have sent, by flush.
func (l *udpLoop) fromBackend(f *udpFlow) {
	t := l.traffic
	if t.ready > 0 && t.port != f.port || t.used+answersAtOnce > datagramsAtOnce {
		l.flush()
	}
	n, err := sysReceiveMany(f.fd, t.answers[t.used:t.used+answersAtOnce])
	if err != nil {
		if isAbsent(err) {
			l.end(f, f.absent(err))
		}
		return // another error is of a datagram that the backend did not get
	}
	bytes := 0
	t.port = f.port
	for i := t.used; i < t.used+n; i++ {
		if t.answers[i].header.Flags&unix.MSG_TRUNC != 0 {
			f.dropped(dropTruncated, 1)
			continue
		}
		bytes += int(t.answers[i].length)
		t.setMessage(t.ready, i, int(t.answers[i].length), f)
		t.owners[t.ready] = f
		t.ready++
	}
	t.used += n
	f.received(out, n, bytes, l.at)
}

// flush sends the answers that were read to their clients, and ends the flows
// for which they were the last.
func (l *udpLoop) flush() {
	t := l.traffic
	for begin := 0; begin < t.ready; {
		n, err := sysSendMany(t.port.fd, t.sent[begin:t.ready])
		switch {
		case err == nil:
			begin += n
		case isFull(err):
			for _, f := range t.owners[begin:t.ready] {
				f.dropped(dropBuffer, 1)
			}
			begin = t.ready
		default:
			t.owners[begin].dropped(dropUnsent, 1)
			begin++
		}
	}
	owners := t.owners[:t.ready]
	t.used, t.ready, t.port = 0, 0, nil
	for _, f := range owners {
		if f.live && f.answered() {
			l.end(f, f.finished())
		}
	}
}
