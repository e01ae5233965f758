// Package elbowtest runs the daemon as a process of its own, for tests that
// meet it from outside as its users do.
package elbowtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
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
)

// binary is built once for all tests of a process.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "elbow-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "elbow")
	out, err := exec.Command("go", "build", "-o", path, "haslohas.com/elbow/cmd/elbow").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building elbow: %w: %s", err, out)
	}
	// Others have to be able to run it: one test is another user.
	return path, os.Chmod(dir, 0o755)
})

// Binary returns the path of the elbow under test.
func Binary(t *testing.T) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Main runs the tests and removes what they have built. It returns the exit
// status, for TestMain.
func Main(m *testing.M) int {
	code := m.Run()
	if path, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path)) // what stays lies in the folder for such things
	}
	return code
}

// Options are how a [Daemon] is run.
type Options struct {
	Args  []string                  // after run --config FILE
	Start func(*exec.Cmd) error     // starts the process; nil: its own method
	Wrap  func(*exec.Cmd) *exec.Cmd // what is run in place of the command; nil: the command
}

// A Daemon is a running elbow.
type Daemon struct {
	Dir string // its folder: elbow.yaml, elbow.sock

	t       *testing.T
	cmd     *exec.Cmd   // the first process
	process *os.Process // the newest one
	log     log
	client  http.Client
}

// A log is what the processes say on standard error.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Start runs the daemon until the test ends, and returns when it is ready. In
// config DIR stands for its folder; the control socket must be DIR/elbow.sock.
func Start(t *testing.T, config string, o Options) *Daemon {
	t.Helper()
	d := &Daemon{t: t, Dir: t.TempDir()}
	d.client = http.Client{
		Timeout: 10 * time.Second,
		// Each request has a connection of its own, so that none adds to what
		// the daemon holds.
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.Dir, "elbow.sock"))
			},
		},
	}
	d.Configure(config)
	d.cmd = exec.Command(Binary(t), append([]string{"run", "--config", d.path(), "--shutdown-timeout", "2s"}, o.Args...)...)
	if o.Wrap != nil {
		d.cmd = o.Wrap(d.cmd)
	}
	d.cmd.Stderr = &d.log
	start := (*exec.Cmd).Start
	if o.Start != nil {
		start = o.Start
	}
	d.cmd.WaitDelay = 20 * time.Second // for the processes of upgrades, which have the same standard error
	if err := start(d.cmd); err != nil {
		t.Fatal(err)
	}
	d.process = d.cmd.Process
	t.Cleanup(d.end)
	Eventually(t, 15*time.Second, "elbow is ready", func() bool {
		r, err := d.client.Get("http://elbow/readyz")
		if err != nil {
			return false
		}
		_ = r.Body.Close() // nothing of it is of interest
		return r.StatusCode == http.StatusOK
	})
	return d
}

func (d *Daemon) end() {
	d.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("elbow ended with %v", err)
	}
	if d.t.Failed() {
		d.t.Logf("log of elbow:\n%s", d.log.String())
	}
	if s := d.log.String(); strings.Contains(s, "panic") {
		d.t.Errorf("elbow panicked:\n%s", s)
	}
}

func (d *Daemon) path() string { return filepath.Join(d.Dir, "elbow.yaml") }

// Configure writes the configuration, whole or not at all.
func (d *Daemon) Configure(config string) {
	d.t.Helper()
	text := strings.ReplaceAll(config, "DIR", d.Dir)
	if err := os.WriteFile(d.path()+".new", []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(d.path()+".new", d.path()); err != nil {
		d.t.Fatal(err)
	}
}

// PID returns the number of the newest process.
func (d *Daemon) PID() int { return d.process.Pid }

var takenOver = regexp.MustCompile(`a new process has taken over.* successor=(\d+)`)

// Upgrade has a new process take over and returns how long that took.
func (d *Daemon) Upgrade() time.Duration {
	d.t.Helper()
	upgrades := func() [][]string { return takenOver.FindAllStringSubmatch(d.log.String(), -1) }
	before := len(upgrades())
	d.Signal(syscall.SIGUSR2)
	took := Eventually(d.t, 15*time.Second, "a new process takes over", func() bool { return len(upgrades()) > before })
	pid, err := strconv.Atoi(upgrades()[before][1])
	if err == nil {
		d.process, err = os.FindProcess(pid)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return took
}

// Signal sends a signal to the newest process.
func (d *Daemon) Signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Error(err)
	}
}

// A Backend is what the API says of one.
type Backend struct {
	Address, State, Reason string
	Since                  time.Time
	Eligible               bool
}

// Backends returns those of a service.
func (d *Daemon) Backends(service string) []Backend {
	d.t.Helper()
	var status struct {
		Services []struct {
			Name     string
			Backends []Backend
		}
	}
	if err := json.Unmarshal([]byte(d.Get("/api/v1/status")), &status); err != nil {
		d.t.Fatal(err)
	}
	for _, s := range status.Services {
		if s.Name == service {
			return s.Backends
		}
	}
	d.t.Fatalf("no service %s", service)
	return nil
}

// Metric returns the value of a series, 0 if there is none. The series is
// named with all its labels, in the order of their names.
func (d *Daemon) Metric(series string) float64 {
	d.t.Helper()
	for line := range strings.Lines(d.Get("/metrics")) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			var f float64
			if _, err := fmt.Sscan(value, &f); err != nil {
				d.t.Fatal(err)
			}
			return f
		}
	}
	return 0
}

// Get asks the control socket.
func (d *Daemon) Get(path string) string {
	d.t.Helper()
	r, err := d.client.Get("http://elbow" + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return string(body)
}

// ReadFile returns a file of the daemon's folder, empty where there is none.
func (d *Daemon) ReadFile(name string) []byte {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join(d.Dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Fatal(err)
	}
	return b
}

// Eventually waits until done reports true and returns how long that took. It
// fails the test after within.
func Eventually(t *testing.T, within time.Duration, what string, done func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		if time.Since(begin) > within {
			t.Fatalf("not within %s: %s", within, what)
		}
		<-tick.C
	}
	return time.Since(begin)
}
