//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"
)

// newPlain is what the fast path is measured against: a handler as one writes
// it with miekg/dns, records in a map.
func newPlain() *cobra.Command {
	return &cobra.Command{
		Use:     "plain ADDRESS FOLDER",
		Short:   "A plain name server on miekg/dns",
		Args:    cobra.ExactArgs(2),
		Hidden:  true,
		Version: dns.Version.String(),
		RunE:    func(cmd *cobra.Command, args []string) error { return servePlain(cmd.Context(), args[0], args[1]) },
	}
}

// A plainZone holds the records of some zones by owner and type.
type plainZone struct {
	sets map[dns.Question][]dns.RR
	apex map[string]dns.RR // SOA records
}

func servePlain(ctx context.Context, addr, dir string) error {
	z := &plainZone{make(map[dns.Question][]dns.RR), make(map[string]dns.RR)}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := z.load(f); err != nil {
			return err
		}
	}
	failed := make(chan error, 2)
	for _, network := range []string{"udp", "tcp"} {
		s := &dns.Server{Addr: addr, Net: network, Handler: z, MaxTCPQueries: -1}
		go func() { failed <- s.ListenAndServe() }()
		defer s.Shutdown()
	}
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (z *plainZone) load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	parser := dns.NewZoneParser(f, ".", file)
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		h := rr.Header()
		at := dns.Question{Name: strings.ToLower(h.Name), Qtype: h.Rrtype, Qclass: dns.ClassINET}
		z.sets[at] = append(z.sets[at], rr)
		if h.Rrtype == dns.TypeSOA {
			z.apex[at.Name] = rr
		}
	}
	if err := parser.Err(); err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	return nil
}

func (z *plainZone) ServeDNS(w dns.ResponseWriter, m *dns.Msg) {
	a := new(dns.Msg).SetReply(m)
	a.Authoritative = true
	if o := m.IsEdns0(); o != nil {
		a.SetEdns0(1232, o.Do())
	}
	q := m.Question[0]
	q.Name = strings.ToLower(q.Name)
	if a.Answer = z.sets[q]; a.Answer == nil {
		a.Rcode = dns.RcodeNameError
		for off, end := 0, false; !end; off, end = dns.NextLabel(q.Name, off) {
			if soa := z.apex[q.Name[off:]]; soa != nil {
				a.Ns = []dns.RR{soa}
				break
			}
		}
	}
	if err := w.WriteMsg(a); err != nil && !errors.Is(err, os.ErrClosed) {
		fmt.Fprintln(os.Stderr, "plain:", err)
	}
}
