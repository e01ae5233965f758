package dnsserver

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

func TestExplain(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	h.renumber(5)
	for _, c := range []struct {
		name    string
		kind    string
		zone    string
		records []string
	}{
		{"web.example.com", KindService, "example.com", []string{
			"web.example.com.\t30\tIN\tA\t198.51.100.1",
			"web.example.com.\t30\tIN\tA\t198.51.100.2",
		}},
		{"WEB.example.com.", KindService, "example.com", []string{
			"web.example.com.\t30\tIN\tA\t198.51.100.1",
			"web.example.com.\t30\tIN\tA\t198.51.100.2",
		}},
		{"none.example.com", KindService, "example.com", nil},
		{"tolive.example.com", KindStatic, "example.com", []string{
			"tolive.example.com.\t3600\tIN\tCNAME\tweb.example.com.",
			"web.example.com.\t30\tIN\tA\t198.51.100.1",
			"web.example.com.\t30\tIN\tA\t198.51.100.2",
		}},
		{"child.example.com", KindStatic, "child.example.com", []string{
			"child.example.com.\t3600\tIN\tNS\tns1.child.example.com.",
			"child.example.com.\t5\tIN\tSOA\tns1.child.example.com. first\\.last.example.org. 5 3600 600 1209600 5",
		}},
		{"x.wild.example.com", KindWildcard, "example.com", []string{
			"x.wild.example.com.\t3600\tIN\tA\t192.0.2.99",
			"x.wild.example.com.\t3600\tIN\tMX\t5 mail.example.com.",
		}},
		{"ent.example.com", KindNonTerminal, "example.com", nil},
		{"x.other.example.com", KindDelegation, "example.com", []string{
			"other.example.com.\t3600\tIN\tNS\tns.other.example.com.",
			"ns.other.example.com.\t3600\tIN\tA\t192.0.2.62",
		}},
		{"x.old.example.com", KindStatic, "example.com", []string{
			"old.example.com.\t3600\tIN\tDNAME\tnew.example.com.",
			"x.old.example.com.\t3600\tIN\tCNAME\tx.new.example.com.",
			"x.new.example.com.\t3600\tIN\tA\t192.0.2.30",
		}},
		{"nothing.example.com", KindMissing, "example.com", nil},
		{"x.www.example.com", KindMissing, "example.com", nil},
		{"www.example.net", KindOutside, "", nil},
		{"no..name", KindOutside, "", nil},
	} {
		e, ok := h.Explain(c.name)
		if ok != (c.kind != KindOutside) || e.Kind != c.kind || e.Zone != c.zone || e.Generation != 1 || ok != (e.Serial == 5) {
			t.Errorf("%s: %+v %v", c.name, e, ok)
		}
		records := e.Records
		if c.kind == KindStatic && len(records) > 0 && c.name == "x.old.example.com" {
			records = records[:min(3, len(records))] // what else the owner of the DNAME has is of no interest
		}
		if diff := cmp.Diff(c.records, records); diff != "" {
			t.Errorf("%s: want -, got +\n%s", c.name, diff)
		}
	}
}

func TestZones(t *testing.T) {
	f := &fixture{}
	f.zone(&pool.Zone{Name: "example.com", Records: "@ NS ns.example.net.\nwww A 192.0.2.1\na.b.c TXT x\nweb TXT x\n"})
	f.direct("web.example.com", "192.0.2.2")
	f.direct("a.b.example.com", "192.0.2.3")
	h := newHouse(t, nil)
	h.publish(f)
	h.renumber(9)
	// The apex, www, a.b.c, web and a.b; not b, c and b.c.
	if diff := cmp.Diff([]ZoneStatus{{Name: "example.com", Serial: 9, Names: 5}}, h.Zones()); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

// TestSignedZones: a zone tells its keys, how long its signatures last, and that
// nobody renews them.
func TestSignedZones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		h.publish(signedExample(t, dnssec.Ed25519))
		zone := func() ZoneStatus {
			t.Helper()
			zones := h.Zones()
			i := slices.IndexFunc(zones, func(z ZoneStatus) bool { return z.Name == "example.com" })
			if i < 0 {
				t.Fatal("no zone")
			}
			return zones[i]
		}
		z := zone()
		if len(z.Keys) != 1 || z.Keys[0].Algorithm != "ed25519" || z.Keys[0].Stage != "active" || z.Keys[0].Tag == 0 {
			t.Errorf("keys %+v", z.Keys)
		}
		if left := time.Until(z.Expires); left > validity || left < validity-validitySpan-time.Minute {
			t.Errorf("signatures expire in %s", left)
		}
		if z.Overdue {
			t.Error("new signatures are overdue")
		}
		time.Sleep(time.Until(z.Expires) - overdue)
		if z := zone(); z.Overdue {
			t.Error("overdue too early")
		}
		time.Sleep(time.Second)
		if z := zone(); !z.Overdue {
			t.Error("not overdue")
		}
	})
}
