package main

import (
	"github.com/spf13/cobra"

	"haslohas.com/elbow/admin"
)

func newWhy() *cobra.Command {
	var socket string
	var asJSON bool
	var client string
	cmd := &cobra.Command{
		Use:   "why NAME",
		Short: "Say why a name, listener or backend is served as it is",
		Long: `Why explains what the running daemon does with NAME: a hostname, a listener, a
backend, a node, a service or a zone. It shows what is answered or served
now, each backend that counts and why, and the reason for the TTL. With --client
it says what somebody there is answered, where a service has dns.clients.`,
		Example: `  elbow why web.public.haslohas.com
  elbow why web.public.haslohas.com --client 10.1.0.0/16
  elbow why 0.0.0.0:80
  elbow why udp/0.0.0.0:53
  elbow why 172.31.8.18:80
  elbow why minion2`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := admin.NewClient(socket).Why(cmd.Context(), args[0], client)
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
	cmd.Flags().StringVar(&client, "client", "", "an `ADDRESS` or subnet that asks for a hostname")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the JSON of /api/v1/why")
	return cmd
}
