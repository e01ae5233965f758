package config

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"haslohas.com/elbow/pool"
)

// Whatever the text is, Parse returns a configuration that keeps its promises
// or Errors that name a place.
func FuzzParse(f *testing.F) {
	archive, err := txtar.ParseFile(malformed)
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range archive.Files {
		text, _ := split(file.Data)
		f.Add(text)
	}
	for _, path := range []string{reference, "../deploy/elbow.yaml"} {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("testdata/x.yaml", text)
		if err != nil {
			findings(t, err)
			return
		}
		if len(c.Services) == 0 && len(c.DNS.Zones) == 0 {
			t.Error("nothing to do and no error")
		}
		if !slices.IsSortedFunc(c.DNS.Zones, func(a, b *pool.Zone) int { return strings.Compare(a.Name, b.Name) }) {
			t.Error("zones are not sorted")
		}
		for _, s := range c.Services {
			check(t, c, s)
		}
	})
}

func check(t *testing.T, c *Config, s Service) {
	t.Helper()
	for _, h := range s.Hostnames {
		if c.DNS.Zone(h) == nil {
			t.Errorf("%s is in no zone", h)
		}
	}
	for _, l := range s.Ports() {
		if a := l.Address; !a.IsValid() || a.Addr().Is4In6() || a.Addr().Zone() != "" {
			t.Errorf("listener %s", l)
		}
	}
	if (s.Probe.Type == pool.ProbeUDP) != (s.Probe.Send != "") {
		t.Errorf("probe %+v", s.Probe)
	}
	for i, e := range s.Endpoints {
		if !e.Address.IsValid() || e.Address.Port() == 0 || e.Weight < 0 || e.Weight > 256 {
			t.Errorf("endpoint %+v", e)
		}
		if i > 0 && s.Endpoints[i-1].Address.Compare(e.Address) >= 0 {
			t.Errorf("endpoint %s comes after %s", e.Address, s.Endpoints[i-1].Address)
		}
	}
	if (s.Source.Kind == Static) != (len(s.Endpoints) > 0) || (s.Source.Kind == File) != (s.Source.File.Path != "") {
		t.Errorf("source %+v of %d endpoints", s.Source, len(s.Endpoints))
	}
	if p := s.Probe; p.Interval <= 0 || p.Timeout <= 0 || p.FastInterval <= 0 || p.DownInterval <= 0 || p.Rise < 1 || p.Fall < 1 {
		t.Errorf("probe %+v", p)
	}
	if s.Name == "" || s.Connect.Timeout <= 0 || s.Connect.Attempts < 1 || s.Queue.Timeout <= 0 {
		t.Errorf("service %+v", s.Service)
	}
}

// Errors gives access to each of its findings.
func TestErrors(t *testing.T) {
	_, err := Parse("x.yaml", []byte("a: 1\nb: 2"))
	e, ok := errors.AsType[*Error](err)
	if !ok || e.File != "x.yaml" || e.Line != 1 || e.Column != 1 || e.Path != "a" {
		t.Errorf("first error %+v, want that of key a at x.yaml:1:1", e)
	}
}
