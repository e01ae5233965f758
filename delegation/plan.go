package delegation

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// An Action is what a [Change] does.
type Action uint8

const (
	Create Action = iota
	Replace
	Delete
)

func (a Action) String() string { return [...]string{"create", "replace", "delete"}[a] }

// A Change is one of a set. Before is nil where it is created, After where it is
// deleted.
type Change struct {
	Action        Action
	Before, After *Set
	Why           string // empty: it goes without saying
}

// Set returns what the change is about.
func (c *Change) Set() *Set {
	if c.After != nil {
		return c.After
	}
	return c.Before
}

// A Conflict is something in the parent zone that elbow has not written, and
// that is not as it must be.
type Conflict struct {
	Set  Set    // as it is
	Text string // what is wrong
	Cure string
}

func (c Conflict) String() string { return fmt.Sprintf("%s: %s; %s", &c.Set, c.Text, c.Cure) }

// Consent is what elbow may do to that which it has not written. The zero value:
// nothing.
type Consent struct {
	// Adopt takes over sets about the delegation, with whatever they hold:
	// from then on they are as if elbow had written them.
	Adopt bool

	// Hide lets a new delegation hide other records at and below its name: once it
	// is there, the parent does not answer them any more.
	Hide bool
}

// A Plan is what there is to do in the parent zone for one of ours.
type Plan struct {
	Zone      string
	Wanted    []Set      // without the marker
	Changes   []Change   // in the order in which they are shown
	Conflicts []Conflict // sorted; as long as there is one, nothing is to be done
	Notes     []string   // what a person may want to know
}

// Compare returns what makes the parent zone hold what z needs, where have is
// every set there at and below z.Name. Where remove is set, it is to hold nothing
// of it any more.
func Compare(z Zone, have []Set, owner string, consent Consent, remove bool) Plan {
	c := comparison{
		Plan:    Plan{Zone: z.Name},
		owner:   owner,
		consent: consent,
		have:    make(map[key]*Set, len(have)),
		several: make(map[key]bool),
		keep:    make(map[key]ownership),
	}
	for i := range have {
		s := &have[i]
		c.several[s.key()] = c.have[s.key()] != nil
		c.have[s.key()] = s
	}
	mark := key{markerLabel + z.Name, "TXT"}
	if m := c.have[mark]; m != nil {
		owned, strange := readMarker(z.Name, m)
		c.owned = owned
		for _, v := range strange {
			c.conflict(m, "it holds "+v+", which is no record of a marker", "take that out, or move it to another name")
		}
	}
	claimed := map[key]bool{}
	if !remove {
		c.Wanted = z.wanted()
		claimed = z.claimed()
	}
	for i := range c.Wanted {
		c.want(&c.Wanted[i])
		delete(claimed, c.Wanted[i].key())
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.owned), compareKeys) {
		if k == (key{z.Name, "DS"}) && z.Keys.ByHand && !remove {
			c.keep[k] = c.owned[k]
			continue
		}
		if !slices.ContainsFunc(c.Wanted, func(s Set) bool { return s.key() == k }) {
			c.drop(k)
			delete(claimed, k)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(claimed), compareKeys) {
		c.stray(k)
	}
	if remove {
		c.left(z)
	} else {
		c.hidden(z, mark)
	}
	c.mark(mark, marker(z.Name, c.keep))
	slices.SortStableFunc(c.Changes, func(a, b Change) int { return order(*a.Set(), *b.Set()) })
	slices.SortStableFunc(c.Conflicts, func(a, b Conflict) int { return order(a.Set, b.Set) })
	return c.Plan
}

// A comparison is a Plan in the making.
type comparison struct {
	Plan
	owner   string
	consent Consent
	have    map[key]*Set
	several map[key]bool      // of a set that Route 53 chooses from
	owned   map[key]ownership // as the marker says
	keep    map[key]ownership // as it is to say
}

func compareKeys(a, b key) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.typ, b.typ)) }

func (c *comparison) conflict(s *Set, text, cure string) {
	c.Conflicts = append(c.Conflicts, Conflict{*s, text, cure})
}

// ours reports whether elbow, and this one, has written the set.
func (c *comparison) ours(k key) bool { return c.owned[k].owner == c.owner }

// refused reports, as a conflict, a set that may not be touched.
func (c *comparison) refused(s *Set, text string) bool {
	switch o, marked := c.owned[s.key()]; {
	case s.Special != "" || c.several[s.key()]:
		c.conflict(s, fmt.Sprintf("it is %s, which is no delegation", cmp.Or(s.Special, "one of several sets")), "delete it by hand")
	case marked && o.owner != c.owner:
		c.conflict(s, fmt.Sprintf("it belongs to the owner %s: %s", o.owner, text), "set aws.delegation.owner to that, if it is the same elbow")
	case !marked && !c.consent.Adopt:
		c.conflict(s, "elbow has not written it: "+text, "elbow delegation apply --adopt takes it over")
	default:
		return false
	}
	return true
}

// want makes the set w be there.
func (c *comparison) want(w *Set) {
	h, k := c.have[w.key()], w.key()
	if alias := c.have[key{w.Name, "CNAME"}]; alias != nil {
		c.conflict(alias, "there can be nothing else where a CNAME is, and "+w.Type+" must be", "delete it by hand")
		return
	}
	o, marked := c.owned[k]
	switch {
	case h == nil:
		c.Changes = append(c.Changes, Change{Action: Create, After: w})
	case h.equal(w) && !c.several[k] && marked && o.owner != c.owner:
		c.keep[k] = o // it is as it must be, and stays whose it is
		return
	case h.equal(w) && !c.several[k] && !marked && !c.consent.Adopt:
		c.Notes = append(c.Notes, fmt.Sprintf("%s is as it must be; elbow has not written it and will not repair it (apply --adopt takes it over)", w))
		return
	case h.equal(w) && !c.several[k]:
	case c.refused(h, difference(h, w)):
		return
	default:
		c.Changes = append(c.Changes, Change{Action: Replace, Before: h, After: w, Why: difference(h, w)})
	}
	c.keep[k] = ownership{c.owner, w.sum()}
}

// drop takes away a set that the marker names and nobody needs any more.
func (c *comparison) drop(k key) {
	h := c.have[k]
	switch o := c.owned[k]; {
	case o.owner != c.owner:
		c.keep[k] = o
	case h == nil:
		// It is gone already.
	case h.sum() != o.sum && !c.consent.Adopt:
		c.conflict(h, "it is not needed any more, and somebody has changed it since elbow wrote it: "+strings.Join(h.Values, ", "),
			"delete it by hand, or with --adopt")
	case c.several[k] || h.Special != "":
		c.refused(h, "")
	default:
		c.Changes = append(c.Changes, Change{Action: Delete, Before: h})
	}
}

// stray deals with a set that leads astray and is not in the marker.
func (c *comparison) stray(k key) {
	h := c.have[k]
	if h == nil || c.ours(k) {
		return
	}
	text := fmt.Sprintf("there must be none, it holds %s", strings.Join(h.Values, ", "))
	if k.typ == "DS" {
		text += ": without that key in the zone, resolvers that validate answer none of its names"
	}
	if !c.refused(h, text) {
		c.Changes = append(c.Changes, Change{Action: Delete, Before: h, Why: text})
	}
}

// hidden finds what the delegation of z takes out of the parent's answers.
func (c *comparison) hidden(z Zone, mark key) {
	claimed := z.claimed()
	known := c.have[key{z.Name, "NS"}] != nil
	needed := make(map[string]bool, len(c.Wanted))
	for _, w := range c.Wanted {
		needed[w.Name] = true
	}
	for _, k := range slices.SortedFunc(maps.Keys(c.have), compareKeys) {
		_, owned := c.owned[k]
		if owned || claimed[k] || k == mark || k == (key{z.Name, "DS"}) || k.typ == "CNAME" && needed[k.name] {
			continue
		}
		if s := c.have[k]; known || c.consent.Hide {
			c.Notes = append(c.Notes, fmt.Sprintf("%s in the parent zone is hidden by the delegation: only %s is asked for it", s, z.Name))
		} else {
			c.conflict(s, "the delegation would hide it", fmt.Sprintf("let %s answer it, then delete it here; or elbow delegation apply --hide", z.Name))
		}
	}
}

// left names what of the delegation stays when elbow has taken away its own.
func (c *comparison) left(z Zone) {
	for _, k := range slices.SortedFunc(maps.Keys(z.claimed()), compareKeys) {
		if s := c.have[k]; s != nil && !c.ours(k) {
			c.Notes = append(c.Notes, fmt.Sprintf("%s stays: elbow has not written it", s))
		}
	}
}

// mark brings the marker up to date.
func (c *comparison) mark(k key, next *Set) {
	h := c.have[k]
	switch {
	case h == nil && next != nil:
		c.Changes = append(c.Changes, Change{Action: Create, After: next})
	case h != nil && next == nil:
		c.Changes = append(c.Changes, Change{Action: Delete, Before: h})
	case h != nil && !h.equal(next):
		c.Changes = append(c.Changes, Change{Action: Replace, Before: h, After: next})
	}
}

// difference says in what a set differs from what it must be.
func difference(have, want *Set) string {
	var parts []string
	for _, v := range want.Values {
		if !slices.Contains(have.Values, v) {
			parts = append(parts, v+" is missing")
		}
	}
	for _, v := range have.Values {
		if !slices.Contains(want.Values, v) {
			parts = append(parts, v+" is too much")
		}
	}
	if have.TTL != want.TTL && have.Special == "" {
		parts = append(parts, fmt.Sprintf("its TTL is %d, not %d", have.TTL, want.TTL))
	}
	return strings.Join(parts, ", ")
}
