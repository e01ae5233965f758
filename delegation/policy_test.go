package delegation

import (
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// policyActions returns what a policy allows, sorted.
func policyActions(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var policy struct {
		Statement []struct {
			Effect    string
			Action    any
			Resource  string
			Condition map[string]map[string][]string
		}
	}
	if err := json.Unmarshal(text, &policy); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range policy.Statement {
		switch a := s.Action.(type) {
		case string:
			out = append(out, a)
		default:
			t.Errorf("an action is %v, want one for each statement", a)
		}
		if s.Effect != "Allow" {
			t.Errorf("%s has the effect %s", out[len(out)-1], s.Effect)
		}
	}
	slices.Sort(out)
	return out
}

// Whatever is asked over the wire in the life of a delegation is allowed, and
// everything that is allowed is needed.
func TestPolicyOnTheWire(t *testing.T) {
	s, p := account(t)
	z := public()
	apply(t, p, Options{}, z)
	s.PutSet("Z1", set("ns1.public.haslohas.com.", "A", 60, "192.0.2.9"))
	apply(t, p, Options{}, z)
	apply(t, p, Options{Remove: true}, z)
	seen := map[string]bool{}
	for _, operation := range s.Log() {
		seen["route53:"+operation] = true
	}
	allowed := policyActions(t, "../deploy/aws/delegation-policy.json")
	for _, a := range allowed {
		if !seen[a] {
			t.Errorf("%s is allowed, and nobody asks for it", a)
		}
		delete(seen, a)
	}
	for a := range seen {
		t.Errorf("%s is asked for, and not allowed", a)
	}
}
