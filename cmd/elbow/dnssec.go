package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"

	"haslohas.com/elbow/config"
	"haslohas.com/elbow/dnssec"
)

func newDNSSEC() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dnssec",
		Short: "Keys of signed zones: make, show, roll over",
		Long: `The commands below work on the files of keys, in the format of BIND, and
need no daemon. A daemon that runs sees what they change and follows. The
steps of a rollover are in docs/dnssec.md.`,
		Example: `  elbow dnssec keygen --zone public.haslohas.com --dir /etc/elbow/keys
  elbow dnssec ds --dir /etc/elbow/keys public.haslohas.com`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newKeygen(), newDS(), newActivate(), newRemove())
	return cmd
}

// A keyFolder is where the keys of a zone lie, as the flags say.
type keyFolder struct{ zone, dir string }

func (f *keyFolder) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.zone, "zone", "", "the `ZONE`")
	cmd.Flags().StringVar(&f.dir, "dir", "", "the `FOLDER` with its keys")
	_ = cmd.MarkFlagRequired("zone") // the flag is there
	_ = cmd.MarkFlagRequired("dir")  // as above
	_ = cmd.MarkFlagDirname("dir")   // as above
	cmd.Flags().SortFlags = false
}

// key returns the key with that tag, and the others.
func (f *keyFolder) key(tag string) (*dnssec.Key, []*dnssec.Key, error) {
	n, err := strconv.ParseUint(tag, 10, 16)
	if err != nil {
		return nil, nil, fmt.Errorf("%q is no tag: want a number such as elbow dnssec ds shows", tag)
	}
	keys, err := dnssec.Load(f.dir, f.zone)
	if err != nil {
		return nil, nil, err
	}
	var found *dnssec.Key
	var others []*dnssec.Key
	for _, k := range keys {
		switch {
		case k.Tag != uint16(n):
			others = append(others, k)
		case found != nil:
			return nil, nil, fmt.Errorf("two keys of %s in %s have the tag %d", f.zone, f.dir, n)
		default:
			found = k
		}
	}
	if found == nil {
		return nil, nil, fmt.Errorf("no key of %s in %s has the tag %d", f.zone, f.dir, n)
	}
	return found, others, nil
}

func newKeygen() *cobra.Command {
	var (
		at        keyFolder
		algorithm = dnssec.ECDSAP256.String()
		standby   bool
	)
	cmd := &cobra.Command{
		Use:   "keygen --zone ZONE --dir FOLDER",
		Short: "Make a key for a zone",
		Long: `Keygen makes a key that signs the whole zone (CSK) and writes its files into a
folder, which is made if it is not there. The private one is for its owner alone.

The first key of a zone signs at once. The one that is to follow it is made with
--standby: it is in the zone, and does not sign until elbow dnssec activate.
A key of another algorithm must sign from the beginning.`,
		Example: `  elbow dnssec keygen --zone public.haslohas.com --dir /etc/elbow/keys
  elbow dnssec keygen --zone public.haslohas.com --dir /etc/elbow/keys --standby`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := dnssec.ParseAlgorithm(algorithm)
			if err != nil {
				return fmt.Errorf("--algorithm: %w", err)
			}
			return keygen(cmd.OutOrStdout(), at, a, standby, time.Now())
		},
	}
	at.flags(cmd)
	cmd.Flags().StringVar(&algorithm, "algorithm", algorithm, "ecdsap256 or ed25519")
	cmd.Flags().BoolVar(&standby, "standby", false, "put it in the zone, and do not sign with it yet")
	return cmd
}

func keygen(out io.Writer, at keyFolder, a dnssec.Algorithm, standby bool, now time.Time) error {
	if _, ok := dns.IsDomainName(at.zone); !ok || at.zone == "" {
		return fmt.Errorf("--zone: %q is no domain name", at.zone)
	}
	if err := os.MkdirAll(at.dir, 0o700); err != nil {
		return fmt.Errorf("making the folder for keys: %w", err)
	}
	keys, err := dnssec.Load(at.dir, at.zone)
	if err != nil {
		return err
	}
	active := false
	for _, k := range keys {
		active = active || k.Times.Signs(now) && k.Record.Algorithm == uint8(a)
	}
	switch {
	case active && !standby:
		return fmt.Errorf("%s has an active key of %s: a key to follow it is made with --standby", at.zone, a)
	case standby && !active:
		return fmt.Errorf("%s has no active key of %s that a standby could follow: leave out --standby", at.zone, a)
	}
	k, err := newKey(at.zone, a, standby, now, keys)
	if err != nil {
		return err
	}
	if err := k.Save(at.dir); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\ntag %d, %s, %s\n", filepath.Join(at.dir, k.Name()+".private"), k.Tag, a, k.Times.Stage(now))
	return err
}

// newKey makes a key whose tag no other has.
func newKey(zone string, a dnssec.Algorithm, standby bool, now time.Time, others []*dnssec.Key) (*dnssec.Key, error) {
	for {
		k, err := dnssec.Generate(zone, a, standby, now)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(others, func(o *dnssec.Key) bool { return o.Tag == k.Tag }) {
			return k, nil
		}
	}
}

func newDS() *cobra.Command {
	var dir, path string
	cmd := &cobra.Command{
		Use:   "ds (--config FILE | --dir FOLDER) ZONE",
		Short: "Show the keys of a zone, the next step, and the DS records for its parent",
		Long: `Ds shows the keys of a zone, what each is for now and what is to be done next, the
DS records that the parent zone is to have, and the CDS and CDNSKEY records by
which the zone asks for them.

  standby   in the zone, to follow the one that is active
  active    it signs
  retired   it does not sign any more; answers it has signed may be in caches
  waiting   not in the zone yet
  removed   not in the zone any more`,
		Example: `  elbow dnssec ds --config /etc/elbow/elbow.yaml public.haslohas.com
  elbow dnssec ds --dir /etc/elbow/keys public.haslohas.com`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			zone := strings.ToLower(strings.TrimSuffix(args[0], "."))
			if path != "" {
				var err error
				if dir, err = keysOf(path, zone); err != nil {
					return err
				}
			}
			keys, err := dnssec.Load(dir, zone)
			if err != nil {
				return err
			}
			if len(keys) == 0 {
				return fmt.Errorf("there is no key of %s in %s", zone, dir)
			}
			return showKeys(cmd.OutOrStdout(), keyFolder{zone, dir}, keys, time.Now())
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "the configuration `FILE` that names the folder")
	cmd.Flags().StringVar(&dir, "dir", "", "the `FOLDER` with the keys")
	cmd.MarkFlagsOneRequired("config", "dir")
	cmd.MarkFlagsMutuallyExclusive("config", "dir")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // the flag is there
	_ = cmd.MarkFlagDirname("dir")                    // as above
	cmd.Flags().SortFlags = false
	return cmd
}

// keysOf returns the folder with the keys of a zone.
func keysOf(path, zone string) (string, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return "", err
	}
	for _, z := range cfg.DNS.Zones {
		if z.Name == zone && z.DNSSEC.Folder != "" {
			return z.DNSSEC.Folder, nil
		}
	}
	return "", fmt.Errorf("%s signs no zone %s: give it dnssec with a folder of keys", path, zone)
}

func showKeys(out io.Writer, at keyFolder, keys []*dnssec.Key, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tALGORITHM\tIS\tSINCE\tNEXT CHANGE")
	for _, k := range keys {
		next := "-"
		if at := k.Times.Next(now); !at.IsZero() {
			next = fmt.Sprintf("%s: %s", at.UTC().Format(time.RFC3339), k.Times.Stage(at))
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", k.Tag, dnssec.Algorithm(k.Record.Algorithm), k.Times.Stage(now), since(k.Times, now), next)
	}
	err := w.Flush()
	for _, step := range nextSteps(at, keys, now) {
		_, e := fmt.Fprintf(out, "\n%s\n", step)
		err = errors.Join(err, e)
	}
	for _, section := range []struct {
		title  string
		record func(*dnssec.Key) dns.RR
	}{
		{"DS records for the parent zone", func(k *dnssec.Key) dns.RR { return k.DS() }},
		{"CDS records in the zone, unless cds says otherwise", func(k *dnssec.Key) dns.RR { return k.DS().ToCDS() }},
		{"CDNSKEY records in the zone, unless cds says otherwise", func(k *dnssec.Key) dns.RR { return k.Record.ToCDNSKEY() }},
	} {
		_, e := fmt.Fprintf(out, "\n; %s\n", section.title)
		err = errors.Join(err, e)
		for _, k := range keys {
			if k.Times.Published(now) {
				_, e := fmt.Fprintln(out, section.record(k))
				err = errors.Join(err, e)
			}
		}
	}
	return err
}

// nextSteps says what is to be done to end a change of keys, in the order of
// docs/dnssec.md; nothing where none is under way.
func nextSteps(at keyFolder, keys []*dnssec.Key, now time.Time) (steps []string) {
	step := func(format string, args ...any) { steps = append(steps, "next: "+fmt.Sprintf(format, args...)) }
	var active []*dnssec.Key
	for _, k := range keys {
		if k.Times.Signs(now) {
			active = append(active, k)
		}
	}
	if len(active) > 1 { // only a change of the algorithm has two
		step("give the parent zone the DS records of all keys below, and wait; then take those of the old one out, and wait;\n"+
			"      then elbow dnssec remove --zone %s --dir %s OLD (docs/dnssec.md, Another algorithm)", at.zone, at.dir)
		return steps
	}
	for _, k := range keys {
		switch k.Times.Stage(now) {
		case "standby":
			step("give the parent zone all DS records below, and wait for the TTL that DS records have there;\n"+
				"      then, not before %s: elbow dnssec activate --zone %s --dir %s %d", known(k).Format(time.RFC3339), at.zone, at.dir, k.Tag)
		case "retired":
			step("wait until what key %d has signed has left the caches: the longest TTL of the zone, from %s on;\n"+
				"      then elbow dnssec remove --zone %s --dir %s %d", k.Tag, k.Times.Inactive.UTC().Format(time.RFC3339), at.zone, at.dir, k.Tag)
		}
	}
	return steps
}

// known is when every cache knows a key that is in the zone.
func known(k *dnssec.Key) time.Time { return k.Times.Publish.Add(dnssec.TTL * time.Second).UTC() }

// since says when a key began to play its part.
func since(t dnssec.Times, now time.Time) string {
	var last time.Time
	for _, at := range []time.Time{t.Created, t.Publish, t.Activate, t.Inactive, t.Delete} {
		if !at.After(now) && at.After(last) {
			last = at
		}
	}
	if last.IsZero() {
		return "-"
	}
	return last.UTC().Format(time.RFC3339)
}

func newActivate() *cobra.Command {
	var at keyFolder
	var force bool
	cmd := &cobra.Command{
		Use:   "activate --zone ZONE --dir FOLDER TAG",
		Short: "Sign with a standby key instead of the one before",
		Long: `Activate lets a standby key sign, and retires the one of its algorithm that did. It
refuses while caches may not know the new key: for an hour, the TTL of DNSKEY,
after it was made.

Whether the parent zone has the DS record of the new key, it does not know:
look there first.`,
		Example: "  elbow dnssec activate --zone public.haslohas.com --dir /etc/elbow/keys 20326",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return activate(cmd.OutOrStdout(), at, args[0], force, time.Now())
		},
	}
	at.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "do not wait until caches know the key")
	return cmd
}

func activate(out io.Writer, at keyFolder, tag string, force bool, now time.Time) error {
	k, others, err := at.key(tag)
	if err != nil {
		return err
	}
	if stage := k.Times.Stage(now); stage != "standby" {
		return fmt.Errorf("key %d is %s: only a standby can be activated", k.Tag, stage)
	}
	if now.Before(known(k)) && !force {
		return fmt.Errorf("caches may not know key %d before %s", k.Tag, known(k).Format(time.RFC3339))
	}
	now = now.UTC().Truncate(time.Second)
	k.Times.Activate = now
	// The new one first: a zone with two active keys is signed, one with none is not.
	if err := k.Save(at.dir); err != nil {
		return err
	}
	fmt.Fprintf(out, "key %d is active\n", k.Tag)
	for _, o := range others {
		if o.Record.Algorithm == k.Record.Algorithm && o.Times.Signs(now) {
			o.Times.Inactive = now
			if err := o.Save(at.dir); err != nil {
				return err
			}
			fmt.Fprintf(out, "key %d is retired; remove it when all it has signed has left the caches: after the longest TTL of the zone\n", o.Tag)
		}
	}
	return nil
}

func newRemove() *cobra.Command {
	var at keyFolder
	cmd := &cobra.Command{
		Use:   "remove --zone ZONE --dir FOLDER TAG",
		Short: "Take a key that is done with out of the zone",
		Long: `Remove takes the DNSKEY, CDS and CDNSKEY records of a key out of the zone. Its files
stay. One that signs is removed only if another does too, which is the end of a
change of the algorithm.`,
		Example: "  elbow dnssec remove --zone public.haslohas.com --dir /etc/elbow/keys 19036",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return remove(cmd.OutOrStdout(), at, args[0], time.Now())
		},
	}
	at.flags(cmd)
	return cmd
}

func remove(out io.Writer, at keyFolder, tag string, now time.Time) error {
	k, others, err := at.key(tag)
	if err != nil {
		return err
	}
	left := 0
	for _, o := range others {
		if o.Times.Signs(now) {
			left++
		}
	}
	switch {
	case k.Times.Stage(now) == "removed":
		return fmt.Errorf("key %d is removed already", k.Tag)
	case left == 0:
		return fmt.Errorf("no other key of %s is active: nothing would sign the zone", at.zone)
	}
	k.Times.Delete = now.UTC().Truncate(time.Second)
	if err := k.Save(at.dir); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "key %d is removed; now its DS record can leave the parent zone\n", k.Tag)
	return err
}
