package config

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

const (
	maxValues = 1 << 20 // looked at in one file; aliases make a small file a large one
	maxErrors = 1000    // reported about one file
)

// A decoder walks the YAML nodes of one file, by the rules of its sections. It
// goes on after an error to find them all, with the default in the place of
// what is wrong; its result counts only if there was none.
type decoder struct {
	file   string
	folder string // of the file, where relative paths begin

	errors Errors
	places map[string]place // of every value, by its path
	wrong  map[string]bool  // paths of values that were found wrong
	values int              // looked at so far

	ports []claim // where services listen, in the order of the file; checkListeners sets the service

	stopped bool // too much was found, right or wrong

	onKey func(path string, r rule) // called for each key a section has; nil: nothing
}

type place struct{ line, column int }

// A value is a node of the file and the path of the keys that lead to it.
type value struct {
	*yaml.Node
	path string
}

// A rule says what the value of a key must be and where it goes.
type rule struct {
	decode   func(d *decoder, v value)
	about    func() string // type, range and default, as reference.yaml has to state them; nil: nothing
	required bool
}

// A section is a mapping with these keys and no others.
type section []struct {
	key  string
	rule rule
}

func newDecoder(file string) *decoder {
	return &decoder{file: file, folder: filepath.Dir(file), places: map[string]place{"": {1, 1}}, wrong: make(map[string]bool)}
}

// has reports whether the file has a value at path.
func (d *decoder) has(path string) bool { _, ok := d.places[path]; return ok }

// bad reports whether something was said against the value at path itself.
func (d *decoder) bad(path string) bool { return d.wrong[path] }

// failed returns the errors that were found, nil if none.
func (d *decoder) failed() error {
	if len(d.errors) == 0 {
		return nil
	}
	d.errors.sort()
	return d.errors
}

func (d *decoder) add(e Error) {
	if d.stopped {
		return
	}
	if len(d.errors) == maxErrors-1 {
		d.stopped = true
		e.Path, e.Message = "", "too many errors; this is where the search ended"
	}
	e.File = d.file
	d.wrong[e.Path] = true
	d.errors = append(d.errors, e)
}

// fail reports an error at the value with that path or, where it is missing,
// at the closest value around it.
func (d *decoder) fail(path, format string, args ...any) {
	around := path
	at, ok := d.places[around]
	for !ok {
		around = around[:max(0, strings.LastIndexAny(around, ".["))]
		at, ok = d.places[around]
	}
	d.add(Error{Line: at.line, Column: at.column, Path: path, Message: fmt.Sprintf(format, args...)})
}

// visit decodes the value n at path by r.
func (d *decoder) visit(n *yaml.Node, path string, r rule) {
	if d.values++; d.values > maxValues && !d.stopped {
		d.add(Error{Line: n.Line, Column: n.Column, Message: fmt.Sprintf("more than %d values, aliases counted each time", maxValues)})
		d.stopped = true
	}
	if d.stopped {
		return
	}
	d.places[path] = place{n.Line, n.Column}
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	r.decode(d, value{n, path})
}

// rule makes a section the rule for a key.
func (s section) rule() rule {
	return rule{decode: func(d *decoder, v value) { s.decode(d, v) }}
}

func (s section) decode(d *decoder, v value) {
	if !d.is(v, yaml.MappingNode, "a mapping") {
		return
	}
	if d.onKey != nil {
		for _, k := range s {
			d.onKey(join(v.path, k.key), k.rule)
		}
	}
	seen := make(map[string]int, len(v.Content)/2) // lines
	for i := 0; i+1 < len(v.Content) && !d.stopped; i += 2 {
		name, n := v.Content[i], v.Content[i+1]
		if name.Kind != yaml.ScalarNode {
			d.add(Error{Line: name.Line, Column: name.Column, Path: v.path, Message: "a key must be a word"})
			continue
		}
		path := join(v.path, name.Value)
		if line, doubled := seen[name.Value]; doubled {
			d.add(Error{Line: name.Line, Column: name.Column, Path: path, Message: fmt.Sprintf("stands here twice, first in line %d", line)})
			continue
		}
		seen[name.Value] = name.Line
		r, ok := s.find(name.Value)
		if !ok {
			d.add(Error{Line: name.Line, Column: name.Column, Path: path, Message: s.unknown(name.Value)})
			continue
		}
		d.visit(n, path, r)
	}
	for _, k := range s {
		if _, there := seen[k.key]; k.rule.required && !there {
			d.fail(join(v.path, k.key), "is required")
		}
	}
}

func (s section) find(key string) (rule, bool) {
	for _, k := range s {
		if k.key == key {
			return k.rule, true
		}
	}
	return rule{}, false
}

func (s section) unknown(key string) string {
	if key == "<<" {
		return "merge keys are not supported; write the keys out"
	}
	var known []string
	for _, k := range s {
		if k.rule.decode != nil {
			known = append(known, k.key)
		}
	}
	if near := nearest(key, known); near != "" {
		return fmt.Sprintf("unknown key, did you mean %s?", near)
	}
	return "unknown key, want one of " + strings.Join(known, ", ")
}

// join appends a key to a path. A key that is not a word is put in quotes.
func join(path, key string) string {
	word := key != "" && len(key) <= 64
	for i := 0; i < len(key) && word; i++ {
		word = 'a' <= key[i]|0x20 && key[i]|0x20 <= 'z' || '0' <= key[i] && key[i] <= '9' || key[i] == '_' || key[i] == '-'
	}
	if !word {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// is reports whether v is of that kind and, for a list or mapping, has no
// strange tag; else that is an error.
func (d *decoder) is(v value, kind yaml.Kind, want string) bool {
	tag := v.ShortTag()
	if v.Kind == kind && (kind == yaml.ScalarNode && strings.HasPrefix(tag, "!!") && tag != "!!null" ||
		kind == yaml.SequenceNode && tag == "!!seq" || kind == yaml.MappingNode && tag == "!!map") {
		return true
	}
	d.fail(v.path, "want %s, got %s", want, describe(v.Node))
	return false
}

// describe names what n is, for a person.
func describe(n *yaml.Node) string {
	switch tag := n.ShortTag(); {
	case tag == "!!null":
		return "nothing"
	case n.Kind == yaml.ScalarNode && !strings.HasPrefix(tag, "!!"),
		n.Kind == yaml.MappingNode && tag != "!!map",
		n.Kind == yaml.SequenceNode && tag != "!!seq":
		return "the tag " + quote(tag)
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case tag == "!!str":
		return "the string " + quote(n.Value)
	case tag == "!!int", tag == "!!float":
		return "the number " + quote(n.Value)
	default:
		return quote(n.Value)
	}
}

// list makes a rule for lists of at most limit values, each decoded by the
// rule item gives for it. A wrong one leaves a zero value in its place, so
// that positions in the list stay positions in the file.
func list[T any](to *[]T, limit int, item func(*T) rule) rule {
	decode := func(d *decoder, v value) {
		if !d.is(v, yaml.SequenceNode, "a list") {
			return
		}
		if len(v.Content) > limit {
			d.fail(v.path, "has %d entries, at most %d are allowed", len(v.Content), limit)
			return
		}
		*to = make([]T, len(v.Content))
		for i, n := range v.Content {
			d.visit(n, v.path+"["+strconv.Itoa(i)+"]", item(&(*to)[i]))
		}
	}
	return rule{decode: decode, about: func() string { return fmt.Sprintf("list, at most %d", limit) }}
}

// oneOrMore makes a rule for a list that may be written without brackets if it
// has one value.
func oneOrMore[T any](to *[]T, limit int, item func(*T) rule) rule {
	many := list(to, limit, item)
	return rule{about: many.about, decode: func(d *decoder, v value) {
		if v.Kind != yaml.ScalarNode {
			many.decode(d, v)
			return
		}
		*to = make([]T, 1)
		item(&(*to)[0]).decode(d, v)
	}}
}

// required makes a rule whose key must be there.
func required(r rule) rule {
	r.required = true
	return r
}
