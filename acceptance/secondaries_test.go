//go:build acceptance

package acceptance

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/internal/elbowtest"
)

// healthChanges are followed by each secondary.
const healthChanges = 100

const xfrZone = "public.haslohas.com"

// A follower is a name server of another maker that copies the zone.
type follower struct {
	name string
	addr string
	log  string // path
}

// start runs the server with its own part of the configuration and the one of
// the documentation.
func (f *follower) start(t *testing.T, preamble, example string, command ...string) {
	t.Helper()
	conf := write(t, filepath.Dir(f.log), f.name+".conf", preamble+example)
	log, err := os.Create(f.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	for i := range command {
		command[i] = strings.ReplaceAll(command[i], "CONF", conf)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	startPeer(t, cmd)
	t.Cleanup(func() {
		if text, err := os.ReadFile(f.log); err == nil && t.Failed() {
			t.Logf("the end of what %s says:\n%s", f.name, text[max(0, len(text)-4000):])
		}
	})
}

func (f *follower) says(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(f.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// example returns the block of docs/behaviour.md, section Secondaries, in that
// language.
func example(t *testing.T, language string, replace ...string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/behaviour.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Secondaries\n")
	block := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindStringSubmatch(section)
	if block == nil {
		t.Fatalf("no %s in docs/behaviour.md", language)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(block[1], replace[i]) {
			t.Fatalf("the %s of docs/behaviour.md does not have %q", language, replace[i])
		}
	}
	return strings.NewReplacer(replace...).Replace(block[1])
}

// TestSecondariesFollow: Knot, NSD and BIND, with the configurations of the
// documentation, have each change of health soon, and answer as elbow does. Where
// the zone is signed, they do with the same signatures and proofs.
func TestSecondariesFollow(t *testing.T) {
	for name, signed := range map[string]bool{"unsigned": false, "signed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of the time nothing happens
			testSecondariesFollow(t, signed)
		})
	}
}

func testSecondariesFollow(t *testing.T, signed bool) {
	for _, tool := range []string{"knotd", "nsd", "named", "dig", "kzonecheck", "named-checkzone"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (Debian: knot, knot-dnssecutils, nsd, bind9, bind9-utils, dnsutils)", tool)
		}
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	secret := base64.StdEncoding.EncodeToString(random)
	dir := t.TempDir()
	secretFile := write(t, dir, "secret", secret+"\n")
	if err := os.Chmod(secretFile, 0o600); err != nil {
		t.Fatal(err)
	}

	ports := freePorts(t, 5)
	followers := []*follower{{name: "knot"}, {name: "nsd"}, {name: "named"}}
	var notify []string
	for i, f := range followers {
		f.addr, f.log = "127.0.0.1:"+ports[i], filepath.Join(t.TempDir(), "log")
		notify = append(notify, fmt.Sprintf("{address: %q, key: secondary.haslohas.com}", f.addr))
	}
	backends := make([]*port, 4)
	var static []string
	for i := range backends {
		backends[i] = &port{t: t, addr: fmt.Sprintf("127.0.0.%d:%s", 11+i, ports[4])}
		backends[i].open()
		static = append(static, fmt.Sprintf("{address: %q, public: 198.51.100.%d}", backends[i].addr, 1+i))
	}
	zone := write(t, dir, "static.zone", `
www 300 CNAME web
*.wild 60 TXT "anything" "at all"
a.b.c 60 A 192.0.2.77
@ 600 MX 10 mail
mail 600 AAAA 2001:db8::25
deleg 3600 NS ns.deleg
ns.deleg 3600 A 192.0.2.99
svc 60 HTTPS 1 . alpn=h2
odd 60 TYPE65300 \# 3 010203
`)
	more := "      file: " + zone + "\n"
	if signed {
		keys := makeKey(t, xfrZone)
		more += "      dnssec: {keys: " + keys + "}\n"
	}
	yaml := example(t, "yaml",
		"/etc/elbow/secondary.secret", secretFile, "192.0.2.2/32", "127.0.0.1/32",
		`{address: "192.0.2.2:53", key: secondary.haslohas.com}`, strings.Join(notify, ", "),
		"      nameservers:", more+"      nameservers:",
		"dns:\n", "dns:\n  listen: [\"DNS\"]\n  rateLimit: {perSecond: 0}\n")
	e := startElbow(t, `
stateDir: DIR
admin: {listen: "ADMIN", socket: DIR/elbow.sock}
`+yaml+`
services:
  - name: web
    hostnames: [web.public.haslohas.com, deep.er.public.haslohas.com]
    answer: direct
    backends: {static: [`+strings.Join(static, ", ")+`]}
    probe: {type: tcp, interval: 100ms, timeout: 100ms, fastInterval: 50ms, downInterval: 100ms, rise: 1, fall: 1}
    dns: {https: {alpn: [h2]}, srv: [_http._tcp.public.haslohas.com], svcb: [_8443._foo.public.haslohas.com], status: _status.public.haslohas.com}
  - name: gone
    hostnames: [gone.public.haslohas.com]
    answer: direct
    backends: {static: ["127.0.0.1:1"]}
    whenAllDown: refuse
`)
	_, dnsPort, err := net.SplitHostPort(e.dns)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range followers {
		home := filepath.Dir(f.log)
		switch f.name {
		case "knot":
			if err := os.Mkdir(filepath.Join(home, "db"), 0o700); err != nil {
				t.Fatal(err)
			}
			f.start(t, fmt.Sprintf("server:\n    listen: 127.0.0.1@%s\n    rundir: %[2]s\ndatabase:\n    storage: %[2]s/db\ntemplate:\n  - id: default\n    storage: %[2]s\nlog:\n  - target: stderr\n    any: info\n", ports[i], home),
				example(t, "knot", "192.0.2.1@53", "127.0.0.1@"+dnsPort, "192.0.2.1", "127.0.0.1", "SECRET", secret), "knotd", "-c", "CONF")
		case "nsd":
			f.start(t, fmt.Sprintf("server:\n  ip-address: 127.0.0.1@%s\n  username: \"\"\n  zonesdir: %[2]s\n  pidfile: %[2]s/pid\n  xfrdfile: \"\"\n  xfrdir: %[2]s\n  xfrd-reload-timeout: 0\n  rrl-ratelimit: 0\n  database: \"\"\n  zonelistfile: %[2]s/zones\n  verbosity: 3\nremote-control:\n  control-enable: no\n", ports[i], home),
				example(t, "nsd", "192.0.2.1@53", "127.0.0.1@"+dnsPort, "192.0.2.1", "127.0.0.1", "SECRET", secret)+"  zonefile: "+home+"/nsd.zone\n", "nsd", "-d", "-c", "CONF")
		case "named":
			f.start(t, fmt.Sprintf("options { directory %q; listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; notify no; pid-file none; session-keyfile none; dnssec-validation no; zero-no-soa-ttl no; };\ncontrols { };\n", home, ports[i]),
				example(t, "named", "192.0.2.1 port 53", "127.0.0.1 port "+dnsPort, "SECRET", secret), "named", "-g", "-d", "3", "-n", "1", "-c", "CONF")
		}
	}
	for _, f := range followers {
		elbowtest.Eventually(t, 60*time.Second, f.name+" has the zone", func() bool { return serialAt(f.addr) == serialAt(e.dns) && serialAt(e.dns) != 0 })
	}

	lags := make(map[string][]time.Duration)
	compared := 0
	calm := time.NewTicker(1100 * time.Millisecond)
	defer calm.Stop()
	follow := func(i int) {
		b := backends[i*7%(len(backends)-1)] // the last one stays, so that the name always has an address
		<-calm.C                             // longer than what NOTIFY is held back for while a zone flaps
		b.toggle()
		gone := b.listener == nil
		elbowtest.Eventually(t, 5*time.Second, "elbow has seen it", func() bool {
			return slices.ContainsFunc(e.resolve("web."+xfrZone, "udp").addresses, func(a netip.Addr) bool {
				return a.String() == "198.51.100."+b.number()
			}) != gone
		})
		begun := time.Now()
		for _, lag := range awaitAll(t, e.dns, followers, begun) {
			lags[lag.name] = append(lags[lag.name], lag.d)
		}
		compared += sameAnswers(t, e.dns, followers, signed)
	}
	for i := range healthChanges {
		follow(i)
	}
	for _, f := range followers {
		slices.Sort(lags[f.name])
		t.Logf("%s: lag of %d changes: median %s, 95%% %s, longest %s", f.name, len(lags[f.name]),
			lags[f.name][healthChanges/2], lags[f.name][healthChanges*95/100], lags[f.name][healthChanges-1])
	}
	t.Logf("%d answers compared", compared)

	differences := e.Metric(`elbow_dns_transfers_total{asked="ixfr",result="difference",zone="` + xfrZone + `"}`)
	whole := e.Metric(`elbow_dns_transfers_total{asked="axfr",result="whole",zone="`+xfrZone+`"}`) +
		e.Metric(`elbow_dns_transfers_total{asked="ixfr",result="whole",zone="`+xfrZone+`"}`)
	t.Logf("%v differences and %v times the whole zone were sent", differences, whole)
	if differences < 3*healthChanges || whole > 6 {
		t.Errorf("secondaries do not take differences")
	}
	for name, sign := range map[string]string{"knot": "IXFR, incoming.*finished", "named": "got incremental response"} {
		f := followers[slices.IndexFunc(followers, func(f *follower) bool { return f.name == name })]
		if n := len(regexp.MustCompile(sign).FindAllString(f.says(t), -1)); n < healthChanges {
			t.Errorf("%s has taken %d differences, want %d", name, n, healthChanges)
		}
	}

	checkedZone(t, e.dns, secret, signed)

	// Another process takes over: serials go on, and so do the secondaries.
	before := serialAt(e.dns)
	e.Upgrade()
	if after := serialAt(e.dns); int32(after-before) < 0 {
		t.Errorf("serial %d after %d", after, before)
	}
	follow(healthChanges)
}

// A port is a backend that tcp probes find well while it is open.
type port struct {
	t        *testing.T
	addr     string
	listener net.Listener
	serving  sync.WaitGroup
}

func (p *port) number() string {
	_, last, _ := strings.Cut(strings.Split(p.addr, ":")[0], "127.0.0.")
	n, _ := strconv.Atoi(last) // the test has made it
	return strconv.Itoa(n - 10)
}

func (p *port) open() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.listener = l
	p.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	})
	p.t.Cleanup(func() { l.Close() })
}

func (p *port) toggle() {
	p.t.Helper()
	if p.listener == nil {
		p.open()
		return
	}
	p.listener.Close()
	p.serving.Wait()
	p.listener = nil
}

// serialAt returns the serial that a server has, 0 if it has none.
func serialAt(addr string) uint32 {
	r, _, err := (&dns.Client{Timeout: time.Second}).Exchange(new(dns.Msg).SetQuestion(xfrZone+".", dns.TypeSOA), addr)
	if err != nil || len(r.Answer) != 1 {
		return 0
	}
	return r.Answer[0].(*dns.SOA).Serial
}

type lag struct {
	name string
	d    time.Duration
}

// awaitAll waits until each follower has the serial that elbow has then.
func awaitAll(t *testing.T, elbow string, followers []*follower, begun time.Time) []lag {
	t.Helper()
	var lags []lag
	elbowtest.Eventually(t, 20*time.Second, "all follow", func() bool {
		want := serialAt(elbow)
		for _, f := range followers {
			if serialAt(f.addr) == want && want != 0 && !slices.ContainsFunc(lags, func(l lag) bool { return l.name == f.name }) {
				lags = append(lags, lag{f.name, time.Since(begun)})
			}
		}
		return len(lags) == len(followers)
	})
	return lags
}

// sameAnswers asks all for each name and type and returns how often. Where the
// zone has changed meanwhile, it waits and asks again. A signed zone is asked for
// signatures, too.
func sameAnswers(t *testing.T, elbow string, followers []*follower, signed bool) (asked int) {
	t.Helper()
	owners := []string{"", "web.", "deep.er.", "er.", "www.", "x.wild.", "wild.", "a.b.c.", "b.c.", "mail.", "deleg.", "x.deleg.", "ns.deleg.",
		"ns1.", "svc.", "odd.", "none.", "none.web.", "_http._tcp.", "_tcp.", "_8443._foo.", "_status.", "ip-127-0-0-14.web."}
	if signed { // an unsigned zone cannot say that there is such a name
		owners = append(owners, "gone.")
	}
	for range 20 {
		begun := serialAt(elbow)
		var wrong []string
		for _, below := range owners {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeTXT, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeSRV, 65300, dns.TypeDS, dns.TypeDNSKEY, dns.TypeCDS} {
				want, err := lookUpWith(elbow, below+xfrZone, qtype, signed)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range followers {
					asked++
					if got, err := lookUpWith(f.addr, below+xfrZone, qtype, signed); err != nil || got != want {
						wrong = append(wrong, fmt.Sprintf("%s%s %s\nelbow: %s\n%s: %s %v", below, xfrZone, dns.Type(qtype), want, f.name, got, err))
					}
				}
			}
		}
		if serialAt(elbow) == begun {
			for _, w := range wrong {
				t.Error(w)
			}
			if len(wrong) > 0 {
				t.FailNow()
			}
			return asked
		}
		awaitAll(t, elbow, followers, time.Now())
	}
	t.Fatal("the zone never rests")
	return 0
}

// checkedZone has the zone, as dig copies it, checked by what others check
// zones with.
func checkedZone(t *testing.T, addr, secret string, signed bool) {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	text, err := exec.Command("dig", "@127.0.0.1", "-p", port, "-y", "hmac-sha256:secondary.haslohas.com:"+secret,
		xfrZone, "AXFR", "+onesoa", "+noall", "+answer").CombinedOutput()
	if err != nil || !strings.Contains(string(text), "web."+xfrZone) || strings.Contains(string(text), "Transfer failed") {
		t.Fatalf("dig: %v\n%s", err, text)
	}
	path := write(t, t.TempDir(), "zone", string(text))
	checks := map[string][]string{
		`^zone \S+: loaded serial \d+( \(DNSSEC signed\))?\nOK\n$`: {"named-checkzone", "-i", "local", xfrZone, path},
		`^No semantic error found\n$`:                              {"kzonecheck", "-v", "-o", xfrZone, path},
	}
	if signed {
		checks[`(?s)^.*Zone fully signed.*$`] = []string{"dnssec-verify", "-z", "-o", xfrZone, path}
	}
	for want, check := range checks {
		said, err := exec.Command(check[0], check[1:]...).CombinedOutput()
		if err != nil || !regexp.MustCompile(want).Match(said) {
			t.Errorf("%s: %v\n%s", check[0], err, said)
		}
	}
}
