package dnsserver

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

// keyFile makes a key of a zone.
func keyFile(t testing.TB, zone string, a dnssec.Algorithm, change func(*dnssec.Times)) pool.KeyFile {
	t.Helper()
	k, err := dnssec.Generate(zone, a, false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&k.Times)
	}
	return fileOf(t, k)
}

func fileOf(t testing.TB, k *dnssec.Key) pool.KeyFile {
	t.Helper()
	dir := t.TempDir()
	if err := k.Save(dir); err != nil {
		t.Fatal(err)
	}
	files, err := dnssec.ReadFolder(dir, k.Record.Hdr.Name)
	if err != nil || len(files) != 1 {
		t.Fatal(len(files), err)
	}
	f := files[0]
	return pool.KeyFile{Path: filepath.Base(f.Path), Public: f.Public, Private: pool.Secret(f.Private)}
}

// signed is the example with its zones signed.
func signedExample(t testing.TB, a dnssec.Algorithm) *fixture {
	t.Helper()
	f := example(t)
	// A service below a delegation is refused by the configuration.
	f.services = slices.DeleteFunc(f.services, func(s *pool.Service) bool { return s.Name == "below-sub-example-com" })
	for _, z := range f.dns.Zones {
		z.DNSSEC = pool.DNSSEC{Folder: "keys", Keys: []pool.KeyFile{keyFile(t, z.Name, a, nil)}}
		if z.Name == "example.com" { // a signed zone below has to be delegated
			z.Records += "child NS ns1.child\nns1.child A 203.0.113.1\n"
		}
	}
	return f
}

// names are all names of a zone, and some that do not exist, beside and below each.
func (h *house) names(zone string) []string {
	z := h.snapshot.Load().zones.get(must(parseName(zone)))
	seen := make(map[string]bool)
	for _, nodes := range []*table[*node]{z.nodes, z.live} {
		for owner := range nodes.all() {
			seen[owner.String()] = true
			for _, prefix := range []string{"nx.", "*.", "a.nx.", "\\000.", "~."} {
				if _, err := packName(prefix + owner.String()); err == nil {
					seen[prefix+owner.String()] = true
				}
			}
			if owner != z.apex {
				text := owner.String()
				seen["a"+text], seen["0"+text], seen["zz."+owner.parent().String()] = true, true, true
				seen[strings.ToUpper(text)] = true
			}
		}
	}
	var out []string
	for text := range seen {
		if _, err := packName(text); err == nil {
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return out
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var askedTypes = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeDS, dns.TypeTXT, dns.TypeSOA, dns.TypeCNAME,
	dns.TypeMX, dns.TypeANY, dns.TypeNSEC, dns.TypeDNSKEY, dns.TypeCDS, dns.TypeHTTPS, 65280}

// TestEveryAnswerValidates asks for everything there is, and for what is not.
func TestEveryAnswerValidates(t *testing.T) {
	for _, a := range []dnssec.Algorithm{dnssec.ECDSAP256, dnssec.Ed25519} {
		t.Run(a.String(), func(t *testing.T) {
			f := signedExample(t, a)
			h := newHouse(t, nil)
			h.publish(f)
			asked := 0
			for _, zone := range []string{"example.com", "child.example.com"} {
				v := h.validatorOf(t, zone)
				for _, owner := range h.names(zone) {
					if zone == "example.com" && strings.HasSuffix(strings.ToLower(owner), "child.example.com.") {
						continue
					}
					for _, typ := range askedTypes {
						if typ == dns.TypeDS && strings.EqualFold(owner, "child.example.com.") {
							continue // the parent answers
						}
						m := h.askSigned(t, owner, typ)
						if err := v.judge(m); err != nil {
							t.Errorf("%s %s: %v\n%v", owner, dns.Type(typ), err, m)
						}
						asked++
						if t.Failed() && asked > 20000 {
							t.FailNow()
						}
					}
					if t.Failed() {
						return
					}
				}
			}
			if asked < 3000 {
				t.Errorf("only %d questions were asked", asked)
			}
			if h.log.Len() == 0 || strings.Contains(h.log.String(), "level=ERROR") {
				t.Error(h.log.String())
			}
		})
	}
}

// TestWithoutDO: who does not ask for signatures is answered as by an unsigned
// zone.
func TestWithoutDO(t *testing.T) {
	f, plain := signedExample(t, dnssec.ECDSAP256), newHouse(t, nil)
	h := newHouse(t, nil)
	h.publish(f)
	for _, z := range f.dns.Zones {
		z.DNSSEC = pool.DNSSEC{}
	}
	plain.publish(f)
	for _, house := range []*house{h, plain} {
		house.renumber(7)
	}
	for _, owner := range h.names("example.com") {
		for _, typ := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypeDS, dns.TypeNS, dns.TypeRRSIG} {
			if typ == dns.TypeRRSIG {
				continue
			}
			q := new(dns.Msg).SetQuestion(owner, typ)
			answer := func(h *house) string {
				packet := must(q.Pack())
				verdict := h.r.read(packet)
				wire, _ := h.r.answer(nil, h.snapshot.Load(), verdict, conversation{tcp: true})
				var m dns.Msg
				if err := m.Unpack(wire); err != nil {
					t.Fatal(err)
				}
				return text(&m)
			}
			if strings.HasPrefix(strings.ToLower(owner), "many.") { // a signed RRset is answered whole
				continue
			}
			if got, want := answer(h), answer(plain); got != want {
				t.Fatalf("%s %s: signed zone\n%s\nunsigned\n%s", owner, dns.Type(typ), got, want)
			}
		}
	}
}

// master writes all records of a zone, as a transfer has them, as a master file.
func (h *house) master(t testing.TB, zone string) string {
	t.Helper()
	z := h.snapshot.Load().zones.get(mustName(t, zone))
	var b strings.Builder
	write := func(owner name, s *rrset) {
		rrs, err := s.unpack(owner)
		if err != nil {
			t.Fatal(err)
		}
		for _, rr := range rrs {
			fmt.Fprintln(&b, strings.Replace(rr.String(), "\tCLASS1\t", "\tIN\t", 1)) // of unknown types; Knot does not know it
		}
	}
	write(z.apex, &z.soa)
	for owner, s := range z.each() {
		write(owner, s)
	}
	return b.String()
}

// TestSignedDifferences: a secondary that applies each difference has the zone as
// it is, signatures and all.
func TestSignedDifferences(t *testing.T) {
	f := signedExample(t, dnssec.ECDSAP256)
	h := newHouse(t, nil)
	zone := mustName(t, "example.com")
	records := func() map[string]int {
		z := h.snapshot.Load().zones.get(zone)
		all := make(map[string]int)
		for owner, s := range z.each() {
			for wire := s.records(); len(wire) > 0; {
				var record []byte
				record, wire = split(wire)
				all[string(owner)+string(record)]++
			}
		}
		return all
	}
	count := func(all map[string]int, pieces []piece, by int) {
		for _, p := range pieces {
			for wire := p.wire; len(wire) > 0; {
				var record []byte
				record, wire = split(wire)
				k := string(p.owner) + string(record)
				if all[k] += by; all[k] == 0 {
					delete(all, k)
				}
			}
		}
	}
	h.publish(f)
	for _, change := range []func(){
		func() { f.down[netip.MustParseAddr("198.51.100.1")] = true },
		func() { f.down[netip.MustParseAddr("198.51.100.2")] = true },
		func() { delete(f.down, netip.MustParseAddr("198.51.100.1")) },
		func() { f.direct("another.example.com", "198.51.100.77") },
		func() { f.services = f.services[:len(f.services)-1] },
		func() {
			z := *f.dns.Zones[1]
			z.DNSSEC.Keys = append(slices.Clone(z.DNSSEC.Keys), keyFile(t, z.Name, dnssec.ECDSAP256, func(times *dnssec.Times) { times.Activate = time.Time{} }))
			f.dns.Zones = []*pool.Zone{f.dns.Zones[0], &z}
		},
	} {
		was, have := h.snapshot.Load().zones.get(zone), records()
		change()
		h.publish(f)
		now := h.snapshot.Load().zones.get(zone)
		d := compare(was, now)
		count(have, d.removed, -1)
		count(have, d.added, +1)
		if diff := cmp.Diff(records(), have); now == was || diff != "" {
			t.Errorf("want -, got +\n%s", diff)
		}
	}
}

// TestToolsVerifyTheZone: others find nothing to say about the whole zone, with
// services up and down.
func TestToolsVerifyTheZone(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(signedExample(t, dnssec.ECDSAP256))
	verifyByTools(t, h)
}

// verifyByTools has other software judge example.com as it is transferred.
func verifyByTools(t *testing.T, h *house) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(file, []byte(h.master(t, "example.com")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"dnssec-verify -z -o example.com " + file,
		"named-checkzone -i local example.com " + file,
		"ldns-verify-zone -V3 " + file,
		"kzonecheck -o example.com -d on " + file,
	} {
		args := strings.Fields(command)
		t.Run(args[0], func(t *testing.T) {
			if _, err := exec.LookPath(args[0]); err != nil {
				t.Skipf("%s is not installed (Debian: bind9-utils, ldnsutils, knot-dnssecutils)", args[0])
			}
			out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestSignedAnswers(t *testing.T) {
	cases, err := os.ReadFile("testdata/signed.txt")
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, nil)
	h.publish(signedExample(t, dnssec.ECDSAP256))
	count := 0
	for block := range strings.SplitSeq(strings.TrimSpace(string(cases)), "\n\n") {
		var lines []string
		for line := range strings.SplitSeq(strings.TrimSpace(block), "\n") {
			if !strings.HasPrefix(line, "#") && line != "" {
				lines = append(lines, line)
			}
		}
		if len(lines) == 0 {
			continue
		}
		count++
		ask := strings.TrimPrefix(lines[0], "> ")
		t.Run(strings.ReplaceAll(ask, " ", "_"), func(t *testing.T) {
			q := question(t, ask)
			q.SetEdns0(1232, true)
			verdict := h.r.read(must(q.Pack()))
			wire, _ := h.r.answer(nil, h.snapshot.Load(), verdict, conversation{tcp: true})
			var m dns.Msg
			if err := m.Unpack(wire); err != nil {
				t.Fatal(err)
			}
			got := serialOfSOA.ReplaceAllString(text(&m), "$1 SERIAL")
			if diff := cmp.Diff(strings.Join(lines[1:], "\n")+"\n", got); diff != "" {
				t.Errorf("want -, got +\n%s", diff)
			}
			if o := m.IsEdns0(); o == nil || !o.Do() {
				t.Error("DO is not echoed")
			}
		})
	}
	if count < 20 {
		t.Errorf("only %d cases were found", count)
	}
}

var serialOfSOA = regexp.MustCompile(`(IN SOA \S+ \S+) \d+`)
