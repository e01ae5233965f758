package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
	"go.yaml.in/yaml/v4/plugin/loaderlimits"
)

const (
	maxText  = 4 << 20 // bytes of a configuration file
	maxDepth = 64      // of mappings and lists within each other
)

// document returns the root of the one YAML document in text.
func document(text []byte) (*yaml.Node, *Error) {
	if len(text) > maxText {
		return nil, &Error{Line: 1, Column: 1, Message: fmt.Sprintf("the file is larger than %d MiB", maxText>>20)}
	}
	if err := readable(text); err != nil {
		return nil, err
	}
	loader, err := yaml.NewLoader(bytes.NewReader(text), yaml.WithPlugin(loaderlimits.New(loaderlimits.DepthValue(maxDepth))))
	if err != nil {
		return nil, syntaxError(err)
	}
	first, err := next(loader)
	if errors.Is(err, io.EOF) {
		return nil, &Error{Line: 1, Column: 1, Message: "the file is empty"}
	}
	if err != nil {
		return nil, syntaxError(err)
	}
	switch second, err := next(loader); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, syntaxError(err)
	default:
		return nil, &Error{Line: second.Line, Column: second.Column, Message: "a second document begins here; one file holds one"}
	}
	return first.Content[0], nil
}

// next reads one document. The parser panics on what it believes cannot
// happen; a hostile file shall not prove it wrong at our cost.
func next(loader *yaml.Loader) (n *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the parser gave up: %v", r)
		}
	}()
	n = new(yaml.Node)
	if err := loader.Load(n); err != nil {
		return nil, err
	}
	if len(n.Content) != 1 {
		return nil, io.EOF
	}
	return n, nil
}

// readable finds the first byte that no YAML file may have (YAML 1.2.2,
// section 5.1), whose place the parser would not tell.
func readable(text []byte) *Error {
	line, column := 1, 1
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			return &Error{Line: line, Column: column, Message: fmt.Sprintf("the byte 0x%02x is not UTF-8", text[0])}
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r >= 0x7f && r < 0xa0 && r != 0x85, r == 0xfffe, r == 0xffff:
			return &Error{Line: line, Column: column, Message: fmt.Sprintf("the control character %U must not stand in a YAML file", r)}
		case r == '\n':
			line, column = line+1, 0
		}
		column++
		text = text[size:]
	}
	return nil
}

func syntaxError(err error) *Error {
	e := &Error{Line: 1, Column: 1, Message: "YAML: " + err.Error()}
	if l, ok := errors.AsType[*yaml.LoadError](err); ok {
		e.Line, e.Column = max(1, l.Mark.Line), max(1, l.Mark.Column)
		e.Message = "YAML: " + l.Message
		if l.ContextMsg != "" {
			e.Message += ", " + l.ContextMsg
		}
		if l.ContextMark.Line > 0 && l.ContextMark.Line != l.Mark.Line {
			e.Message += fmt.Sprintf(" that begins in line %d", l.ContextMark.Line)
		}
	}
	return e
}
