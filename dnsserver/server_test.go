package dnsserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haslohas.com/elbow/pool"
)

// A syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// A running is a Server with sockets.
type running struct {
	*Server
	table    *pool.Publisher
	fixture  *fixture
	registry *prometheus.Registry
	log      *syncBuffer
	stop     func()
}

// start runs a Server on a free port of the given addresses and waits until it
// serves.
func start(t testing.TB, f *fixture, addresses ...string) *running {
	t.Helper()
	return startWith(t, f, func(*Server) {}, addresses...)
}

// startWith is start for a Server that is changed before it runs.
func startWith(t testing.TB, f *fixture, change func(*Server), addresses ...string) *running {
	t.Helper()
	f.dns.Listen = nil
	for _, a := range addresses {
		f.dns.Listen = append(f.dns.Listen, netip.MustParseAddrPort(a))
	}
	r := &running{table: new(pool.Publisher), fixture: f, registry: prometheus.NewPedanticRegistry(), log: new(syncBuffer)}
	r.Server = New(Options{Table: r.table, Log: slog.New(slog.NewTextHandler(r.log, nil)), Registerer: r.registry})
	change(r.Server)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(r.stop)
	r.publish()
	r.await(t)
	return r
}

func (r *running) publish() { r.table.Publish(r.fixture.table()) }

// await waits until the newest Table is served.
func (r *running) await(t testing.TB) {
	t.Helper()
	eventually(t, func() error {
		if err := r.Serving(); err != nil {
			return err
		}
		if got, want := r.snapshot.Load().generation, r.table.Load().Generation; got != want {
			return fmt.Errorf("generation %d is served, not %d", got, want)
		}
		return nil
	})
}

// eventually waits for a condition. A large zone takes its time to be loaded with
// the race detector while other packages are tested.
func eventually(t testing.TB, condition func() error) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-again.C:
		}
	}
}

func (r *running) exchange(t testing.TB, network, ask string, edns uint16) *dns.Msg {
	t.Helper()
	m := question(t, ask)
	if edns > 0 {
		m.SetEdns0(edns, false)
	}
	c := dns.Client{Net: network, UDPSize: 4096}
	a, _, err := c.ExchangeContext(t.Context(), m, r.Addrs()[0].String())
	if err != nil {
		t.Fatalf("%s by %s: %v", ask, network, err)
	}
	return a
}

func TestServer(t *testing.T) {
	f := example(t)
	f.zone(&pool.Zone{Name: "big.example", Records: "@ NS ns.example.net.\n" + func() string {
		var b strings.Builder
		for i := range 200 {
			fmt.Fprintf(&b, "all TXT %0200d\n", i)
		}
		return b.String()
	}()})
	r := start(t, f, "127.0.0.53:0")
	if a := r.exchange(t, "udp", "web.example.com A", 0); len(a.Answer) != 2 || !a.Authoritative {
		t.Errorf("got %v", a)
	}
	if a := r.exchange(t, "udp", "all.big.example TXT", 4096); !a.Truncated || len(a.Answer) != 0 {
		t.Errorf("got %v", a)
	}
	if a := r.exchange(t, "tcp", "all.big.example TXT", 4096); a.Truncated || len(a.Answer) != 200 {
		t.Errorf("got %v", a)
	}

	// A change of the table is a change of the answer and of the serial.
	before := r.exchange(t, "udp", "example.com SOA", 0).Answer[0].(*dns.SOA).Serial
	f.down[netip.MustParseAddr("198.51.100.1")] = true
	r.publish()
	r.await(t)
	if a := r.exchange(t, "udp", "web.example.com A", 0); len(a.Answer) != 1 {
		t.Errorf("got %v", a)
	}
	if after := r.exchange(t, "tcp", "example.com SOA", 0).Answer[0].(*dns.SOA).Serial; after != before+1 {
		t.Errorf("serial %d after %d", after, before)
	}

	want := `
# HELP elbow_dns_queries_total Queries that were answered; zone is empty for names outside of all zones.
# TYPE elbow_dns_queries_total counter
elbow_dns_queries_total{rcode="NOERROR",transport="tcp",zone="big.example"} 1
elbow_dns_queries_total{rcode="NOERROR",transport="tcp",zone="example.com"} 1
elbow_dns_queries_total{rcode="NOERROR",transport="udp",zone="big.example"} 1
elbow_dns_queries_total{rcode="NOERROR",transport="udp",zone="example.com"} 3
# HELP elbow_dns_truncated_total Responses that said: come again by TCP.
# TYPE elbow_dns_truncated_total counter
elbow_dns_truncated_total 1
`
	if err := testutil.GatherAndCompare(r.registry, strings.NewReader(want), "elbow_dns_queries_total", "elbow_dns_truncated_total"); err != nil {
		t.Error(err)
	}
	names := "elbow_dns_zone_serial elbow_dns_answer_ttl_seconds elbow_dns_dropped_total elbow_dns_rate_limited_total elbow_dns_tcp_connections elbow_dns_snapshot_build_seconds"
	for name := range strings.FieldsSeq(names) {
		if n, err := testutil.GatherAndCount(r.registry, name); err != nil || n == 0 {
			t.Errorf("%s: %d series, %v", name, n, err)
		}
	}
	f.dns.Zones = slices.DeleteFunc(f.dns.Zones, func(z *pool.Zone) bool { return z.Name == "big.example" })
	r.publish()
	r.await(t)
	if n, err := testutil.GatherAndCount(r.registry, "elbow_dns_zone_serial"); err != nil || n != 2 {
		t.Errorf("%d zones have a serial, want 2: %v", n, err)
	}
	if problems, err := testutil.GatherAndLint(r.registry); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

func TestNothingIsOpenBeforeTheFirstTable(t *testing.T) {
	s := New(Options{Table: new(pool.Publisher)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	if err := s.Serving(); err == nil {
		t.Error("it serves")
	}
	if a := s.Addrs(); len(a) != 0 {
		t.Errorf("%v is open", a)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestReload(t *testing.T) { onEachTCP(t, reload) }

func reload(t *testing.T, start starter) {
	f := example(t)
	r := start(t, f, "127.0.0.53:0", "127.0.0.54:0")
	both := r.Addrs()
	idle, err := net.Dial("tcp", both[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	askOn(t, idle)

	// The second goes, the first keeps its socket and its port.
	f.dns.Listen = f.dns.Listen[:1]
	r.publish()
	r.await(t)
	if got := r.Addrs(); len(got) != 1 || got[0] != both[0] {
		t.Errorf("open: %v, want %v", got, both[:1])
	}
	eventually(t, func() error {
		if c, err := net.Dial("tcp", both[1].String()); err == nil {
			c.Close()
			return fmt.Errorf("%s is still open", both[1])
		}
		return nil
	})
	if a := r.exchange(t, "udp", "www.example.com A", 0); len(a.Answer) != 2 {
		t.Errorf("got %v", a)
	}

	// A third is taken by somebody else, and then is not.
	taken, err := net.Listen("tcp", "127.0.0.55:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(taken.Addr().String())
	f.dns.Listen = append(f.dns.Listen, addr)
	r.publish()
	eventually(t, func() error {
		if err := r.Serving(); err == nil || !strings.Contains(err.Error(), addr.String()) || !strings.Contains(err.Error(), "in use") {
			return fmt.Errorf("Serving: %v", err)
		}
		return nil
	})
	taken.Close()
	r.await(t)
	if n := strings.Count(r.log.String(), "cannot be opened"); n != 1 {
		t.Errorf("the failure was logged %d times", n)
	}

	// The first goes: a connection that waits ends.
	f.dns.Listen = f.dns.Listen[1:]
	r.publish()
	r.await(t)
	if err := idle.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection: %v", err)
	}
	r.stop()
	if n := r.connections.count(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestReplySource: with a wildcard, the answer leaves from where it was asked.
func TestReplySource(t *testing.T) {
	r := start(t, example(t), "0.0.0.0:0", "[::]:0")
	for i, to := range []string{"127.0.0.1", "127.0.0.77", "127.1.2.3", "::1"} {
		port := r.Addrs()[i/3].Port()
		// A connected socket takes no packet from another address.
		c, err := net.Dial("udp", net.JoinHostPort(to, fmt.Sprint(port)))
		if err != nil {
			if to == "::1" {
				t.Skip("no IPv6 here")
			}
			t.Fatal(err)
		}
		defer c.Close()
		conn := dns.Conn{Conn: c}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if err := conn.WriteMsg(question(t, "www.example.com A")); err != nil {
			t.Fatal(err)
		}
		if a, err := conn.ReadMsg(); err != nil || len(a.Answer) != 2 {
			t.Errorf("%s: %v %v", to, a, err)
		}
	}
}

// TestManyAtOnce is for the race detector: queries while tables change.
func TestManyAtOnce(t *testing.T) {
	f := example(t)
	r := start(t, f, "127.0.0.53:0")
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for _, network := range []string{"udp", "tcp", "udp"} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a := r.exchange(t, network, "web.example.com A", 1232)
				if n := len(a.Answer); n < 1 || n > 2 {
					t.Errorf("got %v", a)
				}
				r.Explain("web.example.com")
				r.Expires(netip.MustParseAddr("198.51.100.1"), 1)
				r.Zones()
			}
		})
	}
	for i := range 100 {
		f.down[netip.MustParseAddr("198.51.100.1")] = i%2 == 0
		r.publish()
		r.await(t)
	}
	close(stop)
	wg.Wait()
}

func TestDig(t *testing.T) {
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("dig is not installed")
	}
	r := start(t, example(t), "127.0.0.53:0")
	addr := r.Addrs()[0]
	for _, c := range []struct {
		args string
		want []string
	}{
		{"www.example.com A +short", []string{"192.0.2.80", "192.0.2.81"}},
		{"www.example.com A +tcp +short +keepopen", []string{"192.0.2.80", "192.0.2.81"}},
		{"example.com SOA +edns=1 +noednsneg", []string{"status: BADVERS", "EDNS: version: 0"}},
		{"example.com SOA +header-only +noedns +opcode=15", []string{"status: NOTIMP", "ADDITIONAL: 0"}},
		{"example.com SOA +ednsopt=100 +dnssec +cookie", []string{"status: NOERROR", "flags: do;", "udp: 1232"}},
		{"www.example.net A", []string{"status: REFUSED", "EDE: 20 (Not Authoritative)"}},
		{"example.com DNSKEY +dnssec +bufsize=512 +ignore", []string{"status: NOERROR", "flags: qr aa"}},
		{"example.com SOA +ednsflags=0x0080", []string{"status: NOERROR", "flags:; udp: 1232"}},
	} {
		args := append([]string{"@" + addr.Addr().String(), "-p", fmt.Sprint(addr.Port()), "+norec", "+time=5", "+tries=1"}, strings.Fields(c.args)...)
		out, err := exec.CommandContext(t.Context(), dig, args...).CombinedOutput()
		if err != nil {
			t.Errorf("dig %s: %v\n%s", c.args, err, out)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("dig %s: no %q in\n%s", c.args, want, out)
			}
		}
		if strings.Contains(string(out), "WARNING") || strings.Contains(string(out), "malformed") {
			t.Errorf("dig %s complains:\n%s", c.args, out)
		}
	}
}
