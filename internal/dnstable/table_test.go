package dnstable

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sample = `A sample.

-- zone a.test --
@ SOA ns h 1 1 1 1 1
-- service web.a.test --
192.0.2.1 192.0.2.2
-- answers --
! slow: it sleeps

# One of each.
> www.a.test A
NOERROR aa
an www.a.test. 1 IN A 192.0.2.80
! knot nsd: why

> b.test TYPE65280 class=CH tcp
REFUSED
`

func TestParse(t *testing.T) {
	got, err := Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	want := &Table{
		Zones:    []Zone{{"a.test", "@ SOA ns h 1 1 1 1 1\n"}},
		Services: []Service{{"web.a.test", []string{"192.0.2.1", "192.0.2.2"}}},
		Cases: []Case{
			{11, "www.a.test A", "NOERROR aa\nan www.a.test. 1 IN A 192.0.2.80\n", map[string]string{"knot": "why", "nsd": "why"}},
			{16, "b.test TYPE65280 class=CH tcp", "REFUSED\n", map[string]string{}},
		},
		Others: map[string]string{"slow": "it sleeps"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":         "",
		"another section": "-- zones --\n",
		"no question":     "-- answers --\nNOERROR\n",
		"no reason":       "-- answers --\n> a.test A\n! knot\n",
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, line := range []string{"a.test", "a.test NOTYPE", "a.test TYPE65536", "a.test A class=XX", "a.test A opcode=x", "a.test A speed=1"} {
		if _, _, err := Question(line); err == nil {
			t.Errorf("%s: no error", line)
		}
	}
}

func TestEssence(t *testing.T) {
	for name, pair := range map[string][2]string{
		"order, case and serial do not count": {
			"NOERROR aa rd\nan A.test. 1 IN A 192.0.2.2\nan a.test. 1 IN A 192.0.2.1\n",
			"NOERROR aa\nan a.test. 1 IN A 192.0.2.1\nan a.test. 1 IN A 192.0.2.2\nns a.test. 1 IN NS ns.a.test.\nar ns.a.test. 1 IN A 192.0.2.3\n"},
		"the serial": {
			"NXDOMAIN aa\nns a.test. 1 IN SOA ns.a.test. h.a.test. 1 2 3 4 5\n",
			"NXDOMAIN aa\nns a.test. 1 IN SOA ns.a.test. h.a.test. 9 2 3 4 5\n"},
	} {
		if diff := cmp.Diff(Essence(pair[0]), Essence(pair[1])); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	for name, pair := range map[string][2]string{
		"authority":      {"NOERROR aa\n", "NOERROR\n"},
		"glue":           {"NOERROR\nns a.test. 1 IN NS ns.a.test.\nar ns.a.test. 1 IN A 192.0.2.3\n", "NOERROR\nns a.test. 1 IN NS ns.a.test.\n"},
		"a negative TTL": {"NXDOMAIN aa\nns a.test. 1 IN SOA n. h. 1 2 3 4 5\n", "NXDOMAIN aa\nns a.test. 2 IN SOA n. h. 1 2 3 4 5\n"},
	} {
		if Essence(pair[0]) == Essence(pair[1]) {
			t.Errorf("%s makes no difference", name)
		}
	}
}
