package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// An Error is one finding about a configuration file.
type Error struct {
	File         string
	Line, Column int    // from 1; the column counts characters
	Path         string // of the key, as in services[0].listen[1]; empty: the file as a whole
	Message      string // what is wrong and, where it helps, what would be right
}

// Error returns FILE:LINE:COLUMN: path.to.key: what is wrong, in one line.
func (e *Error) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", e.File, e.Line, e.Column, e.Path, e.Message)
}

// Errors are all findings about a file, in the order of their positions.
// There is at least one.
type Errors []Error

// Error returns the findings, each on a line of its own.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives [errors.As] access to each *Error.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i := range e {
		all[i] = &e[i]
	}
	return all
}

func (e Errors) sort() {
	slices.SortStableFunc(e, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// quote shows what a file says in a message: in quotes, on one line and never
// long, however long it is.
func quote(s string) string {
	const limit = 64
	if len(s) <= limit {
		return fmt.Sprintf("%q", s)
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%q…", s[:cut])
}
