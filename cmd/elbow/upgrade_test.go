//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"haslohas.com/elbow/handover"
)

// What a new process may do instead of taking over, once it has everything.
func crashWithState() { takeEverything(); os.Exit(3) }
func hangWithState()  { takeEverything(); select {} }

func takeEverything() {
	p, err := handover.Inherit()
	if err == nil {
		_, err = p.Receive(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	}
}

// A system is a daemon with what is around it: the folder of its program, two
// web servers, and somebody who listens as systemd does.
type system struct {
	t       *testing.T
	dir     string
	program string // the path
	config  string // the text
	web     string // host:port of the service, and so on
	echo    string
	dns     string
	admin   string
	cmd     *exec.Cmd
	notes   *net.UnixConn
	main    int // the main process as systemd knows it
}

const upgradeConfig = `
host: {name: master, addresses: [192.0.2.1]}
stateDir: ""
admin: {listen: "ADMIN", socket: DIR/sock}
log: {connections: "off"}
dns:
  listen: ["DNS"]
  rateLimit: {perSecond: 0}
  zones:
    - name: public.haslohas.com
      ttl: {normal: 1s, degraded: 1s, negative: 1s}
      hostmaster: hostmaster@haslohas.com
      nameservers: [{name: ns1.public.haslohas.com, addresses: [192.0.2.1]}]
services:
  - name: web
    hostnames: [web.public.haslohas.com]
    answer: direct
    listen: ["WEB"]
    backends:
      static: [{address: "A", node: minion1}, {address: "B", node: minion2}, {address: "127.0.0.1:1", node: minion3}]
    probe: {interval: 5s, fastInterval: 100ms, downInterval: 5s}
  - name: echo
    listen: ["udp/ECHO"]
    udp: {responses: 1}
    backends: {static: ["C"]}
    probe: {type: udp, send: "are you there", interval: 5s}
`

func newSystem(t *testing.T, flags ...string) *system {
	dir, err := os.MkdirTemp("", "elbow") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	free, err := freeAddresses(4)
	if err != nil {
		t.Fatal(err)
	}
	s := &system{t: t, dir: dir, program: filepath.Join(dir, "elbow"), web: free[0], echo: free[1], dns: free[2], admin: free[3]}
	replace := []string{"ADMIN", s.admin, "DIR", dir, "DNS", s.dns, "WEB", s.web, "ECHO", s.echo, `"C"`, startEcho(t)}
	for _, name := range []string{"A", "B"} {
		b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "this is", name) }))
		t.Cleanup(b.Close)
		replace = append(replace, `"`+name+`"`, strings.TrimPrefix(b.URL, "http://"))
	}
	s.config = strings.NewReplacer(replace...).Replace(upgradeConfig)
	s.configure(s.config)
	s.install()

	s.notes, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.notes.Close() })
	raw, err := s.notes.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	}
	if err != nil {
		t.Fatal(err)
	}

	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(s.program, append([]string{"run", "--config", filepath.Join(dir, "elbow.yaml")}, flags...)...)
	s.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.main = s.cmd.Process.Pid
	t.Cleanup(s.end)
	s.note("READY=1")
	return s
}

// end ends the main process, which is not always one of our children, and
// waits until no process is left.
func (s *system) end() {
	_ = unix.Kill(s.main, unix.SIGTERM) // it may have ended, which the next line finds out
	s.eventually("the main process ends", func() bool { return !s.lives(s.main) })
	if s.lives(s.cmd.Process.Pid) {
		_ = s.cmd.Process.Kill() // it finishes connections that nobody waits for
	}
	if err := s.cmd.Wait(); err != nil && !strings.Contains(err.Error(), "killed") {
		s.t.Errorf("the first process: %v", err)
	}
	if log := s.log(); s.t.Failed() || strings.Contains(log, "panic") {
		s.t.Errorf("log:\n%s", log)
	}
}

func (s *system) log() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		s.t.Error(err)
	}
	return string(text)
}

func (s *system) configure(text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, "elbow.yaml")
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o644), os.Rename(path+".new", path)); err != nil {
		s.t.Fatal(err)
	}
}

// install puts a copy of this program, which TestMain makes elbow, in place.
func (s *system) install() {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := exec.Command("cp", self, s.program+".new").CombinedOutput()
	if err = errors.Join(err, os.Rename(s.program+".new", s.program)); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
}

// installScript puts a shell script in place of the program.
func (s *system) installScript(text string) {
	s.t.Helper()
	if err := errors.Join(os.WriteFile(s.program+".new", []byte("#!/bin/sh\n"+text+"\n"), 0o755), os.Rename(s.program+".new", s.program)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *system) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := unix.Kill(s.main, sig); err != nil {
		s.t.Fatal(err)
	}
}

// note waits for the next notification that is not STATUS, from the main process, and wants it to begin with
// want. It follows MAINPID as systemd does with NotifyAccess=main.
func (s *system) note(want string) {
	s.t.Helper()
	if err := s.notes.SetReadDeadline(time.Now().Add(15 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	text, oob := make([]byte, 4096), make([]byte, 128)
	n, oobn, _, _, err := s.notes.ReadMsgUnix(text, oob)
	if err != nil {
		s.t.Fatalf("waiting for %s: %v\n%s", want, err, s.log())
	}
	got := string(text[:n])
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		s.t.Fatalf("credentials of %q: %v", got, err)
	}
	from, err := unix.ParseUnixCredentials(&messages[0])
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.HasPrefix(got, want) || int(from.Pid) != s.main {
		s.t.Fatalf("process %d said %q, want %s of %d\n%s", from.Pid, got, want, s.main, s.log())
	}
	if pid, ok := strings.CutPrefix(got, "MAINPID="); ok {
		if s.main, err = strconv.Atoi(pid); err != nil {
			s.t.Fatal(err)
		}
	}
}

// upgrade has the main process replaced.
func (s *system) upgrade() {
	s.t.Helper()
	before := s.main
	s.signal(unix.SIGUSR2)
	s.note("RELOADING=1")
	s.note("MAINPID=")
	s.note("READY=1")
	if s.main == before {
		s.t.Fatal("the main process is the same")
	}
	// Or systemd would give it no time to end, see handover.
	if parent := s.parent(s.main); parent != os.Getpid() {
		s.t.Errorf("the main process is a child of %d, not of who started the first one", parent)
	}
}

func (s *system) parent(pid int) (ppid int) {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		_, rest, _ := strings.Cut(string(text), ") ")
		_, err = fmt.Sscanf(rest, "%1s %d", new(string), &ppid)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return ppid
}

// lives reports whether a process has not ended, reaped or not.
func (s *system) lives(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(text), ") ")
	return !strings.HasPrefix(state, "Z")
}

// descriptors returns how many the main process has.
func (s *system) descriptors() int {
	s.t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.main))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(all)
}

func (s *system) eventually(what string, done func() bool) {
	s.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(15 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			s.t.Fatalf("not in time: %s\n%s", what, s.log())
		}
	}
}

// get returns what the admin says, over a connection of its own.
func (s *system) get(path string) string {
	s.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	r, err := client.Get("http://" + s.admin + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(body)
}

// belief is what must be the same before and after an upgrade.
func (s *system) belief() string {
	s.t.Helper()
	var status struct {
		Services []struct {
			Backends []struct{ Address, State, Since, Reason string }
		}
		Zones []struct {
			Name   string
			Serial uint32
		}
	}
	if err := json.Unmarshal([]byte(s.get("/api/v1/status")), &status); err != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprintf("%+v", status)
}

// elbow runs another command of the program.
func (s *system) elbow(args ...string) {
	s.t.Helper()
	out, err := exec.Command(s.program, append(args, "--socket", filepath.Join(s.dir, "sock"))...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("elbow %v: %v: %s", args, err, out)
	}
}

// A client is somebody with one connection that is kept alive.
type client struct {
	net.Conn
	in *bufio.Reader
}

func (s *system) connect() *client {
	s.t.Helper()
	c, err := net.Dial("tcp", s.web)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return &client{c, bufio.NewReader(c)}
}

func (c *client) ask() error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return err
	}
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && !strings.HasPrefix(string(body), "this is") {
		err = fmt.Errorf("the answer is %q", body)
	}
	return err
}

func write(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

// startEcho starts a UDP server that answers what it hears.
func startEcho(t *testing.T) (address string) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return // closed
			}
			_, _ = c.WriteTo(b[:n], from) // who has gone needs no answer
		}
	}()
	return c.LocalAddr().String()
}

// load asks without a pause, one connection for each request, over TCP, UDP and DNS, until
// the function it returns is called. No request may fail.
func (s *system) load() (stop func()) {
	done := make(chan struct{})
	var all sync.WaitGroup
	var mu sync.Mutex
	asked := make(map[string]int)
	each := func(what string, do func() error) {
		all.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-done:
					return
				case <-tick.C:
				}
				begun := time.Now()
				if err := do(); err != nil {
					s.t.Errorf("%s at %s: %v", what, begun.UTC().Format(time.RFC3339Nano), err)
				}
				mu.Lock()
				asked[what]++
				mu.Unlock()
			}
		})
	}
	for range 4 {
		each("http", func() error {
			c, err := net.Dial("tcp", s.web)
			if err != nil {
				return err
			}
			defer c.Close()
			return (&client{c, bufio.NewReader(c)}).ask()
		})
	}
	each("datagram", func() error {
		c, err := net.Dial("udp", s.echo)
		if err != nil {
			return err
		}
		defer c.Close()
		b := []byte("from " + c.LocalAddr().String())
		got := make([]byte, 100)
		if err = errors.Join(c.SetDeadline(time.Now().Add(5*time.Second)), write(c, b)); err != nil {
			return err
		}
		n, err := c.Read(got)
		if err == nil && !bytes.Equal(got[:n], b) {
			err = fmt.Errorf("the answer is %q", got[:n])
		}
		return err
	})
	for _, transport := range []string{"udp", "udp", "tcp"} {
		each(transport, func() error {
			q := new(dns.Msg).SetQuestion("web.public.haslohas.com.", dns.TypeA)
			r, _, err := (&dns.Client{Net: transport, Timeout: 5 * time.Second}).Exchange(q, s.dns)
			if err == nil && len(r.Answer) == 0 {
				err = fmt.Errorf("the answer is %v", r)
			}
			return err
		})
	}
	end := sync.OnceFunc(func() {
		close(done)
		all.Wait()
	})
	s.t.Cleanup(end)
	return func() {
		end()
		s.t.Logf("asked: %v", asked)
		for what, n := range asked {
			if n < 10 {
				s.t.Errorf("only %d of %s", n, what)
			}
		}
	}
}

// A chain of upgrades loses no request, no connection, no descriptor and
// nothing that is known.
func TestUpgradeChain(t *testing.T) {
	s := newSystem(t)
	s.elbow("force", "down", "minion1", "--for", "1h")
	s.elbow("unforce", "minion1")
	s.elbow("drain", "minion2", "--wait")
	before := s.belief()
	for _, want := range []string{"draining", "up", "down"} {
		if !strings.Contains(before, want) {
			t.Fatalf("no backend is %s: %s", want, before)
		}
	}
	first := s.connect()
	if err := first.ask(); err != nil {
		t.Fatal(err)
	}
	s.upgrade()
	descriptors := s.descriptors()
	stop := s.load()
	for range 5 {
		s.upgrade()
		if after := s.belief(); after != before {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
		if err := first.ask(); err != nil {
			t.Errorf("the connection of the first process: %v", err)
		}
	}
	stop()
	s.eventually("as many descriptors as after the first upgrade", func() bool { return s.descriptors() <= descriptors })
	if m := s.get("/metrics"); !strings.Contains(m, `elbow_upgrades_total{result="succeeded"} 6`) {
		t.Error("6 upgrades are not counted")
	}
	if !s.lives(s.cmd.Process.Pid) {
		t.Error("the first process has ended before its connection")
	}
	// Nobody is safe to power off while an old process may have connections.
	s.elbow("drain", "minion1")
	s.eventually("the drain waits for the first process", func() bool {
		return strings.Contains(s.belief(), "the process before the upgrade still has connections")
	})
	s.upgrade()
	s.eventually("the drain waits for the first process after one more upgrade", func() bool {
		return strings.Contains(s.belief(), "the process before the upgrade still has connections")
	})
	first.Close()
	s.eventually("the first process ends with its last connection", func() bool { return !s.lives(s.cmd.Process.Pid) })
	s.eventually("the drain ends", func() bool { return strings.Count(s.belief(), "drained: safe to power off") == 2 })
	if strings.Contains(s.log(), "from=unknown") && strings.Count(s.log(), "from=unknown") > 4 {
		t.Error("a backend was unknown after an upgrade")
	}
}

// What a large zone needs is done before the new process is given the state: from then
// on it is waited for.
func TestUpgradeLargeZone(t *testing.T) {
	s := newSystem(t)
	keys := filepath.Join(s.dir, "keys")
	if out, err := exec.Command(s.program, "dnssec", "keygen", "--zone", "large.example", "--dir", keys).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	zone := new(strings.Builder)
	fmt.Fprintln(zone, "@ NS ns1.public.haslohas.com.")
	for i := range 500 {
		fmt.Fprintf(zone, "text%d TXT %s\n", i, strings.Repeat("x", 200))
	}
	if err := os.WriteFile(filepath.Join(s.dir, "large.zone"), []byte(zone.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	s.configure(strings.Replace(s.config, "  zones:\n", fmt.Sprintf("  zones:\n    - {name: large.example, file: large.zone, dnssec: {keys: %s}}\n", keys), 1))
	before := s.main
	s.upgrade()
	// It answers from the same sockets, as it did before, until it has seen that it is not needed.
	s.eventually("the process before ends", func() bool { return !s.lives(before) })
	m := new(dns.Msg).SetQuestion("text499.large.example.", dns.TypeTXT)
	m.SetEdns0(1232, true)
	if m, err := dns.Exchange(m, s.dns); err != nil || len(m.Answer) != 2 {
		t.Fatalf("%v, %v", m, err)
	}
	made := regexp.MustCompile(`signatures_total\{source="made",zone="large.example"\} (\d+)`).FindStringSubmatch(s.get("/metrics"))
	if made == nil {
		t.Fatal("the zone is not signed")
	}
	if n, err := strconv.Atoi(made[1]); err != nil || n > 50 {
		t.Errorf("%d signatures were made while the old process waited, %v", n, err)
	}
}

// A new process that fails, however late, leaves the old one as it was.
func TestUpgradeFails(t *testing.T) {
	s := newSystem(t, "--upgrade-start-timeout", "1s")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"crash", "hang"} {
		if err := os.Symlink(self, filepath.Join(s.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	before, pid, descriptors := s.belief(), s.main, s.descriptors()
	stop := s.load()
	for i, failure := range []struct{ what, script, config, says string }{
		{"it ends at once", "exit 7", "", "the new process ended"},
		{"it ends without an error", "exit 0", "", "the new process ended"},
		{"it does nothing", "exec sleep 1000", "", "has not read its configuration within 1s"},
		{"it crashes with the state", "exec " + s.dir + "/crash", "", "the new process ended"},
		{"it hangs with the state", "exec " + s.dir + "/hang", "", "does not serve within 1s"},
		{"the configuration is broken", "", "services: 7\n", "the new process gives up: "},
		{"a port is taken", "", strings.ReplaceAll(s.config, `listen: ["`+s.web, `listen: ["`+strings.TrimPrefix(s.admin, "http://")), "does not serve within 1s"},
	} {
		if failure.script != "" {
			s.installScript(failure.script)
		} else {
			s.install()
		}
		if failure.config != "" {
			s.configure(failure.config)
		}
		signal := []syscall.Signal{unix.SIGUSR2, unix.SIGHUP}[i%2]
		if failure.config != "" {
			signal = unix.SIGUSR2
		}
		s.signal(signal)
		s.note("RELOADING=1")
		if signal == unix.SIGHUP {
			s.note("RELOADING=1")
		}
		s.note("READY=1")
		if signal == unix.SIGHUP {
			s.note("READY=1")
		}
		if s.main != pid {
			t.Fatalf("%s: it has taken over", failure.what)
		}
		if !strings.Contains(s.log(), failure.says) {
			t.Errorf("%s: the log does not say %q", failure.what, failure.says)
		}
		if failure.config != "" {
			s.configure(s.config)
			s.eventually("the old configuration is in force", func() bool {
				return strings.Contains(s.get("/metrics"), "elbow_config_last_reload_successful 1") && s.belief() == before
			})
		}
	}
	if after := s.belief(); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if m := s.get("/metrics"); !strings.Contains(m, `elbow_upgrades_total{result="failed"} 7`) || !strings.Contains(m, "elbow_upgrade_last_successful 0") {
		t.Error("7 failures are not counted")
	}
	// And then it works.
	s.install()
	s.signal(unix.SIGHUP)
	s.note("RELOADING=1")
	s.note("RELOADING=1")
	s.note("MAINPID=")
	s.note("READY=1")
	stop()
	s.eventually("the descriptors are those of the start", func() bool { return s.descriptors() <= descriptors+1 })
	if m := s.get("/metrics"); !strings.Contains(m, `elbow_upgrades_total{result="failed"} 7`) || !strings.Contains(m, "elbow_upgrade_last_successful 1") {
		t.Error("the failures are not counted on")
	}
}

// Connections of the old process have their time and no more.
func TestUpgradeTimeout(t *testing.T) {
	s := newSystem(t, "--upgrade-timeout", "500ms")
	old := s.connect()
	if err := old.ask(); err != nil {
		t.Fatal(err)
	}
	s.upgrade()
	if err := old.ask(); err != nil {
		t.Errorf("just after the upgrade: %v", err)
	}
	begun := time.Now()
	_, err := old.in.ReadByte()
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ended with %v, want a reset", err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("the connection was cut after %s", took)
	}
	s.eventually("the old process ends", func() bool { return !s.lives(s.cmd.Process.Pid) })
	if !strings.Contains(s.log(), "the time to finish is over, the connections that are left are reset") {
		t.Error("the log does not tell")
	}
	if err := s.connect().ask(); err != nil {
		t.Error(err)
	}
}

// Signals that come at any moment do no harm: of two upgrades at a time one
// is refused, and SIGTERM to the old process ends it.
func TestUpgradeSignals(t *testing.T) {
	s := newSystem(t, "--shutdown-timeout", "100ms")
	s.installScript("exec sleep 1000")
	s.signal(unix.SIGUSR2)
	s.note("RELOADING=1")
	s.signal(unix.SIGUSR2)
	s.eventually("the second is refused", func() bool { return strings.Contains(s.log(), "an upgrade is under way") })
	s.install()
	old := s.connect()
	if err := old.ask(); err != nil {
		t.Fatal(err)
	}
	s.signal(unix.SIGTERM)
	s.note("STOPPING=1")
	s.eventually("it ends while an upgrade is under way", func() bool { return !s.lives(s.main) })
	if !strings.Contains(s.log(), errEnding.Error()) {
		t.Error("the log does not tell why the upgrade failed")
	}
}

// SIGTERM ends an old process as any other, and SIGHUP and SIGUSR2 do not.
func TestOldProcessSignals(t *testing.T) {
	s := newSystem(t, "--shutdown-timeout", "100ms")
	old := s.connect()
	if err := old.ask(); err != nil {
		t.Fatal(err)
	}
	pid := s.main
	s.upgrade()
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGUSR2} {
		if err := unix.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := old.ask(); err != nil {
		t.Errorf("after the signals: %v", err)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.eventually("the old process ends", func() bool { return !s.lives(pid) })
	if err := s.connect().ask(); err != nil {
		t.Error(err)
	}
}
