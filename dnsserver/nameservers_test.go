package dnsserver

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"haslohas.com/elbow/pool"
)

func TestNameServers(t *testing.T) {
	configured := []pool.NameServer{
		{Name: "ns1.zone.test", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		{Name: "ns.other.test", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.7")}},
	}
	tests := map[string]struct {
		file, records string
		want          []pool.NameServer
	}{
		"no file":                   {"", "", configured},
		"a file without NS":         {"zone", "www A 192.0.2.5\n", configured},
		"a file with its own":       {"zone", "@ NS ns9\nns9 A 192.0.2.9\nns9 AAAA 2001:db8::9\n", []pool.NameServer{{Name: "ns9.zone.test", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")}}}},
		"a file with the address":   {"zone", "ns1 A 192.0.2.2\n", []pool.NameServer{{Name: "ns1.zone.test", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}, configured[1]}},
		"a file that leads outside": {"zone", "@ NS ns.other.test.\n", configured[1:]},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			z := &pool.Zone{Name: "zone.test", Hostmaster: "h@zone.test", NameServers: configured, File: test.file, Records: test.records}
			if diff := cmp.Diff(test.want, NameServers(z), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("name servers (-want +got):\n%s", diff)
			}
		})
	}
}
