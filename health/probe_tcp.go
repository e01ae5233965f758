package health

import (
	"context"

	"haslohas.com/elbow/pool"
)

// tcp is content with a connect. The connection is reset and not closed: that
// leaves no TIME_WAIT behind, and most servers do not even wake up for it.
// With a PROXY header it is closed, since a reset could overtake the header and
// the server would complain about a connection without one.
func (d dialer) tcp(ctx context.Context) (string, error) {
	conn, err := d.connect(ctx)
	if err != nil {
		return "", err
	}
	if d.probe.Proxy == pool.ProxyOff {
		conn.SetLinger(0)
	}
	conn.Close()
	return "tcp connect ok", nil
}
