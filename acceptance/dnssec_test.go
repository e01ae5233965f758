//go:build acceptance

package acceptance

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/internal/elbowtest"
)

const signedConfiguration = `
host: {name: master, addresses: [127.0.0.1]}
stateDir: DIR/state
admin: {listen: "ADMIN", socket: DIR/elbow.sock}
log: {connections: "off"}
dns:
  listen: ["DNS"]
  zones:
    - name: public.haslohas.com
      hostmaster: hostmaster@haslohas.com
      nameservers: [{name: ns1.public.haslohas.com, addresses: [127.0.0.1]}]
      ttl: {normal: 1s, degraded: 1s, negative: 1s}
      file: KEYS/zone
      dnssec: {keys: KEYS}
services:
  - name: direct
    hostnames: [direct.public.haslohas.com]
    answer: direct
    backends: {static: ["127.0.0.11:BACKEND", "127.0.0.12:BACKEND"]}
    probe: {interval: 100ms, fastInterval: 100ms, downInterval: 100ms, timeout: 100ms, rise: 1, fall: 1}
    whenAllDown: refuse
  - name: chosen
    hostnames: [weighted.public.haslohas.com]
    answer: direct
    backends: {static: [{address: "127.0.0.11:BACKEND", node: minion1, weight: 3}, {address: "127.0.0.12:BACKEND", node: minion2}]}
    probe: {interval: 100ms, fastInterval: 100ms, downInterval: 100ms, timeout: 100ms, rise: 1, fall: 1}
    whenAllDown: refuse
    dns:
      policy: weighted
      srv: [_http._tcp.public.haslohas.com]
      status: _status.public.haslohas.com
      ttl: {negative: 2s}
  - name: mapped
    hostnames: [mapped.public.haslohas.com]
    answer: direct
    backends: {static: [{address: "127.0.0.11:BACKEND", zone: a}, {address: "127.0.0.12:BACKEND", zone: b}]}
    probe: {interval: 100ms, fastInterval: 100ms, downInterval: 100ms, timeout: 100ms, rise: 1, fall: 1}
    whenAllDown: refuse
    dns:
      clients: [{subnets: [127.0.0.0/8], zones: [b, a]}]
  - name: spoken
    hostnames: [spoken.public.haslohas.com]
    answer: direct
    backends: {static: ["127.0.0.11:BACKEND", "127.0.0.12:BACKEND"]}
    probe: {interval: 100ms, fastInterval: 100ms, downInterval: 100ms, timeout: 100ms, rise: 1, fall: 1}
    whenAllDown: refuse
    dns:
      https: {alpn: [h2, http/1.1]}
      svcb: [{name: _8443._foo.public.haslohas.com, port: 8443}]
`

const signedRecords = `
www      A     192.0.2.1
www      TXT   "one"
alias    CNAME www
todirect CNAME direct
*.wild   A     192.0.2.2
deep.ent A     192.0.2.3
*.cwild  CNAME www
sub      NS    ns.sub
ns.sub   A     192.0.2.4
old      DNAME new
x.new    A     192.0.2.5
`

// signedQuestions are some of every kind: what exists and what does not.
var signedQuestions = []string{
	"www A", "www TXT", "www AAAA", "alias A", "todirect A", "direct A", "direct AAAA", "direct TXT", "a.wild A", "a.wild TXT", "b.c.wild A",
	"ent A", "ent TXT", "nx.ent A", "nothing A", "a.b.c A", "zzz A", "x.cwild A", "x.cwild MX", "x.old A", "y.old A", "nx.direct A",
	"@ SOA", "@ NS", "@ DNSKEY", "@ CDS", "@ CDNSKEY", "@ TXT", "ns1 A", "_tcp SRV", "_x._tcp.www SRV", "sub DS",
	"weighted A", "weighted AAAA", "mapped A", "mapped TXT", "spoken HTTPS", "spoken A", "spoken SVCB", "_8443._foo SVCB", "_http._tcp SRV",
	"minion1.weighted A", "minion2.weighted A", "nx.weighted A", "_status TXT", "_status A", "_foo A",
}

// startSigned runs an elbow with a signed zone and returns its folder of keys.
func startSigned(t *testing.T, backend string) (*elbow, string) {
	t.Helper()
	keys := makeKey(t, "public.haslohas.com")
	if err := os.WriteFile(filepath.Join(keys, "zone"), []byte(signedRecords), 0o644); err != nil {
		t.Fatal(err)
	}
	return startElbow(t, strings.NewReplacer("KEYS", keys, "BACKEND", backend).Replace(signedConfiguration)), keys
}

// makeKey makes a key for a zone and returns the folder with it.
func makeKey(t *testing.T, zone string) string {
	t.Helper()
	keys, err := os.MkdirTemp("", "elbow-keys-") // a name without what templates replace
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(keys) })
	if out, err := exec.Command(elbowtest.Binary(t), "dnssec", "keygen", "--zone", zone, "--dir", keys).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return keys
}

// signingKeys returns the keys of the zone.
func (e *elbow) signingKeys() []*dns.DNSKEY {
	e.t.Helper()
	q := new(dns.Msg).SetQuestion("public.haslohas.com.", dns.TypeDNSKEY)
	r, _, err := (&dns.Client{Net: "tcp", Timeout: 2 * time.Second}).Exchange(q, e.dns)
	if err != nil {
		e.t.Fatal(err)
	}
	var keys []*dns.DNSKEY
	for _, rr := range r.Answer {
		if k, ok := rr.(*dns.DNSKEY); ok {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		e.t.Fatalf("no keys: %v", r)
	}
	return keys
}

// TestDelv: the validator of BIND believes every answer.
func TestDelv(t *testing.T) {
	if _, err := exec.LookPath("delv"); err != nil {
		t.Skip("delv is not installed (Debian: bind9-dnsutils)")
	}
	e, _ := startSigned(t, "1")
	var anchors strings.Builder
	anchors.WriteString("trust-anchors {\n")
	for _, k := range e.signingKeys() {
		fmt.Fprintf(&anchors, "  \"public.haslohas.com.\" static-key %d %d %d \"%s\";\n", k.Flags, k.Protocol, k.Algorithm, k.PublicKey)
	}
	anchors.WriteString("};\n")
	file := filepath.Join(e.Dir, "anchors")
	if err := os.WriteFile(file, []byte(anchors.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(e.dns)
	for _, question := range signedQuestions {
		name, typ := asked(question)
		out, err := exec.Command("delv", "@"+host, "-p", port, "-a", file, "+root=public.haslohas.com", name, typ).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "fully validated") {
			t.Errorf("%s: %v\n%s", question, err, out)
		}
	}
}

func asked(question string) (name, typ string) {
	name, typ, _ = strings.Cut(question, " ")
	return strings.TrimPrefix(name+".public.haslohas.com.", "@."), typ
}

// TestUnbound: a strict validating resolver resolves every name, positive and
// negative, as authentic, while a backend goes down and up, and over a rollover.
func TestUnbound(t *testing.T) {
	path, err := exec.LookPath("unbound")
	if err != nil {
		t.Skip("unbound is not installed (Debian: unbound)")
	}
	backend := freePorts(t, 1)[0]
	e, keys := startSigned(t, backend)
	roll := standBy(t, e, keys)
	resolver := startUnbound(t, path, e) // which knows the DS of both keys, as the parent zone does

	// One backend is always there, the other comes and goes.
	steady, err := net.Listen("tcp", "127.0.0.11:"+backend)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { steady.Close() }() // the last one: it must not be collected before
	client := &dns.Client{Timeout: 5 * time.Second}
	resolve := func(question string) (*dns.Msg, error) {
		name, typ := asked(question)
		q := new(dns.Msg).SetQuestion(name, dns.StringToType[typ])
		q.SetEdns0(1232, true)
		r, _, err := client.Exchange(q, resolver)
		return r, err
	}
	round := func() {
		t.Helper()
		for _, question := range signedQuestions {
			r, err := resolve(question)
			if err != nil {
				t.Fatalf("%s: %v", question, err)
			}
			if r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError || !r.AuthenticatedData {
				t.Fatalf("%s is not authentic: %v", question, r)
			}
		}
	}
	addresses := func(name string) (out []netip.Addr) {
		r, err := resolve(name + " A")
		if err != nil {
			t.Fatal(err)
		}
		for _, rr := range r.Answer {
			if rr, ok := rr.(*dns.A); ok {
				a, _ := netip.AddrFromSlice(rr.A.To4())
				out = append(out, a)
			}
		}
		return out
	}
	for range 3 {
		flapping, err := net.Listen("tcp", "127.0.0.12:"+backend)
		if err != nil {
			t.Fatal(err)
		}
		round()
		elbowtest.Eventually(t, 10*time.Second, "both addresses are resolved", func() bool { return len(addresses("direct")) == 2 })
		elbowtest.Eventually(t, 10*time.Second, "the resolver is answered with the zone that is near", func() bool {
			near := addresses("mapped")
			return len(near) == 1 && near[0].String() == "127.0.0.12"
		})
		if one := addresses("weighted"); len(one) != 1 {
			t.Fatalf("the weighted name has the addresses %v", one)
		}
		flapping.Close()
		round()
		elbowtest.Eventually(t, 10*time.Second, "the next zone is answered", func() bool {
			near := addresses("mapped")
			return len(near) == 1 && near[0].String() == "127.0.0.11"
		})
		elbowtest.Eventually(t, 10*time.Second, "one address is resolved", func() bool { return len(addresses("direct")) == 1 })
	}
	// The last one too: the name exists without an address, and has one again.
	steady.Close()
	elbowtest.Eventually(t, 10*time.Second, "no address is resolved", func() bool { return len(addresses("direct")) == 0 })
	round()
	if steady, err = net.Listen("tcp", "127.0.0.11:"+backend); err != nil {
		t.Fatal(err)
	}
	elbowtest.Eventually(t, 10*time.Second, "an address is resolved again", func() bool { return len(addresses("direct")) == 1 })

	roll(round, func() map[string]bool {
		tags := make(map[string]bool)
		for _, question := range signedQuestions {
			r, err := resolve(question)
			if err != nil {
				t.Fatal(err)
			}
			for _, rr := range append(r.Answer, r.Ns...) {
				if sig, ok := rr.(*dns.RRSIG); ok {
					tags[fmt.Sprint(sig.KeyTag)] = true
				}
			}
		}
		return tags
	})
}

// standBy begins to roll the key of the zone over by the commands of
// docs/dnssec.md, and returns a function that ends it and checks each step. The
// hour of waiting is left out.
func standBy(t *testing.T, e *elbow, keys string) (roll func(check func(), signers func() map[string]bool)) {
	t.Helper()
	path := elbowtest.Binary(t)
	command := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(path, append([]string{"dnssec"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	old := fmt.Sprint(e.signingKeys()[0].KeyTag())
	command("keygen", "--zone", "public.haslohas.com", "--dir", keys, "--standby")
	elbowtest.Eventually(t, 15*time.Second, "the standby is in the zone", func() bool { return len(e.signingKeys()) == 2 })
	var new string
	for _, k := range e.signingKeys() {
		if tag := fmt.Sprint(k.KeyTag()); tag != old {
			new = tag
		}
	}
	signedBy := func() string {
		t.Helper()
		r, _, err := (&dns.Client{Net: "tcp", Timeout: 2 * time.Second}).Exchange(signedQuestion(dns.TypeSOA), e.dns)
		if err != nil {
			t.Fatal(err)
		}
		for _, rr := range r.Answer {
			if sig, ok := rr.(*dns.RRSIG); ok {
				return fmt.Sprint(sig.KeyTag)
			}
		}
		return ""
	}
	return func(check func(), signers func() map[string]bool) {
		t.Helper()
		if by := signedBy(); by != old {
			t.Errorf("signed by %s, want %s", by, old)
		}
		command("activate", "--force", "--zone", "public.haslohas.com", "--dir", keys, new)
		check()
		elbowtest.Eventually(t, 15*time.Second, "the new key signs", func() bool { return signedBy() == new })
		check()
		if out := command("ds", "--dir", keys, "public.haslohas.com"); !strings.Contains(out, "retired") || !strings.Contains(out, "active") {
			t.Errorf("in the middle of it:\n%s", out)
		}
		elbowtest.Eventually(t, 10*time.Second, "what the old key has signed has left the cache", func() bool { return !signers()[old] })
		command("remove", "--zone", "public.haslohas.com", "--dir", keys, old)
		elbowtest.Eventually(t, 15*time.Second, "the old key is gone", func() bool { return len(e.signingKeys()) == 1 })
		check()
		if by := signedBy(); by != new {
			t.Errorf("at the end signed by %s, want %s", by, new)
		}
	}
}

func signedQuestion(typ uint16) *dns.Msg {
	q := new(dns.Msg).SetQuestion("public.haslohas.com.", typ)
	q.SetEdns0(1232, true)
	return q
}

// startUnbound runs a resolver that believes the keys of the zone and nothing
// that it cannot prove. It returns its address.
func startUnbound(t *testing.T, path string, e *elbow) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "elbow-unbound-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := freePorts(t, 1)[0]
	var anchors strings.Builder
	for _, k := range e.signingKeys() {
		fmt.Fprintln(&anchors, k.ToDS(dns.SHA256))
	}
	if err := os.WriteFile(filepath.Join(dir, "anchors"), []byte(anchors.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`server:
  directory: "%[1]s"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  logfile: ""
  verbosity: 1
  val-log-level: 2
  interface: 127.0.0.1
  port: %[2]s
  do-not-query-localhost: no
  do-ip6: no
  module-config: "validator iterator"
  trust-anchor-file: "%[1]s/anchors"
  use-caps-for-id: yes
  aggressive-nsec: yes
  qname-minimisation: yes
  qname-minimisation-strict: yes
  harden-below-nxdomain: yes
  harden-dnssec-stripped: yes
  cache-max-ttl: 2
  cache-max-negative-ttl: 2
  minimal-responses: no
remote-control:
  control-enable: no
stub-zone:
  name: public.haslohas.com
  stub-addr: %[3]s
`, dir, port, strings.Replace(e.dns, ":", "@", 1))
	file := filepath.Join(dir, "unbound.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(path, "-d", "-c", file)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log of unbound:\n%s", text)
		}
	})
	addr := "127.0.0.1:" + port
	elbowtest.Eventually(t, 10*time.Second, "unbound answers", func() bool {
		_, _, err := (&dns.Client{Timeout: time.Second}).Exchange(signedQuestion(dns.TypeSOA), addr)
		return err == nil
	})
	return addr
}
