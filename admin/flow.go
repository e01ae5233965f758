package admin

import (
	"fmt"
	"net/netip"
	"strings"

	"haslohas.com/elbow/pool"
)

// A flow is a picture of the way a client takes: the name it asks for, the
// address it connects to, the backends behind. It is drawn as SVG.
type flow struct {
	Width, Height int
	Pipes         []pipe // in the order of drawing: living ones over dead ones
	Boxes         []box
	Words         string // the same for somebody who does not see it
}

// A pipe leads from one box to another.
type pipe struct {
	Path string // of SVG
	Tone string // ok, warn, drain or dead
}

// A box is one stop on the way.
type box struct {
	X, Y, W, H  int
	Label, Text string
	Tone        string // of its dot; empty: it has none
	Full        string // what Text says, uncut
}

// TextX is where the text of b begins: after the dot.
func (b box) TextX() int {
	if b.Tone != "" {
		return b.X + 30
	}
	return b.X + 14
}

// DotX and Middle are the centre of the dot.
func (b box) DotX() int   { return b.X + 16 }
func (b box) Middle() int { return b.Y + b.H/2 }

// LabelY and TextY are the baselines of the two lines of text.
func (b box) LabelY() int { return b.Y + 18 }
func (b box) TextY() int  { return b.Y + 35 }

const (
	boxHeight = 46
	boxGap    = 12
	flowRows  = 6 // backends that are drawn, the rest is one row more
)

// stops returns the boxes without their places, and the tone of the pipe that
// leads to each: first the stops of every client, then the backends.
func stops(host *Host, s *ServiceStatus) (way, backends []box, toWay, toBackends []string) {
	way, toWay = []box{{Label: "anybody", Text: "client"}}, []string{""}
	tone1 := "ok"
	var addresses []netip.Addr
	if len(s.Names) > 0 {
		n := s.Names[0]
		label := "DNS name"
		if more := len(s.Names) - 1; more > 0 {
			label += fmt.Sprintf(" and %d more", more)
		}
		addresses = n.Addresses
		if len(addresses) == 0 {
			tone1 = "dead"
		}
		way, toWay = append(way, box{Label: label, Text: n.Name}), append(toWay, tone1)
	}
	direct := s.Answer == pool.Direct.String()
	if len(s.Listeners) > 0 && !direct {
		l := s.Listeners[0]
		label := "this host"
		if more := len(s.Listeners) - 1; more > 0 {
			label += fmt.Sprintf(", and %d more", more)
		}
		if l.Error != "" {
			label, tone1 = "not open", "dead"
		}
		way, toWay = append(way, box{Label: label, Text: outside(host, l.Address)}), append(toWay, tone1)
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		if i == flowRows && len(s.Backends) > flowRows+1 {
			rest := s.Backends[i:]
			n := 0
			for _, b := range rest {
				if serves(direct, &b) {
					n++
				}
			}
			t := "dead"
			if n > 0 {
				t = tone1
			}
			backends = append(backends, box{Label: fmt.Sprintf("%d of them serve", n), Text: fmt.Sprintf("%d more", len(rest)), Tone: "idle"})
			toBackends = append(toBackends, t)
			break
		}
		text := b.Address
		if direct {
			text = addressList(b.Public)
			if text == "" {
				text = b.Address
			}
		}
		label := b.State
		if b.Drain != "" {
			label = drainWords(b.Drain)
		}
		if b.Node != "" {
			label = b.Node + " · " + label
		}
		t := "dead"
		switch {
		case !serves(direct, b) || tone1 == "dead":
		case s.FailOpen:
			t = "warn"
		case b.State == pool.Draining.String():
			t = "drain"
		default:
			t = "ok"
		}
		backends = append(backends, box{Label: label, Text: text, Tone: tone(*b)})
		toBackends = append(toBackends, t)
	}
	return way, backends, toWay, toBackends
}

// serves reports whether new clients come to b.
func serves(direct bool, b *BackendStatus) bool {
	if direct {
		return b.Answered
	}
	return b.Eligible
}

// outside is a listener's address as clients know it.
func outside(host *Host, listener string) string {
	text, udp := pool.CutTransport(listener)
	at, err := netip.ParseAddrPort(text)
	if err != nil || !at.Addr().IsUnspecified() || len(host.Addresses) == 0 {
		return listener
	}
	return pool.Port{UDP: udp, Address: netip.AddrPortFrom(host.Addresses[0], at.Port())}.String()
}

// wideFlow draws from left to right.
func wideFlow(host *Host, s *ServiceStatus) flow {
	const width = 1000
	way, backends, toWay, toBackends := stops(host, s)
	widths := map[string]int{"client": 92}
	f := flow{Width: width, Height: max(1, len(backends))*(boxHeight+boxGap) - boxGap + 4, Words: words(way, backends)}
	backendW, used := 232, 232
	for i := range way {
		w := widths[way[i].Text]
		if w == 0 {
			w = 212
			if strings.HasPrefix(way[i].Label, "DNS") {
				w = 264
			}
		}
		way[i].W = w
		used += w
	}
	gap := (width - used - 4) / len(way)
	x, middle := 2, f.Height/2
	for i := range way {
		way[i].X, way[i].Y, way[i].H = x, middle-boxHeight/2, boxHeight
		cut(&way[i], 8)
		if i > 0 {
			f.Pipes = append(f.Pipes, pipe{fmt.Sprintf("M%d %dH%d", x-gap, middle, x), toWay[i]})
		}
		x += way[i].W + gap
	}
	for i := range backends {
		b := &backends[i]
		b.X, b.Y, b.W, b.H = x, 2+i*(boxHeight+boxGap), backendW, boxHeight
		cut(b, 8)
		f.Pipes = append(f.Pipes, pipe{bent(x-gap, middle, x, b.Middle()), toBackends[i]})
	}
	f.Boxes = append(way, backends...)
	f.deadFirst()
	return f
}

// bent is a pipe with two elbows from (x1, y1) to (x2, y2).
func bent(x1, y1, x2, y2 int) string {
	turn := x1 + (x2-x1)/2
	dy := y2 - y1
	r := min(10, max(dy, -dy)/2)
	if r < 2 {
		return fmt.Sprintf("M%d %dH%d", x1, y2, x2)
	}
	first, second, down := 1, 0, r
	if dy < 0 {
		first, second, down = 0, 1, -r
	}
	return fmt.Sprintf("M%d %dH%da%d %d 0 0 %d %d %dV%da%d %d 0 0 %d %d %dH%d",
		x1, y1, turn-r, r, r, first, r, down, y2-down, r, r, second, r, down, x2)
}

// tallFlow draws from top to bottom.
func tallFlow(host *Host, s *ServiceStatus) flow {
	const width, gap, indent, trunk = 340, 22, 34, 18
	way, backends, toWay, toBackends := stops(host, s)
	f := flow{Width: width, Words: words(way, backends)}
	y := 2
	for i := range way {
		way[i].X, way[i].Y, way[i].W, way[i].H = 2, y, width-4, boxHeight
		cut(&way[i], 8)
		if i > 0 {
			f.Pipes = append(f.Pipes, pipe{fmt.Sprintf("M%d %dV%d", trunk, y-gap, y), toWay[i]})
		}
		y += boxHeight + gap
	}
	from := y - gap
	y -= gap - boxGap
	for i := range backends {
		b := &backends[i]
		b.X, b.Y, b.W, b.H = indent+8, y, width-indent-10, boxHeight
		cut(b, 8)
		f.Pipes = append(f.Pipes, pipe{
			fmt.Sprintf("M%d %dV%da10 10 0 0 0 10 10H%d", trunk, from, b.Middle()-10, b.X), toBackends[i]})
		y += boxHeight + boxGap
	}
	f.Height = y - boxGap + 4
	if len(backends) == 0 {
		f.Height = from + 4
	}
	f.Boxes = append(way, backends...)
	f.deadFirst()
	return f
}

// deadFirst lets living pipes lie over dead ones where they share a way.
func (f *flow) deadFirst() {
	var dead, living []pipe
	for _, p := range f.Pipes {
		if p.Tone == "dead" {
			dead = append(dead, p)
		} else {
			living = append(living, p)
		}
	}
	f.Pipes = append(dead, living...)
}

// cut shortens the text of b to what fits; a character is about per wide.
func cut(b *box, per int) {
	b.Full = b.Text
	room := max(4, (b.X+b.W-b.TextX()-10)/per)
	if r := []rune(b.Text); len(r) > room {
		b.Text = string(r[:room-1]) + "…"
	}
	if r, room := []rune(b.Label), (b.X+b.W-b.TextX()-6)/6; len(r) > room {
		b.Label = string(r[:room-1]) + "…"
	}
}

// words says what the picture shows.
func words(way, backends []box) string {
	var out strings.Builder
	for i, b := range way {
		if i > 0 {
			out.WriteString(" to ")
		}
		out.WriteString(b.Text)
	}
	for i, b := range backends {
		if i == 0 {
			out.WriteString(", then to ")
		} else {
			out.WriteString("; ")
		}
		fmt.Fprintf(&out, "%s (%s)", b.Text, b.Label)
	}
	return out.String()
}
