package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"haslohas.com/elbow/amazon"
	"haslohas.com/elbow/config"
	"haslohas.com/elbow/delegation"
	"haslohas.com/elbow/dnsserver"
)

func newDelegation() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delegation",
		Short: "The way from the parent zone to ours: show, make, check, remove",
		Long: `The commands below are about what the parent zone has to hold so that resolvers
find the zones of a configuration: NS records, the addresses of name servers
(glue), and DS records of signed zones. The parent zone is one of Route 53; verify
does not care whose it is. No daemon is needed. The steps are in docs/aws.md.

The exit status is 0, 1 after an error, and 2 where plan and verify find that
something differs.`,
		Example: `  elbow delegation plan --config /etc/elbow/elbow.yaml
  elbow delegation apply --config /etc/elbow/elbow.yaml
  elbow delegation verify --config /etc/elbow/elbow.yaml`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newDelegationPlan(), newDelegationApply(), newDelegationVerify(), newDelegationRemove())
	return cmd
}

// delegating is what the flags of these commands say.
type delegating struct {
	path  string
	zones []string
}

func (d *delegating) flags(cmd *cobra.Command) {
	configFlag(cmd, &d.path)
	cmd.Flags().StringSliceVar(&d.zones, "zone", nil, "only this `ZONE`; may be given several times")
}

// load returns the configuration and the zones that are asked for.
func (d *delegating) load(cmd *cobra.Command) (*config.Config, []delegation.Zone, error) {
	cfg, err := loadConfig(d.path)
	if err != nil {
		return nil, nil, err
	}
	all, within, err := delegated(cfg, time.Now())
	if err != nil {
		return nil, nil, err
	}
	for _, w := range within {
		if len(d.zones) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), w)
		}
	}
	if len(d.zones) == 0 {
		if len(all) == 0 {
			return nil, nil, fmt.Errorf("%s has no zone that a parent zone could lead to", d.path)
		}
		return cfg, all, nil
	}
	var some []delegation.Zone
	for _, name := range d.zones {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		found := false
		for _, z := range all {
			if z.Name == name {
				some, found = append(some, z), true
			}
		}
		if !found {
			return nil, nil, fmt.Errorf("%s has no zone %s that a parent zone could lead to", d.path, name)
		}
	}
	return cfg, some, nil
}

// delegated returns the zones that a zone of others leads to, and what there is
// to say about the rest: a zone in another of ours is delegated there.
func delegated(cfg *config.Config, now time.Time) (zones []delegation.Zone, within []string, err error) {
	var all []delegation.Zone
	for _, z := range cfg.DNS.Zones {
		keys, err := delegation.KeysOf(z, now)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, delegation.Zone{Name: z.Name, NameServers: dnsserver.NameServers(z), Keys: keys, TTL: cfg.AWS.Delegation.TTL})
	}
	for _, z := range all {
		if around, ours := delegation.Around(all, z.Name); ours {
			within = append(within, fmt.Sprintf("zone %s lies in %s, which is one of ours too: nothing is to be done in a parent zone", z.Name, around.Name))
			continue
		}
		zones = append(zones, z)
	}
	return zones, within, nil
}

// newParent returns what asks Route 53, as the configuration says.
func newParent(ctx context.Context, a config.AWS, progress func(string)) (*delegation.Parent, error) {
	c, err := amazon.Load(ctx, amazon.Options{Region: a.Region, Endpoint: a.Endpoint, DefaultRegion: "us-east-1"})
	if err != nil {
		return nil, err
	}
	if err := amazon.Credentials(ctx, c); err != nil {
		return nil, err
	}
	return &delegation.Parent{
		API:      delegation.NewAPI(c),
		Zone:     a.Delegation.ParentZone,
		ID:       a.Delegation.HostedZoneID,
		Owner:    a.Delegation.Owner,
		Progress: progress,
	}, nil
}

// onStderr tells a person what is waited for.
func onStderr(cmd *cobra.Command) func(string) {
	return func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), text) }
}

func consentFlags(cmd *cobra.Command, c *delegation.Consent) {
	cmd.Flags().BoolVar(&c.Adopt, "adopt", false, "take over NS, DS and glue that elbow has not written, and put them right")
	cmd.Flags().BoolVar(&c.Hide, "hide", false, "let a new delegation hide other records at and below its name")
}

func newDelegationPlan() *cobra.Command {
	var (
		d       delegating
		consent delegation.Consent
		offline bool
		format  = "diff"
	)
	cmd := &cobra.Command{
		Use:   "plan --config FILE",
		Short: "Show what apply would change in the parent zone",
		Long: `Plan looks at the parent zone in Route 53 and shows what apply would change there:

  diff       lines as in a zone file, + to come, - to go, ! what is in the way
  json       what aws route53 change-resource-record-sets takes as --change-batch
  terraform  resources that hold the same, for who keeps the parent zone there

Without credentials, or with --offline, it shows what the parent zone must
hold, without regard to what is there; json is then made of UPSERTs.

The exit status is 0 if nothing is to change or nobody was asked, 2 if something
is.`,
		Example: `  elbow delegation plan --config elbow.yaml
  elbow delegation plan --config elbow.yaml --offline --format json > batch.json
  aws route53 change-resource-record-sets --hosted-zone-id Z0123456789ABCDEFGHIJ --change-batch file://batch.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "diff" && format != "json" && format != "terraform" {
				return fmt.Errorf("--format: unknown value %q, want one of diff, json, terraform", format)
			}
			cfg, zones, err := d.load(cmd)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if format == "terraform" || offline {
				return showWanted(out, format, cfg, zones)
			}
			p, err := newParent(cmd.Context(), cfg.AWS, onStderr(cmd))
			if e, ok := errors.AsType[*amazon.Error](err); ok && e.Kind == amazon.NoCredentials {
				fmt.Fprintf(cmd.ErrOrStderr(), "nobody was asked what is there: %v\n", err)
				return showWanted(out, format, cfg, zones)
			}
			if err != nil {
				return err
			}
			proposals, err := p.Propose(cmd.Context(), zones, delegation.Options{Consent: consent})
			if err != nil {
				return err
			}
			return showProposals(cmd, format, proposals)
		},
	}
	d.flags(cmd)
	consentFlags(cmd, &consent)
	cmd.Flags().StringVar(&format, "format", format, "diff, json or terraform")
	cmd.Flags().BoolVar(&offline, "offline", false, "ask nobody: show what must be there")
	return cmd
}

// showWanted prints what the parent zone must hold.
func showWanted(out io.Writer, format string, cfg *config.Config, zones []delegation.Zone) error {
	switch format {
	case "json":
		return delegation.WriteJSON(out, delegation.Upserts(zones))
	case "terraform":
		byParent := make(map[string][]delegation.Zone)
		var parents []string
		for _, z := range zones {
			parent := cfg.AWS.Delegation.ParentZone
			if parent == "" {
				_, parent, _ = strings.Cut(z.Name, ".")
			}
			if byParent[parent] == nil {
				parents = append(parents, parent)
			}
			byParent[parent] = append(byParent[parent], z)
		}
		for _, parent := range parents {
			if err := delegation.WriteTerraform(out, parent, byParent[parent]); err != nil {
				return err
			}
		}
		return nil
	}
	return delegation.WriteZoneFile(out, zones)
}

// showProposals prints them and returns errDiffers if there is something to do.
func showProposals(cmd *cobra.Command, format string, proposals []delegation.Proposal) error {
	differs := false
	for i, p := range proposals {
		differs = differs || p.Differs()
		if format == "json" {
			if len(proposals) > 1 {
				fmt.Fprintf(cmd.ErrOrStderr(), "batch %d is for the hosted zone %s, %s\n", i+1, p.In.Name, p.In.ID)
			}
			if err := delegation.WriteJSON(cmd.OutOrStdout(), delegation.Batch(p.Plans)); err != nil {
				return err
			}
			for _, plan := range p.Plans {
				for _, c := range plan.Conflicts {
					fmt.Fprintf(cmd.ErrOrStderr(), "in the way: %s\n", c)
				}
			}
			continue
		}
		if err := delegation.WriteDiff(cmd.OutOrStdout(), fmt.Sprintf("hosted zone %s (%s)", p.In.Name, p.In.ID), p.Plans); err != nil {
			return err
		}
	}
	if differs {
		return errDiffers
	}
	return nil
}

func newDelegationApply() *cobra.Command {
	var (
		d         delegating
		consent   delegation.Consent
		unchecked bool
	)
	cmd := &cobra.Command{
		Use:   "apply --config FILE",
		Short: "Put what must be there into the parent zone",
		Long: `Apply does what plan shows: all of it in one batch, or nothing; then it waits until
all servers of Route 53 have it. If nothing is to change, nothing is.

What elbow has not written it leaves alone, and then it does nothing at all:

  --adopt  takes over NS, DS and glue of these zones, whoever wrote them
  --hide   lets a new delegation hide the other records at and below its name

DS records are written only if a name server of the zone serves the keys that
they are of.`,
		Example: "  elbow delegation apply --config /etc/elbow/elbow.yaml && elbow delegation verify --config /etc/elbow/elbow.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, zones, err := d.load(cmd)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			p, err := newParent(ctx, cfg.AWS, onStderr(cmd))
			if err != nil {
				return err
			}
			o := delegation.Options{Consent: consent}
			proposals, err := p.Propose(ctx, zones, o)
			if err != nil {
				return err
			}
			if !unchecked {
				v := verifier(cfg.AWS.Delegation)
				for _, proposal := range proposals {
					for _, z := range proposal.NewDS() {
						if err := v.CheckKeys(ctx, z); err != nil {
							return fmt.Errorf("nothing was changed: %w; with --unchecked it is done all the same", err)
						}
					}
				}
			}
			return carryOut(ctx, cmd, p, proposals, o)
		},
	}
	d.flags(cmd)
	consentFlags(cmd, &consent)
	cmd.Flags().BoolVar(&unchecked, "unchecked", false, "write DS records without a look at the keys that are served")
	return cmd
}

// carryOut shows proposals and applies them, if nothing is in the way of any.
func carryOut(ctx context.Context, cmd *cobra.Command, p *delegation.Parent, proposals []delegation.Proposal, o delegation.Options) error {
	if err := showProposals(cmd, "diff", proposals); err != nil && !errors.Is(err, errDiffers) {
		return err
	}
	for _, proposal := range proposals {
		if n := proposal.Conflicts(); n > 0 {
			return fmt.Errorf("nothing was changed: %w, see ! above", delegation.ErrConflict)
		}
	}
	for _, proposal := range proposals {
		if err := p.Apply(ctx, proposal, o); err != nil {
			return err
		}
	}
	return nil
}

func newDelegationRemove() *cobra.Command {
	var (
		d     delegating
		adopt bool
		yes   bool
	)
	cmd := &cobra.Command{
		Use:   "remove --config FILE --yes",
		Short: "Take what elbow has written out of the parent zone",
		Long: `Remove deletes the NS, DS and address records that elbow has written into the parent
zone, in one batch: after that nobody is led to these zones. What it has not written
stays, and what somebody has changed since stays too, unless --adopt says otherwise.

Without --yes it shows what it would delete, with exit status 2.`,
		Example: "  elbow delegation remove --config /etc/elbow/elbow.yaml --zone public.haslohas.com --yes",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, zones, err := d.load(cmd)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			p, err := newParent(ctx, cfg.AWS, onStderr(cmd))
			if err != nil {
				return err
			}
			o := delegation.Options{Remove: true, Consent: delegation.Consent{Adopt: adopt}}
			proposals, err := p.Propose(ctx, zones, o)
			if err != nil {
				return err
			}
			if yes {
				return carryOut(ctx, cmd, p, proposals, o)
			}
			err = showProposals(cmd, "diff", proposals)
			if errors.Is(err, errDiffers) {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing was deleted: say --yes")
			}
			return err
		},
	}
	d.flags(cmd)
	cmd.Flags().BoolVar(&adopt, "adopt", false, "delete what elbow has written even if somebody has changed it since")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func newDelegationVerify() *cobra.Command {
	var (
		d       delegating
		servers []string
		asJSON  bool
		private bool
		port    uint16
	)
	cmd := &cobra.Command{
		Use:   "verify --config FILE",
		Short: "Look from outside whether resolvers find the zones",
		Long: `Verify asks as a resolver does, without any right in the cloud: the servers of the
parent zone for NS, glue and DS, and the name servers that they lead to, by UDP and
TCP. What is not as it must be is printed with what to do.

It is best run on another host too: from the host itself, a firewall that shuts out the
rest of the world is not seen.

The exit status is 0 if everything is as it must be, 2 if not.`,
		Example: `  elbow delegation verify --config /etc/elbow/elbow.yaml
  elbow delegation verify --config elbow.yaml --zone public.haslohas.com --parent-server 205.251.192.1 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, zones, err := d.load(cmd)
			if err != nil {
				return err
			}
			v := verifier(cfg.AWS.Delegation)
			v.Port = port
			v.Private = v.Private || private
			if len(servers) > 0 {
				v.ParentServers = nil
			}
			for _, s := range servers {
				a, err := parseServer(s)
				if err != nil {
					return err
				}
				v.ParentServers = append(v.ParentServers, a)
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			var reports []delegation.Report
			for _, z := range zones {
				r, err := v.Verify(ctx, z)
				if err != nil {
					return err
				}
				reports = append(reports, r)
			}
			return showReports(cmd.OutOrStdout(), reports, asJSON)
		},
	}
	d.flags(cmd)
	cmd.Flags().StringSliceVar(&servers, "parent-server", nil, "ask this `ADDRESS` or ADDRESS:PORT for the delegation; may be given several times")
	cmd.Flags().BoolVar(&private, "private", false, "addresses of name servers may be private")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().Uint16Var(&port, "port", 0, "the port that our name servers are asked at")
	_ = cmd.Flags().MarkHidden("port") // the flag is there; resolvers know port 53 alone, so this is for tests
	return cmd
}

func parseServer(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a.Unmap(), 53), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 {
		return a, fmt.Errorf("--parent-server: %q is no address, with or without a port", s)
	}
	return a, nil
}

// verifier looks as the configuration says.
func verifier(c config.Delegation) delegation.Verifier {
	return delegation.Verifier{ParentZone: c.ParentZone, ParentServers: c.ParentServers, Private: c.Private}
}

// showReports prints reports and returns errDiffers if there is a finding.
func showReports(out io.Writer, reports []delegation.Report, asJSON bool) error {
	differs := false
	for _, r := range reports {
		differs = differs || !r.OK()
	}
	var err error
	if asJSON {
		err = writeJSON(out, reports)
	} else {
		err = delegation.WriteReports(out, reports)
	}
	if err == nil && differs {
		return errDiffers
	}
	return err
}

// keepDelegation translates a configuration into what the daemon looks after.
func keepDelegation(c *config.Config) delegation.Settings {
	d := c.AWS.Delegation
	if !d.On {
		return delegation.Settings{}
	}
	s := delegation.Settings{
		Zones: func(now time.Time) ([]delegation.Zone, error) {
			zones, _, err := delegated(c, now)
			return zones, err
		},
		Interval: d.Interval,
		Verifier: verifier(d),
	}
	if d.Manage {
		var parent *delegation.Parent // made once: it keeps the credentials it has found
		s.Parent = func(ctx context.Context) (*delegation.Parent, error) {
			if parent != nil {
				return parent, nil
			}
			p, err := newParent(ctx, c.AWS, nil)
			parent = p
			return p, err
		}
	}
	return s
}
