package awstest

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
)

// PolicyActions returns the actions that the policy at path allows, sorted. A
// policy that allows by patterns, or does anything else, is an error.
func PolicyActions(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var policy struct {
		Version   string
		Statement []struct {
			Sid, Effect string
			Action      any
			Resource    any
		}
	}
	if err := json.Unmarshal(text, &policy); err != nil {
		return nil, err
	}
	if policy.Version != "2012-10-17" {
		return nil, fmt.Errorf("version %q", policy.Version)
	}
	var out []string
	for _, s := range policy.Statement {
		if s.Effect != "Allow" || s.Resource == nil {
			return nil, fmt.Errorf("statement %s: effect %q on %v", s.Sid, s.Effect, s.Resource)
		}
		actions, ok := s.Action.([]any)
		if !ok {
			actions = []any{s.Action}
		}
		for _, a := range actions {
			name, ok := a.(string)
			if !ok || slices.Contains([]byte(name), '*') {
				return nil, fmt.Errorf("statement %s: action %v", s.Sid, a)
			}
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}
