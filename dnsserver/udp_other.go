//go:build !linux

package dnsserver

import (
	"net/netip"
	"syscall"
)

// Where several sockets cannot share the packets of an address there is one.
const sharedPorts = false

const controlLen = 0

func controlUDP(netip.Addr) func(network, address string, c syscall.RawConn) error { return nil }

// replySource leaves the source of a response to the system: on a host with
// several addresses, listen on each instead of on all.
func replySource([]byte) []byte { return nil }

// destination is not known here.
func destination([]byte) netip.Addr { return netip.Addr{} }
