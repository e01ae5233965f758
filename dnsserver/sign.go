package dnsserver

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// maxSigned is how many addresses of a service a signed zone has: the RRset is
// signed as a whole, and so it is answered as a whole.
const maxSigned = 32

// A signed is what a zone has beyond an unsigned one. It is immutable.
type signed struct {
	ring  *keyring
	chain *chain

	static *signedStatic

	span  // of all signatures
	made  int
	taken int
}

// A signedStatic is the static nodes of a zone with their signatures. The zones
// that follow each other share it as long as neither changes.
type signedStatic struct {
	nodes *table[*node]
	span  span
}

// A span is what signatures have in common, Unix seconds.
type span struct {
	begin   int64 // the last inception
	oldest  int64 // the first inception
	renewal int64 // the first
	urgent  int64 // when the first can wait no longer for its renewal
	end     int64 // the first expiration
}

func newSpan() span {
	return span{begin: math.MinInt64, oldest: math.MaxInt64, renewal: math.MaxInt64, urgent: math.MaxInt64, end: math.MaxInt64}
}

func (s *span) add(sig *signature) {
	s.join(span{sig.inception, sig.inception, sig.renewal(), sig.urgent(), sig.expiration})
}

func (s *span) join(o span) {
	s.begin, s.oldest = max(s.begin, o.begin), min(s.oldest, o.oldest)
	s.renewal, s.urgent, s.end = min(s.renewal, o.renewal), min(s.urgent, o.urgent), min(s.end, o.end)
}

// due reports whether a signature is to be renewed at now, or is not valid yet
// as the clock was set back.
func (s span) due(now time.Time) bool { return now.Unix() >= s.renewal || now.Unix() < s.begin }

// usable reports whether no signature has to be renewed at once.
func (s span) usable(now time.Time) bool { return s.begin <= now.Unix() && now.Unix() < s.urgent }

// A zoneSigner makes the signatures of a zone.
type zoneSigner struct {
	*zone
	ring  *keyring
	was   *zone // the one before, whose signatures are taken; nil: none
	ready map[setID]*signature
	cache *signatureCache // of services, for states that come back
	now   time.Time

	processors int      // that make signatures
	progress   *loading // nil: nobody waits

	jobs  []job
	span  span
	taken int
}

// A job is a set to be signed.
type job struct {
	owner name
	set   *rrset
	live  bool
}

// A setID tells sets of one zone apart by all that a signature covers.
type setID [sha256.Size]byte

func idOf(owner name, s *rrset) setID {
	h := sha256.New()
	h.Write([]byte(owner))
	h.Write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, s.typ), s.ttl))
	h.Write(s.wire)
	return setID(h.Sum(nil))
}

// sign signs z, which has its serial. Signatures of the zone before, of the
// cache, and those that are ready are taken where they are about the same
// records.
func (g *zoneSigner) sign(ctx context.Context) error {
	z := g.zone
	out := &signed{ring: g.ring}
	var before *signed
	if g.was != nil {
		before = g.was.signed
	}
	g.span = newSpan()
	if before != nil && g.was.static == z.static && sameNames(g.was.live, z.live) {
		out.chain = before.chain
	} else {
		out.chain = newChain(z)
	}
	z.signed = out
	sameRecords := before != nil && before.chain == out.chain && before.ring.equal(g.ring)
	if sameRecords && len(g.ready) == 0 && before.static.span.usable(g.now) {
		out.static = before.static
	} else {
		g.signStatic(out)
	}
	for owner, n := range z.live.all() {
		i, linked := out.chain.place(owner, z.apex)
		if !linked {
			continue
		}
		if old := g.node(owner); sameRecords && old != nil && old.live == n.live && len(g.ready) == 0 && g.usable(old) {
			z.live.set(owner, old)
			continue
		}
		z.live.set(owner, g.signNode(owner, n, out.chain.next(i), true))
	}
	z.nodes = out.static.nodes
	if err := g.work(ctx); err != nil {
		return err
	}
	if err := g.signSOA(); err != nil {
		return err
	}
	if !sameRecords {
		if err := z.verify(); err != nil {
			return err
		}
	}
	g.summarize(out)
	out.made, out.taken = len(g.jobs)+1, g.taken
	return nil
}

func sameNames(a, b *table[*node]) bool {
	if a.len() != b.len() {
		return false
	}
	for owner := range a.names() {
		if b.get(owner) == nil {
			return false
		}
	}
	return true
}

// node returns the node of a name in the zone before, nil if there is none.
func (g *zoneSigner) node(owner name) *node {
	if g.was == nil {
		return nil
	}
	return g.was.node(owner)
}

// usable reports whether n may stay as it is.
func (g *zoneSigner) usable(n *node) bool {
	for s := range n.every {
		if signs(n, s.typ) && !s.sig.usable(g.ring.signers, g.now) {
			return false
		}
	}
	return n.bare != nil
}

func (g *zoneSigner) signStatic(out *signed) {
	z := g.zone
	nodes := newTable[*node](z.static.nodes.len())
	out.static = &signedStatic{nodes: nodes}
	for owner, n := range z.static.nodes.all() {
		nodes.set(owner, n) // as it is, if it is none of the chain
	}
	for i, owner := range out.chain.names {
		if z.live.get(owner) == nil {
			nodes.set(owner, g.signNode(owner, z.static.nodes.get(owner), out.chain.next(i), false))
		}
	}
}

// signs reports whether sets of that type of n are signed: at a delegation only
// what is the parent's, RFC 4035 section 2.2.
func signs(n *node, typ uint16) bool { return !n.cut || typ == typeDS || typ == typeNSEC }

// signNode returns n with its NSEC record and, for now or after work, its
// signatures.
func (g *zoneSigner) signNode(owner name, n *node, next name, live bool) *node {
	if n.bare != nil {
		n = n.bare
	}
	out := *n
	out.bare = n
	out.sets = make([]rrset, 0, len(n.sets)+4)
	for _, s := range n.sets {
		if n.live != nil && s.step > 0 && s.count > maxSigned {
			s.wire, s.count = slices.Repeat(s.wire[:maxSigned*int(s.step)], 2), maxSigned
		}
		if s.choice != nil {
			s.choice = s.choice.clone()
		}
		out.sets = append(out.sets, s)
	}
	if n.apex {
		out.sets = append(out.sets, g.ring.sets...)
	}
	out.sets = append(out.sets, g.nsec(&out, next))
	slices.SortStableFunc(out.sets, func(a, b rrset) int { return int(a.typ) - int(b.typ) })
	old := g.node(owner)
	for s := range out.every {
		if !signs(n, s.typ) {
			continue
		}
		s.sig = g.take(owner, s, old, live)
		if s.sig != nil {
			g.taken++
		} else {
			g.jobs = append(g.jobs, job{owner, s, live})
		}
	}
	return &out
}

// take returns a signature that is there already, nil if there is none.
func (g *zoneSigner) take(owner name, s *rrset, old *node, live bool) *signature {
	var before *signature
	if old != nil {
		before = old.signature(s)
	}
	// What is soon to be renewed is, if that is done already.
	if before.fresh(g.ring.signers, g.now) && (len(g.ready) == 0 || before.fresh(g.ring.signers, g.now.Add(renewAhead))) {
		return before
	}
	if live || len(g.ready) > 0 {
		id := idOf(owner, s)
		if sig := g.ready[id]; sig.fresh(g.ring.signers, g.now) {
			return sig
		}
		if sig := g.cache.get(id); sig.fresh(g.ring.signers, g.now) {
			return sig
		}
	}
	if before.usable(g.ring.signers, g.now) {
		return before
	}
	return nil
}

// nsec makes the NSEC record of n. It lives as long as a negative answer, RFC
// 9077; what it says of a service is out of date as soon as a backend is back.
func (g *zoneSigner) nsec(n *node, next name) rrset {
	ttl := g.zone.negative.ttl
	if n.live != nil {
		ttl = min(ttl, n.live.negative)
	}
	types := []uint16{typeRRSIG, typeNSEC}
	if n.apex {
		types = append(types, typeSOA)
	}
	for _, s := range n.sets {
		if signs(n, s.typ) || s.typ == typeNS { // RFC 4035 section 2.3
			types = append(types, s.typ)
		}
	}
	return newSet(typeNSEC, ttl, append([]byte(next), typeBitmap(types)...))
}

// typeBitmap is the set of types in the form of RFC 4034 section 4.1.2.
func typeBitmap(types []uint16) []byte {
	slices.Sort(types)
	var out []byte
	for len(types) > 0 {
		window := types[0] >> 8
		var bits [32]byte
		size := 0
		for len(types) > 0 && types[0]>>8 == window {
			low := types[0] & 0xff
			bits[low/8] |= 0x80 >> (low % 8)
			size = int(low/8) + 1
			types = types[1:]
		}
		out = append(out, byte(window), byte(size))
		out = append(out, bits[:size]...)
	}
	return out
}

// work makes the signatures that are missing.
func (g *zoneSigner) work(ctx context.Context) error {
	sign := func(j job) error {
		sig, err := g.ring.sign(j.owner, j.set, g.now)
		if err == nil {
			j.set.sig = sig
			g.progress.signed()
		}
		return err
	}
	g.progress.expect(len(g.jobs))
	if err := inParallel(ctx, g.processors, g.jobs, sign); err != nil {
		return err
	}
	for _, j := range g.jobs {
		if j.live {
			g.cache.put(idOf(j.owner, j.set), j.set.sig)
		}
	}
	return nil
}

// inParallel calls do for each item, on that many processors, up to the first
// error. After each, others have their turn: queries wait for that long at most.
func inParallel[T any](ctx context.Context, processors int, items []T, do func(T) error) error {
	var (
		next   atomic.Int64
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed error
	)
	each := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(items) {
				return
			}
			err := context.Cause(ctx)
			if err == nil {
				err = do(items[i])
			}
			if err != nil {
				next.Store(int64(len(items)))
				mu.Lock()
				failed = errors.Join(failed, err)
				mu.Unlock()
			}
			runtime.Gosched()
		}
	}
	if len(items) > 8 { // for a few it does not pay
		for range processors - 1 {
			wg.Go(each)
		}
	}
	each()
	wg.Wait()
	return failed
}

// allProcessors is for what somebody waits for.
func allProcessors() int { return runtime.GOMAXPROCS(0) }

// someProcessors is for what is done beside the answering of queries.
func someProcessors() int { return max(1, runtime.NumCPU()/2) }

// signSOA signs the SOA. With a lower TTL, in negative answers, it has the same
// signature.
func (g *zoneSigner) signSOA() error {
	z := g.zone
	sig, err := g.ring.sign(z.apex, &z.soa, g.now)
	if err != nil {
		return err
	}
	z.soa.sig = sig
	z.negative.sig = sig.lasting(z.negative.ttl)
	z.negativeLive.sig = sig.lasting(z.negativeLive.ttl)
	return nil
}

// summarize finds out when the first signature is to be renewed, and so on.
func (g *zoneSigner) summarize(out *signed) {
	sum := func(s *span, n *node) {
		for set := range n.every {
			if set.sig != nil {
				s.add(set.sig)
			}
		}
	}
	if static := out.static; static.span == (span{}) {
		static.span = newSpan()
		for _, n := range static.nodes.all() {
			sum(&static.span, n)
		}
	}
	out.span = out.static.span
	out.span.add(g.zone.soa.sig)
	for _, n := range g.zone.live.all() {
		sum(&out.span, n)
	}
}

// verify finds what a validator would not accept, besides the signatures
// themselves, each of which was verified when it was made: a set without one, and
// a chain that is not closed.
func (z *zone) verify() error {
	names := z.signed.chain.names
	if len(names) == 0 || names[0] != z.apex {
		return fmt.Errorf("the NSEC chain of %s does not begin with it", z.apex)
	}
	for i, owner := range names {
		n := z.node(owner)
		if n == nil {
			return fmt.Errorf("%s is in the NSEC chain and not in the zone", owner)
		}
		nsec := n.set(typeNSEC)
		if nsec == nil || name(nsec.wire[headerLen:][:len(z.signed.chain.next(i))]) != z.signed.chain.next(i) {
			return fmt.Errorf("the NSEC record of %s is missing or leads to another name than the next", owner)
		}
		for s := range n.every {
			if signs(n, s.typ) && (s.sig == nil || s.sig.by != z.signed.ring.signers) {
				return fmt.Errorf("%s of %s is not signed by the keys of the zone", dns.Type(s.typ), owner)
			}
		}
	}
	return nil
}

// renewals makes signatures by the keys of ring for all sets of z of which
// that is soon due, ahead of time and beside whatever else goes on.
func (z *zone) renewals(ctx context.Context, ring *keyring, now time.Time) (map[setID]*signature, error) {
	soon := now.Add(renewAhead)
	if now.Unix() < z.signed.begin {
		soon = now
	}
	var jobs []job
	for _, owner := range z.signed.chain.names {
		n := z.node(owner)
		for s := range n.every {
			if signs(n, s.typ) && !s.sig.fresh(ring.signers, soon) {
				jobs = append(jobs, job{owner: owner, set: s})
			}
		}
	}
	var mu sync.Mutex
	ready := make(map[setID]*signature, len(jobs))
	err := inParallel(ctx, someProcessors(), jobs, func(j job) error {
		sig, err := ring.sign(j.owner, j.set, now)
		if err == nil {
			mu.Lock()
			ready[idOf(j.owner, j.set)] = sig
			mu.Unlock()
		}
		return err
	})
	return ready, err
}

// renewAhead is how much of the renewals that are not due yet is done with
// the first that is, so that the serial does not change for each of them.
const renewAhead = 6 * time.Hour

// A signatureCache keeps signatures of states that may come back: a service
// that goes down and up again is not signed anew. It belongs to one goroutine,
// the builder. The zero value is ready for use.
type signatureCache struct {
	recent, older map[setID]*signature
}

// maxCached is how many signatures are kept at least, and half of how many at most.
const maxCached = 1 << 14

func (c *signatureCache) get(id setID) *signature {
	if sig := c.recent[id]; sig != nil {
		return sig
	}
	sig := c.older[id]
	if sig != nil {
		c.put(id, sig)
	}
	return sig
}

func (c *signatureCache) put(id setID, sig *signature) {
	if len(c.recent) >= maxCached {
		c.older, c.recent = c.recent, nil
	}
	if c.recent == nil {
		c.recent = make(map[setID]*signature)
	}
	c.recent[id] = sig
}
