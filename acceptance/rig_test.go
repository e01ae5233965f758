//go:build acceptance

package acceptance

import (
	"fmt"
	"net"
	"net/netip"
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

func TestMain(m *testing.M) { os.Exit(elbowtest.Main(m)) }

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
	elbowtest.Eventually(w.t, 5*time.Second, w.addr+" answers", func() bool {
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

// An elbow is a running daemon and where it listens.
type elbow struct {
	*elbowtest.Daemon
	t      *testing.T
	listen string // of the service web
	dns    string
	admin  string
}

// startElbow runs the daemon with the configuration that the template makes
// of the ports, and waits until it is ready.
func startElbow(t *testing.T, template string) *elbow {
	t.Helper()
	ports := freePorts(t, 3)
	e := &elbow{
		t:      t,
		listen: "127.0.0.1:" + ports[0],
		dns:    "127.0.0.1:" + ports[1],
		admin:  "127.0.0.1:" + ports[2],
	}
	e.Daemon = elbowtest.Start(t, e.fill(template), elbowtest.Options{})
	return e
}

// configure puts another configuration in the place of the first.
func (e *elbow) configure(template string) {
	e.t.Helper()
	e.Configure(e.fill(template))
}

func (e *elbow) fill(template string) string {
	return strings.NewReplacer("LISTEN", e.listen, "DNS", e.dns, "ADMIN", e.admin).Replace(template)
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
