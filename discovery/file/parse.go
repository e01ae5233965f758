package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"haslohas.com/elbow/pool"
)

const (
	maxTargets  = 100_000
	maxWeight   = 256
	maxPriority = 255

	// maxMarks bounds the characters that can begin a YAML node, about 20 for
	// each of the targets: a node takes half a kilobyte while the file is read.
	maxMarks = 2 << 20
)

// Parse reads targets in the file_sd format of Prometheus, JSON or YAML: a list
// of groups
//
//   - targets: ["172.31.8.233:80", "172.31.8.18:80"]
//     labels: {zone: eu-central-1a}
//
// Targets are an IP address and a port. Of the labels, which hold for all
// targets of the group, these are understood and all others ignored; an
// empty one is as good as none:
//
//   - node: the name of the node
//   - zone: the zone of the cloud
//   - weight: 0 to 256, default 1; 0: no new connections
//   - priority: 0 to 255, default 0; higher ones stand by
//   - public: the addresses where clients reach the target by themselves,
//     separated by commas
//   - phase: serving (default) or terminating
//
// Or it reads what kubectl get -o json pods, nodes or both printed, of v1 and of
// v1beta1, where nodes are minions: see [Printed]. Pods that run become
// endpoints, whether they are ready or not: a list that was printed once says
// nothing about now.
//
// A file that is empty altogether is an error, since it is more likely half
// written than meant; the empty list is []. Errors begin with NAME:LINE.
func Parse(name string, text []byte, printed Printed) ([]pool.Endpoint, error) {
	p := parser{name: name, lines: make(map[netip.AddrPort]int)}
	if err := p.parse(text, printed); err != nil {
		return nil, err
	}
	return p.endpoints, nil
}

type parser struct {
	name      string
	endpoints []pool.Endpoint
	lines     map[netip.AddrPort]int // where each target stands
}

func (p *parser) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", p.name, max(1, line), fmt.Errorf(format, args...))
}

func (p *parser) parse(text []byte, printed Printed) error {
	if len(text) > maxSize {
		return p.errorf(1, "the file is larger than %d MiB", maxSize>>20)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return p.errorf(1, "the file is empty; no targets at all are written []")
	}
	if isPrinted(text) {
		return p.parsePrinted(text, printed)
	}
	if marks(text) > maxMarks {
		return p.errorf(1, "the file has more parts than %d targets can have", maxTargets)
	}
	var document yaml.Node
	if err := yaml.Load(joinSurrogates(text), &document); err != nil {
		return p.syntaxError(err)
	}
	if document.Kind != yaml.DocumentNode || len(document.Content) != 1 {
		return p.errorf(1, "the file is empty; no targets at all are written []")
	}
	list := document.Content[0]
	if list.Kind != yaml.SequenceNode {
		return p.errorf(list.Line, "want a list of target groups, not %s", describe(list))
	}
	for _, group := range list.Content {
		if err := p.group(group); err != nil {
			return err
		}
	}
	return nil
}

func (p *parser) syntaxError(err error) error {
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		message := strings.TrimPrefix(e.Message, "yaml: ")
		if e.ContextMsg != "" {
			message = e.ContextMsg + ": " + message
		}
		return p.errorf(e.Mark.Line, "neither JSON nor YAML: %s", message)
	}
	return p.errorf(1, "%w", err)
}

func (p *parser) group(group *yaml.Node) error {
	fields, err := p.fields(group, "a target group", func(key string) bool { return key == "targets" || key == "labels" })
	if err != nil {
		return err
	}
	for i := 0; i < len(group.Content); i += 2 {
		if key := group.Content[i]; fields[key.Value] == nil {
			return p.errorf(key.Line, "unknown key %q, a target group has targets and labels", key.Value)
		}
	}
	var common pool.Endpoint
	if labels := fields["labels"]; labels != nil && !isNull(labels) {
		if common, err = p.labels(labels); err != nil {
			return err
		}
	} else {
		common.Weight = 1
	}
	targets := fields["targets"]
	if targets == nil {
		return p.errorf(group.Line, "the target group has no targets")
	}
	if targets.Kind != yaml.SequenceNode {
		return p.errorf(targets.Line, "want a list of targets, not %s", describe(targets))
	}
	for _, target := range targets.Content {
		e := common
		if e.Address, err = p.target(target); err != nil {
			return err
		}
		p.endpoints = append(p.endpoints, e)
	}
	return nil
}

func (p *parser) target(n *yaml.Node) (netip.AddrPort, error) {
	if n.Kind != yaml.ScalarNode {
		return netip.AddrPort{}, p.errorf(n.Line, "want a target such as 172.31.8.233:80, not %s", describe(n))
	}
	address, err := netip.ParseAddrPort(n.Value)
	if err != nil || address.Port() == 0 || address.Addr().IsUnspecified() {
		return netip.AddrPort{}, p.errorf(n.Line, "target %q: want an IP address and a port, such as 172.31.8.233:80", n.Value)
	}
	address = netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
	if line, ok := p.lines[address]; ok {
		return netip.AddrPort{}, p.errorf(n.Line, "target %q stands already in line %d", n.Value, line)
	}
	if len(p.lines) == maxTargets {
		return netip.AddrPort{}, p.errorf(n.Line, "target %q is one more than the limit of %d", n.Value, maxTargets)
	}
	p.lines[address] = n.Line
	return address, nil
}

func (p *parser) labels(n *yaml.Node) (pool.Endpoint, error) {
	e := pool.Endpoint{Weight: 1}
	understood := map[string]func(string) error{
		"node":     func(v string) error { e.Node = v; return nil },
		"zone":     func(v string) error { e.Zone = v; return nil },
		"weight":   func(v string) (err error) { e.Weight, err = parseNumber(v, maxWeight); return },
		"priority": func(v string) (err error) { e.Priority, err = parseNumber(v, maxPriority); return },
		"public":   func(v string) (err error) { e.Public, err = parsePublic(v); return },
		"phase":    func(v string) (err error) { e.Phase, err = pool.ParsePhase(v); return },
	}
	fields, err := p.fields(n, "labels", func(key string) bool { return understood[key] != nil })
	if err != nil {
		return e, err
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		value := fields[key]
		if value.Kind != yaml.ScalarNode {
			return e, p.errorf(value.Line, "label %s: want a text, not %s", key, describe(value))
		}
		if value.Value == "" || isNull(value) {
			continue
		}
		if err := understood[key](value.Value); err != nil {
			return e, p.errorf(value.Line, "label %s: %w", key, err)
		}
	}
	return e, nil
}

// fields returns the values of the mapping n whose keys are wanted.
func (p *parser) fields(n *yaml.Node, what string, wanted func(string) bool) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, p.errorf(n.Line, "want %s, not %s", what, describe(n))
	}
	fields := make(map[string]*yaml.Node)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			return nil, p.errorf(key.Line, "want a text as key, not %s", describe(key))
		}
		if !wanted(key.Value) {
			continue
		}
		if fields[key.Value] != nil {
			return nil, p.errorf(key.Line, "%s stands here twice", key.Value)
		}
		fields[key.Value] = n.Content[i+1]
	}
	return fields, nil
}

func parseNumber(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", s, most)
	}
	return n, nil
}

func parsePublic(s string) ([]netip.Addr, error) {
	var public []netip.Addr
	for field := range strings.SplitSeq(s, ",") {
		field = strings.TrimSpace(field)
		a, err := netip.ParseAddr(field)
		if err != nil || a.IsUnspecified() || a.Zone() != "" {
			return nil, fmt.Errorf("%q is not an IP address", field)
		}
		public = append(public, a.Unmap())
	}
	return public, nil
}

// marks counts the characters without one of which no YAML node begins.
func marks(text []byte) (n int) {
	for _, c := range text {
		switch c {
		case '\n', '\r', ',', ':', '[', '{', '-', '?':
			n++
		}
	}
	return n
}

// joinSurrogates writes the two escapes that JSON has for one character outside
// the Basic Multilingual Plane (RFC 8259, section 7) as the one that YAML has.
// Text that is not JSON is returned as it is.
func joinSurrogates(text []byte) []byte {
	if !bytes.Contains(text, []byte(`\u`)) || !json.Valid(text) {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			out = append(out, text[i])
			continue
		}
		if r := surrogatePair(text[i:]); r != utf8.RuneError {
			out = fmt.Appendf(out, `\U%08x`, r)
			i += len(`\ud83d\ude00`) - 1
			continue
		}
		out = append(out, text[i], text[i+1]) // an escaped backslash begins nothing
		i++
	}
	return out
}

// surrogatePair returns the character whose two escapes text begins with,
// utf8.RuneError if there is none.
func surrogatePair(text []byte) rune {
	if len(text) < 12 || text[1] != 'u' || text[6] != '\\' || text[7] != 'u' {
		return utf8.RuneError
	}
	high, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	low, err2 := strconv.ParseUint(string(text[8:12]), 16, 16)
	if err != nil || err2 != nil {
		return utf8.RuneError
	}
	return utf16.DecodeRune(rune(high), rune(low))
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a mapping"
	case yaml.AliasNode:
		return "an alias; write out what it stands for"
	}
	if isNull(n) {
		return "nothing"
	}
	return fmt.Sprintf("%q", n.Value)
}
