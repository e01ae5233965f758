package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"haslohas.com/elbow/admin"
)

func newStatus() *cobra.Command {
	var socket string
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show services, backends, zones and the generation",
		Long: `Status prints what the running daemon believes: each service with its listeners
and backends, what its names are answered with, the zones and where the
backends come from.`,
		Example: `  elbow status
  elbow status --watch
  elbow status --json | jq '.services[].backends[] | select(.state == "down")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			show := func(w io.Writer, s admin.Status, color bool) error {
				if asJSON {
					return writeJSON(w, s)
				}
				return admin.WriteStatus(w, s, admin.TextOptions{Color: color})
			}
			client := admin.NewClient(socket)
			if !watch {
				s, err := client.Status(cmd.Context())
				if err != nil {
					return err
				}
				return show(cmd.OutOrStdout(), s, isTerminal(cmd.OutOrStdout()))
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return everySecond(ctx, cmd.OutOrStdout(), !asJSON, func(ctx context.Context, w io.Writer, color bool) error {
				s, err := client.Status(ctx)
				if err != nil {
					return err
				}
				return show(w, s, color)
			})
		},
	}
	socketFlag(cmd, &socket)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the JSON of /api/v1/status")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print again every second, until interrupted")
	return cmd
}

// everySecond has show write a page every second, on a terminal in place of
// the one before if that is wanted, until ctx ends.
func everySecond(ctx context.Context, w io.Writer, inPlace bool,
	show func(ctx context.Context, w io.Writer, color bool) error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	inPlace = inPlace && isTerminal(w)
	for {
		var page bytes.Buffer
		if inPlace {
			page.WriteString("\x1b[H\x1b[2J") // home, clear: ECMA-48 CUP and ED
		}
		err := show(ctx, &page, inPlace)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(page.Bytes()); err != nil {
			return fmt.Errorf("writing the page: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func socketFlag(cmd *cobra.Command, socket *string) {
	cmd.Flags().StringVar(socket, "socket", admin.DefaultSocket, "the control socket `PATH` of the daemon")
}

func writeJSON[T any](w io.Writer, v T) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// isTerminal reports whether a person may be looking at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
}
