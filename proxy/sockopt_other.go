//go:build !linux

package proxy

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing: the system's own timeout stays in force.
func setUserTimeout(syscall.RawConn, time.Duration) {}

// hasEnded knows nothing: that a peer has ended its stream is found out behind
// its last byte.
func hasEnded(int) bool { return false }

// underWay knows nothing: a receiver so slow that nothing could be written to
// it for the whole of the idle timeout is taken for idle.
func underWay(syscall.RawConn) (acked uint64, waits bool) { return 0, false }
