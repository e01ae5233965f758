package dnssec

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var day = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func generate(t *testing.T, a Algorithm, standby bool) *Key {
	t.Helper()
	k, err := Generate("example.com", a, standby, day)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestFilesKeepAKey(t *testing.T) {
	for _, a := range []Algorithm{ECDSAP256, Ed25519} {
		t.Run(a.String(), func(t *testing.T) {
			dir := t.TempDir()
			k := generate(t, a, true)
			k.Times.Activate, k.Times.Delete = day.Add(time.Hour), day.Add(48*time.Hour)
			if err := k.Save(dir); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(filepath.Join(dir, k.Name()+privateExt))
			if err != nil || info.Mode() != 0o600 {
				t.Fatalf("mode %v, %v", info.Mode(), err)
			}
			keys, err := Load(dir, "Example.COM.")
			if err != nil || len(keys) != 1 {
				t.Fatalf("%d keys, %v", len(keys), err)
			}
			got := keys[0]
			if got.Times != k.Times || got.Tag != k.Tag || got.Record.PublicKey != k.Record.PublicKey || got.DS().String() != k.DS().String() {
				t.Errorf("read %v, written %v", got, k)
			}
			// A second round changes nothing.
			if got.publicText() != k.publicText() || got.privateText() != k.privateText() {
				t.Error("the files differ when they are written again")
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".elbow*")); len(left) > 0 {
				t.Errorf("%v was left behind", left)
			}
		})
	}
}

// TestToolsOfBIND: what is written here they read, and the other way round.
func TestToolsOfBIND(t *testing.T) {
	for _, tool := range []string{"dnssec-settime", "dnssec-keygen", "dnssec-dsfromkey"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (Debian: bind9-utils)", tool)
		}
	}
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	k := generate(t, ECDSAP256, false)
	if err := k.Save(dir); err != nil {
		t.Fatal(err)
	}
	run("dnssec-settime", "-K", dir, "-I", "20261201000000", "-D", "20261202000000", k.Name())
	ds := strings.Fields(run("dnssec-dsfromkey", "-2", filepath.Join(dir, k.Name())))
	if want := strings.Fields(strings.ToUpper(k.DS().String())); ds[len(ds)-1] != want[len(want)-1] {
		t.Errorf("their DS is %v, ours %v", ds, want)
	}
	run("dnssec-keygen", "-K", dir, "-a", "ED25519", "-f", "KSK", "-n", "ZONE", "example.com")
	keys, err := Load(dir, "example.com")
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	first, second := keys[0], keys[1]
	if want := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC); !first.Times.Inactive.Equal(want) || !first.Times.Delete.Equal(want.AddDate(0, 0, 1)) {
		t.Errorf("times %+v", first.Times)
	}
	if second.Record.Algorithm != uint8(Ed25519) || !second.Times.Signs(time.Now()) {
		t.Errorf("their key: %v %+v", second.Record, second.Times)
	}
}

func TestStages(t *testing.T) {
	hour := func(n int) time.Time { return day.Add(time.Duration(n) * time.Hour) }
	full := Times{Created: hour(0), Publish: hour(1), Activate: hour(2), Inactive: hour(3), Delete: hour(4)}
	for i, want := range []string{"waiting", "standby", "active", "retired", "removed"} {
		if got := full.Stage(hour(i)); got != want {
			t.Errorf("hour %d: %s, want %s", i, got, want)
		}
		if got := full.Next(hour(i)); i < 4 && got != hour(i+1) || i == 4 && !got.IsZero() {
			t.Errorf("hour %d: the next change is at %v", i, got)
		}
	}
	for _, c := range []struct {
		times Times
		want  string
	}{
		{Times{}, "active"},                  // by a tool that knows no times
		{Times{Created: hour(0)}, "active"},  // as above
		{Times{Publish: hour(0)}, "standby"}, // never activated
		{Times{Activate: hour(0)}, "active"}, // without a time of publication
		{Times{Activate: hour(50)}, "waiting"},
		{Times{Publish: hour(0), Inactive: hour(0)}, "retired"},
	} {
		if got := c.times.Stage(hour(1)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.times, got, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	k, other := generate(t, ECDSAP256, false), generate(t, ECDSAP256, false)
	public, private := k.publicText(), k.privateText()
	for name, c := range map[string]struct{ public, private, want string }{
		"another zone":        {strings.ReplaceAll(public, "example.com", "example.net"), private, "a key of example.net."},
		"another key":         {public, other.privateText(), "does not belong"},
		"a zone-signing key":  {strings.Replace(public, "DNSKEY 257", "DNSKEY 256", 1), private, "flags 256"},
		"RSA":                 {strings.Replace(public, "257 3 13", "257 3 8", 1), private, "algorithm 8"},
		"no key":              {"example.com. IN A 192.0.2.1\n", private, "no DNSKEY"},
		"nothing":             {"", private, "no DNSKEY"},
		"half a key":          {"example.com. IN DNSKEY 257 3\n", private, ".key file"},
		"no private key":      {public, "", "no PrivateKey"},
		"a long private key":  {public, strings.Replace(private, "PrivateKey: ", "PrivateKey: AAAA", 1), "32 octets"},
		"zero":                {public, "Private-key-format: v1.3\nAlgorithm: 13 (X)\nPrivateKey: " + strings.Repeat("A", 43) + "=\n", "does not belong"},
		"another format":      {public, strings.Replace(private, "v1.3", "v9", 1), "format of BIND"},
		"a time that is none": {public, private + "Delete: tomorrow\n", "Delete is no time"},
		"revoked":             {public, private + "Revoke: 20261123000000\n", "revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("example.com", c.public, c.private)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if secret, _ := privateLine(private); err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("the error shows the private key: %v", err)
			}
		})
	}
}

func privateLine(text string) (string, bool) {
	_, after, ok := strings.Cut(text, "PrivateKey: ")
	line, _, _ := strings.Cut(after, "\n")
	return line, ok
}

func TestReadFolderRefuses(t *testing.T) {
	k := generate(t, Ed25519, false)
	for name, c := range map[string]struct {
		spoil func(private string) error
		want  string
	}{
		"the group may read it":   {func(p string) error { return os.Chmod(p, 0o640) }, "chmod 600"},
		"everybody may write it":  {func(p string) error { return os.Chmod(p, 0o602) }, "chmod 600"},
		"the public half is away": {func(p string) error { return os.Remove(PublicPath(p)) }, "no such file"},
		"it is as long as no key": {func(p string) error { return os.WriteFile(p, make([]byte, maxFile+1), 0o600) }, "no key has"},
		"it is a folder":          {func(p string) error { _ = os.Remove(p); return os.Mkdir(p, 0o700) }, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := k.Save(dir); err != nil {
				t.Fatal(err)
			}
			if err := c.spoil(filepath.Join(dir, k.Name()+privateExt)); err != nil {
				t.Fatal(err)
			}
			if _, err := ReadFolder(dir, "example.com"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	k, err := Generate("example.com", ECDSAP256, false, day)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.publicText(), k.privateText())
	f.Fuzz(func(t *testing.T, public, private string) {
		k, err := Parse("example.com", public, private)
		if err == nil && k.try() != nil {
			t.Error("a key that does not sign was read")
		}
	})
}
