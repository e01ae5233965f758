package file

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"haslohas.com/elbow/pool"
)

var compareNetip = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func at(address string) pool.Endpoint {
	return pool.Endpoint{Address: netip.MustParseAddrPort(address), Weight: 1}
}

func TestParse(t *testing.T) {
	full := at("172.31.8.233:80")
	full.Node, full.Zone, full.Weight = "minion1", "eu-central-1a", 3
	full.Public = []netip.Addr{netip.MustParseAddr("3.120.1.1"), netip.MustParseAddr("2001:db8::1")}
	full.Phase = pool.Terminating
	idle := at("172.31.8.233:80")
	idle.Weight = 0
	smile := at("172.31.8.233:80")
	smile.Node = `😀\ud83d😀é`

	tests := []struct {
		name, text string
		want       []pool.Endpoint
	}{
		{"JSON", `[{"targets":["172.31.8.233:80","172.31.8.18:80"],"labels":{"job":"web"}}]`,
			[]pool.Endpoint{at("172.31.8.233:80"), at("172.31.8.18:80")}},
		{"JSON indented by tabs", "[\n\t{\n\t\t\"targets\": [\"172.31.8.233:80\"]\n\t}\n]\n",
			[]pool.Endpoint{at("172.31.8.233:80")}},
		{"JSON with characters beyond the BMP and an escaped backslash",
			`[{"targets":["172.31.8.233:80"],"labels":{"node":"\ud83d\ude00\\ud83d\uD83D\uDE00\u00e9"}}]`,
			[]pool.Endpoint{smile}},
		{"YAML", "- targets: ['172.31.8.233:80']\n- targets:\n  - 172.31.8.18:80\n  - \"[2001:db8::7]:80\"\n",
			[]pool.Endpoint{at("172.31.8.233:80"), at("172.31.8.18:80"), at("[2001:db8::7]:80")}},
		{"every label that is understood", "- targets: [172.31.8.233:80]\n  labels:\n    node: minion1\n    zone: eu-central-1a\n    weight: 3\n" +
			"    public: 3.120.1.1, 2001:db8::1\n    phase: terminating\n", []pool.Endpoint{full}},
		{"priority", `[{"targets":["172.31.8.233:80"],"labels":{"priority":"7"}}]`,
			[]pool.Endpoint{{Address: netip.MustParseAddrPort("172.31.8.233:80"), Weight: 1, Priority: 7}}},
		{"weight 0 takes no new connections", `[{"targets":["172.31.8.233:80"],"labels":{"weight":"0"}}]`, []pool.Endpoint{idle}},
		{"empty labels are none", `[{"targets":["172.31.8.233:80"],"labels":{"weight":"","public":"","phase":"","node":null}}]`,
			[]pool.Endpoint{at("172.31.8.233:80")}},
		{"unknown labels may be anything", "- targets: [172.31.8.233:80]\n  labels: {__meta_x: [1, 2], weights: heavy}\n",
			[]pool.Endpoint{at("172.31.8.233:80")}},
		{"no labels", "- targets: [172.31.8.233:80]\n  labels:\n", []pool.Endpoint{at("172.31.8.233:80")}},
		{"an IPv4 address in IPv6 clothes", `[{"targets":["[::ffff:172.31.8.233]:80"]}]`, []pool.Endpoint{at("172.31.8.233:80")}},
		{"nobody", "[]\n", nil},
		{"a group of nobody", "- targets: []\n", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse("web.json", []byte(test.text), Printed{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, compareNetip, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", "web.json:1: the file is empty; no targets at all are written []"},
		{"white space", " \n\n", "web.json:1: the file is empty; no targets at all are written []"},
		{"only a comment", "# targets\n", "web.json:1: neither JSON nor YAML: no documents in stream"},
		{"two documents", "[]\n---\n[]\n", "web.json:1: neither JSON nor YAML: expected single document, found multiple"},
		{"cut off", `[{"targets": ["172.31.8.233:80",` + "\n", "web.json:2: neither JSON nor YAML: while parsing a flow node: did not find expected node content"},
		{"control character", "[]\x00", "web.json:1: neither JSON nor YAML: control characters are not allowed"},
		{"not a list", "targets: []\n", "web.json:1: want a list of target groups, not a mapping"},
		{"null", "null\n", "web.json:1: want a list of target groups, not nothing"},
		{"a list of targets without groups", "- 172.31.8.233:80\n", `web.json:1: want a target group, not "172.31.8.233:80"`},
		{"misspelt key", "\n- target: []\n", `web.json:2: unknown key "target", a target group has targets and labels`},
		{"no targets", "[\n{}]", "web.json:2: the target group has no targets"},
		{"targets twice", "- targets: []\n  targets: []\n", "web.json:2: targets stands here twice"},
		{"targets is a text", "- targets: 172.31.8.233:80\n", `web.json:1: want a list of targets, not "172.31.8.233:80"`},
		{"target is a group", "- targets:\n  - {a: b}\n", "web.json:2: want a target such as 172.31.8.233:80, not a mapping"},
		{"host name", "- targets:\n  - 172.31.8.233:80\n  - minion2:80\n", `web.json:3: target "minion2:80": want an IP address and a port, such as 172.31.8.233:80`},
		{"no port", `[{"targets":["172.31.8.233"]}]`, `web.json:1: target "172.31.8.233": want an IP address and a port`},
		{"port 0", `[{"targets":["172.31.8.233:0"]}]`, `web.json:1: target "172.31.8.233:0": want an IP address and a port`},
		{"any address", `[{"targets":["0.0.0.0:80"]}]`, `web.json:1: target "0.0.0.0:80": want an IP address and a port`},
		{"twice", "- targets: [172.31.8.233:80]\n- targets: ['[::ffff:172.31.8.233]:80']\n", `web.json:2: target "[::ffff:172.31.8.233]:80" stands already in line 1`},
		{"weight", "- targets: []\n  labels:\n    weight: 257\n", `web.json:3: label weight: "257" is not a number from 0 to 256`},
		{"priority", "- targets: []\n  labels:\n    priority: 256\n", `web.json:3: label priority: "256" is not a number from 0 to 255`},
		{"weight is a list", "- targets: []\n  labels: {weight: [1]}\n", "web.json:2: label weight: want a text, not a list"},
		{"weight twice", "- targets: []\n  labels: {weight: 1, weight: 2}\n", "web.json:2: weight stands here twice"},
		{"public", "- targets: []\n  labels: {public: '3.120.1.1,minion1'}\n", `web.json:2: label public: "minion1" is not an IP address`},
		{"phase", "- targets: []\n  labels: {phase: ready}\n", `web.json:2: label phase: unknown value "ready", want one of serving, terminating`},
		{"labels is a list", "- targets: []\n  labels: [a]\n", "web.json:2: want labels, not a list"},
		{"key is a list", "- ? [a]\n  : b\n", "web.json:1: want a text as key, not a list"},
		{"alias", "- &a {targets: []}\n- *a\n", "web.json:2: want a target group, not an alias; write out what it stands for"},
		{"too many targets", manyTargets(maxTargets + 1), `target "10.1.134.160:80" is one more than the limit of 100000`},
		{"too many parts", "[" + strings.Repeat("1,", maxMarks) + "1]", "web.json:1: the file has more parts than 100000 targets can have"},
		{"too large", strings.Repeat(" ", maxSize+1), "web.json:1: the file is larger than 16 MiB"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse("web.json", []byte(test.text), Printed{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v\nwant %s", err, test.want)
			}
			if got != nil {
				t.Errorf("got %d endpoints beside an error", len(got))
			}
		})
	}
}

func manyTargets(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "- targets: [\"10.%d.%d.%d:80\"]\n", i>>16, i>>8&255, i&255)
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`[{"targets":["172.31.8.233:80","[2001:db8::1]:80"],"labels":{"node":"a","public":"3.120.1.1","weight":"2","phase":"terminating"}}]`))
	f.Add([]byte("- targets: [172.31.8.233:80]\n  labels:\n    zone: a\n"))
	f.Add([]byte("- &a {targets: []}\n- *a\n- <<: *a\n"))
	f.Add([]byte(`[{"targets":[],"labels":{"node":"\ud83d\ude00\\"}}]`))
	f.Add([]byte("%YAML 1.2\n--- !!seq\n[]"))
	f.Add([]byte("- ? targets\n  : !!binary aGk=\n"))
	f.Add([]byte(minions))
	f.Add([]byte(oldPods))
	f.Add([]byte(listOf(newNode, podNamed("http-1", "", "Running", 1))))
	f.Fuzz(func(t *testing.T, text []byte) {
		endpoints, err := Parse("f", text, Printed{Port: Port{Number: 80}})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Errorf("error without its place: %v", err)
			}
			return
		}
		seen := make(map[netip.AddrPort]bool)
		for _, e := range endpoints {
			// Two pods may have one hostPort, where one follows the other.
			if !e.Address.IsValid() || e.Address.Port() == 0 || e.Weight < 0 || e.Weight > maxWeight || seen[e.Address] && !isPrinted(text) {
				t.Errorf("accepted %+v", e)
			}
			seen[e.Address] = true
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text := []byte(manyTargets(10_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("web.yaml", text, Printed{}); err != nil {
			b.Fatal(err)
		}
	}
}
