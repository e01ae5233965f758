package delegation

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Code names a kind of [Finding]. It is a label of a metric: it does not change.
type Code string

const (
	ParentUnknown     Code = "parent-unknown"     // nobody knows the servers of the parent zone
	ParentUnreachable Code = "parent-unreachable" // none of them answers
	ParentsDiffer     Code = "parents-differ"     // they do not say the same
	NotDelegated      Code = "not-delegated"      // the parent zone has no NS records of ours
	NSMissing         Code = "ns-missing"
	NSExtra           Code = "ns-extra"
	GlueMissing       Code = "glue-missing"
	GlueWrong         Code = "glue-wrong"
	AddressPrivate    Code = "address-private"
	AddressWrong      Code = "address-wrong" // of a name server outside
	TTLDiffers        Code = "ttl-differs"
	DSMissing         Code = "ds-missing"
	DSWrong           Code = "ds-wrong"    // none is of a key that the zone has
	DSStale           Code = "ds-stale"    // one of them is, others are not, or are missing
	DSUnsigned        Code = "ds-unsigned" // and the zone is not signed
	NoUDP             Code = "no-udp"
	NoTCP             Code = "no-tcp"
	Lame              Code = "lame"       // it answers, but not with authority
	NSDiffers         Code = "ns-differs" // the zone itself names others
	SerialDiffers     Code = "serial-differs"
	OpenRecursion     Code = "open-recursion"
)

// Codes are all there are.
var Codes = [...]Code{
	ParentUnknown, ParentUnreachable, ParentsDiffer, NotDelegated, NSMissing, NSExtra, GlueMissing, GlueWrong, AddressPrivate, AddressWrong,
	TTLDiffers, DSMissing, DSWrong, DSStale, DSUnsigned, NoUDP, NoTCP, Lame, NSDiffers, SerialDiffers, OpenRecursion,
}

// Level says how much a [Finding] matters.
type Level string

const (
	Warning Level = "warning" // names resolve, but not as is meant
	Error   Level = "error"   // names do not resolve, for some clients at least
)

// warnings are the codes of that level; the others are errors.
var warnings = map[Code]bool{
	ParentUnknown: true, ParentUnreachable: true, ParentsDiffer: true, TTLDiffers: true, DSMissing: true, DSStale: true, NSExtra: true, NSMissing: true,
	NoTCP: true, NSDiffers: true, SerialDiffers: true, OpenRecursion: true, AddressWrong: true,
}

// A Finding is one thing that is not as it must be.
type Finding struct {
	Code  Code   `json:"code"`
	Level Level  `json:"level"`
	Where string `json:"where"` // the name, or the name and address of a server
	Text  string `json:"text"`  // what is wrong
	Cure  string `json:"cure"`  // what to do
}

func (f Finding) String() string { return fmt.Sprintf("%s: %s: %s", f.Code, f.Where, f.Text) }

// A Report is what [Verifier.Verify] found out about a zone.
type Report struct {
	Zone     string    `json:"zone"`
	Parent   string    `json:"parent"` // the zone that leads to it; empty: not known
	At       time.Time `json:"at"`
	Findings []Finding `json:"findings"` // sorted, errors first; never nil
	Notes    []string  `json:"notes,omitempty"`
}

// OK reports whether everything is as it must be.
func (r *Report) OK() bool { return len(r.Findings) == 0 }

func (r *Report) add(code Code, where, text, cure string) {
	level := Error
	if warnings[code] {
		level = Warning
	}
	f := Finding{code, level, where, text, cure}
	if !slices.Contains(r.Findings, f) {
		r.Findings = append(r.Findings, f)
	}
}

func (r *Report) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(r.Notes, n) {
		r.Notes = append(r.Notes, n)
	}
}

func (r *Report) sort() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Level, b.Level), // "error" is before "warning"
			cmp.Compare(slices.Index(Codes[:], a.Code), slices.Index(Codes[:], b.Code)), cmp.Compare(a.Where, b.Where))
	})
	slices.Sort(r.Notes)
}

// WriteReports prints reports for a person.
func WriteReports(w io.Writer, reports []Report) error {
	var b strings.Builder
	for i, r := range reports {
		if i > 0 {
			b.WriteByte('\n')
		}
		if r.OK() {
			fmt.Fprintf(&b, "%s: the delegation in %s is as it must be\n", r.Zone, cmp.Or(r.Parent, "its parent zone"))
		} else {
			fmt.Fprintf(&b, "%s: %s\n", r.Zone, counted(len(r.Findings), "thing is not as it must be", "things are not as they must be"))
		}
		for _, f := range r.Findings {
			fmt.Fprintf(&b, "  %s %s: %s: %s\n    %s\n", f.Level, f.Code, f.Where, f.Text, f.Cure)
		}
		for _, n := range r.Notes {
			fmt.Fprintf(&b, "  note: %s\n", n)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
