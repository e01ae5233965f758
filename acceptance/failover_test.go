//go:build acceptance

package acceptance

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"haslohas.com/elbow/internal/elbowtest"
)

const (
	serverA = "127.0.0.11:8080"
	serverB = "127.0.0.12:8080"
)

const configuration = `
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
      ttl: {normal: 30s, degraded: 5s, negative: 5s}
services:
  - name: web
    hostnames: [web.public.haslohas.com]
    answer: proxied
    listen: ["LISTEN"]
    backends: {static: ["127.0.0.11:8080", "127.0.0.12:8080"]}
    whenAllDown: WHENALLDOWN
  - name: direct
    hostnames: [direct.public.haslohas.com]
    answer: direct
    backends: {static: ["127.0.0.11:8080", "127.0.0.12:8080"]}
    whenAllDown: WHENALLDOWN
`

func configured(whenAllDown string) string {
	return strings.ReplaceAll(configuration, "WHENALLDOWN", whenAllDown)
}

func addrs(s ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

var (
	both  = addrs("127.0.0.11", "127.0.0.12")
	onlyB = addrs("127.0.0.12")
)

func TestAnswers(t *testing.T) {
	startWebServer(t, serverA)
	startWebServer(t, serverB)
	e := startElbow(t, configured("all"))

	for _, transport := range []string{"udp", "tcp"} {
		if a := e.resolve("web.public.haslohas.com", transport); !a.aa || a.ttl != 30 || !slices.Equal(a.addresses, addrs("127.0.0.1")) {
			t.Errorf("over %s web is answered %+v", transport, a)
		}
		if a := e.resolve("direct.public.haslohas.com", transport); !a.aa || a.ttl != 30 || !slices.Equal(a.addresses, both) {
			t.Errorf("over %s direct is answered %+v", transport, a)
		}
	}

	if _, err := exec.LookPath("dig"); err != nil {
		t.Skip("dig is not installed (Debian: dnsutils)")
	}
	host, port, _ := net.SplitHostPort(e.dns)
	for _, transport := range []string{"+notcp", "+tcp"} {
		out, err := exec.Command("dig", "@"+host, "-p", port, transport, "web.public.haslohas.com").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "flags: qr aa") || !strings.Contains(string(out), "127.0.0.1") {
			t.Errorf("dig %s: %v\n%s", transport, err, out)
		}
	}

	seen := map[string]int{}
	for range 50 {
		server, err := ask(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, e.listen)
		if err != nil {
			t.Fatal(err)
		}
		seen[server]++
	}
	if seen[serverA] == 0 || seen[serverB] == 0 {
		t.Errorf("50 requests reached %v, want both servers", seen)
	}
}

func TestOneServerIsKilledUnderLoad(t *testing.T) {
	a := startWebServer(t, serverA)
	startWebServer(t, serverB)
	e := startElbow(t, configured("all"))
	l := startLoad(t, e.listen, 200)
	defer l.stop()

	refusals := fmt.Sprintf(`elbow_proxy_connections_total{backend=%q,service="web"}`, serverA)
	elbowtest.Eventually(t, 10*time.Second, "the load reaches both", func() bool { return e.Metric(refusals) > 200 })

	killed := time.Now()
	a.kill()
	inDNS := elbowtest.Eventually(t, time.Second, "DNS drops the dead server", func() bool {
		return slices.Equal(e.resolve("direct.public.haslohas.com", "udp").addresses, onlyB)
	})
	if got := e.resolve("direct.public.haslohas.com", "udp"); got.ttl != 5 {
		t.Errorf("the TTL of what remains is %d, want the degraded one, 5", got.ttl)
	}
	down := elbowtest.Eventually(t, 2*time.Second, "the state is down", func() bool { return e.Backends("web")[0].State == "down" })
	t.Logf("out of DNS %s after the kill, down after %s", inDNS, inDNS+down)

	failures := 0.0
	for _, reason := range []string{"refused", "timeout", "reset", "unreachable"} {
		failures += e.Metric(fmt.Sprintf(`elbow_proxy_connect_failures_total{backend=%q,reason=%q,service="web"}`, serverA, reason))
	}
	t.Logf("failed connects to the dead server: %v", failures)
	if failures < 1 || failures > 3 {
		t.Errorf("%v connects to the dead server failed: want the first, and at most two that were under way", failures)
	}

	back := time.Now()
	path, _ := exec.LookPath("nginx")
	a.start(path)
	took := elbowtest.Eventually(t, 15*time.Second, "the server is back in DNS", func() bool {
		return slices.Equal(e.resolve("direct.public.haslohas.com", "udp").addresses, both)
	})
	before := e.Metric(refusals)
	elbowtest.Eventually(t, 5*time.Second, "the server that came back serves", func() bool { return e.Metric(refusals) > before+50 })
	t.Logf("back in DNS %s after its start", took)

	requests := l.stop()
	served := map[string]int{}
	for _, r := range requests {
		// What was already with the dead server may fail; nothing may that came after.
		if r.err != nil && r.begin.After(killed) {
			t.Errorf("a request of %s after the kill failed: %v", r.begin.Sub(killed), r.err)
		}
		if r.err == nil && r.begin.After(back) {
			served[r.server]++
		}
	}
	t.Logf("%d requests; after the return: %v", len(requests), served)
}

func TestAllServersAreDown(t *testing.T) {
	tests := []struct {
		rule      string
		addresses []netip.Addr
		ttl       uint32
	}{
		{"all", both, 5},
		{"refuse", nil, 5}, // of the SOA: the negative TTL
	}
	for _, test := range tests {
		t.Run(test.rule, func(t *testing.T) {
			a, b := startWebServer(t, serverA), startWebServer(t, serverB)
			e := startElbow(t, configured(test.rule))
			a.kill()
			b.kill()
			elbowtest.Eventually(t, 15*time.Second, "both are down", func() bool {
				bs := e.Backends("direct")
				return bs[0].State == "down" && bs[1].State == "down"
			})
			got := e.resolve("direct.public.haslohas.com", "udp")
			if got.rcode != dns.RcodeSuccess || !slices.Equal(got.addresses, test.addresses) || got.ttl != test.ttl {
				t.Errorf("answered %+v, want %v with TTL %d", got, test.addresses, test.ttl)
			}
			if _, err := ask(http.DefaultClient, e.listen); err == nil {
				t.Error("a request succeeded without a server")
			}
			if tried := e.Metric(fmt.Sprintf(`elbow_proxy_connect_failures_total{backend=%q,reason="refused",service="web"}`, serverA)); (tried > 0) != (test.rule == "all") {
				t.Errorf("%v connects were tried under the rule %s", tried, test.rule)
			}
			// A server that comes back is found, by traffic or by the probe.
			path, _ := exec.LookPath("nginx")
			b.start(path)
			elbowtest.Eventually(t, 15*time.Second, "requests are served again", func() bool {
				server, err := ask(http.DefaultClient, e.listen)
				return err == nil && server == serverB
			})
		})
	}
}

func TestReloadUnderLoad(t *testing.T) {
	startWebServer(t, serverA)
	startWebServer(t, serverB)
	e := startElbow(t, configured("all"))
	before := e.Backends("web")
	l := startLoad(t, e.listen, 200)
	defer l.stop()

	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for i := range 25 {
		<-tick.C
		// Each reload changes something that the proxy and the answers carry.
		e.configure(configured([]string{"all", "refuse"}[i%2]))
		e.Signal(syscall.SIGHUP)
	}
	if ok := e.Metric("elbow_config_last_reload_successful"); ok != 1 {
		t.Errorf("elbow_config_last_reload_successful is %v", ok)
	}
	for _, r := range l.stop() {
		if r.err != nil {
			t.Errorf("a request failed: %v", r.err)
		}
	}
	if after := e.Backends("web"); !slices.EqualFunc(before, after, func(x, y elbowtest.Backend) bool { return x.State == y.State && x.Since.Equal(y.Since) }) {
		t.Errorf("reloads changed the states from %v to %v", before, after)
	}

	e.configure("services: [{name: 7, bananas: 1}]")
	e.Signal(syscall.SIGHUP)
	elbowtest.Eventually(t, 5*time.Second, "the broken file is reported", func() bool { return e.Metric("elbow_config_last_reload_successful") == 0 })
	if _, err := ask(http.DefaultClient, e.listen); err != nil {
		t.Errorf("after a broken file: %v", err)
	}
}
