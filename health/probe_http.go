package health

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"haslohas.com/elbow/pool"
)

const (
	userAgent     = "elbow-probe"
	bodyLimit     = 5 << 10  // of the body that is looked at
	responseLimit = 64 << 10 // of the response as a whole
)

// http sends a GET and judges status and body. Redirects are not followed:
// where they lead to is another server's health.
func (d dialer) http(ctx context.Context) (string, error) {
	request, err := d.get()
	if err != nil {
		return "", err
	}
	var conn net.Conn
	if d.probe.Type == pool.ProbeHTTPS {
		conn, err = typed(d.connectTLS(ctx))
	} else {
		conn, err = typed(d.connect(ctx))
	}
	if err != nil {
		return "", err
	}
	defer conn.Close() // and never the body, which would be read to its end first
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	response, err := exchange(conn, request)
	if err != nil {
		return "", d.explain("HTTP answer", err)
	}

	want := d.probe.Status
	if want == (pool.StatusRanges{}) {
		want[0] = pool.StatusRange{First: 200, Last: 399}
	}
	if !want.Contain(response.StatusCode) {
		return "", fmt.Errorf("HTTP status %d, want %s", response.StatusCode, rangesText(want))
	}
	if d.probe.Body != "" {
		if err := d.find(response.Body); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("HTTP %d", response.StatusCode), nil
}

// exchange sends request and reads the head of the answer. It does without
// [http.Transport], whose part is to keep connections, and which writes to the
// standard log when a server speaks first. Reading the body ends at a limit.
func exchange(conn net.Conn, request *http.Request) (*http.Response, error) {
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: conn, N: responseLimit}
	r := bufio.NewReader(limited)
	for {
		response, err := http.ReadResponse(r, request)
		if err != nil && limited.N == 0 {
			return nil, fmt.Errorf("the header is longer than %d bytes", responseLimit)
		}
		if err != nil || response.StatusCode >= 200 {
			return response, err
		}
		// 1xx: the final answer is yet to come, RFC 9110 section 15.2.
	}
}

func (d dialer) get() (*http.Request, error) {
	path, query, _ := strings.Cut(d.probe.Path, "?")
	if path == "" {
		path = "/"
	}
	decoded, err := url.PathUnescape(path)
	if err != nil || path[0] != '/' {
		return nil, fmt.Errorf("path %q of the probe is not a request target", d.probe.Path)
	}
	r := &http.Request{
		Method: http.MethodGet,
		URL: &url.URL{
			Scheme: d.probe.Type.String(), Host: d.address.String(),
			Path: decoded, RawPath: path, RawQuery: query,
		},
		Host:   d.probe.Host,
		Header: http.Header{"User-Agent": {userAgent}, "Accept-Encoding": {"identity"}},
		Close:  true,
	}
	return r, nil
}

// find looks for the expected text, and at no more of body than it needs.
func (d dialer) find(body io.Reader) error {
	text := make([]byte, 0, bodyLimit)
	for {
		n, err := body.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		if bytes.Contains(text, []byte(d.probe.Body)) {
			return nil
		}
		if len(text) == cap(text) {
			return fmt.Errorf("the first %d bytes of the body do not contain %q", bodyLimit, d.probe.Body)
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("body does not contain %q", d.probe.Body)
		}
		if err != nil {
			return d.explain("HTTP body", err)
		}
	}
}

func rangesText(ranges pool.StatusRanges) string {
	var parts []string
	for _, r := range ranges {
		switch {
		case r.First == 0:
		case r.First == r.Last:
			parts = append(parts, fmt.Sprint(r.First))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", r.First, r.Last))
		}
	}
	return strings.Join(parts, ", ")
}

// typed keeps a nil pointer from becoming an interface that is not nil.
func typed[C net.Conn](conn C, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return conn, nil
}
