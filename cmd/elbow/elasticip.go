package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"haslohas.com/elbow/config"
	"haslohas.com/elbow/elasticip"
)

func newElasticIPCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "elasticip",
		Short: "Show where the Elastic IP is, or take it",
		Long: `Elasticip is for the public address of this host: the Elastic IP of
aws.elasticIP.allocationID in the configuration, or the first of host.addresses
that is one. It runs on the instance that is to have it, and needs no daemon.`,
		Args: cobra.NoArgs,
	}
	cmd.AddCommand(newElasticIPStatus(), newElasticIPTake())
	return cmd
}

func newElasticIPStatus() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "status --config FILE",
		Short: "Ask EC2 where the Elastic IP is",
		Long: `Status asks EC2 where the Elastic IP is. The exit status is 0 if that is this
instance, 2 if it is elsewhere, and 1 if that cannot be found out.`,
		Example: "  elbow elasticip status --config /etc/elbow/elbow.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(path)
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				return errSaid
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
			defer cancel()
			b, err := elasticip.Status(ctx, elasticIPOptions(c))
			if err != nil {
				return err
			}
			if err := writeBelief(cmd.OutOrStdout(), b); err != nil {
				return err
			}
			if !b.Here {
				return errDiffers
			}
			return nil
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func newElasticIPTake() *cobra.Command {
	var path string
	var force bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "take --config FILE",
		Short: "Move the Elastic IP to this instance",
		Long: `Take moves the Elastic IP to this instance, from wherever it is, and waits until
EC2 says that it has arrived. Connections by that address end. It is for hosts
that take no turns: where aws.elasticIP.takeover is true, the host that holds the
lease would take the address back, and --force is needed.`,
		Example: "  elbow elasticip take --config /etc/elbow/elbow.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(path)
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				return errSaid
			}
			if c.AWS.ElasticIP.Takeover && !force {
				return fmt.Errorf("aws.elasticIP.takeover is true: the host that holds the lease %s/%s would take the address back; stop the daemon there, or use --force",
					c.AWS.ElasticIP.Lease.Namespace, c.AWS.ElasticIP.Lease.Name)
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return takeElasticIP(ctx, cmd.OutOrStdout(), c, timeout)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&force, "force", false, "take it although hosts take turns")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "give up after this time")
	return cmd
}

func takeElasticIP(ctx context.Context, out io.Writer, c *config.Config, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	b, moved, displaced, err := elasticip.Take(ctx, elasticIPOptions(c))
	if err != nil {
		return err
	}
	switch {
	case moved == "":
		fmt.Fprintf(out, "the Elastic IP %s was here already\n", b.Address)
	default:
		fmt.Fprintf(out, "the Elastic IP %s is here now; it was at %s\n", b.Address, moved)
	}
	if len(displaced) > 0 {
		fmt.Fprintf(out, "this instance has lost %s by it: an instance has one Elastic IP\n", strings.Join(displaced, ", "))
	}
	return nil
}

func writeBelief(out io.Writer, b elasticip.Belief) error {
	where := "is at no instance"
	switch {
	case b.Here:
		where = "is at this instance"
	case b.Holder != "":
		where = "is at " + b.Holder
	}
	_, err := fmt.Fprintf(out, "%s (%s) %s; this is %s\n", b.Address, b.Allocation, where, b.Instance)
	return err
}
