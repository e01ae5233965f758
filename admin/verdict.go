package admin

import (
	"fmt"
	"slices"
	"strings"

	"haslohas.com/elbow/pool"
)

// A Level says how much a person has to care.
type Level string

const (
	OK       Level = "ok"       // nothing to do
	Warn     Level = "warn"     // it serves, but not as it was meant to
	Bad      Level = "bad"      // users notice
	Starting Level = "starting" // nothing was decided yet
)

// A Verdict is a state of affairs in one line of words.
type Verdict struct {
	Level Level  `json:"level"`
	Text  string `json:"text"`
}

// why says in words why b takes new connections or does not.
func why(p *pool.Pool, b *pool.Backend, eligible bool) string {
	switch {
	case eligible && p.Traffic.FailOpen:
		return "tried although it is " + b.State.String() + ": no backend is well, and whenAllDown is all"
	case eligible && b.State == pool.Draining:
		return "cached DNS answers may still lead clients to it"
	case eligible && b.Suspect:
		return "a connection to it just failed, but no other backend is well"
	case eligible && b.State == pool.ForcedUp:
		return "an operator forced it up"
	case eligible:
		return "it is up"
	case b.State == pool.ForcedDown:
		return "an operator forced it down"
	case b.Drain == pool.Drained:
		return "drained: no connection is left, it is safe to power off"
	case b.State == pool.Draining:
		return "draining: established connections finish, no new ones"
	case b.Weight == 0:
		return "its weight is 0"
	case p.Standby(b):
		return standby(p, b)
	case b.Suspect:
		return "passed over: a connection to it just failed, the next probe decides"
	case b.State == pool.Unknown && len(p.Traffic.Index) > 0:
		return "not probed yet"
	case b.State == pool.Down && len(p.Traffic.Index) > 0 && !p.Traffic.FailOpen:
		return "it is down, and others are well"
	case p.Traffic.FailOpen:
		return fmt.Sprintf("it is %s, and of a later priority than %d: only those are tried", b.State, p.Traffic.Priority)
	}
	return "it is " + b.State.String() + ", and whenAllDown is refuse"
}

// standby says for whom b stands by.
func standby(p *pool.Pool, b *pool.Backend) string {
	up := 0
	for i := range p.Backends {
		if o := &p.Backends[i]; o.Priority == p.Traffic.Priority && o.Well() {
			up++
		}
	}
	switch up {
	case 0:
		return fmt.Sprintf("standby, priority %d: those of priority %d are being drained", b.Priority, p.Traffic.Priority)
	case 1:
		return fmt.Sprintf("standby, priority %d: 1 of priority %d is up", b.Priority, p.Traffic.Priority)
	}
	return fmt.Sprintf("standby, priority %d: %d of priority %d are up", b.Priority, up, p.Traffic.Priority)
}

// verdict judges a service of which everything else is filled in.
func verdict(s *ServiceStatus) Verdict {
	var up, draining, off, unknown, serving int
	for i := range s.Backends {
		b := &s.Backends[i]
		if b.Eligible {
			serving++
		}
		switch b.State {
		case pool.Up.String(), pool.ForcedUp.String():
			up++
		case pool.Draining.String():
			draining++
		case pool.ForcedDown.String():
			off++
		case pool.Unknown.String():
			unknown++
		}
	}
	closed := slices.IndexFunc(s.Listeners, func(l ListenerStatus) bool { return l.Error != "" })
	total := len(s.Backends)
	count := fmt.Sprintf("%d of %d up", up, total)
	if up == 0 {
		count = "none of " + number(total, "backend") + " up"
	}
	if draining > 0 {
		count += fmt.Sprintf(", %d draining", draining)
	}
	if off > 0 {
		count += fmt.Sprintf(", %d forced down", off)
	}
	switch {
	case closed >= 0:
		return Verdict{Bad, "port " + s.Listeners[closed].Address + " is not open"}
	case total == 0:
		return Verdict{Bad, "no backends"}
	case unknown == total:
		return Verdict{Starting, "not probed yet"}
	case s.FailOpen && slices.ContainsFunc(s.Backends, func(b BackendStatus) bool { return b.Priority != s.Priority }):
		return Verdict{Bad, fmt.Sprintf("%s, all of priority %d are tried", count, s.Priority)}
	case s.FailOpen:
		return Verdict{Bad, count + ", all are tried"}
	case serving == 0 && s.Answer == pool.Direct.String():
		return Verdict{Bad, count + ", no address is answered"}
	case serving == 0:
		return Verdict{Bad, count + ", refusing"}
	case s.FailedOver:
		return Verdict{Warn, fmt.Sprintf("%s, failed over to priority %d", count, s.Priority)}
	case up < total:
		return Verdict{Warn, count + ", serving"}
	case total == 1:
		return Verdict{OK, "its backend is up"}
	}
	return Verdict{OK, fmt.Sprintf("all %d up", total)}
}

// headlineServices bounds how many services the headline names.
const headlineServices = 2

// overall is the headline: of st everything else is filled in.
func overall(st *Status) Verdict {
	if !st.Ready {
		return Verdict{Starting, st.NotReady}
	}
	if st.Generation == 0 {
		return Verdict{Starting, "starting: nothing was decided yet"}
	}
	if len(st.Services) == 0 {
		return Verdict{OK, "No services are configured"}
	}
	level, backends := OK, 0
	var troubled []string
	for _, severity := range []Level{Bad, Warn, Starting, OK} {
		for i := range st.Services {
			s := &st.Services[i]
			if s.Verdict.Level != severity {
				continue
			}
			backends += len(s.Backends)
			if severity != OK {
				troubled = append(troubled, s.Name+": "+s.Verdict.Text)
				if level == OK {
					level = severity
				}
			}
		}
	}
	if level == OK {
		if i := slices.IndexFunc(st.Sources, func(s SourceStatus) bool { return s.Error != "" }); i >= 0 {
			return Verdict{Warn, "All backends are up, but source " + st.Sources[i].Name + " has an error"}
		}
		if i := slices.IndexFunc(st.Delegations, func(d Delegation) bool { return !d.OK }); i >= 0 {
			return Verdict{Warn, "All backends are up, but the delegation of " + st.Delegations[i].Zone + " is not as it must be"}
		}
		if i := slices.IndexFunc(st.Zones, func(z ZoneStatus) bool { return z.Overdue }); i >= 0 {
			return Verdict{Warn, "All backends are up, but the signatures of " + st.Zones[i].Name + " are not renewed"}
		}
		of := " of " + number(len(st.Services), "service")
		if backends == 1 {
			return Verdict{OK, "The one backend" + of + " is up"}
		}
		return Verdict{OK, fmt.Sprintf("All %d backends%s are up", backends, of)}
	}
	text := strings.Join(troubled[:min(len(troubled), headlineServices)], "; ")
	if more := len(troubled) - headlineServices; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return Verdict{level, text}
}

// number is n and the noun, in the plural where it must be.
func number(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
