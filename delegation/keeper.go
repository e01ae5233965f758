package delegation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// firstLook is how long after the start, or a change of the configuration,
	// the first look comes: by then the zones are served.
	firstLook = 10 * time.Second

	zonesAtOnce   = 4
	maxBackoff    = time.Hour       // between two attempts to repair
	repairTimeout = 2 * time.Minute // of all zones, without the wait for Route 53
)

// Settings say what a [Keeper] looks after. The zero value: nothing.
type Settings struct {
	Zones    func(now time.Time) ([]Zone, error) // nil: nothing is looked after
	Interval time.Duration                       // from one look to the next, give or take a tenth
	Verifier Verifier

	// Parent makes what is asked to repair the parent zone; nil: nothing is
	// repaired.
	Parent func(context.Context) (*Parent, error)
}

// KeeperOptions are what a Keeper is made of.
type KeeperOptions struct {
	Log        *slog.Logger          // nil: none
	Registerer prometheus.Registerer // nil: no metrics
}

// A Keeper looks at delegations from time to time, and may repair them. It is in
// nobody's way: names are answered while the parent zone, or AWS, is out of reach.
type Keeper struct {
	log     *slog.Logger
	metrics *metrics
	changed chan struct{} // holds a value when settings did

	mu       sync.Mutex // guards all that follows
	settings Settings
	states   []Kept // sorted by zone

	// Of repairs, for the goroutine of Run alone.
	failures int
	notUntil time.Time
	said     string // what was last logged about them
}

// Kept is what a [Keeper] knows of a zone.
type Kept struct {
	Report
	Repair string // why it is not repaired; empty: it is, or needs none, or is not to be
}

// NewKeeper returns a Keeper that does nothing until it is run and has settings.
func NewKeeper(o KeeperOptions) *Keeper {
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{log: log, metrics: newMetrics(o.Registerer), changed: make(chan struct{}, 1)}
}

// Apply brings settings into force. The next look comes soon.
func (k *Keeper) Apply(s Settings) {
	k.mu.Lock()
	k.settings = s
	k.mu.Unlock()
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Kept returns what is known, sorted by zone. The caller must not change it.
func (k *Keeper) Kept() []Kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.states
}

func (k *Keeper) current() Settings {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.settings
}

// Run looks until ctx ends, and returns nil.
func (k *Keeper) Run(ctx context.Context) error {
	next := time.NewTimer(firstLook)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.changed:
			k.failures, k.notUntil = 0, time.Time{}
			next.Reset(firstLook)
		case <-next.C:
			s := k.current()
			k.round(ctx, s)
			if s.Zones != nil {
				next.Reset(s.Interval + time.Duration((rand.Float64()-0.5)/5*float64(s.Interval)))
			}
		}
	}
}

// round looks at every zone once.
func (k *Keeper) round(ctx context.Context, s Settings) {
	if s.Zones == nil {
		k.keep(nil)
		return
	}
	zones, err := s.Zones(time.Now())
	if err != nil {
		k.tell("the zones to delegate are not known", err.Error())
		return
	}
	repairs := make([]string, len(zones))
	if s.Parent != nil && len(zones) > 0 {
		if now := time.Now(); now.Before(k.notUntil) {
			for _, old := range k.Kept() {
				if i := slices.IndexFunc(zones, func(z Zone) bool { return z.Name == old.Zone }); i >= 0 {
					repairs[i] = old.Repair
				}
			}
		} else {
			repairs = k.repair(ctx, s, zones)
		}
	}
	states := make([]Kept, len(zones))
	each(make(chan struct{}, zonesAtOnce), zones, func(i int, z Zone) {
		report, _ := s.Verifier.Verify(ctx, z) // its error is that of ctx
		states[i] = Kept{report, repairs[i]}
	})
	if ctx.Err() != nil {
		return // half a look is none
	}
	slices.SortFunc(states, func(a, b Kept) int { return strings.Compare(a.Zone, b.Zone) })
	k.keep(states)
}

// keep takes over what a round has found, and logs what is different.
func (k *Keeper) keep(states []Kept) {
	k.mu.Lock()
	before := k.states
	k.states = states
	k.mu.Unlock()
	known := make(map[string]Report, len(before))
	for _, s := range before {
		known[s.Zone] = s.Report
	}
	for i := range states {
		r := &states[i].Report
		old, seen := known[r.Zone]
		switch {
		case slices.EqualFunc(old.Findings, r.Findings, func(a, b Finding) bool { return a.Code == b.Code && a.Where == b.Where }) && seen:
		case r.OK():
			k.log.Info("the delegation is as it must be", "zone", r.Zone, "parent", r.Parent)
		default:
			level := slog.LevelWarn
			if r.Findings[0].Level == Error {
				level = slog.LevelError
			}
			k.log.Log(context.Background(), level, "the delegation is not as it must be: elbow delegation verify says what to do",
				"zone", r.Zone, "findings", findingsText(r.Findings))
		}
	}
	k.metrics.show(states)
}

// findingsText is the first few findings, in a line.
func findingsText(findings []Finding) string {
	const few = 4
	var parts []string
	for _, f := range findings[:min(few, len(findings))] {
		parts = append(parts, f.String())
	}
	if more := len(findings) - few; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, "; ")
}

// repair puts right what elbow has written, zone by zone, and returns why it
// could not. After a failure of all it waits, longer each time.
func (k *Keeper) repair(ctx context.Context, s Settings, zones []Zone) []string {
	out := make([]string, len(zones))
	fail := func(err error) []string {
		if ctx.Err() != nil {
			return out
		}
		k.failures++
		pause := min(maxBackoff, s.Interval<<min(k.failures, 10))
		k.notUntil = time.Now().Add(pause)
		k.metrics.repairs("failed")
		k.tell("the delegation cannot be repaired", err.Error())
		for i := range out {
			out[i] = err.Error()
		}
		return out
	}
	looking, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	p, err := s.Parent(looking)
	if err != nil {
		return fail(err)
	}
	for i, z := range zones {
		proposals, err := p.Propose(looking, []Zone{z}, Options{})
		if err != nil {
			return fail(err)
		}
		proposal := proposals[0]
		if n := proposal.Conflicts(); n > 0 {
			out[i] = fmt.Sprintf("%v: %s", ErrConflict, proposal.Plans[0].Conflicts[0])
			k.metrics.repairs("refused")
			continue
		}
		if !proposal.Differs() {
			continue
		}
		if len(proposal.NewDS()) > 0 {
			if ds := proposal.Plans[0].young(z); ds != "" {
				out[i] = fmt.Sprintf("the DS record %s waits until its key is in the zone for %s; elbow delegation apply does not wait", ds, young)
				continue
			}
			if err := s.Verifier.CheckKeys(looking, z); err != nil {
				out[i] = err.Error()
				k.metrics.repairs("refused")
				continue
			}
		}
		if err := p.Apply(ctx, proposal, Options{}); err != nil {
			if errors.Is(err, ErrConflict) {
				out[i] = err.Error()
				k.metrics.repairs("refused")
				continue
			}
			return fail(err)
		}
		k.metrics.repairs("done")
		k.log.Info("the delegation is repaired", "zone", z.Name, "hosted_zone", proposal.In.Name, "changes", len(proposal.Plans[0].Changes))
	}
	k.failures = 0
	k.tell("the delegation cannot be repaired", strings.Join(slices.DeleteFunc(slices.Clone(out), func(s string) bool { return s == "" }), "; "))
	return out
}

// tell logs what went wrong, once.
func (k *Keeper) tell(what, err string) {
	if err != k.said && err != "" {
		k.log.Warn(what, "err", err)
	}
	k.said = err
}

// young returns a DS record that is to come and whose key is young; empty: none.
func (p *Plan) young(z Zone) string {
	for _, c := range p.Changes {
		if c.After == nil || c.After.Type != "DS" {
			continue
		}
		for _, ds := range c.After.Values {
			if slices.Contains(z.Keys.Young, ds) && (c.Before == nil || !slices.Contains(c.Before.Values, ds)) {
				return ds
			}
		}
	}
	return ""
}
