package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v4"
)

var update = flag.Bool("update", false, "write what was decided into testdata")

// us is the controller that elbow is.
const us = "haslohas.com/elbow"

// noon is when the objects of a test are looked at.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// TestDecide decides what stands in testdata: objects as users write them, what
// became of the wishes, the wishes and the status.
func TestDecide(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata: ", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			part := make(map[string]*txtar.File)
			for i := range archive.Files {
				part[archive.Files[i].Name] = &archive.Files[i]
			}
			w := readWorld(t, string(part["objects"].Data))
			d := Decide(w)
			became := readOutcomes(t, part["became"])
			writes := d.Status(became, noon)
			got := map[string]string{"wishes": showWishes(d), "status": showWrites(t, writes)}
			for name, text := range got {
				if *update {
					part[name].Data = []byte(text)
				} else if diff := cmp.Diff(string(part[name].Data), text); diff != "" {
					t.Errorf("%s: -want +got:\n%s", name, diff)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			again := Decide(applied(t, w, writes)).Status(became, noon.Add(time.Hour))
			if len(again) > 0 {
				t.Errorf("what was written is written again:\n%s", showWrites(t, again))
			}
		})
	}
}

// readWorld reads objects; each is a minute younger than the one before it,
// unless it says when it was made.
func readWorld(t *testing.T, text string) *World {
	t.Helper()
	w := &World{
		Namespaces: map[string]map[string]string{"default": {}},
		Controller: us,
		Addresses:  []netip.Addr{netip.MustParseAddr("54.93.167.95")},
	}
	documents := yaml.NewDecoder(strings.NewReader(text))
	for n := 0; ; n++ {
		var o map[string]any
		if err := documents.Decode(&o); errors.Is(err, io.EOF) {
			return w
		} else if err != nil {
			t.Fatal(err)
		}
		meta := o["metadata"].(map[string]any)
		if meta["namespace"] == nil {
			meta["namespace"] = "default"
		}
		if meta["creationTimestamp"] == nil {
			meta["creationTimestamp"] = noon.Add(time.Duration(n-1000) * time.Minute)
		}
		if meta["generation"] == nil {
			meta["generation"] = 1
		}
		meta["resourceVersion"] = fmt.Sprint(100 + n)
		kind, _ := o["kind"].(string)
		switch kind {
		case "GatewayClass":
			delete(meta, "namespace")
			w.Classes = append(w.Classes, decoded[Class](t, o))
		case "Gateway":
			w.Gateways = append(w.Gateways, decoded[Gateway](t, o))
		case TCPRoute, TLSRoute:
			w.Routes = append(w.Routes, Route{kind, decoded[Object[RouteSpec, RouteStatus]](t, o)})
		case "ReferenceGrant":
			w.Grants = append(w.Grants, decoded[Grant](t, o))
		case "Namespace":
			n := decoded[struct {
				Metadata struct {
					Name   string
					Labels map[string]string
				}
			}](t, o)
			w.Namespaces[n.Metadata.Name] = n.Metadata.Labels
		case "Service":
			s := decoded[struct {
				Metadata Meta
				Spec     struct {
					Type  string
					Ports []struct {
						Port     int32
						Protocol string
						NodePort int32
					}
				}
			}](t, o)
			one := Service{Name: s.Metadata.name(), Alias: s.Spec.Type == "ExternalName", Via: s.Metadata.Annotations["elbow.haslohas.com/via"]}
			for _, p := range s.Spec.Ports {
				one.Ports = append(one.Ports, Port{p.Port, p.Protocol, p.NodePort != 0})
			}
			w.Services = append(w.Services, one)
		default:
			t.Fatalf("a %q means nothing here", kind)
		}
	}
}

func decoded[T any](t *testing.T, o map[string]any) T {
	t.Helper()
	var out T
	text, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(text, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// readOutcomes reads lines "ID: listening", "ID: waiting TEXT" and "ID: refused
// TEXT", with the ID "*" for all others; what is not said is listening.
func readOutcomes(t *testing.T, file *txtar.File) func(string) Outcome {
	t.Helper()
	outcomes := map[string]Outcome{"*": {Listening: true}}
	if file != nil {
		for line := range strings.Lines(string(file.Data)) {
			id, rest, _ := strings.Cut(strings.TrimSpace(line), ": ")
			word, text, _ := strings.Cut(rest, " ")
			o := outcomes[id]
			switch word {
			case "listening":
				o.Listening = true
			case "waiting":
				o.Err = text
			case "refused":
				o.Refused = append(o.Refused, text)
			default:
				t.Fatalf("%q is no outcome", line)
			}
			if id == "*" {
				o.Listening = word == "listening"
			}
			outcomes[id] = o
		}
	}
	return func(id string) Outcome {
		if o, ok := outcomes[id]; ok {
			return o
		}
		return outcomes["*"]
	}
}

func showWishes(d *Decision) string {
	var b strings.Builder
	for _, w := range d.Wishes {
		fmt.Fprintf(&b, "%s: port %d", w.ID, w.Port)
		if len(w.SNI) > 0 {
			fmt.Fprintf(&b, " sni %s", strings.Join(w.SNI, ","))
		}
		if len(w.Hostnames) > 0 {
			fmt.Fprintf(&b, " dns %s", strings.Join(w.Hostnames, ","))
		}
		b.WriteString(" ->")
		for _, s := range w.Backends {
			fmt.Fprintf(&b, " %s:%d*%d", s.Name, s.Port, s.Weight)
			if s.NodePort {
				b.WriteString(" by nodes")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// showWrites shows a condition that is true as its type, one that is not as
// !Type(Reason: message).
func showWrites(t *testing.T, writes []Write) string {
	var b strings.Builder
	show := func(indent, what string, conditions []Condition) {
		fmt.Fprintf(&b, "%s%s:", indent, what)
		for _, c := range conditions {
			switch {
			case c.Status == "True" && c.Message == "" && c.Reason == c.Type:
				fmt.Fprintf(&b, " %s", c.Type)
			case c.Status == "True":
				fmt.Fprintf(&b, " %s(%s: %s)", c.Type, c.Reason, c.Message)
			case c.Type == conflicted && c.Message == "":
			default:
				fmt.Fprintf(&b, " !%s(%s: %s)", c.Type, c.Reason, c.Message)
			}
		}
		b.WriteString("\n")
	}
	for _, w := range writes {
		var patch struct {
			Metadata map[string]string
			Status   struct {
				GatewayStatus
				RouteStatus
			}
		}
		if err := json.Unmarshal(w.Patch, &patch); err != nil {
			t.Fatal(err)
		}
		if patch.Metadata["resourceVersion"] != w.ResourceVersion || w.ResourceVersion == "" {
			t.Errorf("%s %s: the patch is for version %q, want %q", w.Resource, w.Name, patch.Metadata["resourceVersion"], w.ResourceVersion)
		}
		s := patch.Status
		show("", w.Resource+" "+w.Name.String(), s.Conditions)
		for _, a := range s.Addresses {
			fmt.Fprintf(&b, "  at %s %s\n", *a.Type, a.Value)
		}
		for _, l := range s.Listeners {
			var kinds []string
			for _, k := range l.SupportedKinds {
				kinds = append(kinds, k.String())
			}
			show("  ", fmt.Sprintf("%s [%s] routes %d", l.Name, strings.Join(kinds, " "), l.AttachedRoutes), l.Conditions)
		}
		for _, p := range s.Parents {
			what := "parent " + p.ParentRef.Name
			if p.ParentRef.SectionName != nil {
				what += "/" + *p.ParentRef.SectionName
			}
			if p.ControllerName != us {
				what += " of " + p.ControllerName
			}
			show("  ", what, p.Conditions)
		}
	}
	return b.String()
}

// applied is w once the writes have been done.
func applied(t *testing.T, w *World, writes []Write) *World {
	t.Helper()
	next := *w
	next.Classes, next.Gateways, next.Routes = slices.Clone(w.Classes), slices.Clone(w.Gateways), slices.Clone(w.Routes)
	for _, one := range writes {
		var into any
		for i := range next.Classes {
			if one.Resource == "gatewayclasses" && next.Classes[i].name() == one.Name {
				next.Classes[i].Status = ClassStatus{}
				into = &next.Classes[i]
			}
		}
		for i := range next.Gateways {
			if one.Resource == "gateways" && next.Gateways[i].name() == one.Name {
				next.Gateways[i].Status = GatewayStatus{}
				into = &next.Gateways[i]
			}
		}
		for i := range next.Routes {
			if r := &next.Routes[i]; one.Resource == strings.ToLower(r.Kind)+"s" && r.name() == one.Name {
				r.Status = RouteStatus{}
				into = &r.Object
			}
		}
		if into == nil {
			t.Fatalf("%s %s is written, which is not there", one.Resource, one.Name)
		}
		if err := json.Unmarshal(one.Patch, into); err != nil {
			t.Fatal(err)
		}
	}
	return &next
}

// TestTimesOfConditions: the time of a condition is that of its last change
// between true and false, and what others say stays.
func TestTimesOfConditions(t *testing.T) {
	before := []Condition{
		{Type: "Accepted", Status: "True", Observed: 1, Transition: noon, Reason: "Accepted"},
		{Type: "example.com/Blessed", Status: "True", Observed: 1, Transition: noon, Reason: "Sunday", Message: "by the bishop"},
		{Type: "Programmed", Status: "Unknown", Observed: 7, Transition: noon, Reason: "Pending"},
	}
	said := []Condition{no(programmed, verdict{pending, "old news"}), yes(accepted, listenersNotValid, "one is not"), no(conflicted, verdict{noConflicts, ""})}
	later := noon.Add(time.Hour + 300*time.Millisecond)
	got := settle(before, said, 2, later)
	want := []Condition{
		{Type: "Accepted", Status: "True", Observed: 2, Transition: noon, Reason: "ListenersNotValid", Message: "one is not"},
		before[1],
		before[2], // it is about a newer generation
		{Type: "Conflicted", Status: "False", Observed: 2, Transition: noon.Add(time.Hour), Reason: "NoConflicts"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	turned := settle(got, []Condition{no(accepted, verdict{invalid, ""})}, 2, later.Add(time.Hour))
	if c := turned[0]; c.Status != "False" || !c.Transition.Equal(noon.Add(2*time.Hour)) {
		t.Errorf("a condition that turned has %s at %s", c.Status, c.Transition)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	long := cut(strings.Repeat("ü", 3000))
	if len(long) > maxMessage || !strings.HasSuffix(long, "ü…") {
		t.Errorf("%d bytes, ending in %q", len(long), long[len(long)-8:])
	}
}

// TestOthersParentsStay: what another controller has written is written back as
// it was, with what we do not know.
func TestOthersParentsStay(t *testing.T) {
	const text = `{"controllerName":"example.com/other","conditions":[],"parentRef":{"name":"x","novel":[1, 2]},"more":{"a":1}}`
	var p ParentStatus
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(RouteStatus{[]ParentStatus{p}})
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := json.Compact(&want, []byte(`{"parents":[`+text+`]}`)); err != nil {
		t.Fatal(err)
	}
	if string(out) != want.String() {
		t.Errorf("got  %s\nwant %s", out, want.String())
	}
}

func TestCloserNames(t *testing.T) {
	tests := []struct{ hostname, name, want string }{
		{"", "a.example", "a.example"},
		{"a.example", "a.example", "a.example"},
		{"*.example", "a.example", "a.example"},
		{"*.example", "b.a.example", "b.a.example"},
		{"*.example", "example", ""},
		{"a.example", "*.example", "a.example"},
		{"*.a.example", "*.example", "*.a.example"},
		{"*.example", "*.a.example", "*.a.example"},
		{"*.example", "*.example", "*.example"},
		{"a.example", "b.example", ""},
		{"*.ample", "ex.example", ""},
	}
	for _, test := range tests {
		if got, ok := intersect(test.hostname, test.name); got != test.want || ok != (test.want != "") {
			t.Errorf("a listener for %q, a route for %q: %q, %t; want %q", test.hostname, test.name, got, ok, test.want)
		}
	}
}

// FuzzDecide decides about anything that can be read at all: what it wants to
// write it has said once that is written.
func FuzzDecide(f *testing.F) {
	f.Add([]byte(`{"Controller":"haslohas.com/elbow","Classes":[{"metadata":{"name":"elbow"},"spec":{"controllerName":"haslohas.com/elbow"}}],
		"Gateways":[{"metadata":{"namespace":"a","name":"b"},"spec":{"gatewayClassName":"elbow","listeners":[
			{"name":"l","port":1,"protocol":"TCP"},{"name":"m","port":443,"protocol":"TLS","hostname":"*.x","tls":{"mode":"Passthrough"}}]}}],
		"Routes":[{"Kind":"TLSRoute","metadata":{"namespace":"a","name":"r"},"spec":{"parentRefs":[{"name":"b"}],"hostnames":["y.x",""],
			"rules":[{"backendRefs":[{"name":"s","port":1,"weight":-1}]},{}]},"status":{"parents":[{"controllerName":"x"}]}}],
		"Services":[{"Namespace":"a","Name":"s","Ports":[{"Number":1}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var w World
		if json.Unmarshal(text, &w) != nil {
			t.Skip("no world")
		}
		d := Decide(&w)
		seen := make(map[string]bool)
		for _, one := range d.Wishes {
			if one.Port == 0 || slices.Contains(one.SNI, "") {
				t.Errorf("wish %+v", one)
			}
			seen[one.ID] = true
		}
		d.Status(func(id string) Outcome { return Outcome{Listening: seen[id]} }, noon)
	})
}
