//go:build chaos && linux

package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process is what /proc tells of one.
type process struct {
	t   *testing.T
	pid int
}

func (p process) read(name string) string {
	p.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// descriptors counts the open files by their kind: socket, pipe, anon_inode:…
// or a path. A pipe of the pool stays for the next stream, but only if it is empty.
func (p process) descriptors() map[string]int {
	p.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", p.pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		p.t.Fatal(err)
	}
	kinds := make(map[string]int)
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed just now
		}
		if err != nil {
			p.t.Fatal(err)
		}
		kind, _, numbered := strings.Cut(to, ":[")
		if numbered && kind == "pipe" && p.bytesIn(filepath.Join(dir, e.Name())) > 0 {
			kind = "pipe with bytes in it"
		}
		kinds[kind]++
	}
	return kinds
}

// bytesIn returns how many bytes a pipe holds.
func (p process) bytesIn(path string) int {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0 // closed just now
	}
	defer unix.Close(fd)
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// rss returns the resident memory in bytes.
func (p process) rss() int {
	p.t.Helper()
	for line := range strings.Lines(p.read("status")) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				p.t.Fatal(err)
			}
			return kb << 10
		}
	}
	p.t.Fatal("no VmRSS")
	return 0
}

// cpu returns the CPU time that was used so far.
func (p process) cpu() time.Duration {
	p.t.Helper()
	stat := p.read("stat")
	// After the name, which may contain anything: proc_pid_stat(5), fields 14 and 15 in hundredths of a second.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	var sum time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			p.t.Fatal(err)
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum
}

// isOver reports whether the process has ended, be it that nobody has asked how.
func (p process) isOver() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
	}
	return strings.HasPrefix(string(b[bytes.LastIndexByte(b, ')')+1:]), " Z")
}

// connections returns the TCP connections of the process's namespace that are
// not over, as /proc tells them. Those in TIME_WAIT are over.
func (p process) connections() []string {
	p.t.Helper()
	const timeWait, listen = "06", "0A" // include/net/tcp_states.h
	var all []string
	for i, line := range strings.Split(strings.TrimSpace(p.read("net/tcp")), "\n") {
		if f := strings.Fields(line); i > 0 && f[3] != timeWait && f[3] != listen {
			all = append(all, fmt.Sprintf("%s %s %s", f[1], f[2], f[3]))
		}
	}
	return all
}

// limitDescriptors sets the soft limit of open files.
func (p process) limitDescriptors(n uint64) {
	p.t.Helper()
	var limit unix.Rlimit
	err := unix.Prlimit(p.pid, unix.RLIMIT_NOFILE, nil, &limit)
	if err == nil {
		limit.Cur = n
		err = unix.Prlimit(p.pid, unix.RLIMIT_NOFILE, &limit, nil)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// maxPipes is how many pipes the pool of the proxy keeps at most.
const maxPipes = 48

// isBack reports what of kinds is more than it was before; empty: nothing.
func isBack(kinds, before map[string]int) string {
	kinds = maps.Clone(kinds)
	kinds["pipe"] -= 2 * maxPipes
	var more []string
	for kind, n := range kinds {
		if n > before[kind] {
			more = append(more, fmt.Sprintf("%d of %s more", n-before[kind], kind))
		}
	}
	return strings.Join(more, ", ")
}
