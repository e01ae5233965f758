package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

const reference = "reference.yaml"

// The reference documents every key that the decoder knows, and no other, with
// the type, range and default of its rule.
func TestReference(t *testing.T) {
	text, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(reference, text); err != nil {
		t.Fatal(err)
	}
	// Keys stand in comments, as a file of a secret that everybody knows is refused.
	text = regexp.MustCompile(`(?m)^ *keys: \[\]\n`).ReplaceAll(text, nil)
	text = regexp.MustCompile(`(?m)^( *)#key `).ReplaceAll(text, []byte("$1"))
	root, e := document(text)
	if e != nil {
		t.Fatal(e)
	}
	keys := make(map[string]rule)
	d := newDecoder(filepath.Join(t.TempDir(), reference))
	secretFile(t, d.folder, "secondary.secret", 0o600, "c2VjcmV0IGluIHRoZSByZWZlcmVuY2U=")
	signingKey(t, filepath.Join(d.folder, "keys", "public.haslohas.com"), "public.haslohas.com")
	d.onKey = func(path string, r rule) { keys[indexes.ReplaceAllString(path, "[]")] = r }
	d.config(root)
	if err := d.failed(); err != nil {
		t.Fatal(err) // an unknown key among others
	}

	comments := documented(root, strings.Split(string(text), "\n"))
	for path, r := range keys {
		comment, ok := comments[path]
		if !ok {
			t.Errorf("%s is not documented", path)
			continue
		}
		if r.required && !strings.Contains(comment, "required") {
			t.Errorf("%s is required, which is not said in %q", path, comment)
		}
		if r.about == nil {
			continue
		}
		if about := strings.ToLower(r.about()); !strings.Contains(comment, about) {
			t.Errorf("%s: %q does not stand in %q", path, about, comment)
		}
	}
	if len(keys) < 80 {
		t.Errorf("only %d keys were seen", len(keys))
	}
}

var indexes = regexp.MustCompile(`\[\d+\]`)

// documented returns the comment above each key that stands in the file, in
// lower case and on one line, by the path of the key.
func documented(root *yaml.Node, lines []string) map[string]string {
	comments := make(map[string]string)
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		switch n.Kind {
		case yaml.SequenceNode:
			for _, item := range n.Content {
				walk(item, path+"[]")
			}
		case yaml.MappingNode:
			for i := 0; i < len(n.Content); i += 2 {
				at := join(path, n.Content[i].Value)
				if comments[at] == "" {
					comments[at] = above(lines, n.Content[i].Line)
				}
				walk(n.Content[i+1], at)
			}
		}
	}
	walk(root, "")
	return comments
}

func above(lines []string, line int) string {
	var words []string
	for i := line - 2; i >= 0; i-- {
		comment, ok := strings.CutPrefix(strings.TrimSpace(lines[i]), "#")
		if !ok {
			break
		}
		words = append(strings.Fields(comment), words...)
	}
	return strings.ToLower(strings.Join(words, " "))
}

// The configuration that is shipped is right, and what it says is the setup it
// is for.
func TestShipped(t *testing.T) {
	c, err := Load("../deploy/elbow.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Services) != 1 || len(c.DNS.Zones) != 1 {
		t.Fatalf("%d services and %d zones, want one of each", len(c.Services), len(c.DNS.Zones))
	}
	s := c.Services[0]
	if c.Host.Name != "master" || c.Host.Addresses[0] != ip("54.93.167.95") || c.DNS.Zones[0].Name != "public.haslohas.com" ||
		s.Hostnames[0] != "web.public.haslohas.com" || s.Listen[0] != port("0.0.0.0:80") || len(s.Endpoints) != 2 {
		t.Errorf("host %+v, zone %s, service %+v", c.Host, c.DNS.Zones[0].Name, s.Service)
	}
}

// The shipped configuration holds the way to direct answers in comments: the
// lines that begin with "#direct " are it, instead of those that end in "#proxied".
func TestShippedDirect(t *testing.T) {
	text, err := os.ReadFile("../deploy/elbow.yaml")
	if err != nil {
		t.Fatal(err)
	}
	direct := regexp.MustCompile(`(?m)^.*#proxied\n`).ReplaceAllString(string(text), "")
	direct = regexp.MustCompile(`(?m)^( *)#direct `).ReplaceAllString(direct, "$1")
	c := mustParse(t, direct)
	s := c.Services[0]
	if s.Answer.String() != "direct" || len(s.Endpoints) != 2 {
		t.Fatalf("answer %v of %d endpoints, want direct of 2", s.Answer, len(s.Endpoints))
	}
	for _, e := range s.Endpoints {
		if len(e.Public) != 1 || e.Public[0] == e.Address.Addr() {
			t.Errorf("endpoint %s has the public addresses %v", e.Address, e.Public)
		}
	}
}
