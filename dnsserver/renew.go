package dnsserver

import (
	"context"
	"time"

	"haslohas.com/elbow/pool"
)

// renewEvery is how often it is looked whether signatures are to be renewed, or
// a key begins to play another part. The wall clock is looked at, which may have
// been set.
const renewEvery = 10 * time.Second

// A renewal is signatures that are made beside whatever else goes on.
type renewal struct {
	ring  *keyring
	ready map[setID]*signature // nil: not yet
}

// rings are the keyrings of the zones of a Table.
type rings map[*pool.Zone]ringState

type ringState struct {
	ring  *keyring // nil: the zone is not signed
	wrong bool     // with this one it cannot be
}

// keyring returns the keyring that conf asks for, nil for an unsigned zone. It
// reports false where its keys are wrong, which has been logged.
func (b *builder) keyring(conf *pool.Zone, apex name, was *zone, now time.Time) (*keyring, bool) {
	s, known := b.rings[conf]
	if known && (s.ring == nil || s.ring.until.IsZero() || now.Before(s.ring.until)) {
		return s.ring, !s.wrong
	}
	var before *keyring
	if known && !s.wrong {
		before = s.ring
	} else if before = was.ring(); before == nil && b.preparations[apex] != nil {
		before = b.preparations[apex].ring
	}
	ring, findings := newKeyring(apex, &conf.DNSSEC, before, now)
	for _, f := range findings {
		b.log.Error("zone has a key in error", "zone", conf.Name, "err", f.of(conf))
	}
	if b.rings == nil {
		b.rings = make(rings)
	}
	b.rings[conf] = ringState{ring, len(findings) > 0}
	return ring, len(findings) == 0
}

// ringFor returns the keyring to sign with now. Where that asks for a signature
// of everything by other keys, it is the one before until they are made.
func (b *builder) ringFor(ctx context.Context, want *keyring, was *zone) *keyring {
	if want == nil || was == nil || was.signed == nil || was.signed.ring.signers == want.signers {
		return want
	}
	if r := b.renewals[was.apex]; r != nil && r.ready != nil && r.ring.signers == want.signers {
		return want
	}
	b.renew(ctx, was, want)
	return was.signed.ring
}

// renew begins to make the signatures that z is soon to have. The zone is built
// anew with them when they are there.
func (b *builder) renew(ctx context.Context, z *zone, ring *keyring) {
	if b.renewals[z.apex] != nil {
		return // the next look finds what is left
	}
	r := &renewal{ring: ring}
	if b.renewals == nil {
		b.renewals = make(map[name]*renewal)
	}
	b.renewals[z.apex] = r
	b.renewing.Go(func() {
		ready, err := z.renewals(ctx, ring, time.Now())
		select {
		case b.requests <- func(b *builder) { b.renewed(ctx, z.apex, r, ready, err) }:
		case <-ctx.Done():
		}
	})
}

// renewed brings signatures into force.
func (b *builder) renewed(ctx context.Context, apex name, r *renewal, ready map[setID]*signature, err error) {
	defer delete(b.renewals, apex)
	if err != nil {
		b.signingFailed(apex.label(), err)
		return
	}
	r.ready = ready
	b.build(ctx, b.table.Load())
}

// look renews what is due, tries again what has failed, and follows the times of
// keys.
func (b *builder) look(ctx context.Context, now time.Time) {
	t := b.table.Load()
	snap := b.snapshot.Load()
	if snap.generation == 0 {
		return
	}
	again := len(b.failed) > 0
	for _, conf := range t.DNS.Zones {
		r := b.rings[conf].ring
		again = again || r != nil && !r.until.IsZero() && !now.Before(r.until)
	}
	if again {
		b.build(ctx, t)
		snap = b.snapshot.Load()
	}
	for _, z := range snap.sorted {
		if z.signed != nil && z.signed.due(now) {
			b.renew(ctx, z, z.signed.ring)
		}
	}
}

// sign signs z, which follows was, and reports whether it may be published.
func (b *builder) sign(ctx context.Context, z, was *zone, ring *keyring) bool {
	g := &zoneSigner{zone: z, ring: ring, was: was, cache: &b.cache, now: time.Now(),
		processors: allProcessors(), progress: b.now}
	if r := b.renewals[z.apex]; r != nil && r.ring.signers == ring.signers {
		g.ready = r.ready
	}
	zone := z.apex.label()
	if err := g.sign(ctx); err != nil {
		b.signingFailed(zone, err)
		return false
	}
	if b.failed[zone] {
		delete(b.failed, zone)
		b.log.Info("zone is signed again", "zone", zone)
	}
	z.counts.signed.Add(uint64(z.signed.made))
	z.counts.reused.Add(uint64(z.signed.taken))
	return true
}

// signingFailed notes that a zone is not published as it is not signed.
func (b *builder) signingFailed(zone string, err error) {
	b.counts.unsigned.Add(1)
	if b.failed[zone] {
		return // once, not for each try
	}
	b.log.Error("zone cannot be signed: it is served as it was before", "zone", zone, "err", err)
	if b.failed == nil {
		b.failed = make(map[string]bool)
	}
	b.failed[zone] = true
}
