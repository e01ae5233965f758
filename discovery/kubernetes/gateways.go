package kubernetes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"haslohas.com/elbow/gateway"
)

const (
	// lookAgain is how often it is looked whether the Gateway API is installed, or
	// more of it.
	lookAgain = 30 * time.Second

	// lookAfter is when it is looked again after something went wrong.
	lookAfter = 2 * time.Second

	lookTimeout = 10 * time.Second

	// believed is how long it must be gone until that is believed: an API server
	// that starts knows nothing of it for a moment.
	believed = time.Minute
)

// Gateways follows the objects of the Gateway API, where a cluster has it. Its
// methods may be called by several goroutines.
type Gateways struct {
	cluster *Cluster

	mu     sync.Mutex
	served map[string]*kind // guarded by mu: by resource
}

// Gateways returns what follows the Gateway API.
func (c *Cluster) Gateways() *Gateways { return &Gateways{cluster: c} }

// Run calls changed with all objects whenever one of them has changed, and every
// few seconds. Where the Gateway API is not installed there are none, until it is; err says
// why they may be out of date, and w is nil if they are not known at all. changed must
// not change what it gets. Run returns nil when ctx is cancelled, or an error where
// there is no way to the cluster at all.
func (g *Gateways) Run(ctx context.Context, changed func(w *gateway.World, err error)) error {
	session := g.cluster.open()
	defer session.close()
	if err := session.failure(); err != nil {
		return err
	}
	var there map[string]*kind // nil: not known yet
	var missing time.Time      // since when it is
	for ctx.Err() == nil {
		next, err := g.look(ctx)
		wait := lookAgain
		switch now := time.Now(); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			changed(nil, err)
			wait = lookAfter
		case next["gateways"] == nil || next["gatewayclasses"] == nil:
			if missing.IsZero() {
				missing = now
			}
			if len(there) == 0 || now.Sub(missing) >= believed {
				there = map[string]*kind{}
				changed(&gateway.World{}, nil)
			}
		default:
			there, missing = next, time.Time{}
		}
		if len(there) == 0 {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			continue
		}
		g.mu.Lock()
		g.served = there
		g.mu.Unlock()
		g.follow(ctx, session, there, changed)
	}
	return nil
}

// follow follows what is there until something else is, or seems to be.
func (g *Gateways) follow(ctx context.Context, session *session, there map[string]*kind, changed func(*gateway.World, error)) {
	wanted := []interest{{kind: kindService}, {kind: kindNamespace}}
	for _, resource := range resources {
		if k := there[resource]; k != nil {
			wanted = append(wanted, interest{kind: k})
		}
	}
	woken := make(chan struct{}, 1)
	informers := session.join(wanted, woken)
	defer session.leave(informers, woken)
	again, look := time.NewTimer(untilFresh()), time.NewTicker(lookAgain)
	defer again.Stop()
	defer look.Stop()
	failing := time.Time{} // since when
	for {
		select {
		case <-ctx.Done():
			return
		case <-woken:
		case <-again.C:
			again.Reset(untilFresh())
		case <-look.C:
			if next, err := g.look(ctx); err == nil && len(next) > 0 && !sameKinds(next, there) {
				return
			}
		}
		w, ok, err := world(informers)
		switch {
		case err == nil:
			failing = time.Time{}
		case failing.IsZero():
			failing = time.Now()
		case time.Since(failing) > lookAfter:
			if next, err := g.look(ctx); err == nil && !sameKinds(next, there) {
				return // of what is gone there is nothing to follow
			}
		}
		if ok {
			changed(w, err)
		} else if err != nil {
			changed(nil, err)
		}
	}
}

func sameKinds(a, b map[string]*kind) bool {
	for _, r := range resources {
		if a[r] != b[r] {
			return false
		}
	}
	return true
}

// resources are those that are followed, if they are there.
var resources = []string{"gatewayclasses", "gateways", "tcproutes", "tlsroutes", "referencegrants"}

// look finds out which resources the API server has, in which versions.
func (g *Gateways) look(ctx context.Context) (map[string]*kind, error) {
	a, err := g.cluster.connection()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var group struct{ Versions []struct{ Version string } }
	if err := a.document(ctx, "/apis/"+gateway.Group, &group); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, explainLook(err)
	}
	there := make(map[schema.GroupVersion]map[string]bool)
	for _, v := range group.Versions {
		at := schema.GroupVersion{Group: gateway.Group, Version: v.Version}
		if _, known := a.clients[at]; !known {
			continue
		}
		var list struct{ Resources []struct{ Name string } }
		if err := a.document(ctx, "/apis/"+at.String(), &list); err != nil {
			if apierrors.IsNotFound(err) {
				continue
			}
			return nil, explainLook(err)
		}
		there[at] = make(map[string]bool)
		for _, r := range list.Resources {
			there[at][r.Name] = true
		}
	}
	served := make(map[string]*kind)
	for _, kinds := range customKinds {
		for _, k := range kinds {
			if served[k.resource] == nil && there[k.group][k.resource] {
				served[k.resource] = k
			}
		}
	}
	return served, nil
}

func explainLook(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok { // it ends with an address
		err = u.Err
	}
	return fmt.Errorf("asking the API server whether it has the Gateway API: %w", err)
}

// document reads a document of the API server that is no object.
func (a *api) document(ctx context.Context, path string, into any) error {
	text, err := a.clients[corev1.SchemeGroupVersion].Get().AbsPath(path).SetHeader("Accept", "application/json").Do(ctx).Raw()
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// world is what the informers know.
func world(informers []*informer) (w *gateway.World, ok bool, err error) {
	f := finding{ok: true}
	w = &gateway.World{Namespaces: make(map[string]map[string]string)}
	for _, i := range informers {
		switch i.kind.resource {
		case "services":
			for _, s := range all[*corev1.Service](&f, i) {
				w.Services = append(w.Services, referred(s))
			}
		case "namespaces":
			for _, n := range all[*corev1.Namespace](&f, i) {
				w.Namespaces[n.Name] = n.Labels
			}
		case "gatewayclasses":
			w.Classes = objects[gateway.ClassSpec, gateway.ClassStatus](&f, i)
		case "gateways":
			w.Gateways = objects[gateway.GatewaySpec, gateway.GatewayStatus](&f, i)
		case "referencegrants":
			w.Grants = objects[gateway.GrantSpec, struct{}](&f, i)
		case "tcproutes":
			w.Routes = append(w.Routes, routes(&f, i, gateway.TCPRoute)...)
		case "tlsroutes":
			w.Routes = append(w.Routes, routes(&f, i, gateway.TLSRoute)...)
		}
	}
	return w, f.ok, f.Err
}

// all returns what i knows, in the order of the names.
func all[T metav1.Object](f *finding, i *informer) []T {
	var objects []T
	gather(f, &objects)(known[T](i))
	slices.SortFunc(objects, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	return objects
}

func objects[Spec, Status any](f *finding, i *informer) []gateway.Object[Spec, Status] {
	found := all[*custom[Spec, Status]](f, i)
	out := make([]gateway.Object[Spec, Status], 0, len(found))
	for _, o := range found {
		out = append(out, o.object())
	}
	return out
}

func routes(f *finding, i *informer, kind string) []gateway.Route {
	var out []gateway.Route
	for _, o := range objects[gateway.RouteSpec, gateway.RouteStatus](f, i) {
		out = append(out, gateway.Route{Kind: kind, Object: o})
	}
	return out
}

// referred is what must be known of a Service to refer to it.
func referred(s *corev1.Service) gateway.Service {
	out := gateway.Service{
		Name:  gateway.Name{Namespace: s.Namespace, Name: s.Name},
		Alias: s.Spec.Type == corev1.ServiceTypeExternalName,
		Via:   s.Annotations[annotationVia],
	}
	for _, p := range s.Spec.Ports {
		out.Ports = append(out.Ports, gateway.Port{Number: p.Port, Protocol: string(p.Protocol), Node: p.NodePort != 0})
	}
	return out
}

// Write writes a status. The error is, or wraps, [ErrConflict] where the object has
// changed since it was read, and [ErrGone] where it is gone.
func (g *Gateways) Write(ctx context.Context, w gateway.Write) error {
	g.mu.Lock()
	k := g.served[w.Resource]
	g.mu.Unlock()
	if k == nil {
		return fmt.Errorf("writing %s %s: %w", w.Resource, w.Name, ErrGone)
	}
	return g.cluster.Patch(ctx, Target{Group: k.group, Resource: w.Resource, Namespace: w.Name.Namespace, Name: w.Name.Name, Subresource: "status"}, w.Patch)
}
