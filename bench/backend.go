//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"
)

// newBackend is the backend as a process of its own, so that its CPU time is
// not the load's. It prints its address and serves until its input ends.
func newBackend() *cobra.Command {
	return &cobra.Command{
		Use:    "backend",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := listen(cmd.Context())
			if err != nil {
				return fmt.Errorf("listening: %w", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), l.Addr())
			context.AfterFunc(cmd.Context(), func() { l.Close() })
			go func() {
				_, _ = io.Copy(io.Discard, cmd.InOrStdin()) // ends with the parent
				l.Close()
			}()
			return serve(l)
		},
	}
}

// listen takes a port below those of outgoing connections, as servers have.
func listen(ctx context.Context) (l net.Listener, err error) {
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	for port := 18000; port < 18100; port++ {
		if l, err = config.Listen(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			break
		}
	}
	return l, err
}

func serve(l net.Listener) error {
	data := pattern()
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accepting: %w", err)
		}
		go answer(c, data)
	}
}

func answer(c net.Conn, data []byte) {
	defer c.Close()
	var m message
	for {
		if _, err := io.ReadFull(c, m[:]); err != nil {
			return
		}
		switch m[0] {
		case opEcho:
			if _, err := c.Write(m[:]); err != nil {
				return
			}
		case opBulk:
			for n := m.number(); n > 0; {
				part := data[:min(uint64(len(data)), n)]
				if _, err := c.Write(part); err != nil {
					return
				}
				n -= uint64(len(part))
			}
		default:
			return
		}
	}
}
