package dnsserver

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"
	"time"

	"haslohas.com/elbow/pool"
)

// Errors of a TSIG record, RFC 8945 section 3. Where the record of a response
// has one, the response code is NOTAUTH.
const (
	tsigBadSig   = 16
	tsigBadKey   = 17
	tsigBadTime  = 18
	tsigBadTrunc = 22
)

const (
	// tsigFudge is how many seconds a message of this server may be under way,
	// and the clocks may differ, RFC 8945 section 10.
	tsigFudge = 300

	tsigFixed = 6 + 2 + 2 + 2 + 2 + 2 // what data has besides names, MAC and other data
)

// A tsigKey is a pool.Key in the form of a message.
type tsigKey struct {
	label     string // the name as the configuration has it
	name      name
	algorithm name
	secret    []byte
	hash      func() hash.Hash
	size      int // of a MAC, octets
}

// tsigKeys are keys by name.
type tsigKeys map[name]*tsigKey

func newTSIGKeys(keys []pool.Key) tsigKeys {
	ring := make(tsigKeys, len(keys))
	for _, k := range keys {
		n, err := parseName(k.Name)
		if err != nil {
			continue // the configuration does not accept it
		}
		algorithm, err := parseName(k.Algorithm.String())
		if err != nil {
			continue // as above
		}
		key := &tsigKey{label: k.Name, name: n, algorithm: algorithm, secret: []byte(k.Secret)}
		switch k.Algorithm {
		case pool.HMACSHA384:
			key.hash, key.size = sha512.New384, sha512.Size384
		case pool.HMACSHA512:
			key.hash, key.size = sha512.New, sha512.Size
		default:
			key.hash, key.size = sha256.New, sha256.Size
		}
		ring[n] = key
	}
	return ring
}

// A tsigSigner signs the messages of a response, one after the other. A nil one
// signs nothing.
type tsigSigner struct {
	key       *tsigKey // nil: one that is not known here
	keyName   name
	algorithm name

	prior  []byte // the MAC of the message before: at first of the request, nil if this is one
	later  bool   // the first message was signed
	err    uint16 // nothing but an error is signed
	stamp  []byte // time signed and fudge of the request
	server []byte // other data: the time of this server
}

// room is how long the TSIG record gets.
func (s *tsigSigner) room() int {
	if s == nil {
		return 0
	}
	size := len(s.keyName) + 10 + len(s.algorithm) + tsigFixed + len(s.server)
	if s.key != nil {
		size += s.key.size
	}
	return size
}

// sign signs the message that stands in buf from base on.
func (s *tsigSigner) sign(buf []byte, base int, now time.Time) []byte {
	if s == nil {
		return buf
	}
	stamp := s.stamp
	if s.err == 0 {
		stamp = stampOf(now)
	}
	id := buf[base : base+2 : base+2]
	var mac []byte
	if s.key != nil {
		mac = s.mac(buf[base:], stamp)
		s.prior, s.later = mac, true
	}
	buf = append(buf, s.keyName...)
	buf = binary.BigEndian.AppendUint16(buf, typeTSIG)
	buf = binary.BigEndian.AppendUint16(buf, classANY)
	buf = binary.BigEndian.AppendUint32(buf, 0)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(s.algorithm)+tsigFixed+len(mac)+len(s.server)))
	buf = append(buf, s.algorithm...)
	buf = append(buf, stamp...)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(mac)))
	buf = append(buf, mac...)
	buf = append(buf, id...)
	buf = binary.BigEndian.AppendUint16(buf, s.err)
	buf = binary.BigEndian.AppendUint16(buf, uint16(len(s.server)))
	buf = append(buf, s.server...)
	records := buf[base+10:]
	binary.BigEndian.PutUint16(records, binary.BigEndian.Uint16(records)+1)
	return buf
}

// mac is over a message that has no TSIG record yet, RFC 8945 section 4.3.
func (s *tsigSigner) mac(message, stamp []byte) []byte {
	h := hmac.New(s.key.hash, s.key.secret)
	if s.prior != nil {
		h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(s.prior))))
		h.Write(s.prior)
	}
	h.Write(message)
	if s.later { // RFC 8945 section 5.3.1
		h.Write(stamp)
		return h.Sum(nil)
	}
	h.Write([]byte(s.key.name))
	h.Write([]byte{0, classANY, 0, 0, 0, 0})
	h.Write([]byte(s.key.algorithm))
	h.Write(stamp)
	h.Write(binary.BigEndian.AppendUint16(nil, s.err))
	h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(s.server))))
	h.Write(s.server)
	return h.Sum(nil)
}

// stampOf is a time and how far the clocks may differ.
func stampOf(now time.Time) []byte {
	return binary.BigEndian.AppendUint16(appendTime(nil, now), tsigFudge)
}

// appendTime appends the 48 bits of a time.
func appendTime(b []byte, now time.Time) []byte {
	return append(b, binary.BigEndian.AppendUint64(nil, uint64(now.Unix()))[2:]...)
}

// A tsigRecord is the data of a TSIG record. It refers to the packet's bytes.
type tsigRecord struct {
	algorithm name
	stamp     []byte // time signed and fudge
	mac       []byte
	id        []byte // of the message when it was signed
	err       uint16
	other     []byte
}

// parseTSIG takes the data of a TSIG record apart.
func parseTSIG(data []byte) (r tsigRecord, ok bool) {
	end, ok := skipName(data, 0)
	if !ok || !wholeName(data[:end]) || end+10 > len(data) {
		return r, false
	}
	algorithm := append([]byte(nil), data[:end]...)
	lower(algorithm)
	r.algorithm = name(algorithm)
	r.stamp, data = data[end:end+8], data[end+8:]
	if r.mac, data, ok = counted(data); !ok || len(data) < 6 {
		return r, false
	}
	r.id, r.err = data[:2], binary.BigEndian.Uint16(data[2:])
	r.other, data, ok = counted(data[4:])
	return r, ok && len(data) == 0
}

// counted takes a piece with its length before it from the front of data.
func counted(data []byte) (piece, rest []byte, ok bool) {
	if len(data) < 2 {
		return nil, nil, false
	}
	end := 2 + int(binary.BigEndian.Uint16(data))
	if end > len(data) {
		return nil, nil, false
	}
	return data[2:end], data[end:], true
}

// apart reports whether a time stamp and the time now are further apart than
// its fudge.
func apart(stamp []byte, now time.Time) bool {
	signed := int64(binary.BigEndian.Uint64(append([]byte{0, 0}, stamp[:6]...)))
	d := now.Unix() - signed
	return max(d, -d) > int64(binary.BigEndian.Uint16(stamp[6:]))
}

// verify checks the signature of the query that q was read from, RFC 8945
// section 5.2. The response is to be signed by the signer it returns, which is
// nil where it is not to be signed at all; rcode is 0 where the signature is
// good.
func (k tsigKeys) verify(packet []byte, q *query, now time.Time) (s *tsigSigner, rcode uint16) {
	t, ok := parseTSIG(q.tsig)
	class := binary.BigEndian.Uint16(packet[q.tsigAt+len(q.tsigKey)+2:])
	if !ok || class != classANY {
		return nil, rcodeFormat
	}
	owner := append([]byte(nil), q.tsigKey...)
	lower(owner)
	s = &tsigSigner{keyName: name(owner), algorithm: t.algorithm, stamp: append([]byte(nil), t.stamp...)}
	key := k[name(owner)]
	if key == nil || key.algorithm != t.algorithm { // RFC 8945 section 5.2.1
		s.err = tsigBadKey
		return s, rcodeNotAuth
	}
	if len(t.mac) > key.size || len(t.mac) < key.size && len(t.mac) < max(10, key.size/2) { // section 5.2.2.1
		return nil, rcodeFormat
	}
	signed := &tsigSigner{key: key}
	signed.err, signed.server = t.err, t.other
	mac := signed.mac(original(packet, q.tsigAt, t.id), t.stamp)
	if !hmac.Equal(mac[:len(t.mac)], t.mac) { // section 5.2.2
		s.err = tsigBadSig
		return s, rcodeNotAuth
	}
	s.key, s.prior = key, append([]byte(nil), t.mac...)
	switch {
	case apart(t.stamp, now): // section 5.2.3
		s.err, s.server = tsigBadTime, appendTime(nil, now)
		return s, rcodeNotAuth
	case len(t.mac) < key.size: // section 5.2.4: a MAC is whole here
		s.err = tsigBadTrunc
		return s, rcodeNotAuth
	}
	return s, rcodeSuccess
}

// original is a message as it was before the TSIG record at the given place
// was added.
func original(packet []byte, at int, id []byte) []byte {
	message := append([]byte(nil), packet[:at]...)
	copy(message, id)
	records := message[10:]
	binary.BigEndian.PutUint16(records, binary.BigEndian.Uint16(records)-1)
	return message
}
