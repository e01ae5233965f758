//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// flapsPerSecond is how often a service of elbow changes its answer while
// flappingName is measured.
const (
	flapsPerSecond = 10
	flappingName   = "A, 100,000 names, flapping"
	pacedName      = "A, paced"
	flappingSuffix = ", 100,000 names, flapping"
)

func nameWorkloads() []workload {
	const many = 10_000 // questions: more than any cache of whole packets holds is not the point here
	small := hosts(smallZone, smallNames, smallNames, 0)
	large := hosts(largeZone, largeNames, largeNames, 0)
	return []workload{
		{"A", "µs", micro, flood(small, burst), 0},
		{"A, a query a port", "µs", micro, flood(small, 1), 0},
		{"A, DO=1", "µs", micro, flood(hosts(smallZone, smallNames, smallNames, withEDNS), burst), 0},
		{"A, DO=1, signed", "µs", micro, flood(hosts(signedZone, smallNames, smallNames, withSignature), burst), signed},
		{"NXDOMAIN", "µs", micro, flood(strangers(smallZone, many, 0), burst), 0},
		{"NXDOMAIN, DO=1, signed", "µs", micro, flood(strangers(signedZone, many, withSignature), burst), signed},
		{"A, 100,000 names", "µs", micro, flood(large, burst), 0},
		{flappingName, "µs", micro, flood(large, burst), 0},
		{"A by TCP", "µs", micro, streams(small), 0},
		{"A by TCP, new connection", "µs", micro, oneEach(small), 0},
	}
}

func nameWorkloadNames() []string {
	var names []string
	for _, w := range nameWorkloads() {
		names = append(names, w.name)
	}
	return append(names, pacedName)
}

func newNames() *cobra.Command {
	s := settings{}
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "The name server beside Knot, NSD and gdnsd",
		Long: `Dns finds knotd, nsd and gdnsd on this machine, runs them, elbow and a plain handler
on miekg/dns with the same zones and one worker each, and measures CPU time for
each query, the rate, and the latency at a rate that all can carry. Every
answer is verified.`,
		Example: "  go run ./bench dns --rounds 7 --results bench/results",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return measureNames(cmd.Context(), s, cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.IntVar(&s.rounds, "rounds", 15, "how often each server is measured")
	f.DurationVar(&s.span, "span", 200*time.Millisecond, "how long each measurement takes")
	f.StringVar(&s.results, "results", "", "write the table, the figures as JSON and an SVG plot into this folder")
	f.StringArrayVar(&s.only, "only", nil, "measure only these: "+strings.Join(nameWorkloadNames(), "; "))
	f.StringVar(&s.elbow, "elbow", "", "an elbow binary to measure; empty: built from this checkout")
	return cmd
}

// measureNames runs all rounds and reports.
func measureNames(ctx context.Context, s settings, w io.Writer) error {
	if runtime.NumCPU() < 2 {
		return errors.New("two processors are needed: one for the server, one for the load")
	}
	remove, err := s.build(ctx)
	if err != nil {
		return err
	}
	defer remove()
	self, err := executable()
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(1)
	if err := bindAll(loadCPU); err != nil {
		return err
	}
	servers, missing := findNameServers(s.elbow, self)
	for _, name := range missing {
		fmt.Fprintf(w, "%s is not installed and is left out (docs/performance.md names the packages)\n", name)
	}
	r := newResults("dns", servers)
	running := make([]*process, len(servers))
	signedText := zoneText(signedZone, smallNames)
	for i := range servers {
		if running[i], err = servers[i].startNames(ctx, proxyCPU, signedText); err != nil {
			return err
		}
		defer running[i].stop()
		if i == 0 { // elbow has signed it
			if signedText, err = transferZone(running[0].addr, signedZone); err != nil {
				return err
			}
		}
	}
	for _, load := range nameWorkloads() {
		if !s.wants(load.name) {
			continue
		}
		fmt.Fprintf(w, "%s: %d rounds\n", load.name, s.rounds)
		stop := func() error { return nil }
		if load.name == flappingName {
			stop = flap(ctx, running[0])
		}
		for round := range s.rounds {
			for i := range servers {
				n := (i + round) % len(servers) // nobody is always the first
				if !servers[n].can(load.only) {
					continue
				}
				if err := measure(s, load, &servers[n], running[n], r); err != nil {
					return fmt.Errorf("%s: %s: %w", servers[n].name, load.name, errors.Join(err, stop()))
				}
			}
		}
		if err := stop(); err != nil {
			return err
		}
	}
	if s.wants(pacedName) {
		if err := measurePaced(ctx, s, servers, running, r, w); err != nil {
			return err
		}
	}
	return r.report(s, w)
}

// measurePaced asks at a tenth and at half of the rate of the slowest server, at
// even times, and takes CPU time and latency; at half of it also while a service
// flaps.
func measurePaced(ctx context.Context, s settings, servers []peer, running []*process, r *results, w io.Writer) error {
	rates := r.medians("A" + rateSuffix)
	if len(rates) == 0 {
		fmt.Fprintln(w, "no latency: it needs the rate of A")
		return nil
	}
	slowest := slices.Min(slices.Collect(maps.Values(rates)))
	rounds := func(name string, rate float64, questions []question) error {
		fmt.Fprintf(w, "%s: %d rounds\n", name, s.rounds)
		for round := range s.rounds {
			for i := range servers {
				n := (i + round) % len(servers)
				if err := pace(s, name, rate, questions, &servers[n], running[n], r); err != nil {
					return fmt.Errorf("%s: %s: %w", servers[n].name, name, err)
				}
			}
		}
		return nil
	}
	for _, load := range []float64{0.1, 0.5} {
		rate := float64(int(slowest * load))
		if err := rounds(fmt.Sprintf("%s at %.0f a second", pacedName, rate), rate, hosts(smallZone, smallNames, smallNames, 0)); err != nil {
			return err
		}
	}
	rate := float64(int(slowest / 2))
	stop := flap(ctx, running[0])
	err := rounds(fmt.Sprintf("%s at %.0f a second%s", pacedName, rate, flappingSuffix), rate, hosts(largeZone, largeNames, largeNames, 0))
	return errors.Join(err, stop())
}

func pace(s settings, name string, rate float64, questions []question, p *peer, proc *process, r *results) error {
	c, err := newClient(proc.addr, 1)
	if err != nil {
		return err
	}
	defer c.close()
	if _, err := c.openLoop(questions, rate, s.span/10); err != nil { // warm
		return err
	}
	before, err := used(proc.cmd.Process.Pid)
	if err != nil {
		return err
	}
	took, err := c.openLoop(questions, rate, s.span)
	if err != nil {
		return err
	}
	after, err := used(proc.cmd.Process.Pid)
	if err != nil {
		return err
	}
	r.add(name, "µs", p.name, after.sub(before).process.Seconds()*micro/float64(len(took)))
	slices.Sort(took)
	for _, q := range quantiles {
		r.add(name+", latency "+q.name, "µs", p.name, took[min(len(took)-1, int(q.at*float64(len(took))))].Seconds()*micro)
	}
	return nil
}

// flap changes the answer of elbow's service until the function that it
// returns is called, by an operator's verdict over one of two backends.
func flap(ctx context.Context, elbow *process) (stop func() error) {
	socket := filepath.Join(elbow.dir, "elbow.sock")
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		every := time.NewTicker(time.Second / flapsPerSecond)
		defer every.Stop()
		for n := 0; ; n++ {
			select {
			case <-every.C:
			case <-ctx.Done():
				ended <- nil
				return
			}
			state := [...]string{"up", "down"}[n%2]
			response, err := c.Post("http://elbow/api/v1/force", "application/json",
				strings.NewReader(fmt.Sprintf(`{"target":"flapping","state":%q}`, state)))
			if err == nil {
				response.Body.Close()
				if response.StatusCode != http.StatusOK {
					err = errors.New(response.Status)
				}
			}
			if err != nil {
				ended <- fmt.Errorf("forcing a backend %s: %w", state, err)
				return
			}
		}
	}()
	return func() error {
		cancel()
		defer c.CloseIdleConnections()
		return <-ended
	}
}
