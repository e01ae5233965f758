package pool_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

func TestPortText(t *testing.T) {
	for _, c := range []struct {
		text, address string
		udp           bool
	}{
		{"0.0.0.0:80", "0.0.0.0:80", false},
		{"tcp/0.0.0.0:80", "0.0.0.0:80", false},
		{"udp/[::]:53", "[::]:53", true},
		{"udp/", "", true},
		{"sctp/0.0.0.0:80", "sctp/0.0.0.0:80", false},
	} {
		if address, udp := pool.CutTransport(c.text); address != c.address || udp != c.udp {
			t.Errorf("%s: %s, %t", c.text, address, udp)
		}
	}
	at := netip.MustParseAddrPort("[::]:53")
	if got := (pool.Port{UDP: true, Address: at}).String(); got != "udp/[::]:53" {
		t.Errorf("UDP is written %s", got)
	}
	if got := (pool.Port{Address: at}).String(); got != "[::]:53" {
		t.Errorf("TCP is written %s", got)
	}
}

func TestUDPListeners(t *testing.T) {
	at, other := netip.MustParseAddrPort("0.0.0.0:53"), netip.MustParseAddrPort("0.0.0.0:54")
	dns := &pool.Service{Name: "dns", Listen: []netip.AddrPort{at}}
	log := &pool.Service{Name: "log", Listen: []netip.AddrPort{other}, ListenUDP: []netip.AddrPort{at}}
	table := pool.NewTable(1, time.Time{}, &pool.Set{}, []*pool.Pool{pool.NewPool(dns, nil), pool.NewPool(log, nil)})
	if p := table.Listener(at); p == nil || p.Default.Name != "dns" {
		t.Errorf("TCP leads to %v", p)
	}
	if p := table.UDPListener(at); p == nil || p.Name != "log" {
		t.Errorf("UDP leads to %v", p)
	}
	if p := table.UDPListener(other); p != nil {
		t.Errorf("what is TCP alone leads UDP to %s", p.Name)
	}
	if got, want := log.Ports(), []pool.Port{{Address: other}, {UDP: true, Address: at}}; !slices.Equal(got, want) {
		t.Errorf("ports %v, want %v", got, want)
	}
}
