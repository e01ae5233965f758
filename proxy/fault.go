package proxy

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// A failure is a kind of failed connect, the label of its metric.
type failure uint8

const (
	refused failure = iota
	timedOut
	unreachable
	reset
	otherFailure
	failures // how many there are
)

var failureTexts = [failures]string{"refused", "timeout", "unreachable", "reset", "other"}

func (f failure) String() string { return failureTexts[f] }

// errConnectTimeout is what a session takes for the error of a connect whose
// time ran out.
var errConnectTimeout = fmt.Errorf("connect: %w", syscall.ETIMEDOUT)

// errDescriptors is the fault of a host that has as many connections as its
// descriptors allow.
var errDescriptors = errors.New("as many connections as the limit of open files allows; raise it (LimitNOFILE=, ulimit -n)")

// mostConnections returns how many connections, of two descriptors each, the
// limit of open files allows; a reserve is left for everything else. Without
// this bound those that were just accepted would take the descriptors that
// connecting them needs, and none would be served. 0 is no limit.
func mostConnections() int64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<40 {
		return 0
	}
	n := int64(limit.Cur)
	reserve := min(max(n/4, 16), 256)
	return max(1, (n-reserve)/2)
}

// isLocal reports whether a connect or accept failed for want of something
// on this host, which says nothing about the other side. A connect that finds
// no free port fails with EADDRNOTAVAIL, or with EADDRINUSE where what holds
// the ports are sockets that were bound first.
func isLocal(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EAGAIN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// isTransient reports whether an accept failed for the sake of one connection
// only, so that the next may be accepted at once (accept(2), "Error handling").
func isTransient(err error) bool {
	for _, e := range []syscall.Errno{
		syscall.ECONNABORTED, syscall.EINTR, syscall.EPROTO, syscall.ENETDOWN, syscall.ENOPROTOOPT,
		syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.EOPNOTSUPP, syscall.ENETUNREACH, syscall.ECONNRESET,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// classify says what a failed connect to a backend was, in the metric and in
// words; timeout is how long it was given.
func classify(err error, timeout time.Duration) (failure, string) {
	netErr, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused, "connection refused"
	case errors.Is(err, syscall.ETIMEDOUT), isNet && netErr.Timeout():
		return timedOut, fmt.Sprintf("no connection within %s", timeout)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return unreachable, "host is unreachable"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN):
		return unreachable, "network is unreachable"
	case errors.Is(err, syscall.ECONNRESET):
		return reset, "connection reset while connecting"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return otherFailure, errno.Error()
	}
	return otherFailure, err.Error()
}

// isTimeout reports whether an established connection ended because its peer
// does not answer.
func isTimeout(err error) bool {
	return errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
