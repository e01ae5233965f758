//go:build !linux

package proxy

import (
	"net/netip"
	"syscall"
)

// Which address of this host a datagram was sent to is not told here, and
// answers leave from the one that the system chooses: on a host with several
// addresses, listen on each instead of on all.
const pktinfoSize = 0

func wantPktinfo(syscall.RawConn, netip.Addr) error { return nil }

func sentTo([]byte) netip.Addr { return netip.Addr{} }

func appendSource(dst []byte, _ netip.Addr) []byte { return dst }
