//go:build chaos && linux

package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A namespace is a network of its own. It has no name: it goes when nothing
// is left in it, even if the test is killed.
type namespace struct {
	t    *testing.T
	file *os.File
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{t: t}
	var err error
	onThreadOfItsOwn(func() {
		if err = unix.Unshare(unix.CLONE_NEWNET); err == nil {
			n.file, err = os.Open("/proc/thread-self/ns/net")
		}
	})
	if errors.Is(err, unix.EPERM) {
		t.Skip("this machine lets not even root make network namespaces")
	}
	if err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	t.Cleanup(func() { n.file.Close() })
	n.ip("link set lo up")
	return n
}

// onThreadOfItsOwn runs f on a thread that ends with it, so that nothing else
// comes to run in a namespace that f enters.
func onThreadOfItsOwn(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked
		f()
	}()
	<-done
}

// do runs f in n: the sockets that it makes and the processes that it starts
// belong there for good. f starts no goroutines that do either.
func (n *namespace) do(f func() error) error {
	var err error
	onThreadOfItsOwn(func() {
		if err = unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err == nil {
			err = f()
		}
	})
	return err
}

// ip runs ip(8) in n.
func (n *namespace) ip(format string, args ...any) {
	n.t.Helper()
	words := strings.Fields(fmt.Sprintf(format, args...))
	err := n.do(func() error {
		out, err := exec.Command("ip", words...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(words, " "), err, out)
		}
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// set sets a key of /proc/sys/net.
func (n *namespace) set(key, value string) {
	n.t.Helper()
	if err := n.do(func() error { return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0) }); err != nil {
		n.t.Fatal(err)
	}
}

// connect joins n to other by a cable of two interfaces with these names and addresses.
func (n *namespace) connect(name, prefix string, other *namespace, otherName string, otherPrefixes ...string) {
	n.t.Helper()
	n.ip("link add %s type veth peer name %s netns /proc/%d/fd/%d", name, otherName, os.Getpid(), other.file.Fd())
	n.ip("addr add %s dev %s", prefix, name)
	for _, p := range otherPrefixes {
		other.ip("addr add %s dev %s", p, otherName)
	}
	n.ip("link set %s up", name)
	other.ip("link set %s up", otherName)
}
