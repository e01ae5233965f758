//go:build linux

// Command bench measures elbow beside its peers, in one run and on the same
// machine, and prints the ratios.
//
//	go run ./bench proxy
//	go run ./bench dns
//
// What is measured is CPU time for a unit of work, not the peak rate: it is
// what a busy machine runs out of, and it can be compared on a machine that is
// shared. The proxy under test has one processor for itself, the load and the
// backends have the other. All proxies run all the time; every round visits
// each of them once, in changing order, and every payload is verified.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := newRoot().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "bench",
		Short:         "Measure elbow beside its peers",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newProxy(), newNames(), newBackend(), newBare(), newPlain())
	return root
}

func newProxy() *cobra.Command {
	s := settings{}
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "The TCP relay beside HAProxy and nginx stream",
		Long: `Proxy finds HAProxy and nginx (with the stream module) on this machine, runs them
and elbow with the configurations in bench/peers, and measures CPU time for
each new connection, request and gigabyte, the memory of idle connections, and
the latency at a load that all can carry.`,
		Example: "  go run ./bench proxy --rounds 7 --results bench/results",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return measureProxies(cmd.Context(), s, cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.IntVar(&s.rounds, "rounds", 15, "how often each proxy is measured")
	f.DurationVar(&s.span, "span", 300*time.Millisecond, "how long each measurement takes")
	f.IntVar(&s.idle, "idle", 5000, "how many idle connections are held for the memory")
	f.StringVar(&s.results, "results", "", "write the table, the figures as JSON and an SVG plot into this folder")
	f.StringArrayVar(&s.only, "only", nil, "measure only these: "+fmt.Sprint(workloadNames()))
	f.StringVar(&s.elbow, "elbow", "", "an elbow binary to measure; empty: built from this checkout")
	return cmd
}

// settings are what the command line says.
type settings struct {
	rounds  int
	span    time.Duration
	idle    int
	results string
	only    []string
	elbow   string
}
