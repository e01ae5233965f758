package dnsserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

// A fixture is a Table in the making.
type fixture struct {
	generation uint64
	dns        pool.DNS
	host       []netip.Addr
	withheld   []netip.Addr
	services   []*pool.Service
	down       map[netip.Addr]bool
	suspense   map[string]bool // services of which a state could flip soon
}

func (f *fixture) zone(z *pool.Zone) *pool.Zone {
	if z.TTL == (pool.ZoneTTL{}) {
		z.TTL = pool.ZoneTTL{Normal: 30 * time.Second, Degraded: 5 * time.Second, Negative: 5 * time.Second}
	}
	f.dns.Zones = append(f.dns.Zones, z)
	return z
}

// direct adds a service whose hostname is answered with these addresses.
func (f *fixture) direct(hostname string, addresses ...string) *pool.Service {
	s := &pool.Service{Name: strings.ReplaceAll(hostname, ".", "-"), Hostnames: []string{hostname}, Answer: pool.Direct, WhenAllDown: pool.Refuse}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, pool.Endpoint{Address: netip.AddrPortFrom(netip.MustParseAddr(a), 80), Weight: 1})
	}
	f.services = append(f.services, s)
	return s
}

// table makes the next Table.
func (f *fixture) table() *pool.Table {
	f.generation++
	var pools []*pool.Pool
	for _, s := range f.services {
		var backends []pool.Backend
		for _, e := range s.Endpoints {
			b := pool.Backend{Endpoint: e, State: pool.Up}
			if f.down[e.Address.Addr()] {
				b.State = pool.Down
			}
			if f.suspense[s.Name] {
				b.Flip = time.Second
			}
			backends = append(backends, b)
		}
		pools = append(pools, pool.NewPool(s, backends))
	}
	dns := f.dns
	dns.Zones = slices.Clone(dns.Zones) // those of a Table do not change
	return pool.NewTable(f.generation, time.Now(), &pool.Set{Host: pool.Host{Addresses: f.host, Withheld: f.withheld}, DNS: dns, Services: f.services}, pools)
}

func mustName(t testing.TB, text string) name {
	t.Helper()
	n, err := parseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// example is the Table that testdata/answers.txt is about.
func example(t testing.TB) *fixture {
	t.Helper()
	records, err := os.ReadFile("testdata/example.zone")
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{down: map[netip.Addr]bool{netip.MustParseAddr("198.51.100.3"): true}}
	f.zone(&pool.Zone{
		Name:       "child.example.com",
		Hostmaster: "first.last@example.org",
		NameServers: []pool.NameServer{{
			Name:      "ns1.child.example.com",
			Addresses: []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")},
		}},
		Records: "www A 192.0.2.200\n",
	})
	f.zone(&pool.Zone{Name: "example.com", File: "example.zone", Records: string(records)})
	f.direct("web.example.com", "198.51.100.1", "198.51.100.2")
	f.direct("six.example.com", "2001:db8:1::1")
	f.direct("none.example.com", "198.51.100.3")
	var many []string
	for i := range 10 {
		many = append(many, fmt.Sprintf("198.51.100.%d", 10+i))
	}
	f.direct("many.example.com", many...)
	f.direct("deep.er.live.example.com", "198.51.100.4")
	f.direct("below.sub.example.com", "198.51.100.5")
	return f
}

// A memory is a Store.
type memory struct {
	saved map[string]map[string]savedSerial
	other map[string][]byte // JSON
	err   error
}

func (m *memory) Load(name string, v any) (bool, error) {
	if m.err != nil {
		return false, m.err
	}
	if text, ok := m.other[name]; ok {
		return true, json.Unmarshal(text, v)
	}
	s, ok := m.saved[name]
	if ok {
		*v.(*map[string]savedSerial) = s
	}
	return ok, nil
}

func (m *memory) Save(name string, v any) error {
	if m.err != nil {
		return m.err
	}
	if m.saved == nil {
		m.saved = make(map[string]map[string]savedSerial)
	}
	if serials, ok := v.(map[string]savedSerial); ok {
		m.saved[name] = serials
		return nil
	}
	if m.other == nil {
		m.other = make(map[string][]byte)
	}
	var err error
	m.other[name], err = json.Marshal(v)
	return err
}

// A house is a Server without sockets, with its builder.
type house struct {
	*Server
	builder builder
	log     bytes.Buffer
	r       responder
}

func newHouse(t testing.TB, store Store) *house {
	t.Helper()
	h := &house{}
	h.Server = New(Options{Table: new(pool.Publisher), Store: store, Log: slog.New(slog.NewTextHandler(&h.log, nil))})
	h.builder = builder{Server: h.Server, serials: newSerials(store, h.Server.log)}
	return h
}

func (h *house) publish(f *fixture) {
	t := f.table()
	h.table.Publish(t)
	h.builder.build(context.Background(), t)
}

// renumber gives every zone the serial that the expected answers have.
func (h *house) renumber(serial uint32) {
	for _, z := range h.snapshot.Load().sorted {
		z.number(serial)
	}
}

// serialOf returns the serial of a zone.
func (h *house) serialOf(t testing.TB, zone string) uint32 {
	t.Helper()
	i := slices.IndexFunc(h.Zones(), func(z ZoneStatus) bool { return z.Name == zone })
	if i < 0 {
		t.Fatalf("zone %s is not served", zone)
	}
	return h.Zones()[i].Serial
}
