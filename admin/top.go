package admin

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Top is what the DNS server was asked most over the last minutes: GET
// /api/v1/dns/top. Lists begin with the most and are never null. Counts are
// estimates where there are many queries.
type Top struct {
	Window  int    `json:"window_seconds"` // that the counts are about
	Queries uint64 `json:"queries"`
	Absent  uint64 `json:"nxdomain"` // of them, for names that do not exist

	Names   []TopEntry `json:"names"`          // that were asked for
	Clients []TopEntry `json:"clients"`        // networks that asked, IPv4 /24 and IPv6 /56
	Missing []TopEntry `json:"nxdomain_names"` // names that do not exist
	Below   []TopEntry `json:"nxdomain_below"` // where those were looked for: them without the first label
}

// A TopEntry is one line of a Top.
type TopEntry struct {
	What    string `json:"what"` // a name in presentation format, without the final dot, or a network
	Queries uint64 `json:"queries"`
}

// A topList is one of the lists of a Top, for a person.
type topList struct {
	Title   string
	Entries []TopEntry
}

// topOnPage is how many lines of each list the status page shows.
const topOnPage = 8

func (t Top) lists() []topList {
	return []topList{
		{"Names", t.Names}, {"Client networks", t.Clients},
		{"Names that do not exist", t.Missing}, {"Below which names do not exist", t.Below},
	}
}

// Period is the window in a few characters.
func (t Top) Period() string {
	now := time.Now()
	return age(now, now.Add(-time.Duration(t.Window)*time.Second))
}

// top returns what was asked most, and false where that is not counted.
func (s *Server) top() (Top, bool) {
	var t Top
	counted := false
	if s.opts.Top != nil {
		t, counted = s.opts.Top()
	}
	for _, l := range []*[]TopEntry{&t.Names, &t.Clients, &t.Missing, &t.Below} {
		*l = orEmpty(*l)
	}
	return t, counted
}

func (s *Server) serveTop(w http.ResponseWriter, _ *http.Request) {
	t, counted := s.top()
	if !counted {
		writeError(w, http.StatusNotFound, errors.New("what is asked most is not counted; dns.top: true counts it"))
		return
	}
	writeJSON(w, http.StatusOK, t)
}

// WriteTop prints t for a person, at most so many lines of each list; 0: all.
func WriteTop(w io.Writer, t Top, lines int, opts TextOptions) error {
	p := &printer{TextOptions: opts}
	p.line("%s", p.paint("bold", fmt.Sprintf("%d queries in %s, %d for names that do not exist", t.Queries, t.Period(), t.Absent)))
	for _, l := range t.lists() {
		if len(l.Entries) == 0 {
			continue
		}
		if lines > 0 {
			l.Entries = l.Entries[:min(lines, len(l.Entries))]
		}
		var rows [][]cell
		for _, e := range l.Entries {
			share := "–"
			if t.Queries > 0 {
				share = fmt.Sprintf("%.1f%%", 100*float64(e.Queries)/float64(t.Queries))
			}
			rows = append(rows, []cell{{text: fmt.Sprint(e.Queries), right: true}, {text: share, right: true}, {text: e.What}})
		}
		p.line("")
		p.line("%s", l.Title)
		p.table("  ", []string{"QUERIES", "SHARE", ""}, rows)
	}
	return p.flush(w)
}
