package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"haslohas.com/elbow/dnssec"
	"haslohas.com/elbow/pool"
)

// signingKey makes a key of a zone and returns the path of its private half.
func signingKey(t *testing.T, folder, zone string) string {
	t.Helper()
	k, err := dnssec.Generate(zone, dnssec.ECDSAP256, false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := k.Save(folder); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(folder, k.Name()+".private")
}

const signedZone = "dns: {zones: [{name: a.test, nameservers: [{name: ns.b.test}], dnssec: {keys: keys, cds: withdraw}}]}"

func TestSigningKeys(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "keys")
	path := signingKey(t, folder, "a.test")
	signingKey(t, folder, "b.a.test") // of another zone
	file := filepath.Join(dir, "elbow.yaml")
	c, err := Parse(file, []byte(signedZone))
	if err != nil {
		t.Fatal(err)
	}
	z := c.DNS.Zones[0]
	if len(z.DNSSEC.Keys) != 1 || z.DNSSEC.Keys[0].Path != path || z.DNSSEC.CDS != pool.CDSWithdraw {
		t.Fatalf("the keys are %v", z.DNSSEC)
	}
	if _, err := dnssec.Parse(z.Name, z.DNSSEC.Keys[0].Public, string(z.DNSSEC.Keys[0].Private)); err != nil {
		t.Error(err)
	}
	if text := fmt.Sprintf("%v %+v %#v", *z, *z, *z); strings.Contains(text, "PrivateKey:") {
		t.Errorf("a private key is printed: %s", text)
	}
	if want := []string{file, folder, path, dnssec.PublicPath(path)}; !slices.Equal(c.Files(), want) {
		t.Errorf("made from %v, want %v", c.Files(), want)
	}

	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(file, []byte(signedZone)); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("a key that a group may read: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(file, []byte(signedZone)); err == nil || !strings.Contains(err.Error(), "elbow dnssec keygen --zone a.test --dir "+folder) {
		t.Errorf("without a key: %v", err)
	}
}
