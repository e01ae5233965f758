package dnstable

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

const sample = `A sample.

-- zone a.test --
@ SOA ns h 1 1 1 1 1
-- signed zone s.test --
@ SOA ns h 2 2 2 2 2
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
		Zones:    []Zone{{Name: "a.test", Text: "@ SOA ns h 1 1 1 1 1\n"}, {Name: "s.test", Text: "@ SOA ns h 2 2 2 2 2\n", Signed: true}},
		Services: []Service{{"web.a.test", []string{"192.0.2.1", "192.0.2.2"}}},
		Cases: []Case{
			{13, "www.a.test A", "NOERROR aa\nan www.a.test. 1 IN A 192.0.2.80\n", map[string]string{"knot": "why", "nsd": "why"}},
			{18, "b.test TYPE65280 class=CH tcp", "REFUSED\n", map[string]string{}},
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
		"signed what":     "-- signed service a.test --\n",
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
		"keys of its own": {
			"NOERROR aa\nns a.test. 1 IN NSEC b.a.test. SOA RRSIG NSEC DNSKEY CDS CDNSKEY\n",
			"NOERROR aa\nns a.test. 1 IN NSEC b.a.test. SOA RRSIG NSEC DNSKEY\n"},
	} {
		if diff := cmp.Diff(Essence(pair[0]), Essence(pair[1])); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	for name, pair := range map[string][2]string{
		"authority":      {"NOERROR aa\n", "NOERROR\n"},
		"glue":           {"NOERROR\nns a.test. 1 IN NS ns.a.test.\nar ns.a.test. 1 IN A 192.0.2.3\n", "NOERROR\nns a.test. 1 IN NS ns.a.test.\n"},
		"a proof":        {"NOERROR aa\nan a.test. 1 IN A 192.0.2.3\nns b.test. 1 IN NSEC c.test. A RRSIG NSEC\n", "NOERROR aa\nan a.test. 1 IN A 192.0.2.3\n"},
		"its signature":  {"NOERROR aa\nan a.test. 1 IN A 192.0.2.3\nns b.test. 1 IN RRSIG NSEC 13 2 1 test.\n", "NOERROR aa\nan a.test. 1 IN A 192.0.2.3\n"},
		"a signature":    {"NOERROR aa\nan a.test. 1 IN A 192.0.2.3\nan a.test. 1 IN RRSIG A 13 2 1 test.\n", "NOERROR aa\nan a.test. 1 IN A 192.0.2.3\n"},
		"a negative TTL": {"NXDOMAIN aa\nns a.test. 1 IN SOA n. h. 1 2 3 4 5\n", "NXDOMAIN aa\nns a.test. 2 IN SOA n. h. 1 2 3 4 5\n"},
	} {
		if Essence(pair[0]) == Essence(pair[1]) {
			t.Errorf("%s makes no difference", name)
		}
	}
}

// TestTextOfKeys: what hangs on keys and clocks is left out.
func TestTextOfKeys(t *testing.T) {
	m := new(dns.Msg)
	for _, record := range []string{
		"a.test. 300 IN RRSIG A 13 2 300 20261223122109 20261123122109 1471 a.test. AAAA",
		"a.test. 300 IN DNSKEY 257 3 13 AAAA",
		"a.test. 300 IN CDNSKEY 257 3 13 AAAA",
		"a.test. 300 IN CDS 1471 13 2 00",
		"b.a.test. 300 IN DS 1471 13 2 00",
	} {
		rr, err := dns.NewRR(record)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	want := `NOERROR
an a.test. 300 IN RRSIG A 13 2 300 a.test.
an a.test. 300 IN DNSKEY 257 3 13
an a.test. 300 IN CDNSKEY 257 3 13
an a.test. 300 IN CDS 13 2
an b.a.test. 300 IN DS 1471 13 2 00
`
	if diff := cmp.Diff(want, Text(m)); diff != "" {
		t.Errorf("want -, got +\n%s", diff)
	}
}

// TestQuestionOptions: an OPT record is there once.
func TestQuestionOptions(t *testing.T) {
	for _, line := range []string{"a.test A do payload=512", "a.test A payload=512 do"} {
		m, _, err := Question(line)
		if err != nil {
			t.Fatal(err)
		}
		if o := m.IsEdns0(); len(m.Extra) != 1 || !o.Do() || o.UDPSize() != 512 {
			t.Errorf("%s: %v", line, m)
		}
	}
}
