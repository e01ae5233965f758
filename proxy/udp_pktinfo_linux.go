package proxy

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pktinfoSize is how long the control message of a datagram gets that says
// which address of this host it was sent to.
const pktinfoSize = 64

// wantPktinfo asks for that message with each datagram. It is needed on a
// socket that is bound to every address of a family.
func wantPktinfo(raw syscall.RawConn, a netip.Addr) error {
	var err error
	if failed := raw.Control(func(fd uintptr) { err = setPktinfo(int(fd), a) }); failed != nil {
		return failed
	}
	return err
}

func setPktinfo(fd int, a netip.Addr) error {
	if a.Is4() {
		return sysSetInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
	return sysSetInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

// sentTo reads the control messages of a datagram; the zero address: they do
// not tell. The zone of a link-local address is its interface.
func sentTo(control []byte) netip.Addr {
	for len(control) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		size := int(h.Len)
		if size < unix.CmsgLen(0) || size > len(control) {
			break
		}
		data := control[unix.CmsgLen(0):size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// Not the destination in the header, which may be a broadcast
			// address: the local one that stands for it.
			return netip.AddrFrom4([4]byte(data[4:8]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			a := netip.AddrFrom16([16]byte(data[:16]))
			if a.IsLinkLocalUnicast() {
				a = a.WithZone(strconv.FormatUint(uint64(binary.NativeEndian.Uint32(data[16:])), 10))
			}
			return a
		}
		next := unix.CmsgSpace(size - unix.CmsgLen(0))
		if next > len(control) {
			break
		}
		control = control[next:]
	}
	return netip.Addr{}
}

// appendSource appends the control message that sends a datagram from the
// address a of this host. The interface is left to the routes, except where the
// address means something on one alone.
func appendSource(dst []byte, a netip.Addr) []byte {
	switch {
	case a.Is4():
		dst = append(dst, make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo))...)
		header := dst[len(dst)-unix.CmsgSpace(unix.SizeofInet4Pktinfo):]
		setCmsghdr(header, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		address := a.As4()
		copy(header[unix.CmsgLen(0)+4:], address[:])
	case a.Is6():
		dst = append(dst, make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))...)
		header := dst[len(dst)-unix.CmsgSpace(unix.SizeofInet6Pktinfo):]
		setCmsghdr(header, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		address := a.As16()
		copy(header[unix.CmsgLen(0):], address[:])
		binary.NativeEndian.PutUint32(header[unix.CmsgLen(0)+16:], scope(a.Zone()))
	}
	return dst
}

func setCmsghdr(b []byte, level, kind int32, size int) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
}
