package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
)

// The gRPC health checking protocol is one unary call with one string in its
// request and one enumeration in its response. Written out by hand this is a
// page of code; the gRPC and protobuf modules would be the largest dependency
// of the whole program.
const (
	grpcPath       = "/grpc.health.v1.Health/Check"
	grpcLimit      = 4 << 10 // of a response
	grpcPrefix     = 5       // compressed flag and length ahead of a message
	grpcServing    = 1       // HealthCheckResponse.ServingStatus
	grpcNotFound   = 5
	grpcNotThere   = 12 // UNIMPLEMENTED
	protoVarint    = 0
	protoFixed64   = 1
	protoBytes     = 2
	protoFixed32   = 5
	protoFirstText = 1<<3 | protoBytes // field 1, a string
)

// servingStatus are the names of HealthCheckResponse.ServingStatus.
var servingStatus = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

// grpc asks grpc.health.v1.Health/Check over HTTP/2 without TLS.
func (d dialer) grpc(ctx context.Context) (string, error) {
	conn, err := d.connect(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()

	transport := &http.Transport{
		DialContext:            single(conn),
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: responseLimit,
		Protocols:              new(http.Protocols),
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()

	body := healthRequest(d.probe.Service)
	request := &http.Request{
		Method: http.MethodPost,
		URL:    &url.URL{Scheme: "http", Host: d.address.String(), Path: grpcPath},
		Host:   d.probe.Host,
		Header: http.Header{
			"Content-Type": {"application/grpc"},
			"Te":           {"trailers"},
			"User-Agent":   {userAgent},
		},
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
	}
	response, err := transport.RoundTrip(request.WithContext(ctx))
	if err != nil {
		return "", d.explain("gRPC answer", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("gRPC: HTTP status %d, want 200", response.StatusCode)
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, grpcLimit))
	if err != nil {
		return "", d.explain("gRPC answer", err)
	}
	// Trailers are there once the body was read; a response without a body
	// has them in its header.
	status := response.Trailer.Get("Grpc-Status")
	if status == "" {
		status = response.Header.Get("Grpc-Status")
	}
	switch code, err := strconv.Atoi(status); {
	case err != nil:
		return "", errors.New("gRPC: the answer has no grpc-status")
	case code == grpcNotFound:
		return "", fmt.Errorf("gRPC health: the server does not know the service %q", d.probe.Service)
	case code == grpcNotThere:
		return "", errors.New("gRPC: the server has no health service (UNIMPLEMENTED)")
	case code != 0:
		return "", fmt.Errorf("gRPC: status %d", code)
	}
	serving, err := servingOf(answer)
	if err != nil {
		return "", fmt.Errorf("gRPC: %w", err)
	}
	name := strconv.FormatUint(serving, 10)
	if serving < uint64(len(servingStatus)) {
		name = servingStatus[serving]
	}
	if serving != grpcServing {
		return "", errors.New("gRPC health: " + name)
	}
	return "gRPC health: " + name, nil
}

// healthRequest is a HealthCheckRequest as one gRPC message: a prefix and
// field 1, the name of the service, left out if it is empty.
func healthRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = append(message, protoFirstText)
		message = binary.AppendUvarint(message, uint64(len(service)))
		message = append(message, service...)
	}
	out := make([]byte, grpcPrefix, grpcPrefix+len(message))
	binary.BigEndian.PutUint32(out[1:], uint32(len(message)))
	return append(out, message...)
}

// single is a dial function for exactly one request over conn. Connecting
// beforehand keeps apart what went wrong: the connect, the handshake or the
// answer.
func single(conn net.Conn) func(context.Context, string, string) (net.Conn, error) {
	handed := make(chan net.Conn, 1)
	handed <- conn
	return func(context.Context, string, string) (net.Conn, error) {
		select {
		case c := <-handed:
			return c, nil
		default:
			return nil, errors.New("the connection is used up")
		}
	}
}

var errMalformed = errors.New("malformed health response")

// servingOf reads field 1 of a HealthCheckResponse from a gRPC message; a
// field that is left out is 0, UNKNOWN. Fields it does not know are skipped.
func servingOf(answer []byte) (uint64, error) {
	if len(answer) < grpcPrefix || answer[0] != 0 {
		return 0, errMalformed // cut short, or compressed, which was not asked for
	}
	length := binary.BigEndian.Uint32(answer[1:])
	message := answer[grpcPrefix:]
	if uint64(length) > uint64(len(message)) {
		return 0, errMalformed
	}
	message = message[:length]
	var serving uint64
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return 0, errMalformed
		}
		message = message[n:]
		var skip uint64
		switch tag & 7 {
		case protoVarint:
			v, n := binary.Uvarint(message)
			if n <= 0 {
				return 0, errMalformed
			}
			if tag>>3 == 1 {
				serving = v
			}
			skip = uint64(n)
		case protoFixed64:
			skip = 8
		case protoFixed32:
			skip = 4
		case protoBytes:
			size, n := binary.Uvarint(message)
			if n <= 0 {
				return 0, errMalformed
			}
			message, skip = message[n:], size
		default:
			return 0, errMalformed
		}
		if skip > uint64(len(message)) {
			return 0, errMalformed
		}
		message = message[skip:]
	}
	return serving, nil
}
