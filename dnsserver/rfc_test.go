package dnsserver

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"haslohas.com/elbow/internal/dnstable"
	"haslohas.com/elbow/pool"
)

// TestTables: the answers in testdata/rfc, one file for each topic. The
// acceptance tests put the same questions to other servers.
func TestTables(t *testing.T) {
	files, err := filepath.Glob("testdata/rfc/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d tables, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			table, err := dnstable.Parse(string(content))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			h := newHouse(t, nil)
			f := &fixture{}
			for _, z := range table.Zones {
				f.zone(&pool.Zone{Name: z.Name, Records: z.Text})
			}
			for _, s := range table.Services {
				f.direct(s.Hostname, s.Addresses...)
			}
			h.publish(f)
			if strings.Contains(h.log.String(), "level=ERROR") {
				t.Errorf("the log says\n%s", h.log.String())
			}
			h.renumber(1)
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
