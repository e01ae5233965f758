// Command elbow is a load balancer for the host that holds the public address:
// a TCP proxy and an authoritative DNS server that follow one verdict about
// the health of the backends.
//
//	elbow run --config /etc/elbow/elbow.yaml
//
// runs the daemon; elbow demo shows all of it without any configuration. The
// other commands check a configuration or talk to a running daemon. Each has
// a file of its own here; what they do is in the packages beside cmd.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(execute(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// execute runs the command line args and returns its exit status: 0, 1 for an error,
// 2 for what differs.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if errors.Is(err, errDiffers) {
		return 2
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintf(stderr, "elbow: %v\n", err)
	}
	return 1
}

// errSaid ends a command with status 1 that has already told the user why.
var errSaid = errors.New("said already")

// errDiffers ends a command with status 2: it could do what it was asked for,
// and found that something is not as it should be, which it has said.
var errDiffers = errors.New("differs")

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "elbow",
		Short: "the load balancer you own",
		Long: `elbow does on one host what a cloud's load balancer and its DNS records do:
it relays TCP connections to healthy backends and answers DNS names from the
same verdict.`,
		Example: `  elbow demo                                     see it work, nothing to set up
  elbow check --config /etc/elbow/elbow.yaml     is the file right?
  elbow run --config /etc/elbow/elbow.yaml       the daemon
  elbow status                                   what the daemon believes
  elbow why web.public.haslohas.com              why this name is answered so`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddGroup(
		&cobra.Group{ID: "daemon", Title: "The daemon:"},
		&cobra.Group{ID: "ask", Title: "Ask and steer a running daemon:"},
	)
	root.AddCommand(
		inGroup("daemon", newRun(), newCheck(), newDemo())...,
	)
	root.AddCommand(
		inGroup("ask", newStatus(), newWhy(), newTop(), newDrain(), newUndrain(), newForce(), newUnforce())...,
	)
	root.AddCommand(newDelegation(), newDNSSEC(), newElasticIPCommand(), newVersion())
	return root
}

func inGroup(id string, commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		c.GroupID = id
	}
	return commands
}
