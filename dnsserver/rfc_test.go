package dnsserver

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/internal/dnstable"
	"haslohas.com/elbow/pool"
)

// TestTables: the answers in testdata/rfc, one file for each topic. The
// acceptance tests put the same questions to other servers.
func TestTables(t *testing.T) {
	for file, table := range tables(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			h := serving(t, table, false)
			h.renumber(1)
			for _, z := range h.snapshot.Load().sorted {
				if z.signed != nil {
					signer := zoneSigner{zone: z, ring: z.signed.ring, now: time.Now()}
					if err := signer.signSOA(); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, c := range table.Cases {
				got, err := h.tableAnswer(c.Ask)
				if err != nil {
					t.Fatalf("%s:%d: %v", file, c.Line, err)
				}
				if diff := cmp.Diff(c.Answer, got); diff != "" {
					t.Errorf("%s:%d: %s: want -, got +\n%s", file, c.Line, c.Ask, diff)
				}
			}
		})
	}
}

// tables reads testdata/rfc, by the names of the files.
func tables(t *testing.T) map[string]*dnstable.Table {
	t.Helper()
	files, err := filepath.Glob("testdata/rfc/*.txt")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d tables, %v", len(files), err)
	}
	out := make(map[string]*dnstable.Table)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if out[file], err = dnstable.Parse(string(content)); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	return out
}

// fixtureOf has the zones and services of a table; sign is for the zones that the
// table does not have as signed.
func fixtureOf(t *testing.T, table *dnstable.Table, sign bool) *fixture {
	t.Helper()
	f := &fixture{}
	for _, z := range table.Zones {
		zone := &pool.Zone{Name: z.Name, Records: z.Text}
		if z.Signed || sign {
			zone.DNSSEC = pool.DNSSEC{Folder: "keys", Keys: []pool.KeyFile{keyFile(t, z.Name, dnssec.ECDSAP256, nil)}}
		}
		f.zone(zone)
	}
	for _, s := range table.Services {
		f.direct(s.Hostname, s.Addresses...)
	}
	return f
}

// serving makes a server of a table.
func serving(t *testing.T, table *dnstable.Table, sign bool) *house {
	t.Helper()
	h := newHouse(t, nil)
	h.publish(fixtureOf(t, table, sign))
	if strings.Contains(h.log.String(), "level=ERROR") {
		t.Errorf("the log says\n%s", h.log.String())
	}
	return h
}

// TestTablesBySocket: the same through real sockets, by UDP and TCP, but for the
// order of records, which is left to chance there.
func TestTablesBySocket(t *testing.T) {
	for file, table := range tables(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			r := start(t, fixtureOf(t, table, false), "127.0.0.1:0")
			for _, c := range table.Cases {
				q, byTCP, err := dnstable.Question(c.Ask)
				if err != nil {
					t.Fatal(err)
				}
				transfer := len(q.Question) == 1 && (q.Question[0].Qtype == dns.TypeAXFR || q.Question[0].Qtype == dns.TypeIXFR)
				truncated := strings.Contains(strings.SplitN(c.Answer, "\n", 2)[0], " tc")
				for _, network := range []string{"udp", "tcp"} {
					if byTCP && network == "udp" || !byTCP && network == "tcp" && (transfer || truncated) {
						continue // the case is about the other one
					}
					client := dns.Client{Net: network, Timeout: 10 * time.Second}
					m, _, err := client.ExchangeContext(t.Context(), q, r.Addrs()[0].String())
					if err != nil {
						t.Fatalf("%s:%d: %s by %s: %v", file, c.Line, c.Ask, network, err)
					}
					if diff := cmp.Diff(dnstable.Essence(c.Answer), dnstable.Essence(dnstable.Text(m))); diff != "" {
						t.Errorf("%s:%d: %s by %s: want -, got +\n%s", file, c.Line, c.Ask, network, diff)
					}
				}
			}
		})
	}
}

// TestTablesSigned: with all zones signed, what the tables ask is answered as
// they say, with signatures and proofs that a validator accepts.
func TestTablesSigned(t *testing.T) {
	for file, table := range tables(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			h := serving(t, table, true)
			judged := 0
			for _, c := range table.Cases {
				q, _, err := dnstable.Question(c.Ask)
				if err != nil {
					t.Fatal(err)
				}
				zone := zoneOfAnswer(table, q)
				if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery || zone == "" {
					continue
				}
				q.Extra = nil
				q.SetEdns0(1232, true)
				m := h.send(t, must(q.Pack()), true)
				if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
					continue
				}
				judged++
				if err := h.validatorOf(t, zone).judge(m); err != nil {
					t.Errorf("%s:%d: %s: %v\n%v", file, c.Line, c.Ask, err, m)
				}
			}
			if judged < len(table.Cases)/3 {
				t.Errorf("only %d of %d answers were judged", judged, len(table.Cases))
			}
		})
	}
}

// zoneOfAnswer is the zone of a table that a question is about, "" if there is
// none: the lowest one, but for DS the one above.
func zoneOfAnswer(table *dnstable.Table, q *dns.Msg) (zone string) {
	if len(q.Question) != 1 {
		return ""
	}
	asked := dns.CanonicalName(q.Question[0].Name)
	for _, z := range table.Zones {
		apex := dns.Fqdn(z.Name)
		if dns.IsSubDomain(apex, asked) && len(apex) > len(zone) && (q.Question[0].Qtype != dns.TypeDS || apex != asked || zone == "") {
			zone = apex
		}
	}
	return zone
}

// tableAnswer asks a question of a table. Chance plays no part.
func (h *house) tableAnswer(ask string) (string, error) {
	q, tcp, err := dnstable.Question(ask)
	if err != nil {
		return "", err
	}
	packet, err := q.Pack()
	if err != nil {
		return "", err
	}
	v := h.r.read(packet)
	var wire []byte
	if v == special {
		wire = h.special(&h.r, nil, packet, h.snapshot.Load(), client, 0, tcp)
	} else {
		wire, _ = h.r.answer(nil, h.snapshot.Load(), v, conversation{tcp: tcp, client: client})
	}
	var m dns.Msg
	if err := m.Unpack(wire); err != nil {
		return "", fmt.Errorf("% x: %w", wire, err)
	}
	var asked dns.Msg // as it went: a name may be written in two ways
	if err := asked.Unpack(packet); err != nil {
		return "", err
	}
	// What is not understood need not be repeated.
	repeated := slices.Equal(asked.Question, m.Question) || len(m.Question) == 0 && (m.Rcode == dns.RcodeNotImplemented || m.Rcode == dns.RcodeFormatError)
	if m.Id != q.Id || !m.Response || m.Opcode != q.Opcode || !repeated {
		return "", fmt.Errorf("header or question differ: %v", &m)
	}
	return dnstable.Text(&m), nil
}
