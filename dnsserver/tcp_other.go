//go:build !linux

package dnsserver

import "net"

// detachTCP has no way to serve connections in loops here.
func detachTCP(*net.TCPListener, int) (tcpSocket, bool) { return nil, false }
