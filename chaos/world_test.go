//go:build chaos && linux

package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"haslohas.com/elbow/internal/elbowtest"
)

func TestMain(m *testing.M) {
	if addresses := strings.Fields(os.Getenv(roleVariable)); len(addresses) == 2 {
		fmt.Fprintln(os.Stderr, runBackend(addresses[0], addresses[1])) // it returns only with an error
		os.Exit(1)
	}
	os.Exit(elbowtest.Main(m))
}

// Who lives where. Each backend i has a network 10.0.i.0/24 with elbow.
const (
	listen  = "10.0.0.1:80" // of elbow, for the clients
	clientA = "10.0.0.2"
	clientB = "10.0.0.3"
)

func backendIP(i int) string { return fmt.Sprintf("10.0.%d.2", i) }

// A world is a client host, elbow's host and the backends' hosts, joined by cables.
type world struct {
	t        *testing.T
	clients  *namespace
	host     *namespace // elbow's
	backends []*backend // of the service
	elbow    *elbowtest.Daemon
	process  process

	before     map[string]int // descriptors in the beginning
	goroutines int            // in the beginning

	readBuffer int // SO_RCVBUF of the clients' sockets; 0: as the system has it

	seeds    atomic.Uint64
	mu       sync.Mutex
	sessions []*session // guarded by mu while a load runs
}

// A setting is what is special about a world.
type setting struct {
	engine   string
	backends int                       // 0: one
	service  string                    // keys of the service
	host     func(*namespace)          // is called before elbow starts; nil: nothing
	wrap     func(*exec.Cmd) *exec.Cmd // see elbowtest.Options
}

// withEachEngine runs the test with every engine, beside all others.
func withEachEngine(t *testing.T, test func(t *testing.T, engine string)) {
	t.Helper()
	t.Parallel()
	for _, engine := range []string{"epoll", "portable"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			test(t, engine)
		})
	}
}

// building is held while a world is made: the clocks of the others run.
var building sync.Mutex

func newWorld(t *testing.T, s setting) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("ip is not installed (Debian: iproute2)")
	}
	building.Lock()
	defer building.Unlock()
	w := &world{t: t, clients: newNamespace(t), host: newNamespace(t)}
	w.host.connect("clients", "10.0.0.1/24", w.clients, "eth0", clientA+"/24", clientB+"/24")
	for i := range max(1, s.backends) {
		ns := newNamespace(t)
		w.host.connect(w.cable(i), fmt.Sprintf("10.0.%d.1/24", i+1), ns, "eth0", backendIP(i+1)+"/24")
		ns.ip("route add default via 10.0.%d.1", i+1)
		w.backends = append(w.backends, newBackend(t, ns, backendIP(i+1)))
	}
	if s.host != nil {
		s.host(w.host)
	}
	w.elbow = elbowtest.Start(t, w.config(s.service), elbowtest.Options{
		Args:  []string{"--engine", s.engine},
		Start: func(c *exec.Cmd) error { return w.host.do(c.Start) },
		Wrap:  s.wrap,
	})
	w.process = process{t, w.elbow.PID()}
	for range 2 * len(w.backends) { // whatever is made once is made now
		if err := w.open(script{Mode: exchange, Up: 1 << 20, Down: 1 << 20}).run(); err != nil {
			t.Fatal(err)
		}
	}
	w.remember()
	return w
}

// remember takes what elbow holds now for what it held in the beginning.
func (w *world) remember() {
	w.t.Helper()
	w.before, w.goroutines = w.process.descriptors(), w.countGoroutines()
	for range 20 { // probes come and go: the least counts
		w.goroutines = min(w.goroutines, w.countGoroutines())
		for kind, n := range w.process.descriptors() {
			w.before[kind] = min(w.before[kind], n)
		}
	}
}

// cable is the name of elbow's interface to backend i.
func (w *world) cable(i int) string { return fmt.Sprintf("backend%d", i+1) }

// config is the configuration with these keys of the service; where there are
// none for probe and balance, quick probes and taking turns.
func (w *world) config(service string) string {
	var backends []string
	for _, b := range w.backends {
		backends = append(backends, strconv.Quote(b.address))
	}
	if !strings.Contains(service, "probe:") {
		service += "\n    probe: {type: http, port: 8080, interval: 500ms, timeout: 300ms, fastInterval: 100ms, downInterval: 200ms}"
	}
	if !strings.Contains(service, "balance:") {
		service += "\n    balance: roundrobin"
	}
	return fmt.Sprintf(`
admin: {listen: "", socket: DIR/elbow.sock}
stateDir: ""
log: {connections: DIR/connections.log}
services:
  - name: web
    listen: [%q]
    backends: {static: [%s]}
%s
`, listen, strings.Join(backends, ", "), service)
}

// vanish has packets from elbow to an address go nowhere, as to a host that
// lost its power: the ethernet address they are sent to is nobody's.
func (w *world) vanish(ip, cable string) {
	w.t.Helper()
	w.host.ip("neigh replace %s lladdr 02:00:00:00:00:01 nud permanent dev %s", ip, cable)
}

// comeBack ends vanish.
func (w *world) comeBack(ip, cable string) {
	w.t.Helper()
	w.host.ip("neigh del %s dev %s", ip, cable)
}

// state returns the state of backend i.
func (w *world) state(i int) string {
	w.t.Helper()
	for _, b := range w.elbow.Backends("web") {
		if b.Address == w.backends[i].address {
			return b.State
		}
	}
	w.t.Fatalf("elbow does not know %s", w.backends[i].address)
	return ""
}

// failures returns how many connects to backend i failed, for any reason.
func (w *world) failures(i int) float64 {
	w.t.Helper()
	sum := 0.0
	for _, reason := range []string{"refused", "timeout", "unreachable", "reset", "other"} {
		sum += w.elbow.Metric(fmt.Sprintf(`elbow_proxy_connect_failures_total{backend=%q,reason=%q,service="web"}`, w.backends[i].address, reason))
	}
	return sum
}

var goroutineTotal = regexp.MustCompile(`^goroutine profile: total (\d+)`)

func (w *world) countGoroutines() int {
	w.t.Helper()
	text := w.elbow.Get("/debug/pprof/goroutine?debug=1")
	m := goroutineTotal.FindStringSubmatch(text)
	if m == nil {
		w.t.Fatalf("the profile of goroutines begins %.80q", text)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// atRest waits until elbow holds nothing more than in the beginning.
func (w *world) atRest() {
	w.t.Helper()
	var more string
	back := func(what string, done func() bool) {
		w.t.Helper()
		end := time.Now().Add(10 * time.Second)
		for !done() {
			if time.Now().After(end) {
				w.t.Errorf("%s: %s", what, more)
				return
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	back("descriptors do not return", func() bool {
		more = isBack(w.process.descriptors(), w.before)
		return more == ""
	})
	back("connections stay", func() bool {
		all := w.process.connections()
		more = strings.Join(all, "; ")
		return len(all) == 0
	})
	back("goroutines do not return", func() bool {
		n := w.countGoroutines()
		more = fmt.Sprintf("%d before, now %d", w.goroutines, n)
		return n <= w.goroutines
	})
	if w.t.Failed() {
		w.t.Log(w.elbow.Get("/debug/pprof/goroutine?debug=1"))
	}
}

// awaitRecord returns what b tells of a session; where it must tell, it is waited for.
func (b *backend) awaitRecord(seed uint64, must bool) (record, bool) {
	b.t.Helper()
	for end := time.Now().Add(2 * time.Second); ; <-time.After(5 * time.Millisecond) {
		if r, ok := b.record(seed); ok || !must || time.Now().After(end) {
			return r, ok
		}
	}
}

// isReset reports whether err is that of a connection that was reset.
func isReset(err error) bool { return end(err) == "reset" }
