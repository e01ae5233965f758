//go:build acceptance

package acceptance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/internal/elbowtest"
)

// TestAnswersAsOtherServersDo serves one zone with elbow, Knot and NSD and asks
// all of them the same. Where Knot and NSD differ, elbow may take either side.
func TestAnswersAsOtherServersDo(t *testing.T) {
	zone, err := filepath.Abs("testdata/example.org.zone")
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2)
	peers := map[string]string{}
	if path, err := exec.LookPath("knotd"); err == nil {
		dir := t.TempDir()
		conf := write(t, dir, "knot.conf", fmt.Sprintf(`
server:
    listen: 127.0.0.1@%[1]s
    rundir: %[2]s
database:
    storage: %[2]s/db
zone:
  - domain: example.org
    file: %[3]s
`, ports[0], dir, zone))
		startPeer(t, exec.Command(path, "-c", conf))
		peers["knot"] = "127.0.0.1:" + ports[0]
	}
	if path, err := exec.LookPath("nsd"); err == nil {
		dir := t.TempDir()
		conf := write(t, dir, "nsd.conf", fmt.Sprintf(`
server:
  ip-address: 127.0.0.1@%[1]s
  username: ""
  zonesdir: %[2]s
  pidfile: %[2]s/pid
  xfrdfile: ""
  database: ""
  zonelistfile: %[2]s/zones
remote-control:
  control-enable: no
zone:
  name: example.org
  zonefile: %[3]s
`, ports[1], dir, zone))
		startPeer(t, exec.Command(path, "-d", "-c", conf))
		peers["nsd"] = "127.0.0.1:" + ports[1]
	}
	if len(peers) == 0 {
		t.Skip("neither knotd nor nsd is installed (Debian: knot, nsd)")
	}
	e := startElbow(t, `
stateDir: ""
admin: {listen: "ADMIN", socket: DIR/elbow.sock}
dns:
  listen: ["DNS"]
  rateLimit: {perSecond: 0}
  zones: [{name: example.org, file: `+zone+`}]
`)
	for name, addr := range peers {
		elbowtest.Eventually(t, 10*time.Second, name+" answers", func() bool {
			said, err := lookUp(addr, "www.example.org", dns.TypeA)
			return err == nil && strings.HasPrefix(said, "NOERROR")
		})
	}

	asked := 0
	for _, name := range questions {
		for _, qtype := range []uint16{
			dns.TypeA, dns.TypeNS, dns.TypeCNAME, dns.TypeSOA, dns.TypePTR, dns.TypeMX, dns.TypeTXT, dns.TypeAAAA,
			dns.TypeSRV, dns.TypeDNAME, dns.TypeDS, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeDNSKEY, dns.TypeHTTPS,
			dns.TypeCAA, dns.TypeANY, 65280, 99,
		} {
			asked++
			got, err := lookUp(e.dns, name, qtype)
			if err != nil {
				t.Errorf("%s %s: %v", name, dns.Type(qtype), err)
				continue
			}
			var others []string
			agrees := false
			for peer, addr := range peers {
				said, err := lookUp(addr, name, qtype)
				if err != nil {
					t.Fatalf("%s: %v", peer, err)
				}
				others = append(others, peer+": "+said)
				agrees = agrees || said == got
			}
			if !agrees && !(qtype == dns.TypeANY && minimal(got)) {
				slices.Sort(others)
				t.Errorf("%s %s\nelbow: %s\n%s", name, dns.Type(qtype), got, strings.Join(others, "\n"))
			}
		}
	}
	t.Logf("%d questions", asked)
}

var questions = func() []string {
	var out []string
	for _, below := range strings.Fields(`
www web WeB chain1 dangling outside loop1 a.b.c b.c c
q.wild wild *.wild x.wild y.wild sub.y.wild z.y.wild z.x.wild q.r.wild foo.cw foo.cx
dn host.dn none.dn a.host.dn a.dn x.dno
deleg ns.deleg occluded.deleg foo.bar.deleg
_sip._tcp _tcp caa weird svc cn-mx ns1 nope a.nope`) {
		out = append(out, below+".example.org")
	}
	return append(out, "example.org", "org", "other.test", ".",
		strings.Repeat("a", 63)+".example.org", strings.Repeat("a.", 115)+"example.org")
}()

// lookUp asks and puts the answer into one line that can be compared. Left
// out is what servers may choose: the order, the case of names, the authority
// section of positive answers, the additional section, and the serial.
func lookUp(addr, name string, qtype uint16) (string, error) {
	return lookUpWith(addr, name, qtype, false)
}

// lookUpWith is lookUp that asks for signatures and proofs where signed is set.
func lookUpWith(addr, name string, qtype uint16, signed bool) (string, error) {
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	q.RecursionDesired = false
	client := &dns.Client{Timeout: 2 * time.Second}
	if signed {
		q.SetEdns0(1232, true)
		client.Net = "tcp" // nothing is left out
	}
	r, _, err := client.Exchange(q, addr)
	if err != nil {
		return "", err
	}
	if len(r.Answer) > 0 || r.Rcode == dns.RcodeRefused { // some name themselves, and some do not
		r.Ns = slices.DeleteFunc(r.Ns, func(rr dns.RR) bool {
			sig, isSig := rr.(*dns.RRSIG)
			return !signed || rr.Header().Rrtype == dns.TypeNS || isSig && sig.TypeCovered == dns.TypeNS
		})
	}
	authority := section(r.Ns)
	return fmt.Sprintf("%s aa=%t tc=%t answer[%s] authority[%s]",
		dns.RcodeToString[r.Rcode], r.Authoritative, r.Truncated, section(r.Answer), authority), nil
}

func section(records []dns.RR) string {
	var out []string
	for _, rr := range records {
		if soa, ok := rr.(*dns.SOA); ok {
			soa.Serial = 0
		}
		out = append(out, strings.ToLower(strings.Join(strings.Fields(rr.String()), " ")))
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// minimal reports whether an answer to ANY is as RFC 8482 wants it: not empty,
// and of one type.
func minimal(said string) bool {
	return strings.HasPrefix(said, "NOERROR aa=true") && !strings.Contains(said, "answer[]")
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func startPeer(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}
