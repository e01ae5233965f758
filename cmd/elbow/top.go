package main

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"haslohas.com/elbow/admin"
)

func newTop() *cobra.Command {
	var socket string
	var asJSON, watch bool
	var lines int
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show which names are asked for most, and by whom",
		Long: `Top prints what the DNS server was asked most over the last five minutes: names,
the networks that asked (IPv4 /24 and IPv6 /56), names that do not exist, and
the names below which those were looked for, which is where an attack by random
names shows. Counts are estimates where there are many queries. The query log
(dns.queryLog) and dnstap (dns.dnstap) tell about single queries.`,
		Example: `  elbow top
  elbow top --watch --lines 5
  elbow top --json | jq -r '.nxdomain_below[] | "\(.queries) \(.what)"'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lines < 0 {
				return errors.New("--lines must not be negative")
			}
			client := admin.NewClient(socket)
			show := func(w io.Writer, t admin.Top, color bool) error {
				if asJSON {
					return writeJSON(w, t)
				}
				return admin.WriteTop(w, t, lines, admin.TextOptions{Color: color})
			}
			if !watch {
				t, err := client.Top(cmd.Context())
				if err != nil {
					return err
				}
				return show(cmd.OutOrStdout(), t, isTerminal(cmd.OutOrStdout()))
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return everySecond(ctx, cmd.OutOrStdout(), !asJSON, func(ctx context.Context, w io.Writer, color bool) error {
				t, err := client.Top(ctx)
				if err != nil {
					return err
				}
				return show(w, t, color)
			})
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the JSON of /api/v1/dns/top")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print again every second, until interrupted")
	cmd.Flags().IntVarP(&lines, "lines", "n", 10, "`LINES` of each list, 0 for all there are (20)")
	return cmd
}
