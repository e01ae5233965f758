//go:build unix

package dnssec

import (
	"os"
	"syscall"
)

// own gives f the owner of another file, if this process may.
func own(f *os.File, other os.FileInfo) {
	if s, ok := other.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(s.Uid), int(s.Gid)) // else it stays with who writes it
	}
}
