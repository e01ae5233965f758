package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"haslohas.com/elbow/pool"
)

func TestCookies(t *testing.T) {
	const (
		first  = "e5e973e5a6b2a43f48e7dc849e37bfcf"
		second = "445536bcd2513298075a5d379663c962"
	)
	file := filepath.Join(t.TempDir(), "cookies")
	load := func(text string, mode os.FileMode) (*Config, error) {
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return Parse("elbow.yaml", []byte("dns: {zones: [{name: a.test, nameservers: [{name: ns.b.test}]}], nsid: one, cookies: {secretFile: "+file+"}}"))
	}
	c, err := load("# the new one\n"+first+"\n\n  "+strings.ToUpper(second)+"  \n", 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.DNS.Cookies) != 2 || c.DNS.Cookies[0][0] != 0xe5 || c.DNS.Cookies[1][15] != 0x62 || c.DNS.NSID != "one" {
		t.Errorf("got %d secrets, NSID %q", len(c.DNS.Cookies), c.DNS.NSID)
	}
	if !slices.Contains(c.Files(), file) {
		t.Errorf("a change of the secrets asks for no reload: %v", c.Files())
	}
	for _, bad := range []struct {
		text string
		mode os.FileMode
		want string
	}{
		{"", 0o600, "there is none"},
		{first[1:], 0o600, "line 1 is no secret"},
		{first + "\n" + first[:30] + "zz", 0o600, "line 2 is no secret"},
		{first + "\n" + first, 0o600, "line 2 has a secret that stands above"},
		{first + "\n" + second + "\n" + strings.Repeat("1", 32) + "\n" + strings.Repeat("2", 32), 0o600, "line 4 is one too many"},
		{strings.Repeat("#", 2<<20), 0o600, "larger than"},
		{first, 0o604, "chmod o="},
	} {
		_, err := load(bad.text, bad.mode)
		if err == nil || !strings.Contains(err.Error(), bad.want) || !strings.Contains(err.Error(), "dns.cookies.secretFile") {
			t.Errorf("%q: got %v, want %q", bad.text, err, bad.want)
		} else if strings.Contains(err.Error(), first[:8]) {
			t.Errorf("%v shows a secret", err)
		}
	}
	if got := pool.CookieSecret([]byte("0123456789abcdef")).String(); strings.Contains(got, "0") {
		t.Errorf("a secret prints as %s", got)
	}
}
