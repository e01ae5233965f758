//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dial connects from one of several loopback addresses, so that a run of many
// short connections does not use up the ports of one. A port is chosen when
// the socket connects: one that is bound before cannot be shared, and the ports
// would run out for the proxy too.
func dial(addr string, n uint64) (net.Conn, error) {
	d := net.Dialer{
		Timeout:   5 * time.Second,
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+n%200))},
		Control: func(_, _ string, raw syscall.RawConn) error {
			var option error
			err := raw.Control(func(fd uintptr) {
				option = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			})
			return errors.Join(err, option)
		},
	}
	d.SetMultipathTCP(false)
	return d.Dial("tcp4", addr)
}

// runWorkers runs n workers until span is over and returns how many units of
// work they did in all.
func runWorkers(n int, span time.Duration, work func(worker int, done *atomic.Bool, units *atomic.Uint64) error) (uint64, error) {
	var (
		done  atomic.Bool
		units atomic.Uint64
		wg    sync.WaitGroup
		errs  = make([]error, n)
	)
	for i := range n {
		wg.Go(func() { errs[i] = work(i, &done, &units) })
	}
	timer := time.AfterFunc(span, func() { done.Store(true) })
	defer timer.Stop()
	wg.Wait()
	return units.Load(), errors.Join(errs...)
}

// newConnections connects, sends one request, reads the answer and closes.
func newConnections(workers int) loadFunc {
	return func(addr string, span time.Duration) (float64, error) {
		n, err := runWorkers(workers, span, func(worker int, done *atomic.Bool, units *atomic.Uint64) error {
			for number := uint64(worker); !done.Load(); number += uint64(workers) {
				c, err := dial(addr, number)
				if err != nil {
					return err
				}
				if err := errors.Join(exchange(c, number), c.Close()); err != nil {
					return fmt.Errorf("connection %d: %w", number, err)
				}
				units.Add(1)
			}
			return nil
		})
		return float64(n), err
	}
}

// requests sends one request after the other on connections that stay.
func requests(connections int) loadFunc {
	return func(addr string, span time.Duration) (float64, error) {
		n, err := runWorkers(connections, span, func(worker int, done *atomic.Bool, units *atomic.Uint64) error {
			c, err := dial(addr, uint64(worker))
			if err != nil {
				return err
			}
			defer c.Close()
			for number := uint64(0); !done.Load(); number++ {
				if err := exchange(c, number); err != nil {
					return fmt.Errorf("request %d: %w", number, err)
				}
				units.Add(1)
			}
			return nil
		})
		return float64(n), err
	}
}

// gigabytes fetches bulk data on some streams.
func gigabytes(streams int) loadFunc {
	const piece = 64 << 20
	return func(addr string, span time.Duration) (float64, error) {
		n, err := runWorkers(streams, span, func(worker int, done *atomic.Bool, units *atomic.Uint64) error {
			c, err := dial(addr, uint64(worker))
			if err != nil {
				return err
			}
			defer c.Close()
			for b := newBulkReader(); !done.Load(); {
				if err := b.fetch(c, piece); err != nil {
					return err
				}
				units.Add(piece)
			}
			return nil
		})
		return float64(n) / 1e9, err
	}
}

// holdIdle opens connections, uses each once, calls then while all are open and
// closes them.
func holdIdle(addr string, n int, then func() error) error {
	connections := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range connections {
			c.Close()
		}
	}()
	for i := range n {
		c, err := dial(addr, uint64(i))
		if err != nil {
			return fmt.Errorf("idle connection %d: %w", i, err)
		}
		connections = append(connections, c)
		if err := exchange(c, uint64(i)); err != nil {
			return fmt.Errorf("idle connection %d: %w", i, err)
		}
	}
	return then()
}

// latencies sends perSecond requests a second over connections that stay, each
// at its time whether or not the one before has been answered elsewhere, and
// measures from the time it was meant to be sent: a proxy that stalls is
// charged for those that had to wait.
func latencies(addr string, connections int, perSecond float64, span time.Duration) ([]time.Duration, error) {
	begin := time.Now().Add(20 * time.Millisecond)
	every := time.Duration(float64(connections) / perSecond * float64(time.Second))
	all := make([][]time.Duration, connections)
	_, err := runWorkers(connections, span+time.Second, func(worker int, _ *atomic.Bool, _ *atomic.Uint64) error {
		c, err := dial(addr, uint64(worker))
		if err != nil {
			return err
		}
		defer c.Close()
		at := begin.Add(every * time.Duration(worker) / time.Duration(connections))
		for number := uint64(0); at.Before(begin.Add(span)); number++ {
			time.Sleep(time.Until(at))
			if err := exchange(c, number); err != nil {
				return err
			}
			all[worker] = append(all[worker], time.Since(at))
			at = at.Add(every)
		}
		return nil
	})
	return slices.Concat(all...), err
}
