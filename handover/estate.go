//go:build linux

package handover

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	maxSockets   = 1 << 16
	maxDocuments = 64
	maxName      = 255      // bytes
	maxText      = 64 << 20 // bytes of all documents
)

// An Estate is what is handed over. The zero value is empty and ready for
// use; Close it. It belongs to one goroutine.
type Estate struct {
	names     []string
	fds       []int
	documents map[string]json.RawMessage
}

// AddSocket adds a copy of the socket fd under a name. Several may have the
// same name; their order is kept.
func (e *Estate) AddSocket(name string, fd int) error {
	if name == "" || len(name) > maxName || len(e.fds) == maxSockets {
		return fmt.Errorf("socket %q: a name has 1 to %d bytes, and there are at most %d sockets", name, maxName, maxSockets)
	}
	// A copy shares the flags of the open file: this changes nothing about fd.
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket %q: %w", name, os.NewSyscallError("fcntl", err))
	}
	e.names, e.fds = append(e.names, name), append(e.fds, own)
	return nil
}

// Save adds v under a name, in the place of what was there before.
func (e *Estate) Save(name string, v any) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("document %q: a name has 1 to %d bytes", name, maxName)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("document %q: %w", name, err)
	}
	if e.documents == nil {
		e.documents = make(map[string]json.RawMessage)
	}
	e.documents[name] = text
	return nil
}

// Sockets returns how many sockets there are.
func (e *Estate) Sockets() int { return len(e.fds) }

// Close closes the copies of the sockets.
func (e *Estate) Close() {
	closeAll(e.fds)
	e.names, e.fds = nil, nil
}

// An Inheritance is an Estate on the other side. A nil Inheritance is empty.
// Its methods may be called by several goroutines.
type Inheritance struct {
	documents map[string]json.RawMessage

	mu      sync.Mutex
	sockets map[string][]int // guarded by mu
}

// Take returns the descriptors of the sockets of that name in their order, once; they
// belong to the caller. They are not blocking, and must stay so: the
// process that had them shares that with this one.
func (in *Inheritance) Take(name string) []int {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	fds := in.sockets[name]
	delete(in.sockets, name)
	return fds
}

// Load decodes the document of that name into v, a pointer, and reports
// whether there is one.
func (in *Inheritance) Load(name string, v any) (bool, error) {
	if in == nil {
		return false, nil
	}
	text, ok := in.documents[name]
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(text, v); err != nil {
		return false, fmt.Errorf("document %q that was handed over: %w", name, err)
	}
	return true, nil
}

// Close closes what was not taken and returns its names.
func (in *Inheritance) Close() (names []string) {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for name, fds := range in.sockets {
		closeAll(fds)
		names = append(names, name)
	}
	clear(in.sockets)
	return names
}
