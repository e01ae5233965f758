package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"haslohas.com/elbow/dnsserver"
	"haslohas.com/elbow/handover"
	"haslohas.com/elbow/proxy"
)

func newRun() *cobra.Command {
	var path string
	var shutdown time.Duration
	var engine string
	var upgrade upgrading
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Run the daemon in the foreground",
		Long: `Run probes the backends once, opens all listeners and zones, says READY=1 to
systemd and serves until it is told to end.

  SIGHUP            reads the file again; so does a change of the file itself.
                    A file with an error in it changes nothing. Where the
                    program itself has changed on the disk it upgrades instead.
  SIGUSR2           upgrades: starts the program from the disk, hands the open
                    sockets and the state over once it is prepared, and then only
                    finishes the established connections, for --upgrade-timeout.
                    If the new process fails, this one goes on.
  SIGTERM, SIGINT   ends: no new connection is taken, established ones may
                    finish for --shutdown-timeout while names are still
                    answered. A second signal ends at once.

The log goes to standard error, one JSON line for each connection to standard
output (log.connections in the file says otherwise).`,
		Example: `  elbow run --config /etc/elbow/elbow.yaml
  systemctl reload elbow
  kill -USR2 $(pidof elbow)`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			// Early: by default it would end the process.
			usr2 := make(chan os.Signal, 1)
			signal.Notify(usr2, syscall.SIGUSR2)
			upgrade.signals = usr2
			ctx, stop := untilSignal(cmd.Context())
			defer stop()

			if err := forbidCoreDumps(); err != nil {
				return err
			}
			if upgrade.program, err = handover.ThisProgram(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
				return err
			}
			if upgrade.predecessor, err = handover.Inherit(); err != nil {
				return err
			}
			defer func() {
				if err != nil {
					upgrade.predecessor.Fail(err)
				}
			}()
			cfg, err := loadConfig(path)
			if err != nil {
				upgrade.predecessor.Fail(err)
				fmt.Fprintln(cmd.ErrOrStderr(), err)
				return errSaid
			}
			if upgrade.predecessor != nil {
				// From the state on, nothing changes before this process serves.
				upgrade.prepared = dnsserver.Prepare(ctx, cfg.DNS.Zones, newLog(cfg.Log, cmd.ErrOrStderr()).With("pid", os.Getpid()))
				if upgrade.inherited, err = upgrade.predecessor.Receive(ctx); err != nil {
					return err
				}
			}
			d, err := newDaemon(cfg, settings{
				path:     path,
				shutdown: shutdown,
				engine:   proxy.Engine(engine),
				loops:    reserveLoops(),
				stdout:   cmd.OutOrStdout(),
				stderr:   cmd.ErrOrStderr(),
				upgrade:  upgrade,
			})
			if err != nil {
				return err
			}
			return d.run(ctx)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().DurationVar(&shutdown, "shutdown-timeout", 30*time.Second,
		"how long established connections may go on after SIGTERM")
	cmd.Flags().DurationVar(&upgrade.drain, "upgrade-timeout", 10*time.Minute,
		"how long established connections may go on after an upgrade")
	cmd.Flags().DurationVar(&upgrade.start, "upgrade-start-timeout", 30*time.Second,
		"how long the new process of an upgrade may take until it serves")
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
