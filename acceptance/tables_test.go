//go:build acceptance

package acceptance

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"haslohas.com/elbow/internal/dnstable"
	"haslohas.com/elbow/internal/elbowtest"
)

// A reader is a name server of another maker that serves zones from files.
type reader struct {
	program string
	global  string // its configuration; DIR and PORT are replaced
	zone    string // for each zone; NAME and FILE are replaced, too
	args    []string

	// prepare makes ready what it needs in its folder; nil: nothing.
	prepare func(t *testing.T, dir string, signed []string)
}

var readers = map[string]reader{
	"knot": {"knotd", `
server:
    listen: 127.0.0.1@PORT
    rundir: DIR
database:
    storage: DIR/db
template:
  - id: default
    semantic-checks: off
    zonefile-sync: -1
zone:
`, "  - domain: \"NAME\"\n    file: FILE\n", []string{"-c", "CONF"}, nil},
	"nsd": {"nsd", `
server:
  ip-address: 127.0.0.1@PORT
  username: ""
  zonesdir: DIR
  pidfile: DIR/pid
  xfrdfile: ""
  database: ""
  zonelistfile: DIR/zones
  rrl-ratelimit: 0
remote-control:
  control-enable: no
`, "zone:\n  name: \"NAME\"\n  zonefile: FILE\n", []string{"-d", "-c", "CONF"}, nil},
	"named": {"named", `
options {
  directory "DIR";
  pid-file "DIR/named.pid";
  session-keyfile "DIR/session.key";
  listen-on port PORT { 127.0.0.1; };
  listen-on-v6 { none; };
  recursion no;
  check-names primary ignore;
  allow-transfer { none; };
  notify no;
  minimal-responses yes;
  minimal-any yes;
  dnssec-validation no;
};
controls { };
`, "zone \"NAME\" { type primary; file \"FILE\"; };\n", []string{"-g", "-n", "1", "-c", "CONF"}, nil},
	"pdns": {"pdns_server", `
launch=bind
bind-config=DIR/zones.conf
bind-dnssec-db=DIR/dnssec.db
local-address=127.0.0.1
local-port=PORT
socket-dir=DIR
security-poll-suffix=
guardian=no
daemon=no
disable-syslog=yes
dname-processing=yes
query-cache-ttl=0
cache-ttl=0
`, "", []string{"--config-dir=DIR"}, markSigned},
}

// TestTablesOfOthers puts the questions of dnsserver/testdata/rfc to servers of
// other makers. Each answers as the table says elbow does, but where the table
// says that it does not, and why.
func TestTablesOfOthers(t *testing.T) {
	files, err := filepath.Glob("../dnsserver/testdata/rfc/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d tables, %v", len(files), err)
	}
	tables := make(map[string]*dnstable.Table)
	zones := make(map[string]string)
	var signed []string
	dir := t.TempDir()
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		table, err := dnstable.Parse(string(content))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(table.Services) > 0 {
			continue // others have none
		}
		tables[filepath.Base(file)] = table
		for _, z := range table.Zones {
			if zones[z.Name] != "" {
				t.Fatalf("%s: zone %s is in another table, too", file, z.Name)
			}
			file := write(t, dir, z.Name+".zone", "$ORIGIN "+z.Name+".\n"+z.Text)
			if z.Signed {
				file = signZone(t, dir, z.Name, file)
				signed = append(signed, z.Name)
			}
			zones[z.Name] = file
		}
	}
	ports := freePorts(t, len(readers))
	tried := 0
	for _, r := range readers {
		if _, err := exec.LookPath(r.program); err == nil {
			tried++
		}
	}
	if tried == 0 {
		t.Skip("no other name server is installed (Debian: knot, nsd, bind9, pdns-server with pdns-backend-bind)")
	}
	for i, name := range slices.Sorted(maps.Keys(readers)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := readers[name]
			program, err := exec.LookPath(r.program)
			if err != nil {
				t.Skipf("%s is not installed", r.program)
			}
			r.serve(t, program, ports[i], zones, signed)
			addr := "127.0.0.1:" + ports[i]
			for zone := range zones {
				elbowtest.Eventually(t, 10*time.Second, name+" serves "+zone, func() bool {
					said, err := lookUp(addr, zone, dns.TypeSOA)
					return err == nil && strings.HasPrefix(said, "NOERROR aa=true")
				})
			}
			for file, table := range tables {
				if why, not := table.Others[name]; not {
					t.Logf("%s is not for it: %s", file, why)
					continue
				}
				for _, c := range table.Cases {
					compare(t, name, addr, fmt.Sprintf("%s:%d: %s", file, c.Line, c.Ask), c)
				}
			}
		})
	}
}

// serve runs the server with zones, by the paths of their files.
func (r reader) serve(t *testing.T, program, port string, zones map[string]string, signed []string) {
	dir := t.TempDir()
	conf := r.global
	var named strings.Builder
	for _, name := range slices.Sorted(maps.Keys(zones)) {
		conf += strings.NewReplacer("NAME", name, "FILE", zones[name]).Replace(r.zone)
		fmt.Fprintf(&named, "zone %q { type master; file %q; };\n", name, zones[name])
	}
	path := write(t, dir, "pdns.conf", strings.NewReplacer("DIR", dir, "PORT", port).Replace(conf))
	write(t, dir, "zones.conf", named.String())
	if r.prepare != nil {
		r.prepare(t, dir, signed)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, a := range r.args {
		args = append(args, strings.NewReplacer("DIR", dir, "CONF", path).Replace(a))
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	startPeer(t, cmd)
	t.Cleanup(func() {
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the end of its log:\n%s", text[max(0, len(text)-4000):])
		}
		log.Close()
	})
}

// signZone signs a zone by the tool of another maker, so that its signatures,
// its chain and its TTLs are not elbow's, and returns the path of the outcome.
func signZone(t *testing.T, dir, zone, file string) string {
	t.Helper()
	signer, err := exec.LookPath("dnssec-signzone")
	if err != nil {
		t.Skip("dnssec-signzone is not installed (Debian: bind9-utils)")
	}
	// -z: by the one key for all; -S with -T: the TTL that elbow's key sets have.
	for _, command := range [][]string{
		{filepath.Join(filepath.Dir(signer), "dnssec-keygen"), "-q", "-K", dir, "-a", "ECDSAP256SHA256", "-f", "KSK", zone},
		{signer, "-q", "-z", "-S", "-T", "3600", "-K", dir, "-d", dir, "-o", zone, "-f", file + ".signed", file},
	} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	return file + ".signed"
}

// markSigned tells PowerDNS which zones are signed already.
func markSigned(t *testing.T, dir string, signed []string) {
	t.Helper()
	commands := [][]string{{"create-bind-db", filepath.Join(dir, "dnssec.db")}}
	for _, zone := range signed {
		commands = append(commands, []string{"set-presigned", zone})
	}
	for _, command := range commands {
		out, err := exec.Command("pdnsutil", append([]string{"--config-dir", dir}, command...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("pdnsutil %v: %v\n%s", command, err, out)
		}
	}
}

// compare puts one question of a table to a server.
func compare(t *testing.T, name, addr, at string, c dnstable.Case) {
	why, differs := c.Others[name]
	got, err := tableAnswer(addr, c.Ask)
	if err != nil {
		got = err.Error() + "\n"
	}
	diff := cmp.Diff(dnstable.Essence(c.Answer), dnstable.Essence(got))
	switch {
	case diff != "" && !differs:
		t.Errorf("%s: elbow -, %s +\n%s", at, name, diff)
	case diff == "" && differs:
		t.Errorf("%s: the table has a reason why %s answers something else, but it does not: %s", at, name, why)
	}
}

func tableAnswer(addr, ask string) (string, error) {
	q, tcp, err := dnstable.Question(ask)
	if err != nil {
		return "", err
	}
	client := &dns.Client{Timeout: 2 * time.Second}
	if tcp {
		client.Net = "tcp"
	}
	r, _, err := client.Exchange(q, addr)
	if err != nil {
		return "", err
	}
	return dnstable.Text(r), nil
}
