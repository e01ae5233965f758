package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"haslohas.com/elbow/dnssec"
)

// dnssecCommand runs elbow dnssec and returns what it says and its exit status.
func dnssecCommand(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	status := execute(t.Context(), append([]string{"dnssec"}, args...), nil, &out, &out)
	return out.String(), status
}

func TestKeysFromTheFirstToTheNext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	at := []string{"--zone", "example.com", "--dir", dir}
	run := func(want int, say string, args ...string) string {
		t.Helper()
		out, status := dnssecCommand(t, args...)
		if status != want || !strings.Contains(out, say) {
			t.Fatalf("elbow dnssec %v: status %d, %q; want %d, %q", args, status, out, want, say)
		}
		return out
	}
	with := func(command string, more ...string) []string {
		return append(append([]string{command}, at...), more...)
	}
	tags := func() map[string]string {
		t.Helper()
		keys, err := dnssec.Load(dir, "example.com")
		if err != nil {
			t.Fatal(err)
		}
		stages := make(map[string]string)
		for _, k := range keys {
			stages[k.Times.Stage(time.Now())] = fmt.Sprint(k.Tag)
		}
		return stages
	}

	run(1, "no active key of ecdsap256", with("keygen", "--standby")...)
	run(1, `unknown algorithm "rsa"`, with("keygen", "--algorithm", "rsa")...)
	run(0, "active", with("keygen")...)
	old := tags()["active"]
	run(1, "--standby", with("keygen")...)
	run(0, "standby", with("keygen", "--standby")...)
	standby := tags()["standby"]

	out := run(0, "standby", "ds", "--dir", dir, "Example.com.")
	for _, line := range []string{"IN\tDS\t" + old + " 13 2 ", "IN\tDS\t" + standby + " 13 2 ", "IN\tCDS\t" + standby, "IN\tCDNSKEY\t257 3 13 "} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in\n%s", line, out)
		}
	}

	// next says which command elbow dnssec ds names, empty if it names none.
	next := func() string {
		t.Helper()
		_, command, _ := strings.Cut(run(0, "active", "ds", "--dir", dir, "example.com"), "elbow dnssec ")
		command, _, _ = strings.Cut(command, "\n")
		return command
	}
	rest := " --zone example.com --dir " + dir + " "
	if got := next(); got != "activate"+rest+standby {
		t.Errorf("next: %q", got)
	}

	run(1, "nothing would sign", with("remove", old)...)
	run(1, "caches may not know key "+standby, with("activate", standby)...)
	run(1, "only a standby", with("activate", old)...)
	run(1, "no key of example.com", with("activate", fmt.Sprint(0))...)
	run(1, "is no tag", with("activate", "new")...)
	run(0, "key "+old+" is retired", with("activate", "--force", standby)...)
	if now := tags(); now["active"] != standby || now["retired"] != old {
		t.Errorf("after the change: %v", now)
	}
	if got := next(); got != "remove"+rest+old {
		t.Errorf("next: %q", got)
	}
	run(0, "can leave the parent", with("remove", old)...)
	if got := next(); got != "" {
		t.Errorf("next: %q", got)
	}
	if now := tags(); now["active"] != standby || now["removed"] != old {
		t.Errorf("at the end: %v", now)
	}
	if out := run(0, "removed", "ds", "--dir", dir, "example.com"); strings.Contains(out, "DS\t"+old) {
		t.Errorf("the DS of a key that was removed is shown:\n%s", out)
	}
	run(0, "ed25519", with("keygen", "--algorithm", "ed25519")...)
	if got := next(); !strings.HasPrefix(got, "remove"+rest+"OLD") {
		t.Errorf("next: %q", got)
	}
}

func TestCheckReadsKeys(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "elbow.yaml")
	text := "dns: {listen: ['127.0.0.1:0'], zones: [{name: example.com, nameservers: [{name: ns.example.net}], dnssec: {keys: keys}}]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, status := dnssecCommand(t, "keygen", "--zone", "example.com", "--dir", filepath.Join(dir, "keys")); status != 0 {
		t.Fatal(out)
	}
	check := func() (string, int) {
		var out bytes.Buffer
		status := execute(t.Context(), []string{"check", "--config", file}, nil, &out, &out)
		return out.String(), status
	}
	if out, status := check(); status != 0 {
		t.Fatal(out)
	}
	if out, status := dnssecCommand(t, "ds", "--config", file, "example.com"); status != 0 || !strings.Contains(out, "active") {
		t.Fatal(out)
	}
	if out, status := dnssecCommand(t, "ds", "--config", file, "example.net"); status != 1 || !strings.Contains(out, "signs no zone example.net") {
		t.Fatal(out)
	}
	// A key that does not fit its other half, and one that is over.
	keys, err := dnssec.Load(filepath.Join(dir, "keys"), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(dir, "keys", keys[0].Name()+".private")
	keys[0].Times.Inactive = time.Now().Add(-time.Hour)
	if err := keys[0].Save(filepath.Join(dir, "keys")); err != nil {
		t.Fatal(err)
	}
	if out, status := check(); status != 1 || !strings.Contains(out, "no key of example.com in") {
		t.Errorf("a key that is over: %s", out)
	}
	other, err := dnssec.Generate("example.com", dnssec.ECDSAP256, false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, other.Name()+".private"), private); err != nil {
		t.Fatal(err)
	}
	if out, status := check(); status != 1 || !strings.HasPrefix(out, private+": ") || !strings.Contains(out, "does not belong") {
		t.Errorf("a key of another: %s", out)
	}
}
