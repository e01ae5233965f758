package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"k8s.io/client-go/rest"
)

var (
	errNotFound = errors.New("there is no such lease")
	errConflict = errors.New("the lease has changed meanwhile")
)

// maxObject bounds a Lease, in bytes; etcd takes no larger objects.
const maxObject = 2 << 20

// An object is a Lease of coordination.k8s.io/v1, with what is of use here.
// Labels and annotations go back as they came.
type object struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       spec     `json:"spec"`
}

type metadata struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

type spec struct {
	Holder      string     `json:"holderIdentity"`
	Seconds     int        `json:"leaseDurationSeconds"`
	Acquired    *microTime `json:"acquireTime,omitempty"`
	Renewed     *microTime `json:"renewTime,omitempty"`
	Transitions int        `json:"leaseTransitions"`
}

// A microTime is a time as MicroTime of Kubernetes writes it.
type microTime time.Time

const microFormat = "2006-01-02T15:04:05.000000Z07:00"

func (t microTime) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Time(t).UTC().Format(microFormat))
}

func (t *microTime) UnmarshalJSON(b []byte) error { return (*time.Time)(t).UnmarshalJSON(b) }

func newObject(namespace, name string) *object {
	return &object{APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Metadata: metadata{Name: name, Namespace: namespace}}
}

// length is for how long o is its holder's after it was last written: what the
// holder said, or what we would say.
func (o *object) length(ours time.Duration) time.Duration {
	if o.Spec.Seconds > 0 {
		return time.Duration(o.Spec.Seconds) * time.Second
	}
	return ours
}

// taken is o with that holder; renewed: who had it before.
func (o *object) taken(by string, length time.Duration, now time.Time, renewed bool) *object {
	t := microTime(now)
	out := *o
	out.Metadata.Labels, out.Metadata.Annotations = maps.Clone(o.Metadata.Labels), maps.Clone(o.Metadata.Annotations)
	out.Spec.Holder, out.Spec.Seconds, out.Spec.Renewed = by, int(length/time.Second), &t
	if !renewed || o.Spec.Acquired == nil {
		out.Spec.Acquired = &t
	}
	if !renewed && o.Metadata.ResourceVersion != "" {
		out.Spec.Transitions++
	}
	return &out
}

// released is o without a holder, as client-go leaves it.
func (o *object) released(now time.Time) *object {
	t := microTime(now)
	out := *o
	out.Spec.Holder, out.Spec.Seconds, out.Spec.Renewed = "", 1, &t
	return &out
}

// An api reads and writes one Lease.
type api struct {
	http    *http.Client
	base    string // of the Leases of the namespace
	name    string
	timeout time.Duration // of one request
}

func newAPI(config *rest.Config, namespace, name string, timeout time.Duration) (*api, error) {
	c, err := client(config)
	if err != nil {
		return nil, fmt.Errorf("reading how the cluster is reached: %w", err)
	}
	u, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("reading how the cluster is reached: %w", err)
	}
	base := u.JoinPath("apis/coordination.k8s.io/v1/namespaces", url.PathEscape(namespace), "leases").String()
	return &api{http: c, base: base, name: name, timeout: timeout}, nil
}

func (a *api) get(ctx context.Context) (*object, error) {
	return a.do(ctx, http.MethodGet, a.base+"/"+url.PathEscape(a.name), nil)
}

// put writes o in place of the version that it was made from, or as the first.
func (a *api) put(ctx context.Context, o *object) (*object, error) {
	if o.Metadata.ResourceVersion == "" {
		return a.do(ctx, http.MethodPost, a.base, o)
	}
	return a.do(ctx, http.MethodPut, a.base+"/"+url.PathEscape(a.name), o)
}

func (a *api) do(ctx context.Context, method, at string, send *object) (*object, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	var body io.Reader
	if send != nil {
		text, err := json.Marshal(send)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, at, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if send != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	answer, err := a.http.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return nil, fmt.Errorf("the cluster cannot be asked: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxObject))
	if err != nil {
		return nil, fmt.Errorf("reading what the cluster answers: %w", err)
	}
	switch answer.StatusCode {
	case http.StatusOK, http.StatusCreated:
	case http.StatusNotFound:
		if send == nil {
			return nil, errNotFound
		}
		return nil, fmt.Errorf("the cluster answers: %s", message(text, answer.Status))
	case http.StatusConflict:
		return nil, errConflict
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("the cluster does not allow it: %s; the rights are in deploy/kubernetes/elastic-ip-role.yaml", message(text, answer.Status))
	default:
		return nil, fmt.Errorf("the cluster answers: %s", message(text, answer.Status))
	}
	o := new(object)
	if err := json.Unmarshal(text, o); err != nil {
		return nil, fmt.Errorf("reading what the cluster answers: %w", err)
	}
	if o.Kind != "Lease" || o.Metadata.ResourceVersion == "" {
		return nil, fmt.Errorf("the cluster answers with a %q without a version, not with a Lease", o.Kind)
	}
	return o, nil
}

// message is what a Status object says, on one line.
func message(text []byte, otherwise string) string {
	var status struct {
		Message string `json:"message"`
	}
	if err := json.Unmarshal(text, &status); err != nil || status.Message == "" {
		return otherwise
	}
	m := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, status.Message)
	if len(m) > 300 {
		m = strings.ToValidUTF8(m[:300], "") + "…"
	}
	return m
}
