package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"haslohas.com/elbow/pool"
)

func secretFile(t *testing.T, dir, name string, mode os.FileMode, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	return path
}

func TestTransfer(t *testing.T) {
	dir := t.TempDir()
	secretFile(t, dir, "one", 0o640, "MDEyMzQ1Njc4OWFiY2RlZg==\n")
	secretFile(t, dir, "two", 0o400, " ZmVkY2JhOTg3NjU0MzIxMDEyMzQ=")
	file := filepath.Join(dir, "elbow.yaml")
	c, err := Parse(file, []byte(`
dns:
  keys:
    - {name: Two.test., algorithm: hmac-sha512, secretFile: two}
    - {name: one, secretFile: one}
  zones:
    - name: a.test
      nameservers: [{name: ns.c.test}]
      transfer:
        allow: [10.0.0.0/8, "2001:db8::/32", {key: ONE}, {network: 192.0.2.1/32, key: two.test}]
        notify: ["10.0.0.5:53", {address: "[2001:db8::5]:5353", key: two.test}]
    - {name: b.test, nameservers: [{name: ns.c.test}]}
`))
	if err != nil {
		t.Fatal(err)
	}
	wantKeys := []pool.Key{
		{Name: "one", Algorithm: pool.HMACSHA256, Secret: "0123456789abcdef"},
		{Name: "two.test", Algorithm: pool.HMACSHA512, Secret: "fedcba98765432101234"},
	}
	if !slices.Equal(c.DNS.Keys, wantKeys) {
		t.Errorf("the keys are %v and are not as they should be", c.DNS.Keys)
	}
	want := []pool.Transfer{{
		Allow: []pool.TransferClient{
			{Network: netip.MustParsePrefix("10.0.0.0/8")},
			{Network: netip.MustParsePrefix("2001:db8::/32")},
			{Key: "one"},
			{Network: netip.MustParsePrefix("192.0.2.1/32"), Key: "two.test"},
		},
		Notify: []pool.Secondary{
			{Address: netip.MustParseAddrPort("10.0.0.5:53")},
			{Address: netip.MustParseAddrPort("[2001:db8::5]:5353"), Key: "two.test"},
		},
	}, {}}
	got := []pool.Transfer{c.DNS.Zones[0].Transfer, c.DNS.Zones[1].Transfer}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{})); diff != "" {
		t.Errorf("transfer (-want +got):\n%s", diff)
	}
	files := []string{file, filepath.Join(dir, "two"), filepath.Join(dir, "one")}
	if !slices.Equal(c.Files(), files) {
		t.Errorf("made from %v, want %v", c.Files(), files)
	}
}

func TestSecretFiles(t *testing.T) {
	for name, c := range map[string]struct {
		mode os.FileMode
		text string
		want string
	}{
		"everybody may read it":  {0o604, "MDEyMzQ1Njc4OWFiY2RlZg==", "chmod o="},
		"everybody may write it": {0o602, "MDEyMzQ1Njc4OWFiY2RlZg==", "chmod o="},
		"it is not base64":       {0o600, "0123456789abcde", "openssl rand"},
		"it is a whole key file": {0o600, `key "a" { algorithm hmac-sha256; secret "MDEyMzQ1Njc4OWFiY2RlZg=="; };`, "openssl rand"},
		"it is short":            {0o600, "MDEyMzQ1Njc4OQ==", "10 bytes"},
		"it is empty":            {0o600, "", "0 bytes"},
		"it is long":             {0o600, strings.Repeat("MDEy", 1100), "4096 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := secretFile(t, dir, "secret", c.mode, c.text)
			_, err := Parse(filepath.Join(dir, "elbow.yaml"), []byte(`
dns:
  keys: [{name: one, secretFile: secret}]
  zones: [{name: a.test, nameservers: [{name: ns.b.test}], transfer: {allow: [{key: one}]}}]
`))
			if err == nil {
				t.Fatal("nothing is said against it")
			}
			if s := err.Error(); !strings.Contains(s, c.want) || !strings.Contains(s, path) || !strings.Contains(s, ":3:34: dns.keys[0].secretFile: ") {
				t.Errorf("said is %s, want %q in it and the file", s, c.want)
			}
			if c.text != "" && strings.Contains(err.Error(), c.text[:4]) {
				t.Errorf("the secret stands in %q", err)
			}
		})
	}
}
