//go:build acceptance

package acceptance

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"haslohas.com/elbow/internal/elbowtest"
)

// The delegation as it must be: a parent zone that Knot serves, and two name servers
// of elbow.
const delegationParent = `
$ORIGIN haslohas.com.
@ 3600 SOA ns hostmaster 1 7200 1800 1209600 60
@ 3600 NS ns
ns 3600 A 127.0.0.1
public 3600 NS ns1.public
public 3600 NS ns2.public
ns1.public 3600 A 127.0.0.2
ns2.public 3600 A 127.0.0.3
`

// delegationChild is the zone as a server of another maker has it, which follows
// nobody.
const delegationChild = `
$ORIGIN public.haslohas.com.
@ 60 SOA ns1 hostmaster 7 7200 1800 1209600 60
@ 60 NS ns1
@ 60 NS ns2
ns1 60 A 127.0.0.2
ns2 60 A 127.0.0.5
`

const delegationConfiguration = `
host: {name: master, addresses: [127.0.0.2]}
stateDir: ""
admin: {listen: "ADMIN", socket: DIR/elbow.sock}
dns:
  listen: ["127.0.0.2:QPORT", "127.0.0.3:QPORT"]
  zones:
    - name: public.haslohas.com
      nameservers: [{name: ns1.public.haslohas.com, addresses: [127.0.0.2]}, {name: ns2.public.haslohas.com, addresses: [127.0.0.3]}]
      #dnssec
aws:
  delegation: {parentZone: haslohas.com, ttl: 1h}
`

const (
	aDS      = "1 13 2 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	private  = "address-private ns1.public.haslohas.com"
	private2 = "address-private ns2.public.haslohas.com"
)

// TestDelegationVerify: with Knot as the parent and at one of the name servers, each
// mistake is made, and called what it is.
func TestDelegationVerify(t *testing.T) {
	knot, err := exec.LookPath("knotd")
	if err != nil {
		t.Skip("knotd is not installed (Debian: knot)")
	}
	binary := elbowtest.Binary(t)
	dir := t.TempDir()
	port := freePorts(t, 1)[0]
	startElbow(t, strings.ReplaceAll(delegationConfiguration, "QPORT", port))
	signedPort := freePorts(t, 1)[0]
	keys := filepath.Join(dir, "keys")
	said, err := exec.Command(binary, "dnssec", "keygen", "--zone", "public.haslohas.com", "--dir", keys).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	signing := strings.NewReplacer("#dnssec", "dnssec: {keys: "+keys+"}", "QPORT", signedPort).Replace(delegationConfiguration)
	startElbow(t, signing)
	said, err = exec.Command(binary, "dnssec", "ds", "--dir", keys, "public.haslohas.com").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	match := regexp.MustCompile(`\sDS\s+(\d+ \d+ 2 [0-9A-Fa-f]+)`).FindStringSubmatch(string(said))
	if match == nil {
		t.Fatalf("elbow dnssec ds says %s", said)
	}
	ours := match[1]
	// Another server at ns2, with an older zone, a zone that names other servers, and
	// none of ours.
	serveChild := func(listen, zone, text string) {
		startKnot(t, knot, listen+"@"+port, map[string]string{zone: text})
	}
	serveChild("127.0.0.5", "public.haslohas.com", delegationChild)
	serveChild("127.0.0.6", "public.haslohas.com", strings.ReplaceAll(delegationChild, "127.0.0.5", "127.0.0.6")+"@ 60 NS ns3\nns3 60 A 127.0.0.3\n")
	serveChild("127.0.0.7", "other.test", "@ 60 SOA ns hostmaster 7 7200 1800 1209600 60\n@ 60 NS ns\n")

	tests := map[string]struct {
		parent []string // lines: - is taken out, + comes
		second []string // of another server of the parent zone; nil: there is one
		ns2    string   // the address of ns2, in the parent and the configuration
		signed bool
		public bool // addresses must be reachable for everybody
		want   []string
	}{
		"all is well":              {},
		"not delegated":            {parent: []string{"-public", "-ns1.public", "-ns2.public"}, want: []string{"not-delegated public.haslohas.com"}},
		"a name server is missing": {parent: []string{"-public 3600 NS ns2.public"}, want: []string{"ns-missing ns2.public.haslohas.com"}},
		"a name server too much": {parent: []string{"+public 3600 NS ns3.public", "+ns3.public 3600 A 127.0.0.3"},
			want: []string{"ns-extra ns3.public.haslohas.com"}},
		"glue is missing": {parent: []string{"-ns2.public"}, want: []string{"glue-missing ns2.public.haslohas.com"}},
		"glue is wrong":   {parent: []string{"-ns2.public", "+ns2.public 3600 A 127.0.0.2"}, want: []string{"glue-wrong ns2.public.haslohas.com"}},
		"nobody is there": {ns2: "127.0.0.9", want: []string{"no-udp ns2.public.haslohas.com (127.0.0.9)", "no-tcp ns2.public.haslohas.com (127.0.0.9)"}},
		"another TTL": {parent: []string{"-public", "+public 300 NS ns1.public", "+public 300 NS ns2.public"},
			want: []string{"ttl-differs public.haslohas.com"}},
		"parents differ":      {second: []string{"-public 3600 NS ns2.public"}, want: []string{"parents-differ haslohas.com"}},
		"an older zone":       {ns2: "127.0.0.5", want: []string{"serial-differs public.haslohas.com"}},
		"lame":                {ns2: "127.0.0.7", want: []string{"lame ns2.public.haslohas.com (127.0.0.7)"}},
		"the zone names more": {ns2: "127.0.0.6", want: []string{"ns-differs ns2.public.haslohas.com (127.0.0.6)", "serial-differs public.haslohas.com"}},
		"private addresses":   {public: true, want: []string{private, private2}},
		"signed":              {signed: true, parent: []string{"+public 3600 DS " + ours}},
		"signed without DS":   {signed: true, want: []string{"ds-missing public.haslohas.com"}},
		"a DS of another key": {signed: true, parent: []string{"+public 3600 DS " + aDS}, want: []string{"ds-wrong public.haslohas.com"}},
		"a DS too much":       {signed: true, parent: []string{"+public 3600 DS " + ours, "+public 3600 DS " + aDS}, want: []string{"ds-stale public.haslohas.com"}},
		"a DS without a key":  {parent: []string{"+public 3600 DS " + aDS}, want: []string{"ds-unsigned public.haslohas.com"}},
	}
	parents := freePorts(t, 2*len(tests)) // at once: none twice
	for i, name := range slices.Sorted(maps.Keys(tests)) {
		test, ports := tests[name], parents[2*i:2*i+2]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			configuration, at := strings.ReplaceAll(delegationConfiguration, "QPORT", port), port
			if test.signed {
				configuration, at = signing, signedPort
			}
			parent := delegationParent
			if test.ns2 != "" {
				parent = strings.ReplaceAll(parent, "127.0.0.3", test.ns2)
				configuration = strings.ReplaceAll(configuration, "ns2.public.haslohas.com, addresses: [127.0.0.3]", "ns2.public.haslohas.com, addresses: ["+test.ns2+"]")
			}
			folder := t.TempDir()
			file := write(t, folder, "elbow.yaml", strings.NewReplacer("ADMIN", "127.0.0.1:0", "DIR", "/nowhere").Replace(configuration))
			args := []string{"delegation", "verify", "--config", file, "--json", "--port", at}
			if !test.public {
				args = append(args, "--private")
			}
			servers := [][]string{test.parent}
			if test.second != nil {
				servers = append(servers, test.second)
			}
			for i, changes := range servers {
				p := ports[i]
				startKnot(t, knot, "127.0.0.1@"+p, map[string]string{"haslohas.com": edited(t, parent, changes)})
				args = append(args, "--parent-server", "127.0.0.1:"+p)
			}
			out, err := exec.Command(binary, args...).Output()
			status := 0
			if failed, ok := err.(*exec.ExitError); ok {
				status = failed.ExitCode()
			}
			var reports []struct {
				Findings []struct{ Code, Where, Text, Cure string }
			}
			if err := json.Unmarshal(out, &reports); err != nil || len(reports) != 1 {
				t.Fatalf("%v: %s", err, out)
			}
			var got []string
			for _, f := range reports[0].Findings {
				got = append(got, f.Code+" "+f.Where)
				if f.Text == "" || f.Cure == "" {
					t.Errorf("%s says nothing: %+v", f.Code, f)
				}
			}
			slices.Sort(got)
			slices.Sort(test.want)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s\n%s", diff, out)
			}
			if want := map[bool]int{true: 2}[len(test.want) > 0]; status != want {
				t.Errorf("the status is %d, want %d", status, want)
			}
		})
	}
}

// edited is a zone file with lines taken out, those that begin so, and others added.
func edited(t *testing.T, text string, changes []string) string {
	t.Helper()
	for _, c := range changes {
		if line, adds := strings.CutPrefix(c, "+"); adds {
			text += line + "\n"
			continue
		}
		var kept []string
		for l := range strings.SplitSeq(text, "\n") {
			if !strings.HasPrefix(l, c[1:]+" ") && l != c[1:] {
				kept = append(kept, l)
			}
		}
		next := strings.Join(kept, "\n")
		if next == text {
			t.Fatalf("there is no line %s", c[1:])
		}
		text = next
	}
	return text
}

// startKnot serves zones, by their text, until the test ends.
func startKnot(t *testing.T, program, listen string, zones map[string]string) {
	t.Helper()
	dir := t.TempDir()
	conf := fmt.Sprintf("server:\n    listen: %s\n    rundir: %[2]s\ndatabase:\n    storage: %[2]s/db\nzone:\n", listen, dir)
	for name, text := range zones {
		conf += fmt.Sprintf("  - domain: %s\n    file: %s\n", name, write(t, dir, name+".zone", text))
	}
	startPeer(t, exec.Command(program, "-c", write(t, dir, "knot.conf", conf)))
	addr := strings.Replace(listen, "@", ":", 1)
	for name := range zones {
		elbowtest.Eventually(t, 20*time.Second, "knotd serves "+name, func() bool {
			said, err := lookUp(addr, name, dns.TypeSOA)
			return err == nil && strings.HasPrefix(said, "NOERROR aa=true")
		})
	}
}
