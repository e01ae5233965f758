package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"haslohas.com/elbow/pool"
)

var (
	port   = netip.MustParseAddrPort
	ip     = netip.MustParseAddr
	prefix = netip.MustParsePrefix

	values = cmp.Options{
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmpopts.IgnoreUnexported(Config{}),
		cmpopts.EquateEmpty(),
	}
)

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse(filepath.Join(t.TempDir(), "elbow.yaml"), []byte(text))
	if err != nil {
		t.Fatalf("Parse:\n%v", err)
	}
	return c
}

// The smallest file gets every default of the contract.
func TestDefaults(t *testing.T) {
	got := mustParse(t, `
host: {name: master, addresses: [54.93.167.95]}
dns:
  zones:
    - name: public.haslohas.com
      nameservers: [{name: ns1.public.haslohas.com, addresses: [54.93.167.95]}]
services:
  - name: web
    hostnames: [web.public.haslohas.com]
    listen: ["0.0.0.0:80"]
    backends: {static: ["172.31.8.233:80"]}
`)
	endpoints := []pool.Endpoint{{Address: port("172.31.8.233:80"), Weight: 1}}
	want := &Config{
		Host:     pool.Host{Name: "master", Addresses: []netip.Addr{ip("54.93.167.95")}},
		StateDir: "/var/lib/elbow",
		Admin:    Admin{Listen: port("127.0.0.1:9653"), Socket: "/run/elbow/elbow.sock"},
		Log:      Log{Format: "text", Connections: "stdout"},
		AWS: AWS{Delegation: Delegation{TTL: time.Hour, Owner: "elbow", Interval: 5 * time.Minute},
			ElasticIP: ElasticIP{Lease: Lease{Namespace: "default", Name: "elbow-elastic-ip", Duration: 8 * time.Second}}},
		DNS: pool.DNS{
			Listen: []netip.AddrPort{port("0.0.0.0:53")},
			Zones: []*pool.Zone{{
				Name:        "public.haslohas.com",
				Hostmaster:  "hostmaster@public.haslohas.com",
				NameServers: []pool.NameServer{{Name: "ns1.public.haslohas.com", Addresses: []netip.Addr{ip("54.93.167.95")}}},
				TTL:         pool.ZoneTTL{Normal: 30 * time.Second, Degraded: 5 * time.Second, Negative: 5 * time.Second},
			}},
			RateLimit: pool.RateLimit{PerSecond: 200, Slip: 2, Exempt: []netip.Prefix{prefix("127.0.0.0/8"), prefix("::1/128")}},
			QueryLog:  pool.QueryLog{Sample: 1},
			Dnstap:    pool.Dnstap{Queries: true, Responses: true, Sample: 1},
			Top:       true,
		},
		Services: []Service{{
			Service: &pool.Service{
				Name:        "web",
				Hostnames:   []string{"web.public.haslohas.com"},
				Answer:      pool.Proxied,
				Listen:      []netip.AddrPort{port("0.0.0.0:80")},
				Balance:     pool.LeastConn,
				WhenAllDown: pool.ServeAll,
				Probe: pool.Probe{
					Type: pool.ProbeTCP, Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3,
					FastInterval: 500 * time.Millisecond, DownInterval: 5 * time.Second,
				},
				Connect:          pool.Connect{Timeout: time.Second, Attempts: 3},
				IdleTimeout:      350 * time.Second,
				HalfCloseTimeout: 60 * time.Second,
				DrainTimeout:     300 * time.Second,
				UDP:              pool.UDP{IdleTimeout: 120 * time.Second, MaxFlows: 65536},
				Queue:            pool.Queue{Length: 1024, Timeout: 5 * time.Second},
				Endpoints:        endpoints,
			},
			Source: Source{Kind: Static, Static: endpoints},
		}},
	}
	if diff := cmp.Diff(want, got, values); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

// Every key of a service arrives where it belongs.
func TestService(t *testing.T) {
	got := mustParse(t, `
host: {addresses: ["::ffff:192.0.2.1"]}
dns: {zones: [{name: Example.ORG., nameservers: [{name: ns.example.net}]}]}
services:
  - name: api
    hostnames: [API.example.org., example.org]
    answer: direct
    listen: ["0.0.0.0:443", "[::1]:0", "127.0.0.1:0", "[::1]:0"]
    backends:
      static:
        - {address: "10.0.0.9:80", public: [192.0.2.9, "2001:db8::9"], node: n9, zone: eu-central-1a, weight: 0}
        - {address: "10.0.0.2:80", public: 192.0.2.2}
        - "[::ffff:10.0.0.1]:80"
    probe:
      type: https
      interval: 1m
      timeout: 1s500ms
      rise: 1
      fall: 5
      fastInterval: 100ms
      downInterval: 10s
      port: 8443
      path: /healthz?deep=1
      host: API.example.org:8443
      expect: {status: "200-299,401", body: "all well"}
      verify: true
      proxyProtocol: v1
    balance: source
    whenAllDown: refuse
    connect: {timeout: 250ms, attempts: 1}
    idleTimeout: 0s
    halfCloseTimeout: 0
    drain: {timeout: 0s}
    maxConnections: 1000
    maxConnectionsPerBackend: 100
    queue: {length: 0, timeout: 1s}
    proxyProtocol: {accept: [10.0.0.0/8, "::ffff:192.0.2.0/120"], send: v2}
    allow: ["2001:db8::/32"]
    slowStart: 30s
`).Services[0]
	endpoints := []pool.Endpoint{
		{Address: port("10.0.0.1:80"), Weight: 1},
		{Address: port("10.0.0.2:80"), Weight: 1, Public: []netip.Addr{ip("192.0.2.2")}},
		{Address: port("10.0.0.9:80"), Node: "n9", Zone: "eu-central-1a", Public: []netip.Addr{ip("192.0.2.9"), ip("2001:db8::9")}},
	}
	want := Service{
		Service: &pool.Service{
			Name:        "api",
			Hostnames:   []string{"api.example.org", "example.org"},
			Answer:      pool.Direct,
			Listen:      []netip.AddrPort{port("0.0.0.0:443"), port("[::1]:0"), port("127.0.0.1:0"), port("[::1]:0")},
			Balance:     pool.Source,
			WhenAllDown: pool.Refuse,
			Probe: pool.Probe{
				Type: pool.ProbeHTTPS, Interval: time.Minute, Timeout: 1500 * time.Millisecond, Rise: 1, Fall: 5,
				FastInterval: 100 * time.Millisecond, DownInterval: 10 * time.Second,
				Port: 8443, Path: "/healthz?deep=1", Host: "api.example.org:8443",
				Status: pool.StatusRanges{{First: 200, Last: 299}, {First: 401, Last: 401}}, Body: "all well",
				Verify: true, Proxy: pool.ProxyV1,
			},
			Connect:                  pool.Connect{Timeout: 250 * time.Millisecond, Attempts: 1},
			UDP:                      pool.UDP{IdleTimeout: 120 * time.Second, MaxFlows: 65536},
			MaxConnections:           1000,
			MaxConnectionsPerBackend: 100,
			Queue:                    pool.Queue{Timeout: time.Second},
			ProxyProtocol:            pool.ProxyProtocol{Accept: []netip.Prefix{prefix("10.0.0.0/8"), prefix("192.0.2.0/24")}, Send: pool.ProxyV2},
			Allow:                    []netip.Prefix{prefix("2001:db8::/32")},
			SlowStart:                30 * time.Second,
			Endpoints:                endpoints,
		},
		Source:   Source{Kind: Static, Static: endpoints},
		OwnProbe: true,
	}
	if diff := cmp.Diff(want, got, values); diff != "" {
		t.Errorf("service (-want +got):\n%s", diff)
	}
}

// What a key is by default may depend on another.
func TestDependentDefaults(t *testing.T) {
	const head = "services: [{name: a, listen: ['127.0.0.1:0'], backends: {static: ['10.0.0.1:80']}, "
	probe := func(text string) pool.Probe { return mustParse(t, head+text+"}]").Services[0].Probe }

	http := probe("probe: {type: http}")
	if want := (pool.StatusRanges{{First: 200, Last: 399}}); http.Path != "/" || http.Status != want {
		t.Errorf("http probe asks for %q and expects %v, want / and %v", http.Path, http.Status, want)
	}
	if got := probe("proxyProtocol: {send: v2}").Proxy; got != pool.ProxyV2 {
		t.Errorf("a probe of the traffic's port sends the header %v, want v2", got)
	}
	if got := probe("proxyProtocol: {send: v2}, probe: {port: 8080}").Proxy; got != pool.ProxyOff {
		t.Errorf("a probe of another port sends the header %v, want off", got)
	}
	if got := probe("proxyProtocol: {send: v2}, probe: {proxyProtocol: off}").Proxy; got != pool.ProxyOff {
		t.Errorf("a probe told to send no header sends %v", got)
	}

	const zone = "dns: {zones: [{name: a.test, nameservers: [{name: ns.b.test}], ttl: {normal: 2s}}]}"
	if got := mustParse(t, zone).DNS.Zones[0].TTL.Degraded; got != 2*time.Second {
		t.Errorf("degraded TTL is %v, want no more than normal, 2s", got)
	}
	c := mustParse(t, head+"}]\nadmin: {listen: '', socket: ''}\nstateDir: ''\nlog: {level: warn, format: json, connections: /var/log/elbow}")
	if c.Admin != (Admin{}) || c.StateDir != "" || len(c.DNS.Listen) != 0 {
		t.Errorf("admin %+v, stateDir %q, dns.listen %v: want all off", c.Admin, c.StateDir, c.DNS.Listen)
	}
	if name, _ := os.Hostname(); c.Host.Name != name {
		t.Errorf("host name %q, want the system's, %q", c.Host.Name, name)
	}
	if want := (Log{Level: 4, Format: "json", Connections: "/var/log/elbow"}); c.Log != want {
		t.Errorf("log %+v, want %+v", c.Log, want)
	}
}

func TestUDP(t *testing.T) {
	c := mustParse(t, `
services:
  - name: dns
    listen: ["udp/0.0.0.0:53", "tcp/0.0.0.0:53", "udp/[::]:53", "udp/127.0.0.1:0", "127.0.0.1:0"]
    backends: {static: ["10.0.0.1:53"]}
    udp: {idleTimeout: 5s, responses: 1, maxFlows: 1000}
    probe: {type: udp, sendHex: "0001 0100 ff", expect: {body: ok}}
  - name: log
    listen: ["udp/0.0.0.0:514"]
    backends: {static: ["10.0.0.1:514"]}
    probe: {port: 8080}
  - name: text
    listen: ["udp/0.0.0.0:515"]
    backends: {static: ["10.0.0.1:514"]}
    probe: {type: udp, send: "ping\n"}
`)
	s := c.Services[0]
	if want := []netip.AddrPort{port("0.0.0.0:53"), port("[::]:53"), port("127.0.0.1:0")}; !slices.Equal(s.ListenUDP, want) {
		t.Errorf("UDP listeners %v, want %v", s.ListenUDP, want)
	}
	if want := []netip.AddrPort{port("0.0.0.0:53"), port("127.0.0.1:0")}; !slices.Equal(s.Listen, want) {
		t.Errorf("TCP listeners %v, want %v", s.Listen, want)
	}
	if want := (pool.UDP{IdleTimeout: 5 * time.Second, Responses: 1, MaxFlows: 1000}); s.UDP != want {
		t.Errorf("udp %+v, want %+v", s.UDP, want)
	}
	if p := s.Probe; p.Type != pool.ProbeUDP || p.Send != "\x00\x01\x01\x00\xff" || p.Body != "ok" || p.Status != (pool.StatusRanges{}) {
		t.Errorf("probe %+v", p)
	}
	if p := c.Services[1].Probe; p.Type != pool.ProbeTCP || p.Port != 8080 {
		t.Errorf("probe of another port %+v", p)
	}
	if got := c.Services[2].Probe.Send; got != "ping\n" {
		t.Errorf("sends %q", got)
	}
}

// Paths begin at the folder of the configuration, and zone files are read.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	main := write("elbow.yaml", `
stateDir: state
admin: {socket: elbow.sock}
dns:
  zones:
    - {name: b.test, file: b.zone}
    - {name: a.test, file: "", nameservers: [{name: ns.b.test}]}
services:
  - {name: a, listen: ["127.0.0.1:0"], backends: {file: targets.json}}
`)
	zone := write("b.zone", "@ SOA . . 1 2 3 4 5\n")
	c, err := Load(main)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{main, zone}, c.Files()); diff != "" {
		t.Errorf("Files (-want +got):\n%s", diff)
	}
	if z := c.DNS.Zones; z[0].Name != "a.test" || z[1].Records != "@ SOA . . 1 2 3 4 5\n" {
		t.Errorf("zones %+v and %+v: want them sorted, and the records of b.test", z[0], z[1])
	}
	if s, want := c.Services[0].Source, filepath.Join(dir, "targets.json"); s.Kind != File || s.File.Path != want {
		t.Errorf("source %+v, want the file %s", s, want)
	}
	if c.StateDir != filepath.Join(dir, "state") || c.Admin.Socket != filepath.Join(dir, "elbow.sock") {
		t.Errorf("stateDir %s, socket %s: want both in %s", c.StateDir, c.Admin.Socket, dir)
	}
	if _, err := Load(filepath.Join(dir, "missing.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of a missing file: %v", err)
	}
}

// The order in the file is kept for services and listeners, aliases work, and
// nested zones are told apart.
func TestAliases(t *testing.T) {
	c := mustParse(t, `
dns:
  zones:
    - {name: test, nameservers: [{name: ns.a.test}]}
    - {name: a.test, nameservers: [{name: ns.a.test, addresses: [192.0.2.1]}]}
services:
  - {name: z, listen: ["127.0.0.1:0"], backends: &b {static: ["10.0.0.1:80"]}, probe: &p {type: http, path: /up}}
  - {name: a, listen: ["127.0.0.1:0"], backends: *b, probe: *p}
`)
	if c.Services[0].Name != "z" || c.Services[1].Name != "a" {
		t.Errorf("services are %s, %s, want z, a", c.Services[0].Name, c.Services[1].Name)
	}
	if c.Services[0].Probe != c.Services[1].Probe || c.Services[1].Probe.Path != "/up" {
		t.Errorf("the alias gave %+v", c.Services[1].Probe)
	}
}

func TestProbeHost(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"web", "web"},
		{"WEB.Example.org.", "web.example.org"},
		{"Web:8080", "web:8080"},
		{"192.0.2.1", "192.0.2.1"},
		{"192.0.2.1:80", "192.0.2.1:80"},
		{"[2001:db8::1]:443", "[2001:db8::1]:443"},
		{"2001:db8::1", ""},
		{"web:0", ""},
		{"web:", ""},
		{"web:65536", ""},
		{"192.0.2.256:x", ""},
		{"*.example.org", ""},
		{"a b", ""},
		{"", ""},
	} {
		got, err := parseProbeHost(test.text)
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%q is %q, %v; want %q", test.text, got, err, test.want)
		}
	}
}

// TestBothFamilies: [::] is for IPv6 alone, so a port on all addresses is two
// listeners.
func TestBothFamilies(t *testing.T) {
	cfg, err := Parse("elbow.yaml", []byte(`
services:
- {name: web, listen: ['0.0.0.0:80', '[::]:80'], backends: {static: ['10.0.0.1:80', '127.0.0.1:80']}}
- {name: other, listen: ['0.0.0.0:81'], backends: {static: ['[::1]:81']}}
`))
	// The one mistake is that 127.0.0.1:80 leads back to 0.0.0.0:80.
	if err == nil || cfg != nil || strings.Count(err.Error(), "\n") != 0 || !strings.Contains(err.Error(), "127.0.0.1:80") {
		t.Errorf("got %v", err)
	}
}

// Two TLS sites and two HTTP sites, with one address and two ports.
func TestMatch(t *testing.T) {
	got := mustParse(t, `
services:
- name: shop
  listen: ["0.0.0.0:80", "0.0.0.0:443"]
  match: {sni: [Shop.Example., "*.Shop.example"], host: [shop.example, "*.xn--bcher-kva.example", "0:0::1", "[2001:DB8::1]"]}
  backends: {static: ["10.0.0.1:80"]}
- name: grpc
  listen: ["0.0.0.0:443"]
  match: {sni: [shop.example], alpn: [h2]}
  backends: {static: ["10.0.0.2:80"]}
- name: challenge
  listen: ["0.0.0.0:443"]
  match: {alpn: [acme-tls/1]}
  backends: {static: ["10.0.0.3:80"]}
- name: rest
  listen: ["0.0.0.0:80", "0.0.0.0:443", "[::]:443"]
  backends: {static: ["10.0.0.4:80"]}
`)
	var matches []pool.Match
	for _, s := range got.Services {
		matches = append(matches, s.Match)
	}
	want := []pool.Match{
		{SNI: []string{"shop.example", "*.shop.example"}, Host: []string{"shop.example", "*.xn--bcher-kva.example", "::1", "2001:db8::1"}},
		{SNI: []string{"shop.example"}, ALPN: []string{"h2"}},
		{ALPN: []string{"acme-tls/1"}},
		{},
	}
	if diff := cmp.Diff(want, matches, values); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"listen", "idleTimeout", "tls", "maxConnections"}
	for _, test := range []struct{ key, want string }{
		{"listne", "listen"},
		{"Listen", "listen"},
		{"listens", "listen"},
		{"idle_timeout", "idleTimeout"},
		{"maxConnection", "maxConnections"},
		{"tsl", "tls"},
		{"tcp", ""},
		{"backends", ""},
		{"", ""},
	} {
		if got := nearest(test.key, known); got != test.want {
			t.Errorf("nearest to %q is %q, want %q", test.key, got, test.want)
		}
	}
}

// Every way not to read a zone file is said at its key.
func TestUnreadableZone(t *testing.T) {
	dir := t.TempDir()
	huge := filepath.Join(dir, "huge.zone")
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, maxZoneText+1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "elbow.yaml")
	_, err := Parse(name, []byte(`dns:
  zones:
    - {name: a.test, file: pipe}
    - {name: b.test, file: huge.zone}
    - {name: c.test, file: huge.zone/x}
`))
	want := name + ":3:28: dns.zones[0].file: " + dir + "/pipe is not a regular file\n" +
		name + ":4:28: dns.zones[1].file: the zone files have more than 256 MiB together\n" +
		name + ":5:28: dns.zones[2].file: reading the zone file: stat " + huge + "/x: not a directory"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// A match cannot be made so large that its combinations fill the memory.
func TestMatchIsBounded(t *testing.T) {
	var names, protocols []string
	for i := range maxMatchNames {
		names = append(names, fmt.Sprintf("x%d.test", i))
	}
	for i := range maxProtocols {
		protocols = append(protocols, fmt.Sprintf("p%d", i))
	}
	_, err := Parse("x", fmt.Appendf(nil, "services: [{name: a, listen: ['127.0.0.1:80', '127.0.0.1:81'], backends: {static: ['10.0.0.1:80']}, match: {sni: [%s], alpn: [%s]}}]",
		strings.Join(names, ","), strings.Join(protocols, ",")))
	if err == nil || !strings.Contains(err.Error(), "makes 32000 combinations of name, protocol and listener, at most 16384 are allowed") {
		t.Errorf("Parse: %v", err)
	}
}

func TestKubernetesSources(t *testing.T) {
	tests := []struct {
		backends string
		want     Source
	}{
		{"kubernetes: {selector: 'name=http', port: 80}",
			Source{Kind: FromKubernetes, Kubernetes: KubernetesSource{Namespace: "default", Selector: "name=http", Port: Port{Number: 80}}}},
		{"kubernetes: {namespace: shop, selector: '', port: web, via: podIP, includeExcludedNodes: true}",
			Source{Kind: FromKubernetes, Kubernetes: KubernetesSource{Namespace: "shop", Port: Port{Name: "web"}, Via: ViaPodIP, IncludeExcluded: true}}},
		{"kubernetes: {service: web, port: http}",
			Source{Kind: FromKubernetes, Kubernetes: KubernetesSource{Namespace: "default", Service: "web", Port: Port{Name: "http"}, Via: ViaPodIP}}},
		{"kubernetes: {service: web, port: '80', via: nodePort}",
			Source{Kind: FromKubernetes, Kubernetes: KubernetesSource{Namespace: "default", Service: "web", Port: Port{Number: 80}, Via: ViaNodePort}}},
		{"file: /pods.json", Source{Kind: File, File: FileSource{Path: "/pods.json"}}},
		{"file: {path: /pods.json, port: 80, selector: '!old', via: podIP}",
			Source{Kind: File, File: FileSource{Path: "/pods.json", Port: Port{Number: 80}, Selector: "!old", Via: ViaPodIP}}},
	}
	for _, test := range tests {
		c := mustParse(t, "services: [{name: a, listen: ['127.0.0.1:0'], backends: {"+test.backends+"}}]")
		if diff := cmp.Diff(test.want, c.Services[0].Source); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.backends, diff)
		}
	}
}

// What a source knows about the probe counts unless the file says what is
// asked; times alone do not say it.
func TestOwnProbe(t *testing.T) {
	for probe, want := range map[string]bool{
		"{}": false, "{interval: 1s, fall: 1}": false, "{type: tcp}": true, "{port: 80}": true, "{type: http, path: /}": true,
	} {
		c := mustParse(t, "services: [{name: a, listen: ['127.0.0.1:0'], backends: {static: ['10.0.0.1:80']}, probe: "+probe+"}]")
		if got := c.Services[0].OwnProbe; got != want {
			t.Errorf("%s: own probe %t, want %t", probe, got, want)
		}
	}
}
