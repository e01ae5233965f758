package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"haslohas.com/elbow/proxy"
)

func newRun() *cobra.Command {
	var path string
	var shutdown time.Duration
	var engine string
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run the daemon in the foreground",
		Long: `Run probes the backends once, opens all listeners and zones, says READY=1 to
systemd and serves until it is told to end.

  SIGHUP            reads the file again; so does a change of the file itself.
                    A file with an error in it changes nothing.
  SIGTERM, SIGINT   ends: no new connection is taken, established ones may
                    finish for --shutdown-timeout while names are still
                    answered. A second signal ends at once.

The log goes to standard error, one JSON line for each connection to standard
output (log.connections in the file says otherwise).`,
		Example: `  elbow run --config /etc/elbow/elbow.yaml
  kill -HUP $(pidof elbow)`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				return errSaid
			}
			d, err := newDaemon(cfg, settings{
				path:     path,
				shutdown: shutdown,
				engine:   proxy.Engine(engine),
				loops:    reserveLoops(),
				stdout:   cmd.OutOrStdout(),
				stderr:   cmd.ErrOrStderr(),
			})
			if err != nil {
				return err
			}
			// It is to upgrade in place, which this build cannot; by default it
			// would end the daemon.
			signal.Ignore(syscall.SIGUSR2)
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return d.run(ctx)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().DurationVar(&shutdown, "shutdown-timeout", 30*time.Second,
		"how long established connections may go on after SIGTERM")
	cmd.Flags().StringVar(&engine, "engine", "",
		fmt.Sprintf("what moves the bytes, `NAME`: %s (Linux only, the default there) or %s", proxy.Epoll, proxy.Portable))
	return cmd
}

// untilSignal returns a context that ends with SIGTERM or SIGINT; the signal is
// its cause. From then on a further signal ends the process the hard way.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, os.Interrupt)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
