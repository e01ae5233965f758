package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
)

const elasticIP = "54.93.167.95"

// original is the setup of the original cluster: an Apache pod with hostPort 80
// on each minion, in front of them the master with the Elastic IP.
const original = `
host: {name: master, addresses: [54.93.167.95]}
stateDir: DIR/state
admin: {listen: "127.0.0.1:9653", socket: DIR/sock}
log: {connections: "off"}
dns:
  listen: ["54.93.167.95:53"]
  rateLimit: {perSecond: 0}
  zones:
    - name: public.haslohas.com
      nameservers: [{name: ns1.public.haslohas.com, addresses: [54.93.167.95]}]
services:
  - name: web
    hostnames: [web.public.haslohas.com]
    listen: ["54.93.167.95:80"]
    backends:
      kubernetes: {namespace: default, selector: "name=http", port: 80, via: VIA}
    drain: {timeout: 5s}
    probe: {interval: 2s, timeout: 1s}
  - name: minions
    hostnames: [minions.public.haslohas.com]
    answer: direct
    backends:
      kubernetes: {namespace: default, selector: "name=http", port: 80, via: VIA}
    probe: {interval: 2s, timeout: 1s}
kubernetes: {kubeconfig: KUBECONFIG}
`

const web = "http://" + elasticIP + "/"

// newOriginal returns a cluster with two minions, and the configuration for it.
func newOriginal(t *testing.T, via string) (*cluster, string) {
	c := newCluster(t)
	c.deploy("rbac.yaml")
	c.addNode("minion1", "172.31.8.233", "203.0.113.233")
	c.addNode("minion2", "172.31.8.18", "203.0.113.18")
	return c, strings.NewReplacer("VIA", via, "KUBECONFIG", c.account("elbow", "elbow")).Replace(original)
}

var labelled = map[string]string{"name": "http"}

func (c *cluster) addApache(minion string) *pod {
	internal := map[string]string{"minion1": "172.31.8.233", "minion2": "172.31.8.18"}[minion]
	return c.addPod("http-on-"+minion, podSpec{node: minion, labels: labelled, hostPort: 80, hostIP: internal})
}

func TestOriginalSetup(t *testing.T) {
	c, config := newOriginal(t, "hostPort")
	one, two := c.addApache("minion1"), c.addApache("minion2")
	one.setReady(corev1.ConditionTrue)
	two.setReady(corev1.ConditionTrue)
	b := startElbow(t, config)

	awaitBackends(t, "web", map[string]string{"172.31.8.233:80": "up", "172.31.8.18:80": "up"})
	answers := make(map[string]bool)
	for range 20 {
		who, err := get(t.Context(), web)
		if err != nil {
			t.Fatal(err)
		}
		answers[who] = true
	}
	if len(answers) != 2 {
		t.Errorf("answers came from %v", answers)
	}
	if got := resolve(t, "web.public.haslohas.com"); !slices.Equal(got, []string{elasticIP}) {
		t.Errorf("web: %v", got)
	}
	if got := resolve(t, "minions.public.haslohas.com"); !slices.Equal(got, []string{"203.0.113.18", "203.0.113.233"}) {
		t.Errorf("minions: %v", got)
	}
	if said := b.ask("status"); !strings.Contains(said, "minion1") || !strings.Contains(said, "minion2") {
		t.Errorf("status does not name the minions:\n%s", said)
	}

	// kubectl delete pod: it leaves the names, and takes no new connection.
	two.terminate()
	awaitBackends(t, "web", map[string]string{"172.31.8.233:80": "up", "172.31.8.18:80": "draining"})
	if got := resolve(t, "minions.public.haslohas.com"); !slices.Equal(got, []string{"203.0.113.233"}) {
		t.Errorf("minions, one of them draining: %v", got)
	}
	two.finish()
	awaitBackends(t, "web", map[string]string{"172.31.8.233:80": "up"})
}

func TestScaleUnderLoad(t *testing.T) {
	c, config := newOriginal(t, "podIP")
	first := c.addPod("http-0", podSpec{node: "minion1", labels: labelled})
	first.setReady(corev1.ConditionTrue)
	startElbow(t, config)
	l := startLoad(t, web)

	const most = 50
	pods := []*pod{first}
	for i := 1; i < most; i++ {
		p := c.addPod(fmt.Sprint("http-", i), podSpec{node: fmt.Sprint("minion", 1+i%2), labels: labelled})
		p.setReady(corev1.ConditionTrue)
		pods = append(pods, p)
	}
	await(t, 20*time.Second, "all pods answer", func(context.Context) error {
		for _, p := range pods {
			if l.answered(p.name) == 0 {
				return fmt.Errorf("%s has not answered", p.name)
			}
		}
		return nil
	})
	for _, p := range pods[1:] {
		p.terminate()
	}
	awaitEligible(t, "web", 1)
	for _, p := range pods[1:] {
		p.finish()
	}
	await(t, 10*time.Second, "one backend is left", func(ctx context.Context) error {
		if n := len(backends(ctx, t, "web")); n != 1 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	l.end()
	first.terminate()
	first.finish()
	await(t, 10*time.Second, "no backend is left", func(ctx context.Context) error {
		if n := len(backends(ctx, t, "web")); n != 0 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	if _, err := get(t.Context(), web); err == nil {
		t.Error("an answer came from nobody")
	}
}

// TestRollingReplacement does what a Deployment does: one more, then one less.
func TestRollingReplacement(t *testing.T) {
	c, config := newOriginal(t, "podIP")
	var old []*pod
	for i := range 4 {
		p := c.addPod(fmt.Sprint("old-", i), podSpec{node: fmt.Sprint("minion", 1+i%2), labels: labelled})
		p.setReady(corev1.ConditionTrue)
		old = append(old, p)
	}
	startElbow(t, config)
	l := startLoad(t, web)
	for i, gone := range old {
		p := c.addPod(fmt.Sprint("new-", i), podSpec{node: gone.node, labels: labelled})
		p.setReady(corev1.ConditionTrue)
		await(t, 5*time.Second, p.name+" answers", func(context.Context) error {
			if l.answered(p.name) == 0 {
				return fmt.Errorf("not one request yet")
			}
			return nil
		})
		gone.terminate()
		state := func() string { return states(t.Context(), t, "web")[gone.ip.String()+":80"] }
		await(t, 5*time.Second, gone.name+" drains", func(context.Context) error {
			if s := state(); s != "draining" {
				return fmt.Errorf("it is %s", s)
			}
			return nil
		})
		gone.finish()
	}
	l.end()
}

func TestNodeNotReady(t *testing.T) {
	c, config := newOriginal(t, "hostPort")
	one, two := c.addApache("minion1"), c.addApache("minion2")
	one.setReady(corev1.ConditionTrue)
	two.setReady(corev1.ConditionTrue)
	startElbow(t, config)
	awaitEligible(t, "web", 2)
	l := startLoad(t, web)

	// The node controller lost sight of a node that serves: the probe decides.
	c.setNodeReady("minion2", corev1.ConditionUnknown)
	before := l.answered(two.name)
	await(t, 5*time.Second, "the pod on the node goes on answering", func(context.Context) error {
		if n := l.answered(two.name) - before; n < 50 {
			return fmt.Errorf("%d answers", n)
		}
		return nil
	})
	c.setNodeReady("minion2", corev1.ConditionTrue)

	// kubectl drain: the pods are evicted.
	c.patch("nodes", "minion2", "", map[string]any{"spec": map[string]any{"unschedulable": true}})
	two.terminate()
	awaitEligible(t, "web", 1)
	two.finish()
	awaitBackends(t, "web", map[string]string{"172.31.8.233:80": "up"})
	l.end()
}

func TestAPIServerAway(t *testing.T) {
	c, config := newOriginal(t, "podIP")
	one := c.addPod("http-1", podSpec{node: "minion1", labels: labelled})
	two := c.addPod("http-2", podSpec{node: "minion2", labels: labelled})
	one.setReady(corev1.ConditionTrue)
	two.setReady(corev1.ConditionTrue)
	b := startElbow(t, config)
	awaitEligible(t, "web", 2)
	l := startLoad(t, web)

	c.kill()
	await(t, 30*time.Second, "the status shows that the source is out of touch", func(ctx context.Context) error {
		s := status(ctx, t)
		if s.Sources[0].Error == "" {
			return fmt.Errorf("%+v", s.Sources[0])
		}
		return nil
	})
	if s := status(t.Context(), t); s.Sources[0].Endpoints != 2 {
		t.Errorf("without the API there are %d endpoints", s.Sources[0].Endpoints)
	}
	since := sinces(t, "web")

	// A restart of elbow in the meantime begins with the last good set.
	l.end()
	b.stop()
	b.start()
	awaitEligible(t, "web", 2)
	l = startLoad(t, web)

	c.start()
	c.ready()
	three := c.addPod("http-3", podSpec{node: "minion1", labels: labelled})
	three.setReady(corev1.ConditionTrue)
	await(t, time.Minute, "the source is in touch again", func(ctx context.Context) error {
		s := status(ctx, t)
		if s.Sources[0].Error != "" || l.answered(three.name) == 0 {
			return fmt.Errorf("%+v", s.Sources[0])
		}
		return nil
	})
	if now := sinces(t, "web"); !now[one.ip.String()+":80"].Equal(since[one.ip.String()+":80"]) {
		t.Logf("the state of %s is of %s, it was of %s before the restart", one.name, now[one.ip.String()+":80"], since[one.ip.String()+":80"])
	}
	l.end()
}

// TestSpeed measures what users of a rollout feel.
func TestSpeed(t *testing.T) {
	c, config := newOriginal(t, "podIP")
	anchor := c.addPod("http-0", podSpec{node: "minion1", labels: labelled})
	anchor.setReady(corev1.ConditionTrue)
	startElbow(t, config)
	awaitEligible(t, "web", 1)
	l := startLoad(t, web)
	var ready, gone []time.Duration
	for i := range 10 {
		p := c.addPod(fmt.Sprint("http-", i+1), podSpec{node: "minion2", labels: labelled})
		begun := time.Now()
		p.setReady(corev1.ConditionTrue)
		for l.answered(p.name) == 0 && time.Since(begun) < 5*time.Second {
			_, _ = get(t.Context(), web) // the next may be it
		}
		ready = append(ready, time.Since(begun))
		begun = time.Now()
		p.terminate()
		gone = append(gone, p.lastConnection(time.Second).Sub(begun))
		p.finish()
	}
	l.end()
	slices.Sort(ready)
	slices.Sort(gone)
	t.Logf("from ready to the first request: median %s, most %s", ready[len(ready)/2], ready[len(ready)-1])
	t.Logf("from deletion to the last new connection: median %s, most %s", gone[len(gone)/2], gone[len(gone)-1])
	if m := ready[len(ready)/2]; m > 300*time.Millisecond {
		t.Errorf("a pod that is ready waits for %s, more than 300ms", m)
	}
	if m := gone[len(gone)/2]; m > 100*time.Millisecond {
		t.Errorf("a pod that is deleted gets connections for %s, more than 100ms", m)
	}
}

// lastConnection looks on for that long and returns when the pod was asked last,
// or when it began to look.
func (p *pod) lastConnection(span time.Duration) time.Time {
	last, asked := time.Now(), p.asked.Load()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for end := last.Add(span); time.Now().Before(end); <-look.C {
		if n := p.asked.Load(); n != asked {
			last, asked = time.Now(), n
		}
	}
	return last
}

// A statusOfElbow is what /api/v1/status says, as far as it matters here.
type statusOfElbow struct {
	Services []struct {
		Name      string
		Listeners []struct{ Address string }
		Hostnames []string
		Backends  []backend
	}
	Sources []struct {
		Name      string
		Endpoints int
		Age       float64 `json:"age_seconds"`
		Error     string
	}
}

type backend struct {
	Address, Node, State, Reason string
	Since                        time.Time
	Eligible                     bool
}

func status(ctx context.Context, t *testing.T) (s statusOfElbow) {
	t.Helper()
	text, err := get(ctx, "http://127.0.0.1:9653/api/v1/status")
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func backends(ctx context.Context, t *testing.T, service string) []backend {
	t.Helper()
	for _, s := range status(ctx, t).Services {
		if s.Name == service {
			return s.Backends
		}
	}
	return nil
}

func states(ctx context.Context, t *testing.T, service string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, b := range backends(ctx, t, service) {
		all[b.Address] = b.State
	}
	return all
}

func sinces(t *testing.T, service string) map[string]time.Time {
	t.Helper()
	all := make(map[string]time.Time)
	for _, b := range backends(t.Context(), t, service) {
		all[b.Address] = b.Since
	}
	return all
}

// awaitBackends waits until a service has exactly those backends, in those states.
func awaitBackends(t *testing.T, service string, want map[string]string) {
	t.Helper()
	await(t, 10*time.Second, service+" has its backends", func(ctx context.Context) error {
		got := states(ctx, t, service)
		for address := range want {
			if got[address] != want[address] {
				return fmt.Errorf("they are %v, not %v", got, want)
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("they are %v, not %v", got, want)
		}
		return nil
	})
}

// awaitEligible waits until n backends of a service take new connections.
func awaitEligible(t *testing.T, service string, n int) {
	t.Helper()
	await(t, 10*time.Second, fmt.Sprintf("%s has %d backends", service, n), func(ctx context.Context) error {
		got := 0
		for _, b := range backends(ctx, t, service) {
			if b.Eligible {
				got++
			}
		}
		if got != n {
			return fmt.Errorf("it has %d: %v", got, states(ctx, t, service))
		}
		return nil
	})
}

// resolve asks elbow for the IPv4 addresses of a name.
func resolve(t *testing.T, name string) []string {
	t.Helper()
	q := new(dns.Msg).SetQuestion(name+".", dns.TypeA)
	r, err := dns.Exchange(q, netip.MustParseAddrPort(elasticIP+":53").String())
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			all = append(all, a.A.String())
		}
	}
	slices.Sort(all)
	return all
}
