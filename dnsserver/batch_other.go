//go:build !linux

package dnsserver

import "net"

// detach has no way to receive and send in batches here.
func detach(*net.UDPConn, bool) (udpSocket, bool) { return nil, false }
