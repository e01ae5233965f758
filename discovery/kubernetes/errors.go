package kubernetes

import (
	"errors"
	"fmt"
	"net"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// expired reports whether the API server has forgotten what it is asked to go
// on from.
func expired(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }

// explain says what went wrong with a request, in one line that does not
// change while the reason is the same, with the cure where there is one.
func explain(err error, i interest) error {
	what := i.kind.resource
	if i.namespace != "" {
		what += " in namespace " + i.namespace
	}
	switch {
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server does not know us (401): renew the token or the client certificate of the kubeconfig")
	case apierrors.IsForbidden(err):
		role := "a ClusterRole"
		if i.namespace != "" {
			role = "a Role in namespace " + i.namespace
		}
		return fmt.Errorf("not allowed to list and watch %s (403): bind us to %s with {apiGroups: [%q], resources: [%s], verbs: [list, watch]}",
			what, role, i.kind.group.Group, i.kind.resource)
	}
	// A request ends with its address, which has parameters that always differ.
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if o, ok := errors.AsType[*net.OpError](err); ok && o.Op == "read" {
		err = o.Err // without our port
	}
	return fmt.Errorf("asking the API server for %s: %w", what, err)
}
