package delegation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// A Proposal is what there is to do in one hosted zone.
type Proposal struct {
	In    HostedZone
	Zones []Zone // ours, in the order of Plans
	Plans []Plan
}

// Differs reports whether there is something to do, or in the way.
func (p *Proposal) Differs() bool {
	return slices.ContainsFunc(p.Plans, func(p Plan) bool { return len(p.Changes) > 0 || len(p.Conflicts) > 0 })
}

// Conflicts counts what is in the way.
func (p *Proposal) Conflicts() int {
	n := 0
	for _, plan := range p.Plans {
		n += len(plan.Conflicts)
	}
	return n
}

// Options say what is to be done with the delegation of zones.
type Options struct {
	Consent Consent
	Remove  bool // take away what elbow has written, instead
}

// Propose looks at the parent zones of zones, and returns what there is to do in
// each.
func (p *Parent) Propose(ctx context.Context, zones []Zone, o Options) ([]Proposal, error) {
	var out []Proposal
	for _, z := range zones {
		in, err := p.Find(ctx, z.Name)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(out, func(p Proposal) bool { return p.In == in })
		if i < 0 {
			i = len(out)
			out = append(out, Proposal{In: in})
		}
		plan, err := p.plan(ctx, in, z, o)
		if err != nil {
			return nil, err
		}
		out[i].Zones = append(out[i].Zones, z)
		out[i].Plans = append(out[i].Plans, plan)
	}
	return out, nil
}

func (p *Parent) plan(ctx context.Context, in HostedZone, z Zone, o Options) (Plan, error) {
	have, err := p.list(ctx, in, z.Name)
	if err != nil {
		return Plan{}, err
	}
	return Compare(z, have, p.Owner, o.Consent, o.Remove), nil
}

// ErrConflict is that something which elbow has not written is in the way.
var ErrConflict = errors.New("records that elbow has not written are in the way")

// tries bounds how often a batch is made anew because something in the hosted
// zone has changed since it was looked at.
const tries = 3

// Apply carries out a proposal and returns when all servers of Route 53 have it.
// All changes of a zone come at once or not at all; those of all zones do too, as
// long as they fit into one batch. Where there is a conflict, nothing is done and
// the error is [ErrConflict].
func (p *Parent) Apply(ctx context.Context, proposal Proposal, o Options) error {
	if n := proposal.Conflicts(); n > 0 {
		return fmt.Errorf("hosted zone %s: %w", proposal.In.Name, ErrConflict)
	}
	var changes []string
	for len(proposal.Plans) > 0 {
		n := fit(proposal.Plans)
		id, err := p.applyBatch(ctx, proposal.In, proposal.Zones[:n], proposal.Plans[:n], o)
		if err != nil {
			return err
		}
		if id != "" {
			changes = append(changes, id)
		}
		proposal.Zones, proposal.Plans = proposal.Zones[n:], proposal.Plans[n:]
	}
	for _, id := range changes {
		if err := p.wait(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// fit returns how many of plans make one batch, at least one.
func fit(plans []Plan) int {
	records := 0
	for i, p := range plans {
		for _, c := range p.Changes {
			for _, s := range []*Set{c.Before, c.After} {
				if s != nil {
					records += len(s.Values)
				}
			}
		}
		if records > maxBatch && i > 0 {
			return i
		}
	}
	return len(plans)
}

// applyBatch carries out plans in one batch. If Route 53 refuses it because the
// hosted zone is not any more as it was, or because an answer was lost and the
// batch is done already, it plans again. The ID is empty where nothing was to do.
func (p *Parent) applyBatch(ctx context.Context, in HostedZone, zones []Zone, plans []Plan, o Options) (string, error) {
	var refusal error
	for range tries {
		batch := Batch(plans)
		if len(batch.Changes) == 0 {
			return "", nil
		}
		id, err := p.change(ctx, in, batch)
		if err == nil {
			return id, nil
		}
		refused, ok := errors.AsType[batchError](err)
		if !ok {
			return "", err
		}
		again := make([]Plan, len(zones))
		for i, z := range zones {
			if again[i], err = p.plan(ctx, in, z, o); err != nil {
				return "", err
			}
			if len(again[i].Conflicts) > 0 {
				return "", fmt.Errorf("hosted zone %s: somebody has changed it meanwhile: %w: %s", in.Name, ErrConflict, again[i].Conflicts[0])
			}
		}
		if sameBatch(Batch(again), batch) {
			return "", refused
		}
		plans, refusal = again, refused
	}
	return "", cmp.Or(refusal, errors.New("nothing was tried"))
}

func sameBatch(a, b ChangeBatch) bool {
	return slices.EqualFunc(a.Changes, b.Changes, func(x, y BatchChange) bool {
		return x.Action == y.Action && x.ResourceRecordSet.Name == y.ResourceRecordSet.Name && x.ResourceRecordSet.Type == y.ResourceRecordSet.Type &&
			x.ResourceRecordSet.TTL == y.ResourceRecordSet.TTL && slices.Equal(x.ResourceRecordSet.ResourceRecords, y.ResourceRecordSet.ResourceRecords)
	})
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err
}

// NewDS returns the zones that get DS records which were not there: their keys
// must be served first, see [Verifier.CheckKeys].
func (p *Proposal) NewDS() []Zone {
	var out []Zone
	for i, plan := range p.Plans {
		if slices.ContainsFunc(plan.Changes, func(c Change) bool { return c.After != nil && c.After.Type == "DS" }) {
			out = append(out, p.Zones[i])
		}
	}
	return out
}
