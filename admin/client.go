package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// DefaultSocket is where the control socket lies unless somebody says otherwise.
const DefaultSocket = "/run/elbow/elbow.sock"

// maxAnswer bounds what a Client reads: the status of some ten thousand backends.
const maxAnswer = 32 << 20

// A Client talks to a running daemon through its control socket. Make one
// with [NewClient]. Its methods may be called by several goroutines; their
// errors are whole sentences for a person.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a Client for the socket at that path; empty: [DefaultSocket].
// It opens nothing yet.
func NewClient(socket string) *Client {
	if socket == "" {
		socket = DefaultSocket
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: 5 * time.Second}
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		Timeout:   30 * time.Second,
	}}
}

// An APIError is what the daemon said instead of doing what was asked.
type APIError struct {
	Code    int // the HTTP status
	Message string
	Near    []string // names that exist and look like the one that does not
}

func (e *APIError) Error() string {
	if len(e.Near) == 0 {
		return e.Message
	}
	return e.Message + "; did you mean " + strings.Join(e.Near, ", ") + "?"
}

// Status returns everything that there is to know.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "status", nil)
}

// Why explains a hostname, service, listener, backend, node or zone. A name
// that nothing is known about is an [APIError] with code 404.
//
// Client is an address or subnet that asks for the name; empty: nobody in
// particular.
func (c *Client) Why(ctx context.Context, name, client string) (Why, error) {
	query := "why?name=" + url.QueryEscape(name)
	if client != "" {
		query += "&client=" + url.QueryEscape(client)
	}
	return call[Why](ctx, c, http.MethodGet, query, nil)
}

// Top returns what DNS was asked most. Where that is not counted it is an
// [APIError] with code 404.
func (c *Client) Top(ctx context.Context) (Top, error) {
	return call[Top](ctx, c, http.MethodGet, "dns/top", nil)
}

// A Warning is the error of a command that is in force although something went
// wrong with it, such as saving it. What is affected is returned beside it.
type Warning struct{ Message string }

func (e *Warning) Error() string { return e.Message }

// Drain takes what target names out of service: DNS first, then the proxy.
// This holds for each command: a target is a node, "address:port" or
// "service/address:port"; the error may be a [Warning].
func (c *Client) Drain(ctx context.Context, target string) ([]Affected, error) {
	return c.command(ctx, "drain", command{Target: target})
}

// Undrain takes a Drain back.
func (c *Client) Undrain(ctx context.Context, target string) ([]Affected, error) {
	return c.command(ctx, "undrain", command{Target: target})
}

// Force lets target be up or down, whatever its probes say, for the time d;
// 0: until Unforce.
func (c *Client) Force(ctx context.Context, target string, up bool, d time.Duration) ([]Affected, error) {
	body := command{Target: target, State: "down"}
	if up {
		body.State = "up"
	}
	if d != 0 {
		body.For = d.String()
	}
	return c.command(ctx, "force", body)
}

// Unforce takes a Force back.
func (c *Client) Unforce(ctx context.Context, target string) ([]Affected, error) {
	return c.command(ctx, "unforce", command{Target: target})
}

// Affected returns the backends that target names, and changes nothing.
func (c *Client) Affected(ctx context.Context, target string) ([]Affected, error) {
	out, err := call[result](ctx, c, http.MethodGet, "affected?target="+url.QueryEscape(target), nil)
	return out.Affected, err
}

func (c *Client) command(ctx context.Context, verb string, body command) ([]Affected, error) {
	out, err := call[result](ctx, c, http.MethodPost, verb, body)
	if err == nil && out.Warning != "" {
		err = &Warning{out.Warning}
	}
	return out.Affected, err
}

func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var out, none T
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return none, fmt.Errorf("encoding the request: %w", err)
		}
		text = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://elbow/api/v1/"+path, text)
	if err != nil {
		return none, fmt.Errorf("making the request: %w", err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return none, c.explain(err)
	}
	defer answer.Body.Close()
	d := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer))
	if answer.StatusCode != http.StatusOK {
		f := failure{}
		if d.Decode(&f) != nil || f.Error == "" {
			f.Error = "elbow answered " + answer.Status
		}
		return none, &APIError{Code: answer.StatusCode, Message: f.Error, Near: f.Near}
	}
	if err := d.Decode(&out); err != nil {
		return none, fmt.Errorf("reading the answer on %s: %w", c.socket, err)
	}
	return out, nil
}

// explain turns the error of a call into words.
func (c *Client) explain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the made-up URL
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("no elbow answers on %s: is it running? (systemctl status elbow); another place: --socket", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("permission denied on %s: only root and members of the group %s may use it; try sudo, or log in again after sudo usermod -aG %[2]s $USER", c.socket, groupOf(c.socket))
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("elbow on %s did not answer in time: %w", c.socket, err)
	}
	return fmt.Errorf("asking elbow on %s: %w", c.socket, err)
}

// groupOf returns the group that a socket belongs to. Who may not even see
// the socket is told the group that the packages make.
func groupOf(path string) string {
	const usual = "elbow"
	info, err := os.Stat(path)
	if err != nil {
		return usual
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return usual
	}
	id := strconv.FormatUint(uint64(st.Gid), 10)
	if g, err := user.LookupGroupId(id); err == nil {
		return g.Name
	}
	return id
}
