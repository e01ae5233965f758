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
	only trait
}

// A trait is what not every server has and some workloads need.
type trait uint8

const (
	bulk   trait = 1 << iota // carries large messages
	signed                   // has the signed zone
)

const (
	micro = 1e6 // microseconds a second
	milli = 1e3
)

func workloads() []workload {
	return []workload{
		{"new connection", "µs", micro, newConnections(8), 0},
		{"request, 1 connection", "µs", micro, requests(1), 0},
		{"request, 50 connections", "µs", micro, requests(50), 0},
		{"request, 500 connections", "µs", micro, requests(500), 0},
		{"gigabyte, 1 stream", "ms", milli, gigabytes(1), bulk},
		{"gigabyte, 8 streams", "ms", milli, gigabytes(8), bulk},
	}
}

// Those that are not CPU time.
const (
	memoryName  = "memory of an idle connection"
	latencyName = "latency"
	scalingName = "two loops"
)

func workloadNames() []string {
	var names []string
	for _, w := range workloads() {
		names = append(names, w.name)
	}
	return append(names, memoryName, latencyName, scalingName)
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
	remove, err := s.build(ctx)
	if err != nil {
		return err
	}
	defer remove()
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
	r := newResults("proxy", peers)
	running := make([]*process, len(peers))
	for i := range peers {
		if running[i], err = peers[i].start(ctx, backend.addr, proxyCPU); err != nil {
			return fmt.Errorf("%s: %w", peers[i].name, err)
		}
		defer running[i].stop()
		if s.wants(memoryName) {
			if err := measureMemory(s, &peers[i], running[i], r); err != nil {
				return fmt.Errorf("%s: %w", peers[i].name, err)
			}
		}
	}
	for _, load := range workloads() {
		if !s.wants(load.name) {
			continue
		}
		fmt.Fprintf(w, "%s: %d rounds\n", load.name, s.rounds)
		for round := range s.rounds {
			for i := range peers {
				n := (i + round) % len(peers) // nobody is always the first
				if !peers[n].can(load.only) {
					continue
				}
				if err := measure(s, load, &peers[n], running[n], r); err != nil {
					return fmt.Errorf("%s: %s: %w", peers[n].name, load.name, err)
				}
			}
		}
	}
	if s.wants(latencyName) {
		if err := measureLatency(s, peers, running, r, w); err != nil {
			return err
		}
	}
	if s.wants(scalingName) {
		if err := measureScaling(ctx, s, backend.addr, r, w); err != nil {
			return err
		}
	}
	return r.report(s, w)
}

// build builds elbow, unless there is a binary already. The function that it
// returns removes what it has made.
func (s *settings) build(ctx context.Context) (remove func(), err error) {
	if s.elbow != "" {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "elbow-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	s.elbow = filepath.Join(dir, "elbow")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", s.elbow, "haslohas.com/elbow/cmd/elbow").CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("building elbow: %w\n%s", err, out)
	}
	return func() { os.RemoveAll(dir) }, nil
}

// measureMemory takes the growth of a process that has served nobody yet.
func measureMemory(s settings, p *peer, proc *process, r *results) error {
	pid := proc.cmd.Process.Pid
	before, err := residentAnon(pid)
	if err != nil {
		return err
	}
	return holdIdle(proc.addr, s.idle, func() error {
		after, err := residentAnon(pid)
		r.add(memoryName, "KiB", p.name, float64(after-before)/float64(s.idle)/1024)
		return err
	})
}

// measure takes one round of a workload on one proxy. All proxies run all the
// time, so that a round of each is short and close to that of the next: what
// else goes on on the machine meets all of them.
func measure(s settings, load workload, p *peer, proc *process, r *results) error {
	units, took, err := loaded(s, load, proc)
	if err != nil {
		return err
	}
	r.add(load.name, load.unit, p.name, took.process.Seconds()*load.per/units)
	r.add(load.name+machineSuffix, load.unit, p.name, took.machine.Seconds()*load.per/units)
	r.add(load.name+rateSuffix, "1/s", p.name, units/s.span.Seconds())
	return nil
}

// loaded loads a proxy for the span and returns what was done and used.
func loaded(s settings, load workload, proc *process) (units float64, took usage, err error) {
	if _, err := load.load(proc.addr, s.span/10); err != nil { // warm
		return 0, usage{}, err
	}
	before, err := used(proc.cmd.Process.Pid)
	if err != nil {
		return 0, usage{}, err
	}
	units, err = load.load(proc.addr, s.span)
	if err != nil {
		return 0, usage{}, err
	}
	after, err := used(proc.cmd.Process.Pid)
	return units, after.sub(before), err
}

// latencyConnections is over how many connections the open loop sends.
const latencyConnections = 50

// quantiles are the latencies that are shown.
var quantiles = [...]struct {
	name string
	at   float64
}{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}}

// measureLatency loads each peer with half of what the slowest one did.
func measureLatency(s settings, peers []peer, running []*process, r *results, w io.Writer) error {
	rates := r.medians("request, 50 connections" + rateSuffix)
	if len(rates) == 0 {
		fmt.Fprintln(w, "no latency: it needs the rate of 50 connections")
		return nil
	}
	rate := slices.Min(slices.Collect(maps.Values(rates))) / 2
	r.LatencyRate = rate
	fmt.Fprintf(w, "latency at %.0f requests a second: %d rounds\n", rate, s.rounds)
	for round := range s.rounds {
		for i := range peers {
			n := (i + round) % len(peers)
			took, err := latencies(running[n].addr, latencyConnections, rate, s.span)
			if err != nil {
				return fmt.Errorf("%s: latency: %w", peers[n].name, err)
			}
			slices.Sort(took)
			for _, q := range quantiles {
				v := took[min(len(took)-1, int(q.at*float64(len(took))))]
				r.add(latencyName+" "+q.name, "µs", peers[n].name, v.Seconds()*micro)
			}
		}
	}
	return nil
}

// measureScaling compares the CPU time that a unit costs with two loops to that
// with one. Both may use both processors, which the load uses too: so it is
// not the rates that are compared. Two processors of their own would do as
// many times the work of one as two loops get done with twice the CPU time.
func measureScaling(ctx context.Context, s settings, backend string, r *results, w io.Writer) error {
	var running [2]*process
	for i := range running {
		p := elbowPeer(s.elbow, elbowEngines[0], i+1)
		proc, err := p.start(ctx, backend, loadCPU, proxyCPU)
		if err != nil {
			return fmt.Errorf("%d loops: %w", i+1, err)
		}
		defer proc.stop()
		running[i] = proc
	}
	fmt.Fprintf(w, "two loops and one: %d rounds\n", s.rounds)
	for _, load := range workloads()[:4] {
		for range s.rounds {
			var cost [2]float64
			for i, proc := range running {
				units, took, err := loaded(s, load, proc)
				if err != nil {
					return fmt.Errorf("%d loops: %s: %w", i+1, load.name, err)
				}
				cost[i] = took.process.Seconds() / units
			}
			r.Scaling.add(load.name, 2*cost[0]/cost[1])
		}
	}
	return nil
}
