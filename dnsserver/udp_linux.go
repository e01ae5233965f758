package dnsserver

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sharedPorts tells that several sockets may be bound to one address and the
// system spreads the clients over them.
const sharedPorts = true

// controlLen is how long the control messages of a packet get: one that says
// to which address it was sent.
const controlLen = 64

// controlUDP sets the options of a UDP socket before it is bound.
func controlUDP(addr netip.Addr) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		set := func(fd, level, option, value int) {
			if err == nil {
				err = unix.SetsockoptInt(fd, level, option, value)
			}
		}
		failed := c.Control(func(p uintptr) {
			fd := int(p)
			set(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			// RFC 9715 section 3.1: a forged ICMP message must not lead to fragments. By
			// IPv4 packets are marked as not to be fragmented on their way either,
			// which also saves the kernel choosing an ID for each.
			if addr.Unmap().Is4() {
				set(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
			} else {
				set(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT)
			}
			if !addr.IsUnspecified() {
				return
			}
			if addr.Is4() {
				set(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			} else {
				set(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
			}
		})
		if failed != nil {
			return failed
		}
		return err
	}
}

// replySource turns the control message of a packet, in place, into the one
// that sends the response from the address the packet was sent to. Nil: the
// socket has one address alone.
func replySource(control []byte) []byte {
	if len(control) < unix.SizeofCmsghdr {
		return nil
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	size := int(h.Len)
	if size > len(control) {
		return nil
	}
	data := control[unix.CmsgLen(0):]
	switch {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && size >= unix.CmsgLen(unix.SizeofInet4Pktinfo):
		// The interface is left to the routes: they know the way back better.
		binary.NativeEndian.PutUint32(data, 0)
		return control[:unix.CmsgSpace(unix.SizeofInet4Pktinfo)]
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && size >= unix.CmsgLen(unix.SizeofInet6Pktinfo):
		if to := netip.AddrFrom16([16]byte(data[:16])); !to.IsLinkLocalUnicast() {
			binary.NativeEndian.PutUint32(data[16:], 0)
		}
		return control[:unix.CmsgSpace(unix.SizeofInet6Pktinfo)]
	}
	return nil
}

// destination returns the address that a packet was sent to by its control
// message, the zero value where that does not say.
func destination(control []byte) netip.Addr {
	if len(control) < unix.SizeofCmsghdr {
		return netip.Addr{}
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if int(h.Len) > len(control) {
		return netip.Addr{}
	}
	data := control[unix.CmsgLen(0):]
	switch {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && int(h.Len) >= unix.CmsgLen(unix.SizeofInet4Pktinfo):
		return netip.AddrFrom4([4]byte(data[8:12])) // ipi_addr
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && int(h.Len) >= unix.CmsgLen(unix.SizeofInet6Pktinfo):
		return netip.AddrFrom16([16]byte(data[:16]))
	}
	return netip.Addr{}
}
