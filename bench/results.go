//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// Figures that a workload has besides the CPU time of the server.
const (
	machineSuffix = " (whole machine)"
	rateSuffix    = " (rate)"
)

// results are the figures of a run.
type results struct {
	Date        string            `json:"date"`
	Kernel      string            `json:"kernel"`
	Processors  int               `json:"processors"`
	Versions    map[string]string `json:"versions"`
	LatencyRate float64           `json:"latency_requests_per_second,omitempty"`
	Figures     []*figure         `json:"figures"`
	Scaling     scaling           `json:"work_of_two_loops,omitempty"`

	subject string   // what was measured: proxy or dns
	peers   []string // in the order of the columns
}

// A figure is one thing that was measured, for each proxy once in each round.
type figure struct {
	Name   string               `json:"name"`
	Unit   string               `json:"unit"`
	Values map[string][]float64 `json:"values"` // by proxy, in the order of the rounds
}

// scaling is how much of each workload two loops do for what one does, on as
// many processors, in the order of the rounds.
type scaling map[string][]float64

func (s scaling) add(workload string, times float64) { s[workload] = append(s[workload], times) }

func newResults(subject string, peers []peer) *results {
	r := &results{
		subject:    subject,
		Date:       time.Now().UTC().Format("2006-01-02"),
		Kernel:     kernel(),
		Processors: runtime.NumCPU(),
		Versions:   make(map[string]string),
		Scaling:    make(scaling),
	}
	for _, p := range peers {
		r.peers = append(r.peers, p.name)
		r.Versions[p.name] = p.about()
	}
	return r
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func (r *results) figure(name string) *figure {
	for _, f := range r.Figures {
		if f.Name == name {
			return f
		}
	}
	return nil
}

func (r *results) add(name, unit, proxy string, value float64) {
	f := r.figure(name)
	if f == nil {
		f = &figure{name, unit, make(map[string][]float64)}
		r.Figures = append(r.Figures, f)
	}
	f.Values[proxy] = append(f.Values[proxy], value)
}

// medians returns the median of each proxy.
func (r *results) medians(name string) map[string]float64 {
	out := make(map[string]float64)
	if f := r.figure(name); f != nil {
		for proxy, values := range f.Values {
			out[proxy] = median(values)
		}
	}
	return out
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// peersOf are the proxies that elbow is compared with.
func (r *results) peersOf() []string {
	return slices.DeleteFunc(slices.Clone(r.peers), func(name string) bool { return strings.HasPrefix(name, "elbow") })
}

// report prints the table and, if there is a folder for them, writes the results.
func (r *results) report(s settings, w io.Writer) error {
	var table strings.Builder
	r.table(&table)
	if _, err := io.WriteString(w, "\n"+table.String()); err != nil {
		return err
	}
	if s.results == "" {
		return nil
	}
	if err := os.MkdirAll(s.results, 0o755); err != nil {
		return fmt.Errorf("making the folder for results: %w", err)
	}
	figures, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("encoding the results: %w", err)
	}
	base := filepath.Join(s.results, r.subject+"-"+r.Date)
	return errors.Join(
		os.WriteFile(base+".txt", []byte(table.String()), 0o644),
		os.WriteFile(base+".json", append(figures, '\n'), 0o644),
		os.WriteFile(base+".svg", []byte(r.plot()), 0o644),
	)
}

// table writes a line for each figure: the median of each proxy, and the ratios
// of elbow to its peers.
func (r *results) table(w io.Writer) {
	fmt.Fprintf(w, "%s, Linux %s, %d processors\n", r.Date, r.Kernel, r.Processors)
	for _, p := range r.peers {
		fmt.Fprintf(w, "%s: %s\n", p, r.Versions[p])
	}
	fmt.Fprintln(w, "\nMedians of the rounds; CPU time is that of the server where the line does not say otherwise. A ratio is the median of those of each round.")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\t\t")
	for _, p := range r.peers {
		fmt.Fprintf(t, "%s\t", p)
	}
	for _, p := range r.peersOf() {
		fmt.Fprintf(t, "%s / %s\t", r.peers[0], p)
	}
	fmt.Fprintln(t)
	for _, f := range r.Figures {
		m := r.medians(f.Name)
		fmt.Fprintf(t, "%s\t%s\t", f.Name, f.Unit)
		for _, p := range r.peers {
			if len(f.Values[p]) == 0 {
				fmt.Fprint(t, "-\t")
				continue
			}
			fmt.Fprintf(t, "%.4g\t", m[p])
		}
		for _, p := range r.peersOf() {
			fmt.Fprintf(t, "%s\t", f.ratio(r.peers[0], p))
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	if len(r.Scaling) > 0 {
		fmt.Fprintln(w, "\nThe work of two loops, for the CPU time of two processors, in relation to that of one for one (best: 2):")
		for _, name := range slices.Sorted(maps.Keys(r.Scaling)) {
			fmt.Fprintf(w, "  %-26s %.2f\n", name, median(r.Scaling[name]))
		}
	}
}

// ratio is the median of what one proxy needed in relation to another in the
// same round, which lies close enough for both to meet the same machine.
func (f *figure) ratio(of, to string) string {
	var all []float64
	for i, a := range f.Values[of] {
		if b := f.Values[to]; i < len(b) && b[i] != 0 {
			all = append(all, a/b[i])
		}
	}
	if len(all) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", median(all))
}
