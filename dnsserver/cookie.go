package dnsserver

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"

	"haslohas.com/elbow/pool"
)

const (
	clientCookieLen = 8
	serverCookieLen = 16
	cookieVersion   = 1

	// RFC 9018 section 4.3: how old a server cookie may be, how far its maker's
	// clock may be ahead, and when the client gets a new one.
	cookieLife  = 3600
	cookieAhead = 300
	cookieRenew = 1800

	// cookieStore is the name of the secrets in the Store.
	cookieStore = "cookies"

	// ownSecretLife is after which time a secret that is nobody else's is
	// replaced by the next change of the Table, RFC 7873 section 7.1.
	ownSecretLife = 24 * time.Hour
)

// A cookieKey is a secret as SipHash takes it.
type cookieKey [2]uint64

// A cookieJar holds the secrets of server cookies: the first makes them, all
// are good to check them with. It is immutable.
type cookieJar []cookieKey

func newCookieJar(secrets []pool.CookieSecret) cookieJar {
	jar := make(cookieJar, len(secrets))
	for i, s := range secrets {
		jar[i] = cookieKey{binary.LittleEndian.Uint64(s[:]), binary.LittleEndian.Uint64(s[8:])}
	}
	return jar
}

// serve checks the cookie of a query and puts the one for the response in the
// place of it; q.proven says whether the client has shown to be where its packets
// claim to come from. Client must not be an IPv4 address in IPv6 form.
func (jar cookieJar) serve(q *query, client netip.Addr, now time.Time) {
	if q.cookie == nil || len(jar) == 0 {
		q.cookie = nil
		return
	}
	clock := uint32(now.Unix())
	copy(q.newCookie[:], q.cookie[:clientCookieLen])
	server := q.newCookie[clientCookieLen:]
	if sent := q.cookie[clientCookieLen:]; len(sent) == serverCookieLen && sent[0] == cookieVersion {
		// RFC 9018 section 4.3: times are compared as serials are.
		age := int32(clock - binary.BigEndian.Uint32(sent[4:]))
		for i, key := range jar {
			if age < -cookieAhead || age > cookieLife || key.hash(q.cookie[:clientCookieLen], sent[:8], client) != binary.LittleEndian.Uint64(sent[8:]) {
				continue
			}
			q.proven = true
			if i == 0 && age <= cookieRenew {
				copy(server, sent)
				return
			}
			break
		}
	}
	server[0], server[1], server[2], server[3] = cookieVersion, 0, 0, 0
	binary.BigEndian.PutUint32(server[4:], clock)
	binary.LittleEndian.PutUint64(server[8:], jar[0].hash(q.newCookie[:clientCookieLen], server[:8], client))
}

// hash is SipHash-2-4 over the client's cookie, the first half of the server's
// and the client's address, RFC 9018 section 4.4.
func (k cookieKey) hash(cookie, head []byte, client netip.Addr) uint64 {
	var in [clientCookieLen + 8 + 16]byte
	n := copy(in[:], cookie)
	n += copy(in[n:], head)
	if client.Is4() {
		a := client.As4()
		n += copy(in[n:], a[:])
	} else {
		a := client.As16()
		n += copy(in[n:], a[:])
	}
	return sipHash(k[0], k[1], in[:n])
}

// sipHash is SipHash-2-4 by Aumasson and Bernstein.
func sipHash(k0, k1 uint64, in []byte) uint64 {
	v0, v1, v2, v3 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d, k0^0x6c7967656e657261, k1^0x7465646279746573
	round := func() {
		v0 += v1
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v3
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 += v3
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 += v1
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v2 = bits.RotateLeft64(v2, 32)
	}
	last := uint64(len(in)) << 56
	for ; len(in) >= 8; in = in[8:] {
		m := binary.LittleEndian.Uint64(in)
		v3 ^= m
		round()
		round()
		v0 ^= m
	}
	for i, c := range in {
		last |= uint64(c) << (8 * i)
	}
	v3 ^= last
	round()
	round()
	v0 ^= last
	v2 ^= 0xff
	for range 4 {
		round()
	}
	return v0 ^ v1 ^ v2 ^ v3
}

// savedCookies are the secrets that this host has made for itself.
type savedCookies struct {
	Secrets [][]byte  `json:"secrets"` // at most two, the newest first
	Made    time.Time `json:"made"`    // the first
}

// cookieSecrets are those of the Table or, where it has none, of this host
// alone. It belongs to the builder.
type cookieSecrets struct {
	loaded bool
	own    savedCookies
}

// jar returns the secrets to use from now on.
func (c *cookieSecrets) jar(b *builder, shared []pool.CookieSecret, now time.Time) cookieJar {
	if len(shared) > 0 {
		return newCookieJar(shared)
	}
	if !c.loaded && b.store != nil {
		if _, err := b.store.Load(cookieStore, &c.own); err != nil {
			b.log.Warn("DNS cookies from before are not known: clients get new ones", "err", err)
		}
	}
	c.loaded = true
	if age := now.Sub(c.own.Made); len(c.own.Secrets) == 0 || age > ownSecretLife || age < 0 {
		var fresh pool.CookieSecret
		_, _ = rand.Read(fresh[:]) // never fails
		kept := c.own.Secrets[:min(len(c.own.Secrets), 1)]
		c.own = savedCookies{Secrets: append([][]byte{fresh[:]}, kept...), Made: now}
		if b.store != nil {
			if err := b.store.Save(cookieStore, c.own); err != nil {
				b.log.Warn("saving the secret of DNS cookies: after a restart clients get new ones", "err", err)
			}
		}
	}
	var secrets []pool.CookieSecret
	for _, s := range c.own.Secrets {
		if len(s) == len(pool.CookieSecret{}) {
			secrets = append(secrets, pool.CookieSecret(s))
		}
	}
	return newCookieJar(secrets)
}
