package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"haslohas.com/elbow/config"
)

// demoConfig is the configuration of the demo; %s is the control socket.
//
//go:embed demo.yaml
var demoConfig string

const demoURL = "http://127.0.0.1:9653/"

func newDemo() *cobra.Command {
	var exitAfter time.Duration
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See the whole of it on this machine, nothing to set up",
		Long: `Demo runs three small web servers (the minions, 127.0.0.1:18081 to 18083) and
elbow in front of them, in one process and on unprivileged ports:

  127.0.0.1:8080   the proxy
  127.0.0.1:5300   the DNS server for public.haslohas.com, UDP and TCP
  127.0.0.1:9653   the status page and the metrics

Stop and start the minions, on the status page or by typing stop 2 and start 2,
and see the proxy and the names follow.`,
		Example: "  elbow demo\n  elbow demo --exit-after 30s",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			if exitAfter > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, exitAfter, fmt.Errorf("%s are over", exitAfter))
				defer cancel()
			}
			return demo(ctx, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().DurationVar(&exitAfter, "exit-after", 0, "end by itself after this time; 0: never")
	return cmd
}

func demo(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) error {
	dir, err := os.MkdirTemp("", "elbow-demo-")
	if err != nil {
		return fmt.Errorf("making a folder for the control socket: %w", err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "elbow.sock")

	cfg, err := config.Parse("demo.yaml", fmt.Appendf(nil, demoConfig, socket))
	if err != nil {
		return err
	}
	herd, err := startMinions("127.0.0.1:18081", "127.0.0.1:18082", "127.0.0.1:18083")
	if err != nil {
		return err
	}
	defer herd.Close()

	ctx, quit := context.WithCancelCause(ctx)
	defer quit(nil)
	d, err := newDaemon(cfg, settings{
		loops:    reserveLoops(),
		shutdown: time.Second,
		stdout:   stdout,
		stderr:   stderr,
		minions:  herd,
		ready:    func(*elbow) { greet(stdout, socket) },
	})
	if err != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error {
		defer quit(errors.New("the daemon ended"))
		return d.run(ctx)
	})
	// A read from a terminal cannot be cancelled: this goroutine is not waited for.
	go func() {
		if herd.obey(stdin, stdout) {
			quit(errors.New("quit was typed"))
		}
	}()
	return all.Wait()
}

func greet(w io.Writer, socket string) {
	fmt.Fprintf(w, `
elbow is ready: three minions behind one address. Try these in another terminal:

  curl http://127.0.0.1:8080/
  dig @127.0.0.1 -p 5300 web.public.haslohas.com
  dig @127.0.0.1 -p 5300 minions.public.haslohas.com +short

The status page:  %s
The other commands of elbow take  --socket %s

Here:  stop 1, start 1, list, quit  (1 to 3 are the minions)

`, demoURL, socket)
}

// obey takes commands from r, one on a line. It returns true when quit is read
// and false at the end of r: nobody is there to type.
func (h *minions) obey(r io.Reader, w io.Writer) (quit bool) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) == 0:
		case len(words) == 1 && (words[0] == "quit" || words[0] == "q"):
			return true
		case len(words) == 1 && words[0] == "list":
			h.print(w)
		case len(words) == 2 && (words[0] == "stop" || words[0] == "start"):
			if err := h.Set("minion"+strings.TrimPrefix(words[1], "minion"), words[0] == "start"); err != nil {
				fmt.Fprintln(w, err)
				continue
			}
			h.print(w)
		default:
			fmt.Fprintln(w, "commands: stop 1, start 1, list, quit")
		}
	}
	return false
}

func (h *minions) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, m := range h.List() {
		state := "stopped"
		if m.Running {
			state = "running"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", m.Name, m.Address, state, count(int(m.Requests), "request"))
	}
	table.Flush()
}
