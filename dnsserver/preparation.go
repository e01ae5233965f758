package dnsserver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"haslohas.com/elbow/pool"
)

// ErrLoading is in the error of [Server.Serving] while the zones are loaded and
// signed for the first time, however long that takes.
var ErrLoading = errors.New("zones are being loaded")

// largeZone is from how many octets of records on a zone that is new or changed is
// loaded and signed beside whatever else goes on. What is smaller is there in a
// fraction of a second.
const largeZone = 64 << 10

// A preparation is a large zone on its way. Until it is done, the zone is what it
// was before.
type preparation struct {
	conf   *pool.Zone
	hash   [sha256.Size]byte
	ring   *keyring // that it is signed with; nil: it is not
	cancel context.CancelFunc
	done   bool // the rest is there; it belongs to the goroutine of the builder

	static   *static
	findings []finding
	zone     *zone // signed; nil: it is not to be
}

// preparation returns that of a zone, nil where there is nothing to be done
// beforehand, and begins with it if need be. The first snapshot waits for all
// zones: nobody asks yet.
func (b *builder) preparation(ctx context.Context, conf *pool.Zone, apex name, services map[name]*live, was *zone) *preparation {
	p := b.preparations[apex]
	if p != nil && p.conf == conf {
		return p
	}
	if p == nil && b.snapshot.Load().generation == 0 || len(conf.Records) < largeZone || b.loaded[conf] != nil {
		return nil
	}
	hash := hashZone(conf)
	if p != nil && p.hash == hash {
		p.conf = conf
		return p
	}
	if b.snapshot.Load().generation == 0 || was != nil && was.hash == hash {
		return nil
	}
	if p != nil {
		p.cancel()
	}
	ring, ok := b.ring(ctx, conf, apex, was)
	if !ok {
		return nil
	}
	own, cancel := context.WithCancel(ctx)
	p = &preparation{conf: conf, hash: hash, ring: ring, cancel: cancel}
	if b.preparations == nil {
		b.preparations = make(map[name]*preparation)
	}
	b.preparations[apex] = p
	until := "then it is served"
	if was != nil {
		until = "until then it is answered as before"
	}
	b.log.Info("large zone is prepared: "+until, "zone", conf.Name)
	b.renewing.Go(func() {
		defer cancel()
		err := b.inTurn(own, func() error { return p.make(own, conf, services, was, b.loadings.begin(conf), someProcessors()) })
		select {
		case b.requests <- func(b *builder) { b.prepared(ctx, apex, p, err) }:
		case <-own.Done():
		}
	})
	return p
}

// inTurn does what takes long, one after the other.
func (b *builder) inTurn(ctx context.Context, do func() error) error {
	b.turn.Lock()
	defer b.turn.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return do()
}

// make loads the zone and signs it on that many processors.
func (p *preparation) make(ctx context.Context, conf *pool.Zone, services map[name]*live, was *zone, now *loading, processors int) error {
	defer now.end()
	p.static, p.findings = loadZone(conf)
	if p.ring == nil || was != nil && slices.ContainsFunc(p.findings, func(f finding) bool { return !f.warning }) {
		return nil // as it is, or it will not be used
	}
	z := newZone(p.static, services, nil)
	z.counts = new(zoneCounts)
	z.number(0) // the builder gives it the one it will have
	g := &zoneSigner{zone: z, ring: p.ring, was: was, cache: new(signatureCache), now: time.Now(),
		processors: processors, progress: now}
	if err := g.sign(ctx); err != nil {
		return err
	}
	p.zone = z
	return nil
}

// prepared brings a zone into force that is ready.
func (b *builder) prepared(ctx context.Context, apex name, p *preparation, err error) {
	if b.preparations[apex] != p {
		return // there is another by now
	}
	if err != nil {
		delete(b.preparations, apex) // it is begun anew with the next look
		b.signingFailed(apex.label(), err)
		return
	}
	p.done = true
	b.build(ctx, b.table.Load())
}

// Prepared are large zones that were loaded and signed before there was a Server.
type Prepared struct {
	zones map[name]*preparation
}

// Prepare loads and signs the large ones of zones on all processors, so that a
// Server with these as its [Options.Prepared] serves soon after it runs. The log
// tells of what takes longer than some seconds. What cannot be prepared is left out:
// the Server finds out and tells why.
func Prepare(ctx context.Context, zones []*pool.Zone, log *slog.Logger) *Prepared {
	out := &Prepared{zones: make(map[name]*preparation)}
	loadings := &loadings{log: log}
	for _, conf := range zones {
		apex, err := parseName(conf.Name)
		if err != nil || len(conf.Records) < largeZone {
			continue
		}
		ring, findings := newKeyring(apex, &conf.DNSSEC, nil, time.Now())
		if len(findings) > 0 {
			continue
		}
		p := &preparation{conf: conf, hash: hashZone(conf), ring: ring, cancel: func() {}, done: true}
		if p.make(ctx, conf, nil, nil, loadings.begin(conf), allProcessors()) == nil {
			out.zones[apex] = p
		}
	}
	return out
}

// loadings are the large zones on their way, for those who wait.
type loadings struct {
	log    *slog.Logger
	newest atomic.Pointer[loading] // nil: there is none
}

// A loading is one zone that is being loaded and signed. All methods do nothing for nil.
type loading struct {
	zone         string
	made, toMake atomic.Int64 // signatures
	begun        time.Time
	ended, gone  chan struct{}
}

// firstWord and nextWord are when the log tells of a zone that takes long.
const (
	firstWord = 2 * time.Second
	nextWord  = 15 * time.Second
)

// begin begins to tell of a zone. It returns nil for one that is there in a moment.
func (a *loadings) begin(conf *pool.Zone) *loading {
	if len(conf.Records) < largeZone {
		return nil
	}
	l := &loading{zone: conf.Name, begun: time.Now(), ended: make(chan struct{}), gone: make(chan struct{})}
	a.newest.Store(l)
	go func() {
		defer close(l.gone)
		defer a.newest.CompareAndSwap(l, nil)
		word := time.NewTimer(firstWord)
		defer word.Stop()
		for {
			select {
			case <-l.ended:
				return
			case <-word.C:
				a.log.Info("zone is being loaded", "zone", l.zone, "stage", l.stage(), "after", time.Since(l.begun).Round(time.Second))
				word.Reset(nextWord)
			}
		}
	}()
	return l
}

// expect tells how many signatures are to be made.
func (l *loading) expect(signatures int) {
	if l != nil {
		l.toMake.Store(int64(signatures))
	}
}

// signed tells of one.
func (l *loading) signed() {
	if l != nil {
		l.made.Add(1)
	}
}

// end has nothing more be told.
func (l *loading) end() {
	if l != nil {
		close(l.ended)
		<-l.gone
	}
}

// stage is how far it is.
func (l *loading) stage() string {
	if of := l.toMake.Load(); of > 0 {
		return fmt.Sprintf("%d of %d signatures", l.made.Load(), of)
	}
	return "reading its records"
}
