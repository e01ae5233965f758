package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode"

	"haslohas.com/elbow/pool"
)

// A probeFunc probes once, until ctx ends at the latest. It returns what it
// saw in words: of a success, or as the error. A *localFault is neither.
type probeFunc func(ctx context.Context) (string, error)

// newProbe returns the probe that p describes, of the endpoint at address.
func newProbe(address netip.AddrPort, p pool.Probe) probeFunc {
	port := address.Port()
	if p.Port != 0 {
		port = p.Port
	}
	d := dialer{address: netip.AddrPortFrom(address.Addr().Unmap(), port), probe: p}
	switch p.Type {
	case pool.ProbeHTTP, pool.ProbeHTTPS:
		return d.http
	case pool.ProbeTLS:
		return d.tls
	case pool.ProbeGRPC:
		return d.grpc
	case pool.ProbeUDP:
		return d.udp
	}
	return d.tcp
}

// timeoutOf is the time that one probe has, a second where p leaves it at zero.
func timeoutOf(p pool.Probe) time.Duration {
	if p.Timeout <= 0 {
		return time.Second
	}
	return p.Timeout
}

// A dialer makes the connections of one probe, a fresh one each time: a probe
// over a connection that is kept would not notice a server that no longer
// accepts any.
type dialer struct {
	address netip.AddrPort
	probe   pool.Probe
}

// connect opens the connection and sends the PROXY protocol header, if the
// probe has one.
func (d dialer) connect(ctx context.Context) (*net.TCPConn, error) {
	nd := net.Dialer{KeepAlive: -1}
	nd.SetMultipathTCP(false) // its fallback would hide what a plain client meets
	// Not DialTCP: that binds to a port first, which no other destination can
	// share then.
	c, err := nd.DialContext(ctx, "tcp", d.address.String())
	if err != nil {
		return nil, d.explain("connect", err)
	}
	conn := c.(*net.TCPConn)
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if header := proxyHeader(d.probe.Proxy); header != "" {
		if _, err := io.WriteString(conn, header); err != nil {
			conn.Close()
			return nil, d.explain("PROXY header", err)
		}
	}
	return conn, nil
}

// proxyHeader is the header of a connection that the proxy opens for itself:
// LOCAL in version 2, UNKNOWN in version 1. Both say that there is no client.
func proxyHeader(v pool.ProxyVersion) string {
	switch v {
	case pool.ProxyV1:
		return "PROXY UNKNOWN\r\n"
	case pool.ProxyV2: // signature, version 2 and command LOCAL, AF_UNSPEC, length 0
		return "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	}
	return ""
}

// A localFault is a fault of this host that kept a probe from being made. It
// says nothing about the backend.
type localFault struct{ err error }

func (f *localFault) Error() string { return f.err.Error() }
func (f *localFault) Unwrap() error { return f.err }

// isLocal reports whether err is a fault of this host. A connect that finds no
// free port fails with EADDRNOTAVAIL, or with EADDRINUSE where what holds the
// ports are sockets that were bound first.
func isLocal(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.ENOBUFS, syscall.ENOMEM,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// explain puts the failure of one step of a probe in words for a person.
func (d dialer) explain(step string, err error) error {
	var timeout net.Error
	switch {
	case isLocal(err):
		return &localFault{fmt.Errorf("%s %s: %w", step, d.address, err)}
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New(step + " refused")
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%s timed out after %s", step, timeoutOf(d.probe))
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errors.New(step + ": the connection was reset")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New(step + ": the connection was closed early")
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("%s: %s", step, errno)
	}
	text := strings.TrimPrefix(err.Error(), "net/http: HTTP/1.x transport connection broken: ")
	return fmt.Errorf("%s: %s", step, tidy(text))
}

// tidy makes text that a server may have chosen fit for a line of a log.
func tidy(s string) string {
	const longest = 160
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "..."
	}
	return s
}
