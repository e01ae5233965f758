//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// Figures that a workload has besides the CPU time of the proxy.
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

	peers []string // in the order of the columns
}

// A figure is one thing that was measured, for each proxy once in each round.
type figure struct {
	Name   string               `json:"name"`
	Unit   string               `json:"unit"`
	Values map[string][]float64 `json:"values"` // by proxy, in the order of the rounds
}

func newResults(peers []peer) *results {
	r := &results{
		Date:       time.Now().UTC().Format("2006-01-02"),
		Kernel:     kernel(),
		Processors: runtime.NumCPU(),
		Versions:   make(map[string]string),
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
	return slices.DeleteFunc(slices.Clone(r.peers), func(name string) bool { return strings.HasPrefix(name, "elbow ") })
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
	base := filepath.Join(s.results, "proxy-"+r.Date)
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
	fmt.Fprintln(w, "\nMedians; CPU time is that of the proxy where the line does not say otherwise.")
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
			fmt.Fprintf(t, "%.4g\t", m[p])
		}
		for _, p := range r.peersOf() {
			fmt.Fprintf(t, "%s\t", ratio(m[r.peers[0]], m[p]))
		}
		fmt.Fprintln(t)
	}
	t.Flush()
}

func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}
