package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// newService returns a cluster with a Service for the pods labelled name=http,
// and a configuration whose backends are that Service's.
func newService(t *testing.T, via string, change func(*corev1.Service)) (*cluster, string) {
	c, config := newOriginal(t, via)
	c.controlEndpointSlices()
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.ServiceSpec{Selector: labelled, Ports: []corev1.ServicePort{{Name: "http", Port: 8080,
			TargetPort: intstr.FromString("http")}}},
	}
	if change != nil {
		change(s)
	}
	if _, err := c.CoreV1().Services(namespace).Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return c, strings.ReplaceAll(config, `selector: "name=http", port: 80`, `service: web, port: http`)
}

// TestTerminatingEndpoints: the endpoints of a Service drain when their pods are
// deleted, and serve on while there is nobody else.
func TestTerminatingEndpoints(t *testing.T) {
	c, config := newService(t, "podIP", nil)
	one := c.addPod("http-1", podSpec{node: "minion1", labels: labelled})
	two := c.addPod("http-2", podSpec{node: "minion2", labels: labelled})
	one.setReady(corev1.ConditionTrue)
	two.setReady(corev1.ConditionTrue)
	startElbow(t, config)
	awaitBackends(t, "web", map[string]string{one.ip.String() + ":80": "up", two.ip.String() + ":80": "up"})
	l := startLoad(t, web)

	two.terminate()
	awaitBackends(t, "web", map[string]string{one.ip.String() + ":80": "up", two.ip.String() + ":80": "draining"})
	await(t, 5*time.Second, "the controller says so", func(ctx context.Context) error {
		slices, err := c.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"})
		if err != nil {
			return err
		}
		for _, s := range slices.Items {
			for _, e := range s.Endpoints {
				if e.Addresses[0] == two.ip.String() && e.Conditions.Terminating != nil && *e.Conditions.Terminating {
					return nil
				}
			}
		}
		return fmt.Errorf("no terminating endpoint")
	})
	two.finish()
	awaitBackends(t, "web", map[string]string{one.ip.String() + ":80": "up"})
	three := c.addPod("http-3", podSpec{node: "minion2", labels: labelled})
	three.setReady(corev1.ConditionTrue)
	await(t, 5*time.Second, "the new pod answers", func(context.Context) error {
		if l.answered(three.name) == 0 {
			return fmt.Errorf("not one request yet")
		}
		return nil
	})
	l.end()
}

// TestNodePortLocal: of a Service with externalTrafficPolicy Local only the nodes
// that run one of its pods are backends.
func TestNodePortLocal(t *testing.T) {
	c, config := newService(t, "nodePort", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		s.Spec.Ports[0].NodePort = 30080
	})
	one := c.addPod("http-1", podSpec{node: "minion1", labels: labelled, hostPort: 30080, hostIP: "172.31.8.233"}) // for kube-proxy
	one.setReady(corev1.ConditionTrue)
	startElbow(t, config)
	awaitBackends(t, "web", map[string]string{"172.31.8.233:30080": "up"})
	two := c.addPod("http-2", podSpec{node: "minion2", labels: labelled, hostPort: 30080, hostIP: "172.31.8.18"})
	two.setReady(corev1.ConditionTrue)
	awaitBackends(t, "web", map[string]string{"172.31.8.233:30080": "up", "172.31.8.18:30080": "up"})
}
