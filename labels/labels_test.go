package labels

import (
	"strings"
	"testing"
)

func TestMatches(t *testing.T) {
	pod := map[string]string{"name": "http", "tier": "front", "example.com/zone": "a", "empty": ""}
	tests := []struct {
		selector string
		want     bool
	}{
		{"", true},
		{"  ", true},
		{"name=http", true},
		{"name==http", true},
		{" name = http , tier = front ", true},
		{"name=ftp", false},
		{"name=http,tier=back", false},
		{"name!=ftp", true},
		{"name!=http", false},
		{"gone!=http", true},
		{"name", true},
		{"gone", false},
		{"!gone", true},
		{"!name", false},
		{"example.com/zone in (a, b)", true},
		{"example.com/zone in (b,c),name", false},
		{"example.com/zone notin (b,c)", true},
		{"example.com/zone notin (a)", false},
		{"gone notin (a)", true},
		{"gone in (a)", false},
		{"empty=", true},
		{"name=", false},
		{"gone=", false},
	}
	for _, test := range tests {
		s, err := Parse(test.selector)
		if err != nil {
			t.Errorf("%q: %v", test.selector, err)
			continue
		}
		if got := s.Matches(pod); got != test.want {
			t.Errorf("%q matches: %t, want %t", test.selector, got, test.want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct{ selector, want string }{
		{"name=http,", "nothing follows the last comma"},
		{",name=http", `"" is no key of a label`},
		{"=http", `"" is no key of a label`},
		{"name=ht tp", `"ht tp" is no value of a label`},
		{"name=a=b", `"a=b" is no value of a label`},
		{"-name", `"-name" is no key of a label`},
		{"a/b/c", `"a/b/c" is no key of a label`},
		{"/name", `"/name" is no key of a label`},
		{"name on (a)", `"name on (a)" is no requirement; write it like zone in (a, b)`},
		{"name in (a", `"name in (a" is no requirement`},
		{"name in ((a))", `is no value of a label`},
		{"näme", `is no key of a label`},
		{strings.Repeat("a", 64), "is no key of a label"},
		{strings.Repeat("a", 5000), "the selector has 5000 bytes, at most 4096 are allowed"},
	}
	for _, test := range tests {
		if _, err := Parse(test.selector); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got error %v, want %q", test.selector, err, test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"name=http,tier!=cache,zone in (a,b),!old", "a notin (b)", "a.b/c==d", "((", ",,", "!="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err == nil {
			s.Matches(map[string]string{"a": "b"})
		}
	})
}
