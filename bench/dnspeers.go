//go:build linux

package main

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"
)

var (
	//go:embed peers/elbow-dns.yaml
	elbowNamesConfig string
	//go:embed peers/knot.conf
	knotConfig string
	//go:embed peers/nsd.conf
	nsdConfig string
	//go:embed peers/gdnsd.conf
	gdnsdConfig string
)

// findNameServers returns elbow and the name servers that are on this machine,
// each with one worker, and says which are not there. The last is a plain
// handler on the library that most DNS servers in Go are built with.
func findNameServers(elbow, self string) (found []peer, missing []string) {
	found = []peer{{
		name: "elbow", binary: elbow, file: "elbow.yaml", config: elbowNamesConfig,
		args:    []string{"run", "--config", "CONFIG", "--shutdown-timeout", "0s"},
		env:     []string{"GOMAXPROCS=1"},
		version: []string{"version"},
		has:     signed,
		keygen:  true,
	}}
	for _, p := range []peer{
		{name: "knot", binary: "knotd", file: "knot.conf", config: knotConfig, args: []string{"-c", "CONFIG"}, version: []string{"--version"}, has: signed},
		{name: "nsd", binary: "nsd", file: "nsd.conf", config: nsdConfig, args: []string{"-d", "-c", "CONFIG"}, version: []string{"-v"}, has: signed},
		{name: "gdnsd", binary: "gdnsd", file: "config", config: gdnsdConfig, args: []string{"-c", "DIR", "start"}, version: []string{"version"}},
	} {
		path, err := lookServer(p.binary)
		if err != nil {
			missing = append(missing, p.name)
			continue
		}
		p.binary = path
		found = append(found, p)
	}
	return append(found, peer{
		name: "miekg", binary: self, args: []string{"plain", "LISTEN", "DIR/zones"}, env: []string{"GOMAXPROCS=1"}, version: []string{"plain", "--version"},
	}), missing
}

// lookServer looks for a program also where servers lie.
func lookServer(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return exec.LookPath("/usr/sbin/" + name)
	}
	return path, nil
}

// startNames runs a name server on a free port and a processor with the zones
// and waits until it answers for all. The text of the signed zone is for those
// that have it: what elbow signs for itself, and its signed state for the others.
func (p *peer) startNames(ctx context.Context, cpu int, signedText string) (*process, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("looking for a free port: %w", err)
	}
	addr := l.Addr().String()
	l.Close()
	dir, err := os.MkdirTemp("", "elbow-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for %s: %w", p.name, err)
	}
	host, port, _ := strings.Cut(addr, ":")
	config := filepath.Join(dir, p.file)
	replace := strings.NewReplacer("CONFIG", config, "LISTEN", addr, "ADDRESS", host, "PORT", port, "DIR", dir)
	files := map[string]string{"zones/" + smallZone: zoneText(smallZone, smallNames), "zones/" + largeZone: zoneText(largeZone, largeNames)}
	questions := append(hosts(smallZone, smallNames, 1, 0), hosts(largeZone, largeNames, 1, 0)...)
	if p.can(signed) {
		files["zones/"+signedZone] = signedText
		questions = append(questions, hosts(signedZone, smallNames, 1, withSignature)...)
	}
	if p.config != "" {
		files[p.file] = replace.Replace(p.config)
	}
	proc := &process{addr: addr, dir: dir}
	if err := os.Mkdir(filepath.Join(dir, "zones"), 0o755); err != nil {
		proc.stop()
		return nil, fmt.Errorf("making a folder for %s: %w", p.name, err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			proc.stop()
			return nil, fmt.Errorf("writing the configuration of %s: %w", p.name, err)
		}
	}
	if p.keygen {
		keygen := exec.CommandContext(ctx, p.binary, "dnssec", "keygen", "--zone", signedZone, "--dir", filepath.Join(dir, "keys"))
		if out, err := keygen.CombinedOutput(); err != nil {
			proc.stop()
			return nil, fmt.Errorf("making a key: %w\n%s", err, out)
		}
	}
	args := make([]string, len(p.args))
	for i, a := range p.args {
		args[i] = replace.Replace(a)
	}
	proc.cmd = exec.CommandContext(ctx, p.binary, args...)
	proc.cmd.Env = append(os.Environ(), p.env...)
	var said bytes.Buffer // of interest only if it does not start
	proc.cmd.Stderr = &said
	if err := proc.begin(cpu); err != nil {
		proc.stop()
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err = flood(questions, burst)(addr, time.Millisecond); err == nil {
			err = bindFamily(proc.cmd.Process.Pid, cpu)
		}
		if err == nil {
			return proc, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			proc.stop()
			return nil, fmt.Errorf("%s does not answer: %w\n%s", p.name, err, said.Bytes())
		}
	}
}

// transferZone returns the text of a zone as a server has it.
func transferZone(addr, zone string) (string, error) {
	answers, err := new(dns.Transfer).In(new(dns.Msg).SetAxfr(dns.Fqdn(zone)), addr)
	if err != nil {
		return "", fmt.Errorf("transferring %s: %w", zone, err)
	}
	var b strings.Builder
	for a := range answers {
		if a.Error != nil {
			return "", fmt.Errorf("transferring %s: %w", zone, a.Error)
		}
		for _, rr := range a.RR {
			if rr.Header().Rrtype == dns.TypeSOA && b.Len() > 0 {
				continue // the end is the beginning
			}
			fmt.Fprintln(&b, rr)
		}
	}
	return b.String(), nil
}
