package health

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
)

// tls is content with a handshake.
func (d dialer) tls(ctx context.Context) (string, error) {
	conn, err := d.connectTLS(ctx)
	if err != nil {
		return "", err
	}
	conn.Close()
	return "TLS handshake ok", nil
}

func (d dialer) connectTLS(ctx context.Context) (*tls.Conn, error) {
	raw, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{
		ServerName: d.serverName(),
		// Backends mostly have certificates of their own making, and the
		// question is whether they answer.
		InsecureSkipVerify: !d.probe.Verify,
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, d.explain("TLS handshake", err)
		}
		if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok {
			err = errors.New(plain.Msg)
		}
		if text, ok := strings.CutPrefix(err.Error(), "tls: "); ok {
			err = errors.New(text)
		}
		return nil, d.explain("TLS", err)
	}
	return conn, nil
}

// serverName is the host without a port; without a host, the address where
// the certificate is to be verified, else nothing.
func (d dialer) serverName() string {
	host := d.probe.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "" && d.probe.Verify {
		host = d.address.Addr().String()
	}
	return host
}
