package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"haslohas.com/elbow/admin"
)

func newForce() *cobra.Command {
	var socket string
	var period time.Duration
	cmd := &cobra.Command{
		Use:   "force up|down BACKEND",
		Short: "Put your own verdict in place of the probes'",
		Long: `Force lets backends be up or down whatever their probes say, until elbow unforce
or for the time of --for. It stays in force over restarts. A backend that is
forced down is never served, not even when all others are down.

` + targetHelp,
		Example: `  elbow force down 172.31.8.18:80 --for 1h
  elbow force up minion1`,
		Args:      cobra.ExactArgs(2),
		ValidArgs: []string{"up", "down"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "up" && args[0] != "down" {
				return fmt.Errorf("force %s: want up or down, as in: elbow force down %s", args[0], args[1])
			}
			if period < 0 {
				return fmt.Errorf("--for %s: want a time ahead", period)
			}
			affected, err := admin.NewClient(socket).Force(cmd.Context(), args[1], args[0] == "up", period)
			return report(cmd, affected, err)
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().DurationVar(&period, "for", 0, "end by itself after this time; 0: never")
	return cmd
}

func newUnforce() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:     "unforce BACKEND",
		Short:   "Let the probes decide again",
		Long:    "Unforce ends what force began.\n\n" + targetHelp,
		Example: "  elbow unforce 172.31.8.18:80",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			affected, err := admin.NewClient(socket).Unforce(cmd.Context(), args[0])
			return report(cmd, affected, err)
		},
	}
	socketFlag(cmd, &socket)
	return cmd
}
