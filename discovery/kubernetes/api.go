package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"haslohas.com/elbow/gateway"
)

// An api speaks to an API server, in protocol buffers where there are such. It knows the groups it
// needs and no other: the typed clients of client-go would add those of the
// whole of Kubernetes, 19 MB of program.
type api struct {
	host    string
	config  *rest.Config
	http    *http.Client
	clients map[schema.GroupVersion]rest.Interface
}

// groups are what an api can read.
func groups() map[schema.GroupVersion]func(*runtime.Scheme) error {
	all := map[schema.GroupVersion]func(*runtime.Scheme) error{
		corev1.SchemeGroupVersion:      corev1.AddToScheme,
		discoveryv1.SchemeGroupVersion: discoveryv1.AddToScheme,
	}
	for _, version := range customVersions {
		all[schema.GroupVersion{Group: gateway.Group, Version: version}] = addCustom(version)
	}
	return all
}

// errNoCluster is what is said where no kubeconfig is found.
var errNoCluster = errors.New("no cluster is known: there is no kubeconfig (kubernetes.kubeconfig, the variable KUBECONFIG, " +
	"~/.kube/config), and this is no pod with a service account")

// loadAPI makes an api of the kubeconfig at path, or of the one that is found.
// It does not connect yet.
func loadAPI(path string) (*api, error) {
	config, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	return newAPI(config)
}

func loadConfig(path string) (*rest.Config, error) {
	files := kubeconfigFiles(path)
	if len(files) == 0 {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			err = errNoCluster
		}
		return config, err
	}
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: files}
	if path != "" {
		rules = &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	return config, nil
}

// kubeconfigFiles returns the kubeconfig files that count; none: the service
// account of a pod does.
func kubeconfigFiles(path string) []string {
	if path != "" {
		return []string{path}
	}
	if list := filepath.SplitList(os.Getenv("KUBECONFIG")); len(list) > 0 {
		return list
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	if path = filepath.Join(home, ".kube", "config"); readable(path) {
		return []string{path}
	}
	return nil
}

func readable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func newAPI(config *rest.Config) (*api, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "elbow"
	config.QPS, config.Burst = 50, 100 // at the start each service has a list or two
	config.WarningHandler = rest.NoWarnings{}
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	a := &api{host: config.Host, config: config, http: client, clients: make(map[schema.GroupVersion]rest.Interface)}
	scheme := runtime.NewScheme()
	groups := groups()
	for group, add := range groups {
		if err := add(scheme); err != nil {
			return nil, err
		}
		metav1.AddToGroupVersion(scheme, group)
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	for group := range groups {
		own := rest.CopyConfig(config)
		own.NegotiatedSerializer, own.GroupVersion = codecs, &group
		if own.APIPath = "/apis"; group.Group == "" {
			own.APIPath = "/api"
		}
		if group.Group == gateway.Group { // custom resources have no other form
			own.ContentType, own.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
		}
		if a.clients[group], err = rest.RESTClientForConfigAndClient(own, client); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// same reports whether b says the same as a: another connection would be no
// other.
func (a *api) same(b *api) bool {
	return reflect.DeepEqual(withoutFuncs(a.config), withoutFuncs(b.config))
}

// withoutFuncs is c without what cannot be compared and does not come from a
// kubeconfig.
func withoutFuncs(c *rest.Config) *rest.Config {
	c = rest.CopyConfig(c)
	c.WrapTransport, c.Dial, c.Proxy, c.AuthConfigPersister = nil, nil, nil, nil
	return c
}

// close drops the connections that nobody uses.
func (a *api) close() { a.http.CloseIdleConnections() }

// list lists what i is about.
func (a *api) list(ctx context.Context, i interest, o metav1.ListOptions) (runtime.Object, error) {
	list := i.kind.newList()
	err := a.request(i, o).Do(ctx).Into(list)
	return list, err
}

// watch watches what i is about.
func (a *api) watch(ctx context.Context, i interest, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	return a.request(i, o).Watch(ctx)
}

func (a *api) request(i interest, o metav1.ListOptions) *rest.Request {
	o.LabelSelector, o.FieldSelector = i.labels, i.fields
	return a.clients[i.kind.group].Get().NamespaceIfScoped(i.namespace, i.namespace != "").Resource(i.kind.resource).
		SpecificallyVersionedParams(&o, metav1.ParameterCodec, metav1.SchemeGroupVersion)
}
