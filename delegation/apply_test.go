package delegation

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/google/go-cmp/cmp"

	"haslohas.com/elbow/amazon"
	"haslohas.com/elbow/internal/route53test"
	"haslohas.com/elbow/pool"
)

// account is an account with the hosted zone haslohas.com, Z1, and a Parent that
// has its credentials.
func account(t *testing.T, records ...string) (*route53test.Server, *Parent) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", route53test.KeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", route53test.Secret)
	t.Setenv("AWS_SESSION_TOKEN", "")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	s := route53test.New(t)
	s.AddZone("Z0", "com", false)
	s.AddZone("Z1", "haslohas.com", false, records...)
	s.AddZone("Z2", "haslohas.com", true)
	c, err := amazon.Load(t.Context(), amazon.Options{Endpoint: s.URL, DefaultRegion: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	c.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = 5, time.Millisecond })
	}
	if transport, ok := c.HTTPClient.(interface{ GetTransport() *http.Transport }); ok {
		t.Cleanup(transport.GetTransport().CloseIdleConnections)
	}
	return s, &Parent{API: NewAPI(c), Owner: "elbow", Poll: time.Millisecond}
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// public is the zone of the reference setup.
func public() Zone {
	return Zone{
		Name:        "public.haslohas.com",
		NameServers: []pool.NameServer{{Name: "ns1.public.haslohas.com", Addresses: []netip.Addr{ip("54.93.167.95")}}},
		TTL:         time.Hour,
	}
}

const digest = "0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF"

func propose(t *testing.T, p *Parent, o Options, zones ...Zone) Proposal {
	t.Helper()
	all, err := p.Propose(t.Context(), zones, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Fatalf("%d proposals, want one", len(all))
	}
	return all[0]
}

func apply(t *testing.T, p *Parent, o Options, zones ...Zone) {
	t.Helper()
	if err := p.Apply(t.Context(), propose(t, p, o, zones...), o); err != nil {
		t.Fatal(err)
	}
}

// records is what is there, without the marker.
func records(s *route53test.Server) []string {
	return slices.DeleteFunc(s.Records("Z1", "public.haslohas.com"), func(r string) bool { return strings.HasPrefix(r, "_elbow") })
}

var delegated = []string{
	"ns1.public.haslohas.com. 3600 A 54.93.167.95",
	"public.haslohas.com. 3600 NS ns1.public.haslohas.com.",
}

func TestApply(t *testing.T) {
	s, p := account(t, "www.haslohas.com. 300 IN A 192.0.2.1", "public-x.haslohas.com. 300 IN A 192.0.2.2", "zz.haslohas.com. 300 IN A 192.0.2.3")
	s.Pending(2)
	var progress []string
	p.Progress = func(text string) { progress = append(progress, text) }
	apply(t, p, Options{}, public())
	if diff := cmp.Diff(delegated, records(s)); diff != "" {
		t.Errorf("the hosted zone (-want +got):\n%s", diff)
	}
	want := []string{"ListHostedZonesByName", "ListResourceRecordSets", "ChangeResourceRecordSets", "GetChange", "GetChange", "GetChange"}
	if got := s.Log(); !slices.Equal(got, want) {
		t.Errorf("requests %v, want %v", got, want)
	}
	if len(progress) != 3 || !strings.Contains(progress[2], "all servers") {
		t.Errorf("progress %q", progress)
	}

	// A second time there is nothing to do, and nothing is done.
	if again := propose(t, p, Options{}, public()); again.Differs() {
		t.Errorf("a second time: %+v", again.Plans)
	}
	apply(t, p, Options{}, public())
	if slices.Contains(s.Log(), "ChangeResourceRecordSets") {
		t.Error("nothing was to change, and something was")
	}
}

func TestDrift(t *testing.T) {
	for name, drift := range map[string]func(s *route53test.Server){
		"glue is gone":            func(s *route53test.Server) { s.Drop("Z1", "ns1.public.haslohas.com", "A") },
		"the delegation is gone":  func(s *route53test.Server) { s.Drop("Z1", "public.haslohas.com", "NS") },
		"an address was added":    func(s *route53test.Server) { s.Put("Z1", "ns1.public.haslohas.com. 3600 A 192.0.2.9") },
		"a name server was added": func(s *route53test.Server) { s.Put("Z1", "public.haslohas.com. 3600 NS ns.elsewhere.test.") },
		"everything but the marker": func(s *route53test.Server) {
			s.Drop("Z1", "public.haslohas.com", "NS")
			s.Drop("Z1", "ns1.public.haslohas.com", "A")
		},
		"the address is another one": func(s *route53test.Server) { s.PutSet("Z1", set("ns1.public.haslohas.com.", "A", 60, "192.0.2.9")) },
	} {
		t.Run(name, func(t *testing.T) {
			s, p := account(t)
			apply(t, p, Options{}, public())
			marked := s.Records("Z1", "public.haslohas.com")
			drift(s)
			if !propose(t, p, Options{}, public()).differs() {
				t.Fatal("the drift is not seen")
			}
			apply(t, p, Options{}, public())
			if diff := cmp.Diff(marked, s.Records("Z1", "public.haslohas.com")); diff != "" {
				t.Errorf("the hosted zone (-want +got):\n%s", diff)
			}
		})
	}
}

func (p Proposal) differs() bool { return p.Differs() }

func set(name, typ string, ttl int, records ...string) route53test.Set {
	s := route53test.Set{Name: name, Type: typ, TTL: &ttl}
	for _, r := range records {
		s.Records = append(s.Records, route53test.Record{Value: r})
	}
	return s
}

// The configuration changes: what elbow wrote follows, and what it does not need
// any more goes.
func TestFollow(t *testing.T) {
	s, p := account(t)
	z := public()
	z.Keys.DS = []string{"12345 13 2 " + digest}
	apply(t, p, Options{}, z)
	z.Keys.DS = nil
	z.TTL = 10 * time.Minute
	z.NameServers = []pool.NameServer{
		{Name: "ns2.public.haslohas.com", Addresses: []netip.Addr{ip("54.93.167.96"), ip("2001:db8::1")}},
		{Name: "ns.elsewhere.test"},
	}
	apply(t, p, Options{}, z)
	want := []string{
		"ns2.public.haslohas.com. 600 A 54.93.167.96",
		"ns2.public.haslohas.com. 600 AAAA 2001:db8::1",
		"public.haslohas.com. 600 NS ns.elsewhere.test.",
		"public.haslohas.com. 600 NS ns2.public.haslohas.com.",
	}
	if diff := cmp.Diff(want, records(s)); diff != "" {
		t.Errorf("the hosted zone (-want +got):\n%s", diff)
	}
}

func TestRemove(t *testing.T) {
	s, p := account(t, "www.haslohas.com. 300 IN A 192.0.2.1")
	before := s.Records("Z1", "haslohas.com")
	z := public()
	z.Keys.DS = []string{"12345 13 2 " + digest}
	apply(t, p, Options{}, z)
	apply(t, p, Options{Remove: true}, z)
	if diff := cmp.Diff(before, s.Records("Z1", "haslohas.com")); diff != "" {
		t.Errorf("what stays (-want +got):\n%s", diff)
	}
	// What somebody has changed since stays.
	apply(t, p, Options{}, z)
	s.Put("Z1", "ns1.public.haslohas.com. 3600 A 192.0.2.9")
	err := p.Apply(t.Context(), propose(t, p, Options{Remove: true}, z), Options{Remove: true})
	if !errors.Is(err, ErrConflict) || len(records(s)) != 4 {
		t.Errorf("%v, there are %q", err, records(s))
	}
}

// Records that elbow has not written are kept, and named.
func TestForeign(t *testing.T) {
	tests := map[string]struct {
		there    []string
		consent  Consent // with which it is done all the same
		says     string
		hopeless bool
	}{
		"another delegation":  {[]string{"public.haslohas.com. 60 IN NS ns.old.test."}, Consent{Adopt: true}, "ns.old.test. is too much", false},
		"another address":     {[]string{"ns1.public.haslohas.com. 60 IN A 192.0.2.9"}, Consent{Adopt: true}, "54.93.167.95 is missing", false},
		"an IPv6 address":     {[]string{"ns1.public.haslohas.com. 60 IN AAAA 2001:db8::9"}, Consent{Adopt: true}, "there must be none", false},
		"a DS":                {[]string{"public.haslohas.com. 60 IN DS 1 13 2 " + digest}, Consent{Adopt: true}, "resolvers that validate", false},
		"names of the zone":   {[]string{"web.public.haslohas.com. 60 IN A 192.0.2.9"}, Consent{Hide: true}, "would hide it", false},
		"an alias":            {[]string{"public.haslohas.com. 60 IN CNAME www.haslohas.com."}, Consent{Adopt: true, Hide: true}, "CNAME", true},
		"an alias below":      {[]string{"web.public.haslohas.com. 60 IN CNAME www.haslohas.com."}, Consent{Hide: true}, "would hide it", false},
		"an address of it":    {[]string{"public.haslohas.com. 60 IN A 192.0.2.9"}, Consent{Hide: true}, "would hide it", false},
		"another elbow's":     {[]string{"public.haslohas.com. 60 IN NS ns.old.test.", `_elbow-delegation.public.haslohas.com. 300 IN TXT "heritage=elbow owner=blue set=@/NS sum=00"`}, Consent{Adopt: true, Hide: true}, "belongs to the owner blue", true},
		"a text in the place": {[]string{`_elbow-delegation.public.haslohas.com. 300 IN TXT "hello"`}, Consent{Adopt: true, Hide: true}, "no record of a marker", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s, p := account(t, test.there...)
			before := s.Records("Z1", "haslohas.com")
			found := propose(t, p, Options{}, public())
			text := ""
			for _, c := range found.Plans[0].Conflicts {
				text += c.String() + "\n"
			}
			if !strings.Contains(text, test.says) {
				t.Errorf("conflicts %q do not say %q", text, test.says)
			}
			if err := p.Apply(t.Context(), found, Options{}); !errors.Is(err, ErrConflict) {
				t.Errorf("it is applied, with the error %v", err)
			}
			if diff := cmp.Diff(before, s.Records("Z1", "haslohas.com")); diff != "" {
				t.Errorf("foreign records have changed (-want +got):\n%s", diff)
			}
			o := Options{Consent: test.consent}
			told := propose(t, p, o, public())
			if test.hopeless {
				if told.Conflicts() == 0 {
					t.Error("nothing should help but a person")
				}
				return
			}
			if err := p.Apply(t.Context(), told, o); err != nil {
				t.Fatal(err)
			}
			if got := records(s); !slices.Contains(got, delegated[0]) || !slices.Contains(got, delegated[1]) {
				t.Errorf("when told to there are %q", got)
			}
			if propose(t, p, Options{}, public()).differs() {
				t.Error("afterwards something differs")
			}
		})
	}
}

// An equal delegation that somebody else wrote is left alone, by remove too.
func TestEqualForeign(t *testing.T) {
	s, p := account(t, "public.haslohas.com. 3600 IN NS ns1.public.haslohas.com.", "ns1.public.haslohas.com. 3600 IN A 54.93.167.95")
	before := s.Records("Z1", "haslohas.com")
	found := propose(t, p, Options{}, public())
	if found.Differs() || len(found.Plans[0].Notes) != 2 {
		t.Errorf("%+v", found.Plans)
	}
	apply(t, p, Options{Remove: true}, public())
	if diff := cmp.Diff(before, s.Records("Z1", "haslohas.com")); diff != "" {
		t.Errorf("what stays (-want +got):\n%s", diff)
	}
	adopt := Options{Consent: Consent{Adopt: true}}
	apply(t, p, adopt, public())
	apply(t, p, Options{Remove: true}, public())
	if got := s.Records("Z1", "public.haslohas.com"); len(got) > 0 {
		t.Errorf("it was adopted and removed, and there are %q", got)
	}
}

// Answers of a routing policy and aliases are no delegation.
func TestSpecial(t *testing.T) {
	s, p := account(t)
	weight := 1
	special := set("ns1.public.haslohas.com.", "A", 3600, "54.93.167.95")
	special.SetIdentifier, special.Weight = "one", &weight
	s.PutSet("Z1", special)
	found := propose(t, p, Options{Consent: Consent{Adopt: true, Hide: true}}, public())
	if found.Conflicts() != 1 || !strings.Contains(found.Plans[0].Conflicts[0].String(), "chooses from") {
		t.Errorf("%+v", found.Plans)
	}
	s.PutSet("Z1", route53test.Set{Name: "public.haslohas.com.", Type: "A", Alias: &route53test.Alias{HostedZoneId: "Z9", DNSName: "lb.test."}})
	if found = propose(t, p, Options{}, public()); found.Conflicts() != 2 {
		t.Errorf("%+v", found.Plans)
	}
}

func TestFindParent(t *testing.T) {
	s, p := account(t)
	if in, err := p.Find(t.Context(), "a.b.haslohas.com"); err != nil || in != (HostedZone{"haslohas.com", "Z1"}) {
		t.Errorf("%v, %v", in, err)
	}
	if in, err := p.Find(t.Context(), "haslohas.com"); err != nil || in.ID != "Z0" {
		t.Errorf("around a hosted zone: %v, %v", in, err)
	}
	if _, err := p.Find(t.Context(), "a.test"); err == nil || !strings.Contains(err.Error(), "no public hosted zone around a.test") {
		t.Error(err)
	}
	s.AddZone("Z3", "haslohas.com", false)
	if _, err := p.Find(t.Context(), "public.haslohas.com"); err == nil || !strings.Contains(err.Error(), "hostedZoneID") || !strings.Contains(err.Error(), "Z1, Z3") {
		t.Error(err)
	}
	p.Zone, p.ID = "haslohas.com", "Z3"
	if in, err := p.Find(t.Context(), "public.haslohas.com"); err != nil || in.ID != "Z3" {
		t.Errorf("%v, %v", in, err)
	}
	p.Zone, p.ID = "other.test", ""
	if _, err := p.Find(t.Context(), "public.haslohas.com"); err == nil || !strings.Contains(err.Error(), "parentZone") {
		t.Error(err)
	}
}

// What goes wrong is one line, with the cure, and nothing secret.
func TestFaults(t *testing.T) {
	tests := map[string]struct {
		operation string
		faults    []route53test.Fault
		says      []string // none: it succeeds
	}{
		"throttled for good":       {"ListResourceRecordSets", slices.Repeat([]route53test.Fault{route53test.Throttle}, 9), []string{"too many requests", "a minute"}},
		"broken for good":          {"ListResourceRecordSets", slices.Repeat([]route53test.Fault{route53test.Broken}, 9), []string{"status 500", "a minute"}},
		"dropped for good":         {"ListResourceRecordSets", slices.Repeat([]route53test.Fault{route53test.Lost}, 9), []string{"AWS could not be asked", "HTTPS"}},
		"throttled for a while":    {"ListResourceRecordSets", []route53test.Fault{route53test.Throttle}, nil},
		"busy for a while":         {"ChangeResourceRecordSets", []route53test.Fault{route53test.Busy}, nil},
		"a dropped connection":     {"ChangeResourceRecordSets", []route53test.Fault{route53test.Lost}, nil},
		"a lost answer":            {"ChangeResourceRecordSets", []route53test.Fault{route53test.LostAnswer}, nil},
		"an error of theirs":       {"GetChange", []route53test.Fault{route53test.Broken}, nil},
		"list denied":              {"ListHostedZonesByName", []route53test.Fault{route53test.Denied}, []string{"route53:ListHostedZonesByName", "policy"}},
		"change denied":            {"ChangeResourceRecordSets", []route53test.Fault{route53test.Denied}, []string{"route53:ChangeResourceRecordSets", "policy"}},
		"get denied":               {"GetChange", []route53test.Fault{route53test.Denied}, []string{"route53:GetChange"}},
		"a batch refused":          {"ChangeResourceRecordSets", []route53test.Fault{route53test.BatchMessages}, []string{"first message; second message", "nothing of it was done"}},
		"a batch refused, as text": {"ChangeResourceRecordSets", []route53test.Fault{route53test.BatchInError}, []string{"it already exists", "nothing of it was done"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s, p := account(t)
			s.Fail(test.operation, test.faults...)
			proposals, err := p.Propose(t.Context(), []Zone{public()}, Options{})
			if err == nil {
				err = p.Apply(t.Context(), proposals[0], Options{})
			}
			if len(test.says) == 0 {
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(delegated, records(s)); diff != "" {
					t.Errorf("the hosted zone (-want +got):\n%s", diff)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			check(t, err, test.says...)
		})
	}
}

func check(t *testing.T, err error, says ...string) {
	t.Helper()
	text := err.Error()
	for _, s := range says {
		if !strings.Contains(text, s) {
			t.Errorf("%q does not say %q", text, s)
		}
	}
	if strings.Contains(text, "\n") || strings.Contains(text, route53test.Secret) || strings.Contains(text, route53test.KeyID) {
		t.Errorf("not one line without secrets: %q", text)
	}
}

func TestNobodyThere(t *testing.T) {
	s, p := account(t)
	_ = s
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDWRONG00000000000")
	c, err := amazon.Load(t.Context(), amazon.Options{Endpoint: s.URL, DefaultRegion: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	p.API = NewAPI(c)
	_, err = p.Find(t.Context(), "public.haslohas.com")
	check(t, err, "does not accept the credentials", "get-caller-identity")

	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	if c, err = amazon.Load(t.Context(), amazon.Options{Endpoint: s.URL, DefaultRegion: "us-east-1"}); err != nil {
		t.Fatal(err)
	}
	check(t, amazon.Credentials(t.Context(), c), "credentials", "AWS_PROFILE")
	p.API = NewAPI(c)
	_, err = p.Find(t.Context(), "public.haslohas.com")
	check(t, err, "there are no credentials", "AWS_PROFILE")

	t.Setenv("AWS_ACCESS_KEY_ID", route53test.KeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", route53test.Secret)
	if c, err = amazon.Load(t.Context(), amazon.Options{Endpoint: "http://127.0.0.1:1", DefaultRegion: "us-east-1"}); err != nil {
		t.Fatal(err)
	}
	c.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	p.API = NewAPI(c)
	_, err = p.Find(t.Context(), "public.haslohas.com")
	check(t, err, "AWS could not be asked", "127.0.0.1:1", "connection refused")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = p.Find(ctx, "public.haslohas.com"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Between the look and the batch somebody else changes the hosted zone.
func TestRace(t *testing.T) {
	s, p := account(t)
	found := propose(t, p, Options{}, public())
	s.Put("Z1", "public.haslohas.com. 60 IN NS ns.other.test.")
	if err := p.Apply(t.Context(), found, Options{}); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "meanwhile") {
		t.Error(err)
	}
	if got := records(s); !slices.Equal(got, []string{"public.haslohas.com. 60 NS ns.other.test."}) {
		t.Errorf("there are %q", got)
	}
}

// Every action that the code asks for stands in the policy, and none more.
func TestPolicyActions(t *testing.T) {
	var asked []string
	for m := range reflect.TypeFor[API]().Methods() {
		asked = append(asked, "route53:"+m.Name)
	}
	slices.Sort(asked)
	if got := policyActions(t, "../deploy/aws/delegation-policy.json"); !slices.Equal(got, asked) {
		t.Errorf("the policy allows %v, the code asks for %v", got, asked)
	}
}
