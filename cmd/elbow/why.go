package main

import (
	"github.com/spf13/cobra"

	"haslohas.com/elbow/admin"
)

func newWhy() *cobra.Command {
	var socket string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "why NAME",
		Short: "Say why a name, listener or backend is served as it is",
		Long: `Why explains what the running daemon does with NAME: a hostname, a listener, a
backend, a node, a service or a zone. It shows what is answered or served
now, each backend that counts and why, and the reason for the TTL.`,
		Example: `  elbow why web.public.haslohas.com
  elbow why 0.0.0.0:80
  elbow why udp/0.0.0.0:53
  elbow why 172.31.8.18:80
  elbow why minion2`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := admin.NewClient(socket).Why(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), w)
			}
			return admin.WriteWhy(cmd.OutOrStdout(), w, admin.TextOptions{Color: isTerminal(cmd.OutOrStdout())})
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the JSON of /api/v1/why")
	return cmd
}
