package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"haslohas.com/elbow/config"
	"haslohas.com/elbow/dnsserver"
	"haslohas.com/elbow/pool"
)

func newCheck() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Validate a configuration",
		Long: `Check reads a configuration and the zone files it names, as run would, and
prints each error on a line of its own:

  FILE:LINE:COLUMN: path.to.key: what is wrong

The exit status is 0 if there is none, else 1. Nothing is changed and no daemon
is needed.`,
		Example: "  elbow check --config /etc/elbow/elbow.yaml && systemctl reload elbow",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				return errSaid
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: ok, %s, %s\n", path,
				count(len(cfg.Services), "service"), count(len(cfg.DNS.Zones), "zone"))
			return err
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "the configuration `FILE`")
	_ = cmd.MarkFlagRequired("config")                // the flag is there
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // the flag is there
	cmd.Flags().SortFlags = false
}

// loadConfig reads the configuration at path with all that it names. Its error
// holds every finding, one on a line.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	var found []error
	names := namesByZone(cfg)
	for _, z := range cfg.DNS.Zones {
		for _, e := range dnsserver.CheckZone(z, names[z]) {
			found = append(found, e)
		}
	}
	if len(found) > 0 {
		return nil, errors.Join(found...)
	}
	return cfg, nil
}

// namesByZone returns the names of all services by the zone that they lie in.
func namesByZone(cfg *config.Config) map[*pool.Zone][]pool.OwnName {
	in := make(map[*pool.Zone][]pool.OwnName)
	for _, s := range cfg.Services {
		for _, n := range s.OwnNames() {
			z := cfg.DNS.Zone(n.Name)
			in[z] = append(in[z], n)
		}
	}
	return in
}

func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
