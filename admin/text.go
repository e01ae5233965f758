package admin

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"haslohas.com/elbow/pool"
)

// TextOptions say how a Status or Why is printed. The zero value is plain text
// of any width.
type TextOptions struct {
	Color bool // with the escape sequences of ECMA-48
	Width int  // columns of the terminal: the last column of a table is cut to fit; 0: never
}

// The colours of ECMA-48, section 8.3.117, for levels and tones.
var colours = map[string]string{
	"ok": "32", "warn": "33", "bad": "31", "off": "31", "drain": "34", "idle": "2", "starting": "2",
	"bold": "1", "dim": "2",
}

// A printer collects text. Whatever came from outside, such as the reason of
// a probe, has its control characters taken out.
type printer struct {
	TextOptions
	out bytes.Buffer
}

func (p *printer) line(format string, args ...any) { fmt.Fprintf(&p.out, format+"\n", args...) }

// paint is text in a colour, if there are any.
func (p *printer) paint(colour, text string) string {
	if !p.Color || text == "" || colours[colour] == "" {
		return text
	}
	return "\x1b[" + colours[colour] + "m" + text + "\x1b[0m"
}

// A cell is one field of a table.
type cell struct {
	text, colour string
	right        bool // aligned
}

// table prints rows as aligned columns, the first one as their heading.
func (p *printer) table(indent string, heading []string, rows [][]cell) {
	head := make([]cell, len(heading))
	for i, h := range heading {
		head[i] = cell{text: h, colour: "dim", right: len(rows) > 0 && rows[0][i].right}
	}
	rows = append([][]cell{head}, rows...)
	widths := make([]int, len(heading))
	for _, row := range rows {
		for i := range row {
			row[i].text = clean(row[i].text)
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	last := len(heading) - 1
	if p.Width > 0 {
		room := p.Width - len(indent)
		for _, w := range widths[:last] {
			room -= w + 2
		}
		widths[last] = min(widths[last], max(12, room))
	}
	for _, row := range rows {
		var line strings.Builder
		line.WriteString(indent)
		for i, c := range row {
			text := shorten(c.text, widths[i])
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			switch {
			case c.right:
				line.WriteString(pad + p.paint(c.colour, text))
			case i == last:
				line.WriteString(p.paint(c.colour, text))
			default:
				line.WriteString(p.paint(c.colour, text) + pad)
			}
			if i < last {
				line.WriteString("  ")
			}
		}
		p.line("%s", strings.TrimRight(line.String(), " "))
	}
}

func shorten(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}

// clean takes out what could make a terminal do things.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// zones prints the zones, and how those are signed that are.
func (p *printer) zones(zones []ZoneStatus, now time.Time) {
	heading := []string{"ZONE", "SERIAL", "NAMES"}
	signed := slices.ContainsFunc(zones, func(z ZoneStatus) bool { return len(z.Keys) > 0 })
	if signed {
		heading = append(heading, "SIGNED FOR", "KEYS")
	}
	var rows [][]cell
	for i := range zones {
		z := &zones[i]
		row := []cell{{text: z.Name}, {text: fmt.Sprint(z.Serial), right: true}, {text: fmt.Sprint(z.Names), right: true}}
		if signed {
			left := cell{text: "-", right: true}
			if len(z.Keys) > 0 {
				left.text = age(z.Expires, now)
			}
			if z.Overdue {
				left.colour = "bad"
			}
			row = append(row, left, cell{text: z.KeysText()})
		}
		rows = append(rows, row)
	}
	p.table("", heading, rows)
}

// WriteStatus prints st for a person.
func WriteStatus(w io.Writer, st Status, opts TextOptions) error {
	p := &printer{TextOptions: opts}
	p.line("%s", p.paint(string(st.Verdict.Level), clean(st.Verdict.Text)))
	about := fmt.Sprintf("elbow %s", st.Version)
	if st.Host.Name != "" {
		about += " on " + st.Host.Name
	}
	about += fmt.Sprintf(", generation %d, running for %s", st.Generation, age(st.Time, st.Started))
	p.line("%s", p.paint("dim", clean(about)))
	if e := st.ElasticIP; e != nil {
		since := "never asked"
		if !e.Asked.IsZero() {
			since = "asked " + age(st.Time, e.Asked) + " ago"
		}
		p.line("%s", p.paint(string(e.Verdict.Level), clean(fmt.Sprintf("%s (%s)", e.Verdict.Text, since))))
	}
	for i := range st.Services {
		p.line("")
		p.service(&st.Services[i], st.Time)
	}
	if len(st.Zones) > 0 {
		p.line("")
		p.zones(st.Zones, st.Time)
	}
	if len(st.Sources) > 0 {
		p.line("")
		var rows [][]cell
		for _, s := range st.Sources {
			last := "never"
			if !s.Updated.IsZero() {
				last = age(st.Time, s.Updated)
			}
			rows = append(rows, []cell{{text: s.Name}, {text: fmt.Sprint(s.Endpoints), right: true}, {text: last, right: true}, {text: s.Error, colour: "bad"}})
		}
		p.table("", []string{"SOURCE", "ENDPOINTS", "AGE", "ERROR"}, rows)
	}
	if len(st.Delegations) > 0 {
		p.line("")
		p.delegations(st.Delegations, st.Time)
	}
	return p.flush(w)
}

func (p *printer) delegations(all []Delegation, now time.Time) {
	var rows [][]cell
	for _, d := range all {
		state, colour := "ok", "ok"
		if !d.OK {
			state, colour = number(len(d.Findings), "finding"), "warn"
		}
		rows = append(rows, []cell{{text: d.Zone}, {text: d.Parent}, {text: state, colour: colour}, {text: age(now, d.Checked), right: true}, {text: d.Repair, colour: "bad"}})
	}
	p.table("", []string{"DELEGATION", "IN", "STATE", "AGE", "NOT REPAIRED"}, rows)
	for _, d := range all {
		for _, f := range d.Findings {
			p.line("  %s: %s: %s", p.paint("warn", clean(f.Code)), clean(f.Where), clean(f.Text))
			p.line("    %s", p.paint("dim", clean(f.Cure)))
		}
	}
}

func (p *printer) service(s *ServiceStatus, now time.Time) {
	p.line("%s  %s", p.paint("bold", clean(s.Name)), p.paint(string(s.Verdict.Level), clean(s.Verdict.Text)))
	for _, n := range s.Names {
		switch {
		case n.Zone == "":
			p.line("  %s: %s", clean(n.Name), clean(n.Reason))
		case len(n.Addresses) == 0:
			p.line("  %s: no address, for %ds: %s", clean(n.Name), n.TTL, clean(n.Reason))
		default:
			p.line("  %s: %s, TTL %ds: %s", clean(n.Name), addressList(n.Addresses), n.TTL, clean(n.Reason))
		}
	}
	for _, l := range s.Listeners {
		if l.Error != "" {
			p.line("  %s: %s", l.Address, p.paint("bad", "not open: "+clean(l.Error)))
		} else {
			shared := ""
			if len(l.SharedWith) > 0 {
				shared = ", shared with " + clean(strings.Join(l.SharedWith, ", "))
			}
			p.line("  %s: %s%s", l.Address, l.load(), shared)
		}
	}
	if len(s.Backends) > 0 {
		p.backends(s.Backends, now)
	}
}

func (p *printer) backends(backends []BackendStatus, now time.Time) {
	var rows [][]cell
	for _, b := range backends {
		state, takes := b.State, "no"
		if b.Drain != "" {
			state += ", " + drainWords(b.Drain)
		}
		if b.Suspect {
			state += ", suspect"
		}
		if b.Eligible {
			takes = "yes"
		}
		reason := b.Reason
		if unusual(&b) {
			reason = strings.TrimPrefix(reason+"; "+b.Why, "; ")
		}
		rows = append(rows, []cell{
			{text: b.Address}, {text: b.Node}, {text: state, colour: tone(b)}, {text: age(now, b.Since), right: true},
			{text: fmt.Sprint(b.Connections), right: true}, {text: fmt.Sprint(b.Weight), right: true}, {text: takes}, {text: reason},
		})
	}
	p.table("  ", []string{"BACKEND", "NODE", "STATE", "FOR", "CONNS", "WEIGHT", "SERVES", "REASON"}, rows)
}

// unusual reports whether the state of b alone does not say why it takes
// connections or not.
func unusual(b *BackendStatus) bool {
	switch b.State {
	case pool.Up.String(), pool.ForcedUp.String():
		return !b.Eligible || b.Suspect
	case pool.Draining.String():
		return false // its reason says how far it has come
	}
	return b.Eligible
}

// WriteWhy prints why for a person.
func WriteWhy(w io.Writer, why Why, opts TextOptions) error {
	p := &printer{TextOptions: opts}
	p.line("%s", p.paint("bold", clean(why.Summary)))
	p.line("%s", p.paint("dim", clean(fmt.Sprintf("%s %s, generation %d", why.Kind, why.Name, why.Generation))))
	if len(why.Lines) > 0 {
		p.line("")
	}
	for _, l := range why.Lines {
		p.line("  %s", clean(l))
	}
	if a := why.Answer; a != nil {
		p.line("")
		p.line("answer in zone %s, serial %d: %s", clean(a.Zone), a.Serial, clean(a.Kind))
		for _, r := range a.Records {
			// The tabs of presentation format are no control characters to fear.
			p.line("  %s", clean(strings.ReplaceAll(r, "\t", " ")))
		}
	}
	if len(why.Backends) > 0 {
		p.line("")
		p.backends(why.Backends, why.Time)
	}
	return p.flush(w)
}

func (p *printer) flush(w io.Writer) error {
	if _, err := p.out.WriteTo(w); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}
