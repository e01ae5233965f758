//go:build acceptance

package acceptance

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// TestDnsviz: the analysis of DNSViz, its tests of EDNS among them, has nothing
// to say about a signed zone.
func TestDnsviz(t *testing.T) {
	if _, err := exec.LookPath("dnsviz"); err != nil {
		t.Skip("dnsviz is not installed (Debian: dnsviz)")
	}
	e, _ := startSigned(t, "1")
	const zone = "public.haslohas.com"
	probe := exec.Command("dnsviz", "probe", "-4", "-A", "-E", "-d", "0", "-a", zone,
		"-x", zone+"+:ns1."+zone+"="+e.dns,
		zone, "www."+zone, "deep.ent."+zone, "x.wild."+zone, "alias."+zone, "weighted."+zone, "spoken."+zone)
	var stderr bytes.Buffer
	probe.Stderr = &stderr
	found, err := probe.Output()
	if err != nil {
		t.Fatalf("dnsviz probe: %v: %s", err, stderr.Bytes())
	}
	grok := func(level string) string {
		cmd := exec.Command("dnsviz", "grok", "-l", level)
		cmd.Stdin, cmd.Stderr = bytes.NewReader(found), &stderr
		said, err := cmd.Output()
		if err != nil {
			t.Fatalf("dnsviz grok: %v: %s", err, stderr.Bytes())
		}
		return strings.TrimSpace(string(said))
	}
	if text := grok("warning"); text != "{}" && text != "" {
		t.Errorf("dnsviz says\n%s", text)
	}
	if n := strings.Count(grok("info"), `"status": "VALID"`); n < 20 {
		t.Errorf("dnsviz found only %d valid signatures and proofs", n)
	}
}
