package kubernetes

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"haslohas.com/elbow/gateway"
)

// A documents is an API server that has documents, by path, and lists; it lets
// watches wait.
type documents struct {
	t *testing.T

	mu   sync.Mutex
	have map[string]string // guarded by mu
}

func (d *documents) set(path, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.have[path] = text
}

func (d *documents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	text, ok := d.have[r.URL.Path]
	d.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch q := r.URL.Query(); {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		text = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"no"}`
	case q.Get("sendInitialEvents") != "":
		w.WriteHeader(http.StatusUnprocessableEntity)
		text = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422,"message":"no"}`
	case q.Get("watch") != "":
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return
	}
	_, _ = w.Write([]byte(text)) // the client may be gone
}

// TestGatewaysAreLookedUp: of each resource the best version is followed; what the API
// server does not have is no error.
func TestGatewaysAreLookedUp(t *testing.T) {
	const group = "/apis/gateway.networking.k8s.io"
	d := &documents{t: t, have: map[string]string{
		"/api/v1/services":   `{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"namespace":"a","name":"s"},"spec":{"ports":[{"port":80,"nodePort":30080}]}}]}`,
		"/api/v1/namespaces": `{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"a","labels":{"x":"y"}}}]}`,
	}}
	server := httptest.NewServer(d)
	defer server.Close()
	c := New(Options{Kubeconfig: kubeconfigOf(t, server.URL)})
	ctx, cancel := context.WithCancel(t.Context())
	worlds := make(chan *gateway.World, 100)
	follow := func(g *Gateways) (stop func()) {
		following, cancel := context.WithCancel(ctx)
		var running sync.WaitGroup
		running.Go(func() {
			if err := g.Run(following, func(w *gateway.World, err error) {
				if err == nil { // the server does not stream lists, which is said at first
					worlds <- w
				}
			}); err != nil {
				t.Error(err)
			}
		})
		return func() { cancel(); running.Wait() }
	}
	defer cancel()
	next := func() *gateway.World {
		t.Helper()
		select {
		case w := <-worlds:
			return w
		case <-time.After(10 * time.Second):
			t.Fatal("nothing is said")
			return nil
		}
	}

	g := c.Gateways()
	stop := follow(g)
	if diff := cmp.Diff(&gateway.World{}, next()); diff != "" {
		t.Errorf("without the Gateway API: -want +got:\n%s", diff)
	}
	stop()

	d.set(group, `{"kind":"APIGroup","apiVersion":"v1","name":"gateway.networking.k8s.io","versions":[{"version":"v1alpha2"},{"version":"v9"},{"version":"v1"}]}`)
	d.set(group+"/v1", `{"kind":"APIResourceList","apiVersion":"v1","resources":[{"name":"gatewayclasses"},{"name":"gateways"},{"name":"gateways/status"},{"name":"tlsroutes"},{"name":"httproutes"}]}`)
	d.set(group+"/v1alpha2", `{"kind":"APIResourceList","apiVersion":"v1","resources":[{"name":"tcproutes"},{"name":"tlsroutes"}]}`)
	list := func(version, kind, items string) string {
		return `{"kind":"` + kind + `List","apiVersion":"gateway.networking.k8s.io/` + version + `","metadata":{"resourceVersion":"5"},"items":[` + items + `]}`
	}
	d.set(group+"/v1/gatewayclasses", list("v1", "GatewayClass", `{"metadata":{"name":"elbow","resourceVersion":"3"},"spec":{"controllerName":"haslohas.com/elbow"}}`))
	d.set(group+"/v1/gateways", list("v1", "Gateway", `{"metadata":{"namespace":"a","name":"edge","generation":2,"creationTimestamp":"2026-11-23T12:00:00Z",
		"annotations":{"external-dns.alpha.kubernetes.io/hostname":"x.example","other":"x"}},"spec":{"gatewayClassName":"elbow","listeners":[{"name":"l","port":1,"protocol":"TCP"}],"novel":{}}}`))
	d.set(group+"/v1alpha2/tcproutes", list("v1alpha2", "TCPRoute", `{"metadata":{"namespace":"a","name":"z"},"spec":{}},{"metadata":{"namespace":"a","name":"b","deletionTimestamp":"2026-11-23T12:00:00Z"},"spec":{}}`))
	d.set(group+"/v1/tlsroutes", list("v1", "TLSRoute", `{"metadata":{"namespace":"a","name":"t"},"spec":{"hostnames":["x.example"]}}`))
	stop = follow(g)
	defer stop()
	want := &gateway.World{
		Classes: []gateway.Class{{Meta: gateway.Meta{Name: "elbow", ResourceVersion: "3"}, Spec: gateway.ClassSpec{ControllerName: "haslohas.com/elbow"}}},
		Gateways: []gateway.Gateway{{
			Meta: gateway.Meta{Namespace: "a", Name: "edge", Generation: 2, Created: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
				Annotations: map[string]string{gateway.AnnotationHostname: "x.example"}},
			Spec: gateway.GatewaySpec{ClassName: "elbow", Listeners: []gateway.Listener{{Name: "l", Port: 1, Protocol: "TCP"}}},
		}},
		Routes: []gateway.Route{
			{Kind: "TCPRoute", Object: gateway.Object[gateway.RouteSpec, gateway.RouteStatus]{Meta: gateway.Meta{Namespace: "a", Name: "b", Deleted: true}}},
			{Kind: "TCPRoute", Object: gateway.Object[gateway.RouteSpec, gateway.RouteStatus]{Meta: gateway.Meta{Namespace: "a", Name: "z"}}},
			{Kind: "TLSRoute", Object: gateway.Object[gateway.RouteSpec, gateway.RouteStatus]{Meta: gateway.Meta{Namespace: "a", Name: "t"},
				Spec: gateway.RouteSpec{Hostnames: []string{"x.example"}}}},
		},
		Services:   []gateway.Service{{Name: gateway.Name{Namespace: "a", Name: "s"}, Ports: []gateway.Port{{Number: 80, Node: true}}}},
		Namespaces: map[string]map[string]string{"a": {"x": "y"}},
	}
	if diff := cmp.Diff(want, next()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
