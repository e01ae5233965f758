package health

import (
	"bytes"
	"context"
	"fmt"
	"net"
)

// datagramLimit is more than a datagram can have.
const datagramLimit = 1 << 16

// udp sends a datagram and wants an answer: any, or one with the expected text.
// Silence is a failure, since a server that is gone is silent too wherever the
// message that says so (ICMP port unreachable) is filtered.
//
// The socket is connected, so that it takes an answer from the endpoint alone,
// and it has a fresh port each time, so that no late answer to an earlier probe
// is taken for one to this.
func (d dialer) udp(ctx context.Context) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", d.address.String())
	if err != nil {
		return "", d.explain("connect", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if _, err := conn.Write([]byte(d.probe.Send)); err != nil {
		return "", d.explain("UDP request", err)
	}
	answer := make([]byte, datagramLimit)
	n, err := conn.Read(answer)
	if err != nil {
		return "", d.explain("UDP answer", err)
	}
	if !bytes.Contains(answer[:min(n, bodyLimit)], []byte(d.probe.Body)) {
		return "", fmt.Errorf("UDP answer of %d bytes does not contain %q", n, d.probe.Body)
	}
	return fmt.Sprintf("UDP answer of %d bytes", n), nil
}
