package kubernetes

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// A kind is a kind of object that can be watched. Values are compared by
// pointer.
type kind struct {
	group    schema.GroupVersion
	resource string
	example  runtime.Object
	newList  func() runtime.Object

	// strip returns a new object with what is used of the one it is given.
	// An object must survive being stripped twice.
	strip func(runtime.Object) runtime.Object
}

// transform is strip as client-go wants it.
func (k *kind) transform(o any) (any, error) {
	object, ok := o.(runtime.Object)
	if !ok {
		return nil, fmt.Errorf("reading %s: got a %T", k.resource, o)
	}
	return k.strip(object), nil
}

var (
	kindPod = &kind{corev1.SchemeGroupVersion, "pods", &corev1.Pod{},
		func() runtime.Object { return new(corev1.PodList) }, stripAs(stripPod)}
	kindNode = &kind{corev1.SchemeGroupVersion, "nodes", &corev1.Node{},
		func() runtime.Object { return new(corev1.NodeList) }, stripAs(stripNode)}
	kindService = &kind{corev1.SchemeGroupVersion, "services", &corev1.Service{},
		func() runtime.Object { return new(corev1.ServiceList) }, stripAs(stripService)}
	kindBalanced = &kind{corev1.SchemeGroupVersion, "services", &corev1.Service{},
		func() runtime.Object { return new(corev1.ServiceList) }, stripAs(stripBalanced)}
	kindNamespace = &kind{corev1.SchemeGroupVersion, "namespaces", &corev1.Namespace{},
		func() runtime.Object { return new(corev1.NamespaceList) }, stripAs(stripNamespace)}
	kindSlice = &kind{discoveryv1.SchemeGroupVersion, "endpointslices", &discoveryv1.EndpointSlice{},
		func() runtime.Object { return new(discoveryv1.EndpointSliceList) }, stripAs(stripSlice)}
)

func stripAs[T runtime.Object](strip func(T) T) func(runtime.Object) runtime.Object {
	return func(o runtime.Object) runtime.Object {
		if t, ok := o.(T); ok {
			return strip(t)
		}
		return o // of another kind than was asked for: the reflector refuses it
	}
}

// What is used of labels and annotations.
var (
	podLabels          = []string{corev1.LabelTopologyZone}
	podAnnotations     = []string{annotationWeight, annotationPriority}
	nodeLabels         = []string{corev1.LabelTopologyZone, corev1.LabelNodeExcludeBalancers}
	serviceAnnotations = []string{annotationVia}
	nothing            []string
)

// annotationVia is how a Service says where its endpoints are connected to: podIP or
// nodePort.
const annotationVia = "elbow.haslohas.com/via"

// stripMeta returns what is used of m.
func stripMeta(m *metav1.ObjectMeta, labels, annotations []string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace:         m.Namespace,
		Name:              m.Name,
		UID:               m.UID,
		DeletionTimestamp: m.DeletionTimestamp,
		Labels:            only(m.Labels, labels),
		Annotations:       only(m.Annotations, annotations),
	}
}

func only(m map[string]string, keys []string) map[string]string {
	var kept map[string]string
	for _, k := range keys {
		if v, ok := m[k]; ok {
			if kept == nil {
				kept = make(map[string]string, len(keys))
			}
			kept[k] = v
		}
	}
	return kept
}

func stripPod(p *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: stripMeta(&p.ObjectMeta, podLabels, podAnnotations),
		Spec: corev1.PodSpec{
			NodeName:       p.Spec.NodeName,
			HostNetwork:    p.Spec.HostNetwork,
			ReadinessGates: p.Spec.ReadinessGates,
			Containers:     stripContainers(p.Spec.Containers),
			InitContainers: stripContainers(p.Spec.InitContainers),
		},
		Status: corev1.PodStatus{
			Phase:   p.Status.Phase,
			HostIP:  p.Status.HostIP,
			HostIPs: p.Status.HostIPs,
			PodIP:   p.Status.PodIP,
			PodIPs:  p.Status.PodIPs,
		},
	}
	for _, c := range p.Status.Conditions {
		if isReadiness(p, c.Type) {
			out.Status.Conditions = append(out.Status.Conditions, corev1.PodCondition{Type: c.Type, Status: c.Status})
		}
	}
	return out
}

func isReadiness(p *corev1.Pod, c corev1.PodConditionType) bool {
	if c == corev1.PodReady || c == corev1.ContainersReady {
		return true
	}
	for _, g := range p.Spec.ReadinessGates {
		if g.ConditionType == c {
			return true
		}
	}
	return false
}

// stripContainers keeps the ports, and of the init containers the sidecars,
// which serve like the others.
func stripContainers(containers []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for _, c := range containers {
		if len(c.Ports) > 0 {
			out = append(out, corev1.Container{Ports: c.Ports, RestartPolicy: c.RestartPolicy})
		}
	}
	return out
}

func stripNode(n *corev1.Node) *corev1.Node {
	out := &corev1.Node{
		ObjectMeta: stripMeta(&n.ObjectMeta, nodeLabels, nothing),
		Status:     corev1.NodeStatus{Addresses: n.Status.Addresses},
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady { // without its heartbeat, which always differs
			out.Status.Conditions = []corev1.NodeCondition{{Type: c.Type, Status: c.Status}}
		}
	}
	return out
}

// stripNamespace keeps all labels: anyone may be asked for.
func stripNamespace(n *corev1.Namespace) *corev1.Namespace {
	out := &corev1.Namespace{ObjectMeta: stripMeta(&n.ObjectMeta, nothing, nothing)}
	out.Labels = n.Labels
	return out
}

func stripService(s *corev1.Service) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: stripMeta(&s.ObjectMeta, nothing, serviceAnnotations),
		Spec: corev1.ServiceSpec{
			Type:                  s.Spec.Type,
			Ports:                 s.Spec.Ports,
			ClusterIP:             s.Spec.ClusterIP,
			IPFamilies:            s.Spec.IPFamilies,
			ExternalName:          s.Spec.ExternalName,
			ExternalTrafficPolicy: s.Spec.ExternalTrafficPolicy,
			HealthCheckNodePort:   s.Spec.HealthCheckNodePort,
		},
	}
}

// stripBalanced keeps what a load balancer must know of a Service, and what it
// writes. Of a Service that is none of its business it keeps the name.
func stripBalanced(s *corev1.Service) *corev1.Service {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer && len(s.Finalizers) == 0 {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: s.UID}}
	}
	out := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         s.Namespace,
			Name:              s.Name,
			UID:               s.UID,
			ResourceVersion:   s.ResourceVersion,
			CreationTimestamp: s.CreationTimestamp,
			DeletionTimestamp: s.DeletionTimestamp,
			Finalizers:        s.Finalizers,
		},
		Spec: corev1.ServiceSpec{
			Type:                     s.Spec.Type,
			Ports:                    s.Spec.Ports,
			LoadBalancerClass:        s.Spec.LoadBalancerClass,
			LoadBalancerIP:           s.Spec.LoadBalancerIP,
			LoadBalancerSourceRanges: s.Spec.LoadBalancerSourceRanges,
			SessionAffinity:          s.Spec.SessionAffinity,
		},
		Status: corev1.ServiceStatus{LoadBalancer: s.Status.LoadBalancer},
	}
	for _, c := range s.Status.Conditions {
		if strings.HasPrefix(c.Type, annotationPrefix) {
			out.Status.Conditions = append(out.Status.Conditions, c)
		}
	}
	for k, v := range s.Annotations {
		if strings.HasPrefix(k, annotationPrefix) || k == AnnotationHostname || k == corev1.AnnotationLoadBalancerSourceRangesKey {
			if out.Annotations == nil {
				out.Annotations = make(map[string]string)
			}
			out.Annotations[k] = v
		}
	}
	return out
}

func stripSlice(s *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{
		ObjectMeta:  stripMeta(&s.ObjectMeta, nothing, nothing),
		AddressType: s.AddressType,
		Ports:       s.Ports,
		Endpoints:   make([]discoveryv1.Endpoint, len(s.Endpoints)),
	}
	for i, e := range s.Endpoints {
		out.Endpoints[i] = discoveryv1.Endpoint{Addresses: e.Addresses, Conditions: e.Conditions, NodeName: e.NodeName, Zone: e.Zone}
	}
	return out
}
