package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what is said about the malformed files")

const malformed = "testdata/malformed.txtar"

// Each malformed file is refused, with all that is wrong and where.
func TestMalformed(t *testing.T) {
	archive, err := txtar.ParseFile(malformed)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(archive.Files); n < 100 {
		t.Errorf("only %d files", n)
	}
	seen := make(map[string]bool)
	for i, f := range archive.Files {
		text, want := split(f.Data)
		if seen[f.Name] {
			t.Errorf("%s: there are two files of that name", f.Name)
		}
		seen[f.Name] = true
		t.Run(f.Name, func(t *testing.T) {
			_, err := Parse("testdata/x.yaml", text)
			if err == nil {
				t.Fatal("nothing is said against it")
			}
			var got string
			for _, e := range findings(t, err) {
				got += "=> " + strings.TrimPrefix(e.Error(), "testdata/x.yaml:") + "\n"
			}
			archive.Files[i].Data = append(text, got...)
			if diff := cmp.Diff(want, got); diff != "" && !*update {
				t.Errorf("what is said (-want +got):\n%s", diff)
			}
		})
	}
	if *update {
		if err := os.WriteFile(malformed, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// split takes what is said about a file from its end.
func split(data []byte) (text []byte, said string) {
	if bytes.HasPrefix(data, []byte("=> ")) {
		return nil, string(data)
	}
	if i := bytes.Index(data, []byte("\n=> ")); i >= 0 {
		return data[: i+1 : i+1], string(data[i+1:])
	}
	return data[:len(data):len(data)], ""
}

// findings returns err as Errors and checks what all of them have in common.
func findings(t *testing.T, err error) Errors {
	t.Helper()
	all, ok := errors.AsType[Errors](err)
	if !ok || len(all) == 0 {
		t.Fatalf("%T (%v), want Errors", err, err)
	}
	for i, e := range all {
		if e.Line < 1 || e.Column < 1 || e.Message == "" || e.File == "" {
			t.Errorf("incomplete: %+v", e)
		}
		if i > 0 && (e.Line < all[i-1].Line || e.Line == all[i-1].Line && e.Column < all[i-1].Column) {
			t.Errorf("%v comes after %v", &e, &all[i-1])
		}
		if s := e.Error(); strings.ContainsAny(s, "\n\r") || len(s) > 4096 {
			t.Errorf("not one short line: %q", s)
		}
	}
	return all
}

// What a text archive cannot hold.
func TestMalformedBytes(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"not UTF-8", "a: b\nc: é\xff", "2:5: the byte 0xff is not UTF-8"},
		{"control character", "a: \x01", "1:4: the control character U+0001 must not stand in a YAML file"},
		{"UTF-16", "\xff\xfea\x00", "1:1: the byte 0xff is not UTF-8"},
		{"too large", strings.Repeat("#", maxText+1), "1:1: the file is larger than 4 MiB"},
		{"too many services", "services: [" + strings.Repeat("1,", maxServices+1) + "]", "1:11: services: has 10001 entries, at most 10000 are allowed"},
		{"too many errors", "services: [" + strings.Repeat("1,", maxServices) + "]", "1:2010: too many errors; this is where the search ended"},
		{"carriage returns", "stateDir: a\r\nservices: 5\r\n", `2:11: services: want a list, got the number "5"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse("x", []byte(test.text))
			all := findings(t, err)
			if got := strings.TrimPrefix(all[len(all)-1].Error(), "x:"); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if len(all) > maxErrors {
				t.Errorf("%d errors", len(all))
			}
		})
	}
}

// A small file that aliases make a huge one is refused soon.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("services:\n- &s\n  name: a\n  listen: ['127.0.0.1:0']\n  backends: {file: x}\n  allow:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "  - 10.0.%d.%d/32\n", i/256, i%256)
	}
	for range maxServices - 1 {
		b.WriteString("- *s\n")
	}
	_, err := Parse("x", []byte(b.String()))
	for _, e := range findings(t, err) {
		if strings.Contains(e.Message, "aliases counted each time") {
			return
		}
	}
	t.Errorf("the bound on values is not named")
}
