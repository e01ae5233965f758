//go:build linux

package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A peer is a proxy that can be measured.
type peer struct {
	name    string
	binary  string
	args    []string // with LISTEN, BACKEND and CONFIG, the path of the configuration
	env     []string
	file    string // the name of the configuration
	config  string // its text with LISTEN, BACKEND, DIR and MODULE; file empty: there is none
	version []string
	has     trait
	keygen  bool // it makes a key for the signed zone and signs it
}

// can reports whether the peer has what a workload needs.
func (p *peer) can(t trait) bool { return p.has&t == t }

var (
	//go:embed peers/elbow.yaml
	elbowConfig string
	//go:embed peers/haproxy.cfg
	haproxyConfig string
	//go:embed peers/haproxy-splice.cfg
	haproxySpliceConfig string
	//go:embed peers/nginx.conf
	nginxConfig string
)

// streamModule is where Debian's libnginx-mod-stream puts the TCP proxy.
const streamModule = "/usr/lib/nginx/modules/ngx_stream_module.so"

// findPeers returns the proxies that are on this machine, elbow's engines first
// and the bare relay last,
// and says which are not.
func findPeers(elbow string) (found []peer, missing []string) {
	for _, engine := range elbowEngines {
		found = append(found, elbowPeer(elbow, engine, 1)) // one loop, as the peers have one thread
	}
	for _, p := range []peer{
		{name: "haproxy", binary: "haproxy", file: "haproxy.cfg", config: haproxyConfig, args: []string{"-db", "-f", "CONFIG"}, version: []string{"-v"}},
		{name: "haproxy splice", binary: "haproxy", file: "haproxy.cfg", config: haproxySpliceConfig, args: []string{"-db", "-f", "CONFIG"}, version: []string{"-v"}},
		{name: "nginx", binary: "nginx", file: "nginx.conf", config: nginxConfig, args: []string{"-c", "CONFIG"}, version: []string{"-v"}},
	} {
		path, err := exec.LookPath(p.binary)
		if err == nil && p.binary == "nginx" {
			_, err = os.Stat(streamModule)
		}
		if err != nil {
			missing = append(missing, p.name)
			continue
		}
		p.binary, p.has = path, bulk
		found = append(found, p)
	}
	found = append(found, peer{
		name: "bare", binary: "/proc/self/exe", args: []string{"bare", "LISTEN", "BACKEND"},
		env: []string{"GOMAXPROCS=2"}, // its one thread waits in a system call
	})
	return found, missing
}

// elbowPeer is elbow with one of its engines on as many processors.
func elbowPeer(binary, engine string, processors int) peer {
	return peer{
		name: "elbow " + engine, binary: binary, file: "elbow.yaml", config: elbowConfig,
		args:    []string{"run", "--config", "CONFIG", "--engine", engine, "--shutdown-timeout", "0s"},
		env:     []string{fmt.Sprintf("GOMAXPROCS=%d", processors)},
		version: []string{"version"},
		has:     bulk,
	}
}

// about returns the first line of what the peer says of its version.
func (p *peer) about() string {
	if p.version == nil {
		return "what is left when a relay only moves bytes, see bench/bare.go"
	}
	out, err := exec.Command(p.binary, p.version...).CombinedOutput()
	if err != nil && len(out) == 0 { // gdnsd tells its version with an error
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// A process is a running proxy or backend.
type process struct {
	cmd  *exec.Cmd
	addr string
	dir  string
}

// start runs the peer on a free port in front of backend, on some processors.
func (p *peer) start(ctx context.Context, backend string, cpus ...int) (*process, error) {
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
	config := filepath.Join(dir, p.file)
	replace := strings.NewReplacer("LISTEN", addr, "BACKEND", backend, "DIR", dir, "MODULE", streamModule, "CONFIG", config)
	if p.file != "" {
		if err := os.WriteFile(config, []byte(replace.Replace(p.config)), 0o644); err != nil {
			return nil, fmt.Errorf("writing the configuration of %s: %w", p.name, err)
		}
	}
	args := make([]string, len(p.args))
	for i, a := range p.args {
		args[i] = replace.Replace(a)
	}
	cmd := exec.CommandContext(ctx, p.binary, args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stderr = os.Stderr
	proc := &process{cmd: cmd, addr: addr, dir: dir}
	if err := proc.begin(cpus...); err != nil {
		proc.stop()
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp4", addr)
		if err == nil {
			err = exchange(c, 1)
			c.Close()
		}
		if err == nil {
			return proc, nil
		}
		if time.Now().After(deadline) {
			proc.stop()
			return nil, fmt.Errorf("%s does not serve: %w", p.name, err)
		}
	}
}

// begin starts the command on some processors: a child inherits those of the
// thread that starts it.
func (p *process) begin(cpus ...int) error {
	return onProcessors(p.cmd.Start, cpus...)
}

func executable() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding this program: %w", err)
	}
	return self, nil
}

// startBackend runs this program as a backend on processor cpu.
func startBackend(ctx context.Context, cpu int) (*process, error) {
	self, err := executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "backend")
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // it ends when this end is closed
		return nil, fmt.Errorf("starting the backend: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting the backend: %w", err)
	}
	p := &process{cmd: cmd}
	if err := p.begin(cpu); err != nil {
		return nil, fmt.Errorf("starting the backend: %w", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("the backend said no address: %w", err)
	}
	p.addr = strings.TrimSpace(line)
	return p, nil
}

// stop ends the process and waits for it.
func (p *process) stop() {
	if p.cmd.Process != nil {
		_ = p.cmd.Process.Signal(unix.SIGTERM) // it may have ended
		timer := time.AfterFunc(3*time.Second, func() { _ = p.cmd.Process.Kill() })
		_ = p.cmd.Wait() // ended by a signal, which is an error
		timer.Stop()
	}
	if p.dir != "" {
		os.RemoveAll(p.dir)
	}
}

// raiseLimit lets this process and its children have as many descriptors as
// the system allows, and returns how many.
func raiseLimit() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, errors.Join(errors.New("raising the limit of descriptors"), err)
	}
	return l.Cur, nil
}
