package dnsserver

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"haslohas.com/elbow/pool"
)

const ns = "@ NS ns.example.net.\n"

var zoneErrors = []struct {
	name string
	text string
	want []string // LINE:COLUMN: message
}{
	{"nothing wrong", ns + "www A 192.0.2.1\n", nil},
	{"no name server", "www A 192.0.2.1\n", []string{"zone.db: zone example.com has no name server: add NS records of example.com. to the zone file, or name them in the configuration"}},
	{"SOA without NS", "@ SOA a b 1 2 3 4 5\n", []string{"zone.db: zone example.com has no name server: add NS records of example.com. to the zone file, or name them in the configuration"}},
	{"two errors, with the lines between", ns + "a A 1.2.3\n\n; comment\nb A 192.0.2.1\nc MX x\nd A 192.0.2.2\n", []string{
		`zone.db:2:5: bad A A: "1.2.3"`,
		`zone.db:6:6: bad MX Pref: "x"`,
	}},
	{"error inside parentheses", ns + "a TXT (\n \"x\"\n \"y\" )\n@ SOA a b (\n 1\n 2\n x\n 4 5 )\n", []string{
		`zone.db:8:2: bad SOA zone parameter: "x"`,
	}},
	{"heirs of a bad owner", ns + "a A x\n  A 192.0.2.1\n  A 192.0.2.2\nb A y\n", []string{
		`zone.db:2:5: bad A A: "x"`,
		`zone.db:5:5: bad A A: "y"`,
	}},
	{"$ORIGIN holds after an error", ns + "$ORIGIN sub\n$ORIGIN a.sub.example.com.\nx A x\ny CNAME z\ny A 192.0.2.1\n", []string{
		`zone.db:4:5: bad A A: "x"`,
		`zone.db:5:1: y.a.sub.example.com. is a CNAME and owns other records too`,
	}},
	{"quote", ns + "a TXT \"x\nb A 192.0.2.1\n", []string{"zone.db:2:1: the quote that opens here is never closed"}},
	{"parenthesis", ns + "a TXT ( x\nb A 192.0.2.1\n", []string{"zone.db:2:1: the parenthesis that opens here is never closed"}},
	{"$INCLUDE", ns + "$INCLUDE /etc/passwd\n", []string{`zone.db:2:10: $INCLUDE directive not allowed: "/etc/passwd"`}},
	{"unknown type", ns + "a FOO x\n", []string{`zone.db:2:3: not a TTL: "FOO"`}},
	{"no owner", " NS ns.example.net.\n", []string{
		"zone.db: zone example.com has no name server: add NS records of example.com. to the zone file, or name them in the configuration",
		"zone.db:1:1: the record has no owner and none stands before it",
	}},
	{"no data", ns + "a A\nb CNAME", []string{
		`zone.db:2:3: unexpected newline: "\n"`,
		"zone.db:3:1: CNAME record of b.example.com.: the data is missing",
	}},
	{"empty data in the generic form", ns + "a A \\# 0\nb CNAME \\# 0\nc MX \\# 2 0001\n", []string{
		"zone.db:2:1: A record of a.example.com.: the data is missing",
		"zone.db:3:1: CNAME record of b.example.com.: the data is missing",
		"zone.db:4:1: MX record of c.example.com.: the data is no name",
	}},
	{"class", ns + "a CH TXT x\n", []string{"zone.db:2:1: class CH: only IN is served"}},
	{"signed", ns + "a NSEC b A\n", []string{"zone.db:2:1: NSEC belongs to a signed zone, whose answers cannot follow the health of backends: load it unsigned, and sign it here with dnssec"}},
	{"question type", ns + "a TYPE255 \\# 0\n", []string{"zone.db:2:1: ANY is a type of questions, not of records"}},
	{"long label", ns + strings.Repeat("a", 64) + " A 192.0.2.1\n", []string{fmt.Sprintf(`zone.db:2:1: bad owner name: "%s"`, strings.Repeat("a", 64))}},
	{"long name", ns + "$ORIGIN " + strings.Repeat("aaaaaaaaaa.", 20) + "example.com.\n" + strings.Repeat("b", 40) + " A 192.0.2.1\n", []string{
		"zone.db:3:1: owner " + strings.Repeat("b", 40) + "." + strings.Repeat("aaaaaaaaaa.", 20) + "example.com.: the name is longer than 255 octets",
	}},
	{"out of zone", ns + "a.example.net. A 192.0.2.1\nb.notexample.com. A 192.0.2.1\n", []string{
		"zone.db:2:1: a.example.net. is not in the zone example.com.",
		"zone.db:3:1: b.notexample.com. is not in the zone example.com.",
	}},
	{"SOA below", ns + "a SOA a b 1 2 3 4 5\n", []string{"zone.db:2:1: a.example.com. owns an SOA: only the apex example.com. may"}},
	{"two SOA", ns + "@ SOA a b 1 2 3 4 5\n@ SOA a b 2 2 3 4 5\n", []string{"zone.db:3:1: a second SOA: the first stands on line 2"}},
	{"CNAME and others", ns + "a CNAME b\na TXT x\n", []string{"zone.db:2:1: a.example.com. is a CNAME and owns other records too"}},
	{"two CNAME", ns + "a CNAME b\na CNAME c\n", []string{"zone.db:3:1: a.example.com. has two CNAME records"}},
	{"the same CNAME twice", ns + "a CNAME b\na CNAME b\n", nil},
	{"CNAME at the apex", ns + "@ CNAME b\n", []string{"zone.db:2:1: the apex example.com. cannot be a CNAME: it owns the SOA and NS"}},
	{"NS to CNAME", "@ NS a\na CNAME b\n", []string{"zone.db:1:1: NS of example.com. points to a.example.com., which is a CNAME"}},
	{"NS without address", "@ NS ns\ncut NS ns.cut\nother NS ns.cut\n", []string{
		"zone.db:1:1: ns.example.com. is a name server of example.com. and has no address",
		"zone.db:2:1: ns.cut.example.com. is a name server of cut.example.com. and has no address",
	}},
	{"NS that is a service", "@ NS web\n", nil},
	{"wildcard delegation", ns + "*.a NS ns.example.net.\n*.b DNAME a\n", []string{
		"zone.db:2:1: *.a.example.com.: a wildcard cannot be delegated",
		"zone.db:3:1: *.b.example.com.: a wildcard cannot own a DNAME",
	}},
	{"DS at the apex", ns + "@ DS 1 13 2 00\n", []string{"zone.db:2:1: DS of example.com. belongs in the parent zone"}},
	{"below a DNAME", ns + "a DNAME b\nx.a A 192.0.2.1\n", []string{"zone.db:3:1: x.a.example.com. lies below the DNAME of a.example.com."}},
	{"DNAME at a delegation", ns + "a DNAME b\na NS ns.example.net.\n", []string{"zone.db:2:1: a.example.com. is delegated and cannot own a DNAME"}},
	{"only odd", ns + "a 60 A 192.0.2.1\na 30 A 192.0.2.2\na 30 A 192.0.2.2\ncut NS ns.example.net.\nx.cut TXT x\n", nil},
	{"address of a service", ns + "web A 192.0.2.1\n", []string{"zone.db:2:1: web.example.com. is the hostname of a service: its A cannot stand here"}},
	{"alias of a service", ns + "web CNAME www\n", []string{"zone.db:2:1: web.example.com. is the hostname of a service: its CNAME cannot stand here"}},
	{"more about a service", ns + "web TXT x\nweb MX 10 web\n", nil},
	{"delegation of a service", ns + "web NS ns.example.net.\n", []string{"zone.db:2:1: web.example.com. is the hostname of a service: its NS cannot stand here"}},
	{"service in a delegation", ns + "sub NS ns.example.net.\n", []string{"zone.db:2:1: deep.sub.example.com. is the hostname of a service and lies below the delegation of sub.example.com."}},
	{"service below a DNAME", ns + "sub DNAME other\n", []string{"zone.db:2:1: deep.sub.example.com. is the hostname of a service and lies below the DNAME of sub.example.com."}},
	{"a set that fits in no answer", ns + strings.Repeat("big TXT "+strings.Repeat(strings.Repeat("x", 250)+" ", 4)+"%\n", 70),
		[]string{"zone.db:2:1: the TXT records of big.example.com. make 71540 octets: more than fits in an answer"}},
}

func TestCheckZone(t *testing.T) {
	names := []pool.OwnName{{Name: "web.example.com"}, {Name: "deep.sub.example.com"}, {Name: "www.example.org"}}
	for _, c := range zoneErrors {
		t.Run(c.name, func(t *testing.T) {
			for n := 0; strings.Contains(c.text, "%\n"); n++ {
				c.text = strings.Replace(c.text, "%\n", fmt.Sprintf("%05d\n", n), 1)
			}
			z := &pool.Zone{Name: "example.com", File: "zone.db", Records: c.text, TTL: pool.ZoneTTL{Normal: time.Minute, Negative: time.Second}}
			var got []string
			for _, e := range CheckZone(z, names) {
				got = append(got, e.Error())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
		})
	}
}

func TestCheckZoneOfTheConfiguration(t *testing.T) {
	z := &pool.Zone{Name: "example.com", Hostmaster: "nobody", NameServers: []pool.NameServer{{Name: "ns.example.com"}}}
	want := []ZoneError{
		{Message: "ns.example.com. is a name server of example.com. and has no address"},
		{Message: `zone example.com: hostmaster "nobody": want user@host, the user at most 63 octets`},
	}
	if diff := cmp.Diff(want, CheckZone(z, nil)); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

// TestOdd: what every other server loads too is said in the log, and refuses
// nothing.
func TestOdd(t *testing.T) {
	tests := []struct{ name, records, want string }{
		{"CNAME loop", "a CNAME b\nb CNAME a\n", "a.example.com. is a CNAME that leads back to itself"},
		{"into a CNAME loop", "b CNAME b\nc CNAME b\n", "c.example.com. begins a chain of more than 12 CNAME records"},
		{"MX to CNAME", "a CNAME b\n@ MX 10 a\n", "MX of example.com. points to a.example.com., which is a CNAME"},
		{"SRV to CNAME", "a CNAME b\ns SRV 1 1 80 a\n", "SRV of s.example.com. points to a.example.com., which is a CNAME"},
		{"DNAME to below", "a DNAME x.a\n", "the DNAME of a.example.com. leads below itself, to x.a.example.com."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			z := &pool.Zone{Name: "example.com", File: "zone.db", Records: ns + test.records}
			if errs := CheckZone(z, nil); len(errs) > 0 {
				t.Errorf("refused: %v", errs)
			}
			_, findings := loadZone(z)
			if !slices.ContainsFunc(findings, func(f finding) bool { return f.warning && f.message == test.want }) {
				t.Errorf("%q is not among %+v", test.want, findings)
			}
		})
	}
}

func TestExampleZoneIsGood(t *testing.T) {
	text, err := os.ReadFile("testdata/example.zone")
	if err != nil {
		t.Fatal(err)
	}
	z := &pool.Zone{Name: "example.com", File: "example.zone", Records: string(text)}
	var got []string
	for _, e := range CheckZone(z, nil) {
		got = append(got, e.Message)
	}
	if len(got) > 0 {
		t.Errorf("got %q", got)
	}
}

func TestTooManyRecords(t *testing.T) {
	text := ns + strings.Repeat("$GENERATE 1-100 a$ A 192.0.2.1\n", 11)
	records, findings := parseZoneFile(text, mustName(t, "example.com"), 60, 1000)
	if len(records) != 1000 || len(findings) != 1 || findings[0].message != "the zone has more than 1000 records" || findings[0].line != 11 {
		t.Errorf("%d records, %v", len(records), findings)
	}
	if records, findings = parseZoneFile(text, mustName(t, "example.com"), 60, 1101); len(records) != 1101 || len(findings) != 0 {
		t.Errorf("%d records, %v", len(records), findings)
	}
}

func TestNobodyReadsThousandsOfErrors(t *testing.T) {
	z := &pool.Zone{Name: "example.com", File: "zone.db", Records: ns + strings.Repeat("a.example.net. A 192.0.2.1\n", 5000)}
	for range 2 {
		got := CheckZone(z, nil)
		if len(got) != maxFindings+1 || got[1].Line != 2 || got[0].Error() != "zone.db: 4950 more of this kind" {
			t.Errorf("%d errors, the first %v, %v", len(got), got[0], got[1])
		}
	}
}
