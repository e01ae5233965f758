//go:build linux

package main

import (
	"fmt"
	"html"
	"strings"
)

// Measures of the plot, in its own units.
const (
	plotLeft   = 250 // where bars begin
	plotWidth  = 420 // of the longest bar
	barHeight  = 13
	groupSpace = 14
)

var plotColours = []string{"#0b7a53", "#7bbf9e", "#3b6ea8", "#8fb3d9", "#c08a2b", "#8a8f98"}

// plot draws the CPU time of each workload as bars, each workload in relation
// to its slowest proxy, with the round-by-round spread as a line.
func (r *results) plot() string {
	var b strings.Builder
	y := 40
	for _, f := range r.Figures {
		if strings.HasSuffix(f.Name, rateSuffix) || strings.HasSuffix(f.Name, machineSuffix) {
			continue
		}
		y = r.group(&b, f, y)
	}
	var legend strings.Builder
	for i, p := range r.peers {
		fmt.Fprintf(&legend, `<rect x="%d" y="12" width="10" height="10" fill="%s"/><text x="%d" y="21">%s</text>`,
			20+i*120, plotColours[i%len(plotColours)], 35+i*120, html.EscapeString(p))
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 %d" font-family="ui-sans-serif, system-ui, sans-serif" font-size="11">
<style>text { fill: #1f2328 } @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }</style>
%s
%s</svg>
`, y, legend.String(), b.String())
}

// group draws one figure at y and returns where the next one begins.
func (r *results) group(b *strings.Builder, f *figure, y int) int {
	longest := 0.0
	for _, values := range f.Values {
		for _, v := range values {
			longest = max(longest, v)
		}
	}
	if longest <= 0 {
		return y
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s, %s</text>`+"\n",
		plotLeft-10, y+barHeight-3, html.EscapeString(f.Name), f.Unit)
	for i, p := range r.peers {
		values := f.Values[p]
		if len(values) == 0 {
			continue
		}
		x := func(v float64) float64 { return plotLeft + max(0, v)/longest*plotWidth }
		low, high := values[0], values[0]
		for _, v := range values {
			low, high = min(low, v), max(high, v)
		}
		m := median(values)
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/><path d="M%.1f %dH%.1f" stroke="#57606a"/><text x="%.1f" y="%d">%.4g</text>`+"\n",
			plotLeft, y, x(m)-plotLeft, barHeight-2, plotColours[i%len(plotColours)],
			x(low), y+barHeight/2, x(high), x(high)+5, y+barHeight-3, m)
		y += barHeight
	}
	return y + groupSpace
}
