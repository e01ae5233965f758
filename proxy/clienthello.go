package proxy

import (
	"encoding/binary"

	"haslohas.com/elbow/pool"
)

// Of TLS, RFC 8446.
const (
	recordHeader    = 5       // section 5.1: type, version, length
	maxRecord       = 1 << 14 // section 5.1
	recordHandshake = 22
	handshakeHeader = 4 // section 4: type, length
	clientHello     = 1

	extensionServerName = 0  // RFC 6066, section 3
	extensionALPN       = 16 // RFC 7301, section 3.1
	nameTypeHost        = 0  // RFC 6066, section 3
)

// parseClientHello reads the server name and the protocols of a ClientHello.
// All the rest, what it does not know included, is passed over. Where an
// Encrypted Client Hello hides the name, it reads the one that is shown.
func parseClientHello(data []byte) (pool.Hello, outcome) {
	message, o := joinRecords(data)
	if o != understood {
		return pool.Hello{}, o
	}
	m := reader{rest: message[handshakeHeader:]}
	m.take(2 + 32) // version, random
	m.vector8()    // session id
	m.vector16()   // cipher suites
	m.vector8()    // compression methods
	hello := pool.Hello{TLS: true}
	if len(m.rest) == 0 && !m.failed { // no extensions at all, RFC 5246 section 7.4.1.2
		return hello, understood
	}
	extensions := reader{rest: m.vector16()}
	m.failed = m.failed || len(m.rest) > 0
	var named, offered bool
	for len(extensions.rest) > 0 && !m.failed {
		kind, body := extensions.uint16(), reader{rest: extensions.vector16()}
		switch {
		case extensions.failed:
			m.failed = true
		case kind == extensionServerName:
			hello.Name = body.serverName()
			m.failed = body.failed || named // none stands there twice, section 4.2
			named = true
		case kind == extensionALPN:
			hello.Protocols = body.protocols()
			m.failed = body.failed || offered
			offered = true
		}
	}
	if m.failed {
		return pool.Hello{}, malformed
	}
	return hello, understood
}

// joinRecords returns the handshake message that data begins with, with its
// header. Where it comes in several records it is put together in data.
func joinRecords(data []byte) (message []byte, o outcome) {
	if len(data) > 1 && data[1] != 3 { // the version is 0x0301 to 0x0303, section 5.1
		return nil, foreign
	}
	joined := 0 // bytes of it that were put together, at the begin of data
	for rest := data; ; {
		if len(rest) < recordHeader {
			return nil, awaitMore(data)
		}
		n := int(binary.BigEndian.Uint16(rest[3:]))
		if rest[0] != recordHandshake || rest[1] != 3 || n == 0 || n > maxRecord {
			return nil, malformed
		}
		body := rest[recordHeader:min(len(rest), recordHeader+n)]
		if joined == 0 {
			message = body
		} else {
			message = data[:joined+copy(data[joined:], body)] // joined lies well before body
		}
		if len(message) > 0 && message[0] != clientHello {
			return nil, malformed
		}
		if len(message) >= handshakeHeader {
			size := handshakeHeader + (int(message[1])<<16 | int(binary.BigEndian.Uint16(message[2:])))
			if size > maxHello {
				return nil, malformed
			}
			if len(message) >= size {
				return message[:size], understood
			}
		}
		if len(body) < n {
			return nil, awaitMore(data)
		}
		if joined == 0 {
			copy(data, body)
		}
		joined = len(message)
		rest = rest[recordHeader+n:]
	}
}

// awaitMore is the outcome of data that is not complete.
func awaitMore(data []byte) outcome {
	if len(data) >= maxHello {
		return malformed
	}
	return unfinished
}

// A reader takes values from the front of a message. Once one does not fit it
// has failed, and whatever it returns from then on is empty.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.rest) {
		r.rest, r.failed = nil, true
		return nil
	}
	taken := r.rest[:n:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) uint8() int {
	if b := r.take(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (r *reader) uint16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) vector8() []byte  { return r.take(r.uint8()) }
func (r *reader) vector16() []byte { return r.take(r.uint16()) }

// serverName reads a ServerNameList (RFC 6066, section 3) and returns its first
// host name.
func (r *reader) serverName() (name []byte) {
	list := reader{rest: r.vector16()}
	r.failed = r.failed || len(r.rest) > 0 || len(list.rest) == 0
	for len(list.rest) > 0 {
		kind, entry := list.uint8(), list.vector16()
		r.failed = r.failed || list.failed || len(entry) == 0
		if kind == nameTypeHost && name == nil {
			name = entry
		}
	}
	return name
}

// protocols reads a ProtocolNameList (RFC 7301, section 3.1).
func (r *reader) protocols() []byte {
	all := r.vector16()
	r.failed = r.failed || len(r.rest) > 0 || len(all) == 0
	list := reader{rest: all}
	for len(list.rest) > 0 {
		protocol := list.vector8()
		r.failed = r.failed || list.failed || len(protocol) == 0
	}
	return all
}
