package delegation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"

	"haslohas.com/elbow/amazon"
)

// API is what is asked of Route 53: the methods of the SDK's client of that name,
// each an action that the policy has to allow.
type API interface {
	ListHostedZonesByName(context.Context, *route53.ListHostedZonesByNameInput, ...func(*route53.Options)) (*route53.ListHostedZonesByNameOutput, error)
	ListResourceRecordSets(context.Context, *route53.ListResourceRecordSetsInput, ...func(*route53.Options)) (*route53.ListResourceRecordSetsOutput, error)
	ChangeResourceRecordSets(context.Context, *route53.ChangeResourceRecordSetsInput, ...func(*route53.Options)) (*route53.ChangeResourceRecordSetsOutput, error)
	GetChange(context.Context, *route53.GetChangeInput, ...func(*route53.Options)) (*route53.GetChangeOutput, error)
}

// NewAPI returns the API with the settings of c.
func NewAPI(c aws.Config) API { return route53.NewFromConfig(c) }

const (
	maxSets  = 10_000 // listed at and below one zone
	maxBatch = 900    // records in one batch; Route 53 takes 1000

	pollInterval = 3 * time.Second // while a change spreads
	pollTimeout  = 5 * time.Minute // it takes less than one, as a rule
)

// A HostedZone is a public zone in Route 53.
type HostedZone struct {
	Name string // without the final dot
	ID   string // empty: it is not known
}

// A Parent lists and changes the zones around ours.
type Parent struct {
	API      API
	Zone     string        // its name; empty: for each of ours the longest there is
	ID       string        // which of several of that name; empty: there must be one
	Owner    string        // who writes
	Progress func(string)  // told what is waited for; nil: nobody is
	Poll     time.Duration // from one look at a change to the next; 0: 3 s
}

// Find returns the public hosted zone that holds the delegation of zone.
func (p *Parent) Find(ctx context.Context, zone string) (HostedZone, error) {
	if p.Zone != "" {
		if !below(zone, p.Zone) || zone == p.Zone {
			return HostedZone{}, fmt.Errorf("zone %s does not lie in aws.delegation.parentZone, which is %s", zone, p.Zone)
		}
		found, err := p.named(ctx, p.Zone)
		if err == nil && found.ID == "" {
			err = fmt.Errorf("there is no public hosted zone %s in this account: is aws.delegation.parentZone right, and are these the credentials of its account?", p.Zone)
		}
		return found, err
	}
	for name := zone; ; {
		_, name, _ = strings.Cut(name, ".")
		if name == "" {
			return HostedZone{}, fmt.Errorf("there is no public hosted zone around %s in this account: are these the credentials of its account? If the parent is elsewhere, elbow delegation plan --offline says what it must hold", zone)
		}
		if found, err := p.named(ctx, name); err != nil || found.ID != "" {
			return found, err
		}
	}
}

// named returns the public hosted zone of that name, with an empty ID where
// there is none.
func (p *Parent) named(ctx context.Context, name string) (HostedZone, error) {
	out, err := p.API.ListHostedZonesByName(ctx, &route53.ListHostedZonesByNameInput{DNSName: aws.String(name + "."), MaxItems: aws.Int32(100)})
	if err != nil {
		return HostedZone{}, amazon.Explain("looking for the hosted zone "+name, err)
	}
	var ids []string
	for _, z := range out.HostedZones {
		private := z.Config != nil && z.Config.PrivateZone
		if id := strings.TrimPrefix(aws.ToString(z.Id), "/hostedzone/"); plain(aws.ToString(z.Name)) == name && !private && (p.ID == "" || id == p.ID) {
			ids = append(ids, id)
		}
	}
	switch len(ids) {
	case 0:
		return HostedZone{Name: name}, nil
	case 1:
		return HostedZone{Name: name, ID: ids[0]}, nil
	}
	return HostedZone{}, fmt.Errorf("there are %d public hosted zones %s: %s; name the one that the registrar's NS records lead to in aws.delegation.hostedZoneID, and aws.delegation.parentZone beside it",
		len(ids), name, strings.Join(ids, ", "))
}

// list returns every set at and below zone.
func (p *Parent) list(ctx context.Context, in HostedZone, zone string) ([]Set, error) {
	// Route 53 sorts names by their labels from the right, so these stand together.
	ask := &route53.ListResourceRecordSetsInput{HostedZoneId: &in.ID, StartRecordName: aws.String(zone + ".")}
	var sets []Set
	for {
		page, err := p.API.ListResourceRecordSets(ctx, ask)
		if err != nil {
			return nil, amazon.Explain(fmt.Sprintf("listing %s in the hosted zone %s", zone, in.Name), err)
		}
		for i := range page.ResourceRecordSets {
			s := fromRoute53(&page.ResourceRecordSets[i])
			if !below(s.Name, zone) {
				return sets, nil
			}
			if sets = append(sets, s); len(sets) > maxSets {
				return nil, fmt.Errorf("the hosted zone %s has more than %d record sets at and below %s", in.Name, maxSets, zone)
			}
		}
		if !page.IsTruncated || aws.ToString(page.NextRecordName) == "" {
			return sets, nil
		}
		ask.StartRecordName, ask.StartRecordType, ask.StartRecordIdentifier = page.NextRecordName, page.NextRecordType, page.NextRecordIdentifier
	}
}

// plain is a name as Route 53 writes it in our form.
func plain(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if !strings.ContainsRune(name, '\\') {
		return name
	}
	// Whatever is not a letter, digit, hyphen or underscore: \ and three octal digits.
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '\\' && i+3 < len(name) {
			if n, err := strconv.ParseUint(name[i+1:i+4], 8, 8); err == nil && n > ' ' && n < 0x7f && n != '.' {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

func fromRoute53(r *types.ResourceRecordSet) Set {
	s := Set{Name: plain(aws.ToString(r.Name)), Type: string(r.Type), TTL: int(aws.ToInt64(r.TTL))}
	switch {
	case r.AliasTarget != nil:
		s.Special = "an alias of " + plain(aws.ToString(r.AliasTarget.DNSName))
	case r.SetIdentifier != nil:
		s.Special = "one of several sets that Route 53 chooses from"
	case r.TrafficPolicyInstanceId != nil:
		s.Special = "made by a traffic policy"
	case r.HealthCheckId != nil:
		s.Special = "answered by a health check"
	}
	for _, v := range r.ResourceRecords {
		s.Values = append(s.Values, canonical(s.Type, aws.ToString(v.Value)))
	}
	slices.Sort(s.Values)
	return s
}

// canonical writes a value as wanted does.
func canonical(typ, value string) string {
	switch typ {
	case "NS":
		return plain(value) + "."
	case "A", "AAAA":
		if a, err := parseAddr(value); err == nil {
			return a.String()
		}
	case "DS":
		// The digest may be in pieces, RFC 4034 section 5.3.
		if f := strings.Fields(value); len(f) > 3 {
			return strings.Join(f[:3], " ") + " " + strings.ToUpper(strings.Join(f[3:], ""))
		}
	}
	return value
}

// A batchError is that Route 53 does not take the changes as they are.
type batchError struct{ refusal *amazon.Error }

func (e batchError) Error() string { return e.refusal.Error() }

// change carries out a batch, and returns its ID.
func (p *Parent) change(ctx context.Context, in HostedZone, b ChangeBatch) (string, error) {
	batch := &types.ChangeBatch{Comment: aws.String(b.Comment)}
	for _, c := range b.Changes {
		set := &types.ResourceRecordSet{
			Name: aws.String(c.ResourceRecordSet.Name),
			Type: types.RRType(c.ResourceRecordSet.Type),
			TTL:  aws.Int64(int64(c.ResourceRecordSet.TTL)),
		}
		for _, r := range c.ResourceRecordSet.ResourceRecords {
			set.ResourceRecords = append(set.ResourceRecords, types.ResourceRecord{Value: aws.String(r.Value)})
		}
		batch.Changes = append(batch.Changes, types.Change{Action: types.ChangeAction(c.Action), ResourceRecordSet: set})
	}
	what := "changing the hosted zone " + in.Name
	out, err := p.API.ChangeResourceRecordSets(ctx, &route53.ChangeResourceRecordSetsInput{HostedZoneId: &in.ID, ChangeBatch: batch})
	if invalid, ok := errors.AsType[*types.InvalidChangeBatch](err); ok {
		text := strings.Join(invalid.Messages, "; ")
		if text == "" {
			text = aws.ToString(invalid.Message)
		}
		return "", batchError{&amazon.Error{Kind: amazon.Rejected, What: what, Code: invalid.ErrorCode(),
			Text: "Route 53 refuses the batch, and nothing of it was done: " + amazon.OneLine(text), Err: err}}
	}
	if err != nil {
		return "", amazon.Explain(what, err)
	}
	if out.ChangeInfo == nil {
		return "", fmt.Errorf("%s: the answer has no ID of the change", what)
	}
	return aws.ToString(out.ChangeInfo.Id), nil
}

// wait returns when every server of Route 53 has the change.
func (p *Parent) wait(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	began := time.Now()
	every := p.Poll
	if every == 0 {
		every = pollInterval
	}
	for {
		out, err := p.API.GetChange(ctx, &route53.GetChangeInput{Id: &id})
		if err != nil && ctx.Err() == nil {
			return amazon.Explain("waiting for the change, which is made and spreads", err)
		}
		if err == nil && out.ChangeInfo != nil && out.ChangeInfo.Status == types.ChangeStatusInsync {
			p.tell(fmt.Sprintf("all servers of Route 53 have the change, after %s", time.Since(began).Round(time.Second)))
			return nil
		}
		p.tell(fmt.Sprintf("the change spreads to the servers of Route 53, %s so far", time.Since(began).Round(time.Second)))
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the change, which is made and spreads: %w", context.Cause(ctx))
		case <-time.After(every):
		}
	}
}

func (p *Parent) tell(text string) {
	if p.Progress != nil {
		p.Progress(text)
	}
}
