package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// ErrConflict is that an object has changed since it was read.
var ErrConflict = errors.New("it has changed meanwhile")

// ErrGone is that there is no such object any more.
var ErrGone = errors.New("it does not exist")

// A Target is an object, or a part of one, that is written to.
type Target struct {
	Group       schema.GroupVersion
	Resource    string // such as services
	Namespace   string
	Name        string
	Subresource string // such as status; empty: the object itself
}

func (t Target) String() string {
	s := t.Resource
	if t.Subresource != "" {
		s += "/" + t.Subresource
	}
	return fmt.Sprintf("%s %s/%s", s, t.Namespace, t.Name)
}

// Patch changes an object by a merge patch, RFC 7396. The error is, or wraps,
// [ErrConflict] where the patch names a resourceVersion that is not the newest, and
// [ErrGone] where the object is not there.
func (c *Cluster) Patch(ctx context.Context, t Target, patch []byte) error {
	return c.patch(ctx, t, types.MergePatchType, patch)
}

// PatchLists is Patch by a strategic merge patch, which adds to lists that have a key,
// such as the conditions of a Service by their type, and leaves the rest of them.
func (c *Cluster) PatchLists(ctx context.Context, t Target, patch []byte) error {
	return c.patch(ctx, t, types.StrategicMergePatchType, patch)
}

func (c *Cluster) patch(ctx context.Context, t Target, how types.PatchType, patch []byte) error {
	a, err := c.connection()
	if err != nil {
		return err
	}
	r := a.clients[t.Group].Patch(how).Namespace(t.Namespace).Resource(t.Resource).Name(t.Name).Body(patch)
	if t.Subresource != "" {
		r = r.SubResource(t.Subresource)
	}
	return explainWrite(r.Do(ctx).Error(), "patch", t)
}

// emit writes an Event.
func (c *Cluster) emit(ctx context.Context, e *corev1.Event) error {
	a, err := c.connection()
	if err != nil {
		return err
	}
	if o := &e.InvolvedObject; o.UID == "" && o.Kind == "Service" {
		var s corev1.Service // kubectl finds the Events of an object by its UID
		if err := a.clients[corev1.SchemeGroupVersion].Get().Namespace(o.Namespace).Resource("services").Name(o.Name).Do(ctx).Into(&s); err == nil {
			o.UID = s.UID
		}
	}
	t := Target{Group: corev1.SchemeGroupVersion, Resource: "events", Namespace: e.Namespace, Name: e.Name}
	return explainWrite(a.clients[t.Group].Post().Namespace(e.Namespace).Resource("events").Body(e).Do(ctx).Error(), "create", t)
}

// connection returns the api of the session. There is one while something of the
// cluster runs.
func (c *Cluster) connection() (*api, error) {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil {
		return nil, errors.New("nothing of the cluster is followed")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.api == nil {
		return nil, s.err
	}
	return s.api, nil
}

func explainWrite(err error, verb string, t Target) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsConflict(err):
		return fmt.Errorf("%s %s: %w", verb, t, ErrConflict)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s %s: %w", verb, t, ErrGone)
	case apierrors.IsForbidden(err):
		resource := t.Resource
		if t.Subresource != "" {
			resource += "/" + t.Subresource
		}
		return fmt.Errorf("not allowed to %s %s in namespace %s (403): bind us to a ClusterRole with {apiGroups: [%q], resources: [%s], verbs: [%s]}",
			verb, resource, t.Namespace, t.Group.Group, resource, verb)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return fmt.Errorf("%s %s: %w", verb, t, err)
}
