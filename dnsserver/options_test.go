package dnsserver

import (
	"bytes"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// askWith asks with an option as raw octets and returns the answer and the
// option of that code in it, nil if there is none.
func askWith(t *testing.T, h *house, ask string, code uint16, data []byte) (*dns.Msg, []byte) {
	t.Helper()
	packet, err := question(t, ask).Pack()
	if err != nil {
		t.Fatal(err)
	}
	packet[11] = 1
	packet = append(packet, 0, 0, 41, 4, 208, 0, 0, 0, 0, byte((4+len(data))>>8), byte(4+len(data)), byte(code>>8), byte(code), byte(len(data)>>8), byte(len(data)))
	a := h.send(t, append(packet, data...), false)
	if a.IsEdns0() == nil {
		return a, nil
	}
	for _, o := range a.IsEdns0().Option {
		if o.Option() != code {
			continue
		}
		wire, err := packOption(o)
		if err != nil {
			t.Fatal(err)
		}
		return a, wire
	}
	return a, nil
}

func TestNSID(t *testing.T) {
	f := example(t)
	h := newHouse(t, nil)
	h.publish(f)
	if _, got := askWith(t, h, "www.example.com A", 3, nil); got != nil {
		t.Errorf("nobody is to be told, got %q", got)
	}
	f.dns.NSID = "master-1"
	h.publish(f)
	if _, got := askWith(t, h, "www.example.com A", 3, nil); string(got) != "master-1" {
		t.Errorf("got %q", got)
	}
	if _, got := askWith(t, h, "www.example.com A", 100, nil); got != nil {
		t.Errorf("nobody has asked, got %q", got)
	}
}

func TestSubnet(t *testing.T) {
	h := newHouse(t, nil)
	h.publish(example(t))
	for _, c := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"IPv4 /24", []byte{0, 1, 24, 0, 192, 0, 2}, true},
		{"IPv4 /0", []byte{0, 1, 0, 0}, true},
		{"IPv4 /32", []byte{0, 1, 32, 0, 192, 0, 2, 1}, true},
		{"IPv4 /25", []byte{0, 1, 25, 0, 192, 0, 2, 128}, true},
		{"IPv6 /56", []byte{0, 2, 56, 0, 32, 1, 13, 184, 0, 0, 7}, true},
		{"nobody's", []byte{0, 0, 0, 0}, true},
		{"too short", []byte{0, 1, 24}, false},
		{"bits beyond the prefix", []byte{0, 1, 25, 0, 192, 0, 2, 129}, false},
		{"fewer octets than the prefix", []byte{0, 1, 24, 0, 192, 0}, false},
		{"more octets than the prefix", []byte{0, 1, 24, 0, 192, 0, 2, 0}, false},
		{"IPv4 /33", []byte{0, 1, 33, 0, 192, 0, 2, 1, 0}, false},
		{"IPv6 /129", append([]byte{0, 2, 129, 0}, make([]byte, 17)...), false},
		{"a scope", []byte{0, 1, 24, 24, 192, 0, 2}, false},
		{"another family", []byte{0, 3, 0, 0}, false},
		{"nobody's with a prefix", []byte{0, 0, 8, 0, 1}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, got := askWith(t, h, "www.example.com A", 8, c.data)
			if c.ok && (a.Rcode != dns.RcodeSuccess || len(a.Answer) != 2 || !bytes.Equal(got, c.data)) {
				t.Errorf("got % x in %v", got, a)
			}
			if !c.ok && (a.Rcode != dns.RcodeFormatError || got != nil) {
				t.Errorf("got % x in %v", got, a)
			}
		})
	}
}

// TestWhyNobodyIsUp: a resolver's log can tell an empty service from a wrong name.
func TestWhyNobodyIsUp(t *testing.T) {
	f := example(t)
	open := f.direct("open.example.com", "198.51.100.3")
	open.WhenAllDown = pool.ServeAll
	h := newHouse(t, nil)
	h.publish(f)
	for ask, want := range map[string]string{
		"none.example.com A":    whyNobody,
		"open.example.com A":    whyFailOpen,
		"web.example.com A":     "",
		"web.example.com AAAA":  "",
		"www.example.com TXT":   "",
		"nothing.example.com A": "",
	} {
		m := question(t, ask)
		m.SetEdns0(1232, false)
		a := h.exchange(t, m)
		i := slices.IndexFunc(a.IsEdns0().Option, func(o dns.EDNS0) bool { return o.Option() == dns.EDNS0EDE })
		got := ""
		if i >= 0 {
			e := a.IsEdns0().Option[i].(*dns.EDNS0_EDE)
			if got = e.ExtraText; e.InfoCode != 0 {
				t.Errorf("%s: code %d", ask, e.InfoCode)
			}
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", ask, got, want)
		}
		if a := h.exchange(t, question(t, ask)); a.IsEdns0() != nil {
			t.Errorf("%s: got %v", ask, a)
		}
	}
}
