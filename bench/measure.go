//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"
)

// The processors: the proxy has one for itself.
const (
	loadCPU  = 0
	proxyCPU = 1
)

var elbowEngines = []string{"epoll", "portable"}

// A loadFunc loads the proxy at addr for span and returns the units of work.
type loadFunc func(addr string, span time.Duration) (units float64, err error)

// A workload is one thing that is measured, as CPU time for a unit.
type workload struct {
	name string
	unit string // what the figures are in
	per  float64
	load loadFunc
}

const (
	micro = 1e6 // microseconds a second
	milli = 1e3
)

func workloads() []workload {
	return []workload{
		{"new connection", "µs", micro, newConnections(8)},
		{"request, 1 connection", "µs", micro, requests(1)},
		{"request, 50 connections", "µs", micro, requests(50)},
		{"request, 500 connections", "µs", micro, requests(500)},
		{"gigabyte, 1 stream", "ms", milli, gigabytes(1)},
		{"gigabyte, 8 streams", "ms", milli, gigabytes(8)},
	}
}

// Those that are not CPU time.
const (
	memoryName  = "memory of an idle connection"
	latencyName = "latency"
)

func workloadNames() []string {
	var names []string
	for _, w := range workloads() {
		names = append(names, w.name)
	}
	return append(names, memoryName, latencyName)
}

func (s *settings) wants(name string) bool { return len(s.only) == 0 || slices.Contains(s.only, name) }

// measureProxies runs all rounds and reports.
func measureProxies(ctx context.Context, s settings, w io.Writer) error {
	if runtime.NumCPU() < 2 {
		return errors.New("two processors are needed: one for the proxy, one for the load")
	}
	if _, err := raiseLimit(); err != nil {
		return err
	}
	if s.elbow == "" {
		dir, err := os.MkdirTemp("", "elbow-bench-")
		if err != nil {
			return fmt.Errorf("making a folder: %w", err)
		}
		defer os.RemoveAll(dir)
		s.elbow = filepath.Join(dir, "elbow")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", s.elbow, "haslohas.com/elbow/cmd/elbow").CombinedOutput(); err != nil {
			return fmt.Errorf("building elbow: %w\n%s", err, out)
		}
	}
	runtime.GOMAXPROCS(1)
	if err := bindAll(loadCPU); err != nil {
		return err
	}
	backend, err := startBackend(ctx, loadCPU)
	if err != nil {
		return err
	}
	defer backend.stop()

	peers, missing := findPeers(s.elbow)
	for _, name := range missing {
		fmt.Fprintf(w, "%s is not installed and is left out (docs/performance.md names the packages)\n", name)
	}
	r := newResults(peers)
	for round := range s.rounds {
		for i := range peers {
			p := peers[(i+round)%len(peers)] // nobody is always the first
			fmt.Fprintf(w, "round %d of %d: %s\n", round+1, s.rounds, p.name)
			if err := measure(ctx, s, p, backend.addr, r); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	if s.wants(latencyName) {
		if err := measureLatency(ctx, s, peers, backend.addr, r, w); err != nil {
			return err
		}
	}
	return r.report(s, w)
}

// measure starts p, takes every workload once and stops it.
func measure(ctx context.Context, s settings, p peer, backend string, r *results) error {
	proc, err := p.start(ctx, backend, proxyCPU)
	if err != nil {
		return err
	}
	defer proc.stop()
	pid := proc.cmd.Process.Pid
	if s.wants(memoryName) {
		before, err := residentAnon(pid)
		if err != nil {
			return err
		}
		err = holdIdle(proc.addr, s.idle, func() error {
			after, err := residentAnon(pid)
			r.add(memoryName, "KiB", p.name, float64(after-before)/float64(s.idle)/1024)
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, load := range workloads() {
		if !s.wants(load.name) {
			continue
		}
		if _, err := load.load(proc.addr, s.span/10); err != nil { // warm
			return fmt.Errorf("%s: %w", load.name, err)
		}
		before, err := used(pid)
		if err != nil {
			return err
		}
		units, err := load.load(proc.addr, s.span)
		if err != nil {
			return fmt.Errorf("%s: %w", load.name, err)
		}
		after, err := used(pid)
		if err != nil {
			return err
		}
		took := after.sub(before)
		r.add(load.name, load.unit, p.name, took.process.Seconds()*load.per/units)
		r.add(load.name+machineSuffix, load.unit, p.name, took.machine.Seconds()*load.per/units)
		r.add(load.name+rateSuffix, "1/s", p.name, units/s.span.Seconds())
	}
	return nil
}

// latencyConnections is over how many connections the open loop sends.
const latencyConnections = 50

// measureLatency loads each peer with half of what the slowest one did.
func measureLatency(ctx context.Context, s settings, peers []peer, backend string, r *results, w io.Writer) error {
	rates := r.medians("request, 50 connections" + rateSuffix)
	if len(rates) == 0 {
		fmt.Fprintln(w, "no latency: it needs the rate of 50 connections")
		return nil
	}
	rate := slices.Min(slices.Collect(maps.Values(rates))) / 2
	r.LatencyRate = rate
	for round := range s.rounds {
		for i := range peers {
			p := peers[(i+round)%len(peers)]
			fmt.Fprintf(w, "latency, round %d of %d: %s at %.0f requests a second\n", round+1, s.rounds, p.name, rate)
			proc, err := p.start(ctx, backend, proxyCPU)
			if err != nil {
				return err
			}
			took, err := latencies(proc.addr, latencyConnections, rate, s.span)
			proc.stop()
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			slices.Sort(took)
			for _, q := range []struct {
				name string
				at   float64
			}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}} {
				v := took[min(len(took)-1, int(q.at*float64(len(took))))]
				r.add(latencyName+" "+q.name, "µs", p.name, v.Seconds()*micro)
			}
		}
	}
	return nil
}
