//go:build acceptance

package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// binary is the elbow under test, built once for all tests.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "elbow-acceptance-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "elbow")
	out, err := exec.Command("go", "build", "-o", path, "haslohas.com/elbow/cmd/elbow").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	// Others have to be able to run it: one test is another user.
	return path, os.Chmod(dir, 0o755)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// A webServer is an nginx with one process that can be killed and started again.
type webServer struct {
	t    *testing.T
	addr string
	conf string
	cmd  *exec.Cmd
}

func startWebServer(t *testing.T, addr string) *webServer {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed (Debian: nginx-light)")
	}
	dir := t.TempDir()
	w := &webServer{t: t, addr: addr, conf: filepath.Join(dir, "nginx.conf")}
	text := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 1024; }
http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f;
  uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server { listen %[2]s; location / { return 200 "%[2]s\n"; } } }
`, dir, addr)
	if err := os.WriteFile(w.conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	w.start(path)
	t.Cleanup(w.kill)
	return w
}

func (w *webServer) start(path string) {
	w.t.Helper()
	w.cmd = exec.Command(path, "-c", w.conf)
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	eventually(w.t, 5*time.Second, w.addr+" answers", func() bool {
		c, err := net.Dial("tcp", w.addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// kill ends the server as a power cut would.
func (w *webServer) kill() {
	if w.cmd != nil {
		w.cmd.Process.Kill()
		w.cmd.Wait()
		w.cmd = nil
	}
}

// An elbow is a running daemon.
type elbow struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	log    bytes.Buffer // standard error
	listen string       // of the service web
	dns    string
	admin  string
}

// startElbow runs the daemon with the configuration that the template makes
// of the ports, and waits until it is ready.
func startElbow(t *testing.T, template string) *elbow {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 3)
	e := &elbow{
		t: t, dir: t.TempDir(),
		listen: "127.0.0.1:" + ports[0],
		dns:    "127.0.0.1:" + ports[1],
		admin:  "127.0.0.1:" + ports[2],
	}
	e.configure(template)
	e.cmd = exec.Command(path, "run", "--config", e.config(), "--shutdown-timeout", "2s")
	e.cmd.Stderr = &e.log
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.cmd.Process.Signal(syscall.SIGTERM)
		if err := e.cmd.Wait(); err != nil {
			t.Errorf("elbow ended with %v", err)
		}
		if t.Failed() {
			t.Logf("log of elbow:\n%s", e.log.String())
		}
		if s := e.log.String(); strings.Contains(s, "panic") {
			t.Errorf("elbow panicked:\n%s", s)
		}
	})
	eventually(t, 15*time.Second, "elbow is ready", func() bool {
		r, err := http.Get("http://" + e.admin + "/readyz")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	return e
}

func (e *elbow) config() string { return filepath.Join(e.dir, "elbow.yaml") }

// configure writes the configuration, whole or not at all.
func (e *elbow) configure(template string) {
	e.t.Helper()
	text := strings.NewReplacer("LISTEN", e.listen, "DNS", e.dns, "ADMIN", e.admin, "DIR", e.dir).Replace(template)
	if err := os.WriteFile(e.config()+".new", []byte(text), 0o644); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Rename(e.config()+".new", e.config()); err != nil {
		e.t.Fatal(err)
	}
}

type backend struct {
	Address, State, Reason string
	Since                  time.Time
	Eligible               bool
}

// backends returns what the API says of a service.
func (e *elbow) backends(service string) []backend {
	e.t.Helper()
	var status struct {
		Services []struct {
			Name     string
			Backends []backend
		}
	}
	if err := json.Unmarshal([]byte(e.get("/api/v1/status")), &status); err != nil {
		e.t.Fatal(err)
	}
	for _, s := range status.Services {
		if s.Name == service {
			return s.Backends
		}
	}
	e.t.Fatalf("no service %s", service)
	return nil
}

// metric returns the value of a series, 0 if there is none. The series is
// named with all its labels, in the order of their names.
func (e *elbow) metric(series string) float64 {
	e.t.Helper()
	for line := range strings.Lines(e.get("/metrics")) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			var f float64
			if _, err := fmt.Sscan(value, &f); err != nil {
				e.t.Fatal(err)
			}
			return f
		}
	}
	return 0
}

func (e *elbow) get(path string) string {
	e.t.Helper()
	r, err := http.Get("http://" + e.admin + path)
	if err != nil {
		e.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(body)
}

// An answer is what a client makes of a DNS response.
type answer struct {
	rcode     int
	aa        bool
	addresses []netip.Addr // sorted
	ttl       uint32       // of the addresses, else of the SOA
}

func (e *elbow) resolve(name, transport string) answer {
	e.t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	r, _, err := (&dns.Client{Net: transport, Timeout: 2 * time.Second}).Exchange(q, e.dns)
	if err != nil {
		e.t.Fatal(err)
	}
	a := answer{rcode: r.Rcode, aa: r.Authoritative}
	for _, rr := range append(r.Answer, r.Ns...) {
		a.ttl = rr.Header().Ttl
		if rr, ok := rr.(*dns.A); ok {
			ip, _ := netip.AddrFromSlice(rr.A.To4())
			a.addresses = append(a.addresses, ip)
		}
	}
	slices.SortFunc(a.addresses, netip.Addr.Compare)
	return a
}

// freePorts returns ports that nobody uses just now, for TCP and UDP.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var ports []string
	for len(ports) < n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // only when all are found: none twice
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			continue
		}
		defer u.Close()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	return ports
}

func eventually(t *testing.T, within time.Duration, what string, done func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		if time.Since(begin) > within {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-tick.C
	}
	return time.Since(begin)
}
