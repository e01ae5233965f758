package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"haslohas.com/elbow/admin"
	"haslohas.com/elbow/pool"
)

const targetHelp = `The target is the name of a node, a backend's address (172.31.8.18:80), or a
service and the address (web/172.31.8.18:80).`

func newDrain() *cobra.Command {
	var socket string
	var wait bool
	cmd := &cobra.Command{
		Use:   "drain NODE-or-BACKEND",
		Short: "Take a node or backend out of service without breaking anything",
		Long: `Drain takes the backends out of DNS at once, and out of the proxy when the
answers that were given have run out. Established connections may go on until
the service's drain.timeout. With --wait it says when it is safe to power off.

A drain stays in force, over restarts too, until elbow undrain.

` + targetHelp,
		Example: "  elbow drain minion2 --wait && ssh minion2 sudo poweroff",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client := admin.NewClient(socket)
			affected, err := client.Drain(cmd.Context(), args[0])
			if err := report(cmd, affected, err); err != nil || !wait {
				return err
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return awaitDrained(ctx, client, args[0], cmd.OutOrStdout())
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it is safe to power off")
	return cmd
}

// awaitDrained prints the progress of a drain, a line for each change, until
// every backend is drained.
func awaitDrained(ctx context.Context, client *admin.Client, target string, w io.Writer) error {
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	last := ""
	for {
		affected, err := client.Affected(ctx, target)
		if ctx.Err() != nil {
			return errors.New("interrupted: the drain goes on, elbow undrain ends it")
		}
		if err != nil {
			return err
		}
		line, done := progress(affected)
		if done {
			_, err := fmt.Fprintf(w, "%s is drained: safe to power off\n", target)
			return err
		}
		if line != last {
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
			last = line
		}
		select {
		case <-again.C:
		case <-ctx.Done():
		}
	}
}

// progress says in one line how far the drain of some backends is.
func progress(affected []admin.Affected) (line string, done bool) {
	leaving, connections, drained := 0, 0, 0
	var until time.Time
	for _, a := range affected {
		switch a.Drain {
		case pool.Drained.String():
			drained++
		case pool.LeavingDNS.String():
			leaving++
			if a.Until.After(until) {
				until = a.Until
			}
		}
		connections += a.Connections
	}
	switch {
	case drained == len(affected):
		return "", true
	case leaving > 0 && !until.IsZero():
		return fmt.Sprintf("out of DNS; cached answers run out at %s", until.Local().Format(time.TimeOnly)), false
	case leaving > 0:
		return "leaving DNS", false
	}
	return fmt.Sprintf("no new connections; %s left", count(connections, "connection")), false
}

func newUndrain() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:     "undrain NODE-or-BACKEND",
		Short:   "Put a drained node or backend back into service",
		Long:    "Undrain ends a drain: the probes decide again.\n\n" + targetHelp,
		Example: "  elbow undrain minion2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			affected, err := admin.NewClient(socket).Undrain(cmd.Context(), args[0])
			return report(cmd, affected, err)
		},
	}
	socketFlag(cmd, &socket)
	return cmd
}

// report prints the backends that a command was about. A warning is printed
// and is no failure: the command is in force.
func report(cmd *cobra.Command, affected []admin.Affected, err error) error {
	if warning, ok := errors.AsType[*admin.Warning](err); ok {
		fmt.Fprintf(cmd.ErrOrStderr(), "elbow: warning: %v\n", warning)
		err = nil
	}
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE\tBACKEND\tNODE\tSTATE\tCONNECTIONS")
	for _, a := range affected {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\n", a.Service, a.Backend, a.Node, a.State, a.Connections)
	}
	return table.Flush()
}
