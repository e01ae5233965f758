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
			config := net.ListenConfig{}
			config.SetMultipathTCP(false)
			l, err := config.Listen(cmd.Context(), "tcp4", "127.0.0.1:0")
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
