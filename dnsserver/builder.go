package dnsserver

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"haslohas.com/elbow/pool"
)

// A builder makes the snapshots. It belongs to one goroutine.
type builder struct {
	*Server
	serials *serials
	loaded  map[*pool.Zone]*static // of the newest Table
	keys    []pool.Key             // that snapshot.keys was made of
	secrets cookieSecrets

	rings    rings             // of the newest Table
	renewals map[name]*renewal // in progress, by zone
	renewing sync.WaitGroup    // the goroutines of these, and of what follows

	preparations map[name]*preparation // in progress, by zone
	turn         sync.Mutex            // of what is being prepared
	now          *loading              // nil: nobody waits

	failed map[string]bool // zones whose newest state could not be signed
	cache  signatureCache
}

// build makes the snapshot of a Table and puts it in the place of the one
// before. What did not change is shared with it: a zone without a change keeps
// its serial.
func (b *builder) build(ctx context.Context, t *pool.Table) {
	begun := time.Now()
	before := b.snapshot.Load()
	roll := newRoll(t, before)
	services := roll.services(t.Pools)
	next := &snapshot{
		generation: t.Generation,
		limit:      newLimit(t.DNS.RateLimit),
		cookies:    b.secrets.jar(b, t.DNS.Cookies, begun),
		nsid:       t.DNS.NSID,
		trustECS:   t.DNS.TrustECS,
		roll:       roll,
		keys:       before.keys,
	}
	if !slices.Equal(b.keys, t.DNS.Keys) {
		b.keys, next.keys = t.DNS.Keys, newTSIGKeys(t.DNS.Keys)
	}
	fresh := false
	if b.settled(before, t) {
		b.follow(ctx, before, next, services)
	} else {
		fresh = b.gather(ctx, before, next, services)
	}
	b.serials.reserve(ctx, fresh)

	b.snapshot.Store(next)
	b.handedOut.replaced(before, next, time.Now())
	b.secondaries.keep(next)
	b.buildTime.Store(int64(time.Since(begun)))
	for _, z := range before.without(next) {
		if next.zones.get(z.apex) == nil {
			b.log.Info("zone is no longer served", "zone", z.apex.label())
		}
	}
}

// settled reports whether a Table has the very zones of the one before, and all
// of them are served: then only services, keys and signatures can have changed.
func (b *builder) settled(before *snapshot, t *pool.Table) bool {
	return before.roll != nil && len(b.preparations) == 0 &&
		len(before.sorted) == len(t.DNS.Zones) && slices.Equal(before.roll.zones, t.DNS.Zones)
}

// follow gives next the zones of before, those anew whose answers change. It does
// not look at zones that are not signed and whose services say what they said:
// there may be a thousand of them.
func (b *builder) follow(ctx context.Context, before, next *snapshot, services map[*pool.Zone]map[name]*live) {
	next.zones, next.sorted = before.zones, before.sorted
	next.names, next.maxLabels, next.transfers = before.names, before.maxLabels, before.transfers
	for i, was := range before.sorted {
		conf := next.roll.zones[i]
		if conf.DNSSEC.Folder == "" && sameServices(services[conf], was.live) {
			continue
		}
		// Not nil: there is the one before.
		z := b.next(ctx, conf, was.apex, services[conf], was, next.generation, b.loaded)
		if z == was {
			continue
		}
		if next.zones == before.zones {
			next.zones, next.sorted = before.zones.clone(), slices.Clone(before.sorted)
		}
		z.succeed(was, conf)
		next.zones.set(was.apex, z)
		next.sorted[i] = z
		next.names += z.size() - was.size()
	}
}

// gather gives next the zones that its Table has, and reports whether one of them
// was not served before.
func (b *builder) gather(ctx context.Context, before, next *snapshot, services map[*pool.Zone]map[name]*live) (fresh bool) {
	zones := next.roll.zones
	next.zones = newTable[*zone](len(zones))
	next.pending = make(map[name]bool)
	next.transfers = make(map[name]*pool.Transfer, len(zones))
	loaded := make(map[*pool.Zone]*static, len(zones))
	for _, conf := range zones {
		apex, err := parseName(conf.Name)
		if err != nil {
			b.log.Error("zone cannot be served", "zone", conf.Name, "err", err)
			continue
		}
		was := before.zones.get(apex)
		z := b.next(ctx, conf, apex, services[conf], was, next.generation, loaded)
		if z == nil {
			if b.preparations[apex] != nil {
				next.pending[apex] = true
			}
			continue
		}
		z.succeed(was, conf)
		next.transfers[apex] = &conf.Transfer
		fresh = fresh || was == nil
		next.zones.set(apex, z)
		next.sorted = append(next.sorted, z)
		next.names += z.size()
		next.maxLabels = max(next.maxLabels, z.apexLabels)
	}
	b.loaded = loaded
	maps.DeleteFunc(b.rings, func(conf *pool.Zone, _ ringState) bool { return loaded[conf] == nil })
	maps.DeleteFunc(b.preparations, func(apex name, p *preparation) bool {
		if slices.Contains(zones, p.conf) {
			return false
		}
		p.cancel() // it is no longer asked for
		return true
	})
	maps.DeleteFunc(b.failed, func(zone string, _ bool) bool {
		return !slices.ContainsFunc(zones, func(conf *pool.Zone) bool { return conf.Name == zone })
	})
	return fresh
}

// next returns what is served of a zone from now on, nil if nothing can be. What
// was loaded for it is noted in loaded.
func (b *builder) next(ctx context.Context, conf *pool.Zone, apex name, services map[name]*live, was *zone, generation uint64,
	loaded map[*pool.Zone]*static,
) *zone {
	p := b.preparation(ctx, conf, apex, services, was)
	if p != nil && !p.done {
		if was == nil {
			return nil
		}
		// Its records and keys are those it had; its services are followed.
		return b.zone(ctx, was.static, was.ring(), services, was, generation, nil)
	}
	if b.snapshot.Load().generation == 0 {
		b.now = b.loadings.begin(conf)
		defer func() {
			b.now.end()
			b.now = nil
		}()
	}
	st := b.static(conf, p, was)
	loaded[conf] = st
	ring, ok := b.ring(ctx, conf, apex, was)
	if !ok {
		return nil
	}
	var signed *zone
	if p != nil {
		signed = p.zone
	}
	z := b.zone(ctx, st, ring, services, was, generation, signed)
	if z != nil && p != nil {
		delete(b.preparations, apex)
	}
	return z
}

// static returns the static part of a zone. It is loaded only where the zone
// has changed since the Table before, and has not been prepared.
func (b *builder) static(conf *pool.Zone, p *preparation, was *zone) *static {
	if st := b.loaded[conf]; st != nil {
		return st
	}
	if was != nil && was.hash == hashZone(conf) {
		return was.static
	}
	var st *static
	var findings []finding
	if p != nil {
		st, findings = p.static, p.findings
	} else {
		st, findings = loadZone(conf)
	}
	broken := false
	for _, f := range findings {
		e := f.of(conf)
		if f.warning {
			b.log.Warn("zone is odd", "zone", conf.Name, "err", e)
			continue
		}
		broken = true
		b.log.Error("zone has an error", "zone", conf.Name, "err", e)
	}
	switch {
	case broken && was != nil:
		b.log.Error("zone is served on with the records it had", "zone", conf.Name)
		return was.static
	case broken:
		b.log.Error("zone is served without the records in error", "zone", conf.Name)
	}
	return st
}

// ring returns the keyring to sign a zone with now, nil where it is not signed.
// It reports false where the zone cannot be served.
func (b *builder) ring(ctx context.Context, conf *pool.Zone, apex name, was *zone) (*keyring, bool) {
	want, ok := b.keyring(conf, apex, was, time.Now())
	if !ok {
		if was == nil {
			b.signingFailed(conf.Name, errKeys)
			return nil, false
		}
		want = was.ring() // the keys it had
	}
	return b.ringFor(ctx, want, was), true
}

// zone returns the zone of a static part, keys and services: the one before, if
// every answer is the same or what is new cannot be signed; nil if there was none.
// Its signatures are taken from prepared, where there is one.
func (b *builder) zone(ctx context.Context, st *static, ring *keyring, services map[name]*live, was *zone, generation uint64, prepared *zone) *zone {
	before := was.ring()
	r := b.renewals[st.apex]
	var reuse *table[*node]
	if was != nil && was.static == st && (ring == nil) == (before == nil) {
		if sameServices(services, was.live) && ring.equal(before) && (r == nil || r.ready == nil) {
			if ring == nil || !was.signed.due(time.Now()) {
				delete(b.failed, st.conf.Name)
			}
			return was
		}
		reuse = was.live
	}
	z := newZone(st, services, reuse)
	zone := st.conf.Name
	if was != nil {
		z.counts = was.counts
		z.number(b.serials.advance(zone, was.serial, st.fileSerial()))
		if ring != nil && !b.sign(ctx, z, cmp.Or(prepared, was), ring) {
			return was
		}
		what := "answers changed"
		if r != nil && r.ready != nil {
			what = "signatures renewed"
		}
		b.log.Info(what, "zone", zone, "serial", z.serial, "generation", generation)
	} else {
		z.counts = new(zoneCounts)
		if b.serials.known(zone) {
			// An earlier process has given these answers, and caches may hold them.
			for _, l := range services {
				l.mark()
			}
		}
		content := z.content()
		if ring != nil {
			content = "" // its signatures differ
		}
		z.number(b.serials.begin(zone, content, st.fileSerial(), time.Now()))
		if ring != nil && !b.sign(ctx, z, prepared, ring) {
			return nil
		}
		b.log.Info("zone is served", "zone", zone, "serial", z.serial, "names", z.owners(), "records", st.resources)
	}
	if was == nil || was.static != st || !sameOwners(services, was.live) {
		b.warn(st, services)
	}
	return z
}

// warn tells what the master file and the services have against each other.
func (b *builder) warn(st *static, services map[name]*live) {
	var names []owned
	for _, owner := range sortedNames(services) {
		l := services[owner]
		names = append(names, owned{owner, l.kind, l.types()})
	}
	for _, f := range st.conflicts(names) {
		// The service wins: its name must not go away by an edit elsewhere.
		b.log.Warn("zone file and service claim one name, the service is answered", "zone", st.conf.Name,
			"err", f.of(st.conf))
	}
	for _, f := range st.missingAddresses(names) {
		b.log.Warn("zone is odd", "zone", st.conf.Name,
			"err", f.of(st.conf))
	}
}

var errKeys = errors.New("its keys are in error")

// content is a hash over every answer of the zone but the serial. It is empty
// for a signed zone, whose signatures are new after each start.
func (z *zone) content() string {
	if z.signed != nil {
		return ""
	}
	h := sha256.New()
	h.Write(z.hash[:])
	for _, owner := range slices.Sorted(z.live.names()) {
		if l := z.live.get(owner).live; l != nil {
			l.describe(h, owner)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ring is what the zone is signed with, nil if it is not or is nil.
func (z *zone) ring() *keyring {
	if z == nil || z.signed == nil {
		return nil
	}
	return z.signed.ring
}

// end keeps the serials of what was served last.
func (b *builder) end() {
	b.renewing.Wait()
	b.serials.end(b.contents())
}

// contents are the hashes of the zones that are served.
func (b *builder) contents() map[string]string {
	contents := make(map[string]string)
	for _, z := range b.snapshot.Load().sorted {
		contents[z.conf.Name] = z.content()
	}
	return contents
}
