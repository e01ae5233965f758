package kubernetes

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"haslohas.com/elbow/gateway"
)

// A custom is an object of a CustomResourceDefinition. Its parts are plain types,
// which know JSON and nothing of Kubernetes.
type custom[Spec, Status any] struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   Spec   `json:"spec"`
	Status Status `json:"status"`
}

// DeepCopyObject is not deep: nobody changes what was read.
func (c *custom[Spec, Status]) DeepCopyObject() runtime.Object {
	copied := *c
	return &copied
}

// A customList is a list of them.
type customList[Spec, Status any] struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`

	Items []custom[Spec, Status] `json:"items"`
}

// DeepCopyObject is not deep.
func (l *customList[Spec, Status]) DeepCopyObject() runtime.Object {
	copied := *l
	return &copied
}

// object returns c without Kubernetes.
func (c *custom[Spec, Status]) object() gateway.Object[Spec, Status] {
	return gateway.Object[Spec, Status]{
		Meta: gateway.Meta{
			Namespace:       c.Namespace,
			Name:            c.Name,
			UID:             string(c.UID),
			ResourceVersion: c.ResourceVersion,
			Generation:      c.Generation,
			Created:         c.CreationTimestamp.Time,
			Deleted:         c.DeletionTimestamp != nil,
			Annotations:     c.Annotations,
		},
		Spec:   c.Spec,
		Status: c.Status,
	}
}

// What is used of the annotations of custom resources.
var customAnnotations = []string{gateway.AnnotationHostname}

func stripCustom[Spec, Status any](c *custom[Spec, Status]) *custom[Spec, Status] {
	out := &custom[Spec, Status]{ObjectMeta: stripMeta(&c.ObjectMeta, nothing, customAnnotations), Spec: c.Spec, Status: c.Status}
	out.ResourceVersion, out.Generation, out.CreationTimestamp = c.ResourceVersion, c.Generation, c.CreationTimestamp
	return out
}

// A customKind is a custom resource in one of its versions.
func customKind[Spec, Status any](version, resource string) *kind {
	return &kind{
		group:    schema.GroupVersion{Group: gateway.Group, Version: version},
		resource: resource,
		example:  new(custom[Spec, Status]),
		newList:  func() runtime.Object { return new(customList[Spec, Status]) },
		strip:    stripAs(stripCustom[Spec, Status]),
	}
}

// The resources of the Gateway API that are used, each in the versions that can be
// read, the best first. What is used is the same in all.
var (
	kindsClass = []*kind{
		customKind[gateway.ClassSpec, gateway.ClassStatus]("v1", "gatewayclasses"),
		customKind[gateway.ClassSpec, gateway.ClassStatus]("v1beta1", "gatewayclasses"),
	}
	kindsGateway = []*kind{
		customKind[gateway.GatewaySpec, gateway.GatewayStatus]("v1", "gateways"),
		customKind[gateway.GatewaySpec, gateway.GatewayStatus]("v1beta1", "gateways"),
	}
	kindsTCPRoute = []*kind{
		customKind[gateway.RouteSpec, gateway.RouteStatus]("v1", "tcproutes"),
		customKind[gateway.RouteSpec, gateway.RouteStatus]("v1alpha2", "tcproutes"),
	}
	kindsTLSRoute = []*kind{
		customKind[gateway.RouteSpec, gateway.RouteStatus]("v1", "tlsroutes"),
		customKind[gateway.RouteSpec, gateway.RouteStatus]("v1alpha3", "tlsroutes"),
		customKind[gateway.RouteSpec, gateway.RouteStatus]("v1alpha2", "tlsroutes"),
	}
	kindsGrant = []*kind{
		customKind[gateway.GrantSpec, struct{}]("v1", "referencegrants"),
		customKind[gateway.GrantSpec, struct{}]("v1beta1", "referencegrants"),
	}
)

// customVersions are the versions that occur there.
var customVersions = []string{"v1", "v1beta1", "v1alpha3", "v1alpha2"}

// customKinds names the kinds of the resources.
var customKinds = map[string][]*kind{
	"GatewayClass":   kindsClass,
	"Gateway":        kindsGateway,
	"TCPRoute":       kindsTCPRoute,
	"TLSRoute":       kindsTLSRoute,
	"ReferenceGrant": kindsGrant,
}

// addCustom returns what adds the resources of a version to a scheme.
func addCustom(version string) func(*runtime.Scheme) error {
	return func(s *runtime.Scheme) error {
		for name, kinds := range customKinds {
			for _, k := range kinds {
				if k.group.Version == version {
					s.AddKnownTypeWithName(k.group.WithKind(name), k.example)
					s.AddKnownTypeWithName(k.group.WithKind(name+"List"), k.newList())
				}
			}
		}
		return nil
	}
}
