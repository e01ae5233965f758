package delegation

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// WriteDiff prints plans for a person: what is to be created, replaced and
// deleted, what is in the way, and what else there is to know.
func WriteDiff(w io.Writer, parent string, plans []Plan) error {
	var b strings.Builder
	for i, p := range plans {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s, in %s:\n", p.Zone, parent)
		for _, c := range p.Changes {
			c.diff(&b)
		}
		for _, c := range p.Conflicts {
			fmt.Fprintf(&b, "! %s\n", c)
		}
		for _, n := range p.Notes {
			fmt.Fprintf(&b, "  note: %s\n", n)
		}
		switch {
		case len(p.Conflicts) > 0:
			fmt.Fprintf(&b, "  %s in the way: nothing will be changed\n", counted(len(p.Conflicts), "thing is", "things are"))
		case len(p.Changes) == 0:
			b.WriteString("  nothing to change\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// diff prints lines as those of a zone file, with what becomes of each ahead.
func (c *Change) diff(b *strings.Builder) {
	var before, after []string
	if c.Before != nil {
		before = c.Before.lines()
	}
	if c.After != nil {
		after = c.After.lines()
	}
	for _, l := range before {
		if !slices.Contains(after, l) {
			fmt.Fprintf(b, "- %s\n", l)
		}
	}
	for _, l := range after {
		sign := '+'
		if slices.Contains(before, l) {
			sign = ' '
		}
		fmt.Fprintf(b, "%c %s\n", sign, l)
	}
}

func (s *Set) lines() []string {
	var out []string
	for _, v := range s.Values {
		out = append(out, fmt.Sprintf("%s. %d IN %s %s", s.Name, s.TTL, s.Type, v))
	}
	if len(s.Values) == 0 {
		out = append(out, fmt.Sprintf("%s. IN %s (%s)", s.Name, s.Type, s.Special))
	}
	return out
}

// WriteZoneFile prints what must be in the parent zone in the format of RFC
// 1035, without regard to what is there.
func WriteZoneFile(w io.Writer, zones []Zone) error {
	var b strings.Builder
	for i, z := range zones {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "; the zone around %s must hold\n", z.Name)
		for _, s := range z.wanted() {
			for _, l := range s.lines() {
				b.WriteString(l + "\n")
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// A ChangeBatch is the JSON that aws route53 change-resource-record-sets takes
// for --change-batch.
type ChangeBatch struct {
	Comment string        `json:"Comment"`
	Changes []BatchChange `json:"Changes"`
}

// A BatchChange is one change of a [ChangeBatch].
type BatchChange struct {
	Action            string   `json:"Action"` // CREATE, DELETE or UPSERT
	ResourceRecordSet BatchSet `json:"ResourceRecordSet"`
}

// A BatchSet is a set in the form of Route 53.
type BatchSet struct {
	Name            string        `json:"Name"`
	Type            string        `json:"Type"`
	TTL             int           `json:"TTL"`
	ResourceRecords []BatchRecord `json:"ResourceRecords"`
}

// A BatchRecord is one value.
type BatchRecord struct {
	Value string `json:"Value"`
}

const comment = "delegation by elbow"

// Batch returns the changes of plans as one batch. A set is replaced by a DELETE
// of what was seen and a CREATE: if somebody else was faster, Route 53 refuses the
// batch as a whole.
func Batch(plans []Plan) ChangeBatch {
	b := ChangeBatch{Comment: comment, Changes: []BatchChange{}}
	for _, p := range plans {
		for _, c := range p.Changes {
			if c.Before != nil {
				b.Changes = append(b.Changes, BatchChange{"DELETE", c.Before.batch()})
			}
			if c.After != nil {
				b.Changes = append(b.Changes, BatchChange{"CREATE", c.After.batch()})
			}
		}
	}
	return b
}

// Upserts returns a batch that puts what must be there in the place of
// whatever is.
func Upserts(zones []Zone) ChangeBatch {
	b := ChangeBatch{Comment: comment, Changes: []BatchChange{}}
	for _, z := range zones {
		for _, s := range z.wanted() {
			b.Changes = append(b.Changes, BatchChange{"UPSERT", s.batch()})
		}
	}
	return b
}

func (s *Set) batch() BatchSet {
	out := BatchSet{Name: s.Name + ".", Type: s.Type, TTL: s.TTL}
	for _, v := range s.Values {
		out.ResourceRecords = append(out.ResourceRecords, BatchRecord{v})
	}
	return out
}

// WriteJSON prints a batch, indented.
func WriteJSON(w io.Writer, b ChangeBatch) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(b)
}

// WriteTerraform prints what must be there in Terraform's language, for those
// who keep the parent zone in it. parent is its name.
func WriteTerraform(w io.Writer, parent string, zones []Zone) error {
	var b strings.Builder
	label := identifier(parent)
	fmt.Fprintf(&b, "data \"aws_route53_zone\" %q {\n  name         = %q\n  private_zone = false\n}\n", label, parent)
	for _, z := range zones {
		for _, s := range z.wanted() {
			fmt.Fprintf(&b, "\nresource \"aws_route53_record\" %q {\n", identifier(s.Name+"_"+strings.ToLower(s.Type)))
			fmt.Fprintf(&b, "  zone_id = data.aws_route53_zone.%s.zone_id\n", label)
			fmt.Fprintf(&b, "  name    = %q\n  type    = %q\n  ttl     = %d\n  records = [", s.Name, s.Type, s.TTL)
			for i, v := range s.Values {
				if i > 0 {
					b.WriteString(", ")
				}
				fmt.Fprintf(&b, "%q", v)
			}
			b.WriteString("]\n}\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// identifier makes a name that Terraform allows.
func identifier(name string) string {
	out := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, name)
	if out == "" || out[0] < 'a' && out[0] != '_' {
		out = "_" + out
	}
	return out
}
