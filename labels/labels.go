// Package labels reads the label selectors of Kubernetes, without Kubernetes:
// name=http,tier!=cache,zone in (a,b),!old.
package labels

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Selector says which labels something must have. The zero value asks for
// none. Values are immutable.
type Selector struct{ requirements []requirement }

// A requirement is about one label.
type requirement struct {
	key    string
	values []string // nil: any
	not    bool
}

// maxText bounds a selector, in bytes.
const maxText = 4096

// Parse reads a selector as kubectl get --selector takes it: requirements
// KEY=VALUE, KEY==VALUE, KEY!=VALUE, KEY in (VALUE, …), KEY notin (VALUE, …),
// KEY and !KEY, of which all must be met. As there, != and notin are met by
// what has no such label. The empty text asks for nothing.
func Parse(text string) (Selector, error) {
	var s Selector
	if len(text) > maxText {
		return s, fmt.Errorf("the selector has %d bytes, at most %d are allowed", len(text), maxText)
	}
	for rest := strings.TrimSpace(text); rest != ""; {
		var one string
		var err error
		if one, rest, err = cutRequirement(rest); err != nil {
			return Selector{}, err
		}
		r, err := parseRequirement(one)
		if err != nil {
			return Selector{}, err
		}
		s.requirements = append(s.requirements, r)
	}
	return s, nil
}

// cutRequirement cuts text at the first comma that is not in parentheses.
func cutRequirement(text string) (one, rest string, err error) {
	depth := 0
	for i, r := range text {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth != 0 {
				continue
			}
			if rest = strings.TrimSpace(text[i+1:]); rest == "" {
				return "", "", errors.New("nothing follows the last comma")
			}
			return strings.TrimSpace(text[:i]), rest, nil
		}
	}
	return strings.TrimSpace(text), "", nil
}

func parseRequirement(text string) (requirement, error) {
	if key, value, ok := strings.Cut(text, "!="); ok {
		return newRequirement(key, []string{value}, true)
	}
	if key, value, ok := strings.Cut(text, "="); ok {
		return newRequirement(key, []string{strings.TrimPrefix(value, "=")}, false)
	}
	if before, list, ok := strings.Cut(text, "("); ok {
		list, closed := strings.CutSuffix(strings.TrimSpace(list), ")")
		words := strings.Fields(before)
		if !closed || len(words) != 2 || words[1] != "in" && words[1] != "notin" {
			return requirement{}, fmt.Errorf("%q is no requirement; write it like zone in (a, b) or zone notin (a, b)", text)
		}
		return newRequirement(words[0], strings.Split(list, ","), words[1] == "notin")
	}
	key, not := strings.CutPrefix(text, "!")
	return newRequirement(key, nil, not)
}

func newRequirement(key string, values []string, not bool) (requirement, error) {
	key = strings.TrimSpace(key)
	if err := checkKey(key); err != nil {
		return requirement{}, err
	}
	for i, v := range values {
		values[i] = strings.TrimSpace(v)
		if values[i] != "" && !isName(values[i]) {
			return requirement{}, fmt.Errorf("%q is no value of a label: at most 63 letters, digits and - _ ., the first and last a letter or digit", values[i])
		}
	}
	return requirement{key, values, not}, nil
}

// checkKey checks the key of a label: a name, ahead of which there may be a
// domain and a slash.
func checkKey(key string) error {
	domain, name, found := strings.Cut(key, "/")
	if !found {
		domain, name = "", key
	}
	if !isName(name) || found && !isDomain(domain) {
		return fmt.Errorf("%q is no key of a label: want a word like name or example.com/name", key)
	}
	return nil
}

func isName(s string) bool {
	return s != "" && len(s) <= 63 && isAlphanumeric(s[0]) && isAlphanumeric(s[len(s)-1]) &&
		!strings.ContainsFunc(s, func(r rune) bool {
			return r >= 0x80 || !isAlphanumeric(byte(r)) && r != '-' && r != '_' && r != '.'
		})
}

func isDomain(s string) bool {
	return len(s) <= 253 && !strings.Contains(s, "_") && strings.ToLower(s) == s &&
		!slices.ContainsFunc(strings.Split(s, "."), func(label string) bool { return !isName(label) })
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// Matches reports whether something with these labels is selected.
func (s Selector) Matches(labels map[string]string) bool {
	for _, r := range s.requirements {
		value, has := labels[r.key]
		if met := has && (r.values == nil || slices.Contains(r.values, value)); met == r.not {
			return false
		}
	}
	return true
}
