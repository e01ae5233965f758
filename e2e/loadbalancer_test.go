package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const class = "haslohas.com/elbow"

// newBalanced returns a cluster with two minions, a pod on each, and an elbow that
// fulfils Services.
func newBalanced(t *testing.T) (c *cluster, config string, pods []*pod) {
	c, config = newOriginal(t, "podIP")
	c.deploy("loadbalancer.yaml")
	c.deploy("events.yaml")
	c.controlEndpointSlices()
	for _, minion := range []string{"minion1", "minion2"} {
		p := c.addPod("http-on-"+minion, podSpec{node: minion, labels: labelled})
		p.setReady(corev1.ConditionTrue)
		pods = append(pods, p)
	}
	return c, strings.Replace(config, "kubernetes: {kubeconfig:", "kubernetes: {loadBalancerClass: "+class+", events: true, kubeconfig:", 1), pods
}

// addBalanced makes a Service of type LoadBalancer for the pods.
func (c *cluster) addBalanced(name string, port int32, change func(*corev1.Service)) *corev1.Service {
	c.t.Helper()
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"elbow.haslohas.com/via": "podIP"}},
		Spec: corev1.ServiceSpec{
			Type:              corev1.ServiceTypeLoadBalancer,
			LoadBalancerClass: new(string),
			Selector:          labelled,
			Ports:             []corev1.ServicePort{{Name: "http", Port: port, TargetPort: intstr.FromString("http")}},
		},
	}
	*s.Spec.LoadBalancerClass = class
	if change != nil {
		change(s)
	}
	s, err := c.CoreV1().Services(namespace).Create(c.t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// awaitStatus waits until kubectl shows that about a Service.
func (c *cluster) awaitStatus(name, path, want string) {
	c.t.Helper()
	await(c.t, 15*time.Second, name+" has "+path+" "+want, func(context.Context) error {
		if got := c.kubectl("get", "service", name, "-o", "jsonpath="+path); got != want {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

// awaitEvent waits for an Event about an object, and returns its message.
func (c *cluster) awaitEvent(kind, name, reason string) (message string) {
	c.t.Helper()
	await(c.t, 20*time.Second, fmt.Sprintf("an Event %s about %s %s", reason, kind, name), func(ctx context.Context) error {
		all, err := c.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range all.Items {
			if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name {
				if e.Reason == reason {
					message = e.Message
					return nil
				}
				seen = append(seen, e.Reason+": "+e.Message)
			}
		}
		return fmt.Errorf("there are %q", seen)
	})
	return message
}

func reaches(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := get(ctx, url)
		return err
	}
}

func refuses(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		if who, err := get(ctx, url); err == nil {
			return fmt.Errorf("%s answers: %s", url, who)
		}
		return nil
	}
}

// TestLoadBalancerLifeCycle: a Service is reached by its name and port before its
// status says so, changes while it is reached, and is gone only when it is closed.
func TestLoadBalancerLifeCycle(t *testing.T) {
	c, config, _ := newBalanced(t)
	b := startElbow(t, config)
	foreign := c.addBalanced("foreign", 8099, func(s *corev1.Service) { *s.Spec.LoadBalancerClass = "example.com/other" })

	began := time.Now()
	c.addBalanced("shop", 8080, nil)
	await(t, 15*time.Second, "the status is there", func(ctx context.Context) error {
		s, err := c.CoreV1().Services(namespace).Get(ctx, "shop", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(s.Status.LoadBalancer.Ingress) == 0 {
			return fmt.Errorf("there is none")
		}
		return nil
	})
	t.Logf("a Service is reached %s after it was made", time.Since(began).Round(time.Millisecond))
	// What the status promises holds from the first moment on.
	if _, err := get(t.Context(), "http://"+elasticIP+":8080/"); err != nil {
		t.Errorf("the status says it is reached: %v", err)
	}
	if got := resolve(t, "shop.default.public.haslohas.com"); !slices.Equal(got, []string{elasticIP}) {
		t.Errorf("its name: %v", got)
	}
	const ingress = "{.status.loadBalancer.ingress[0]['ip','hostname','ipMode']} {.status.loadBalancer.ingress[0].ports[*].port}"
	c.awaitStatus("shop", ingress, elasticIP+" shop.default.public.haslohas.com Proxy 8080")
	c.awaitStatus("shop", "{.metadata.finalizers[*]}", "service.kubernetes.io/load-balancer-cleanup")
	if said := c.kubectl("get", "services", "shop"); !strings.Contains(said, elasticIP) {
		t.Errorf("kubectl get services does not show the address:\n%s", said)
	}
	if said := c.awaitEvent("Service", "shop", "EnsuredLoadBalancer"); !strings.Contains(said, elasticIP) {
		t.Errorf("the Event says %q", said)
	}
	if said := b.ask("status"); !strings.Contains(said, "default/shop") {
		t.Errorf("elbow status does not show it:\n%s", said)
	}

	// Another name, another port more, and only for some.
	c.patch("services", "shop", "", map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{"external-dns.alpha.kubernetes.io/hostname": "shop.public.haslohas.com, elsewhere.example.com"}},
		"spec": map[string]any{"ports": []any{
			map[string]any{"name": "http", "port": 8080, "targetPort": "http"},
			map[string]any{"name": "more", "port": 8081, "targetPort": "http"},
		}},
	})
	c.awaitStatus("shop", ingress, elasticIP+" shop.public.haslohas.com Proxy 8080 8081")
	for _, port := range []string{"8080", "8081"} {
		if _, err := get(t.Context(), "http://"+elasticIP+":"+port+"/"); err != nil {
			t.Error(err)
		}
	}
	if got := resolve(t, "shop.default.public.haslohas.com"); len(got) > 0 {
		t.Errorf("the former name is still answered: %v", got)
	}
	if said := c.awaitEvent("Service", "shop", "HostnameOutside"); !strings.Contains(said, "elsewhere.example.com") {
		t.Errorf("the Event says %q", said)
	}
	c.patch("services", "shop", "", map[string]any{"spec": map[string]any{"loadBalancerSourceRanges": []string{"192.0.2.0/24"}}})
	await(t, 10*time.Second, "nobody else is let in", refuses("http://"+elasticIP+":8080/"))
	c.patch("services", "shop", "", map[string]any{"spec": map[string]any{"loadBalancerSourceRanges": []string{"54.93.167.95/32", "127.0.0.0/8", "10.0.0.0/8"}}})
	await(t, 10*time.Second, "we are let in", reaches("http://"+elasticIP+":8080/"))

	// It is another type for a while.
	c.kubectl("patch", "service", "shop", "--type=merge", "-p", `{"spec":{"type":"ClusterIP","loadBalancerClass":null,"loadBalancerSourceRanges":null}}`)
	c.awaitStatus("shop", "{.status.loadBalancer.ingress}{.metadata.finalizers}", "")
	await(t, 10*time.Second, "it is closed", refuses("http://"+elasticIP+":8080/"))
	c.kubectl("patch", "service", "shop", "--type=merge", "-p", `{"spec":{"type":"LoadBalancer","loadBalancerClass":"`+class+`"}}`)
	c.awaitStatus("shop", "{.status.loadBalancer.ingress[0].ip}", elasticIP)

	// kubectl delete waits for the finalizer.
	c.kubectl("delete", "service", "shop", "--timeout=15s")
	if _, err := get(t.Context(), "http://"+elasticIP+":8080/"); err == nil {
		t.Error("a Service that is gone is still reached")
	}
	c.awaitEvent("Service", "shop", "DeletedLoadBalancer")

	after, err := c.CoreV1().Services(namespace).Get(t.Context(), "foreign", metav1.GetOptions{})
	if err != nil || after.ResourceVersion != foreign.ResourceVersion {
		t.Errorf("a Service of another class was touched: %v, %v", err, after)
	}
	if err := refuses("http://" + elasticIP + ":8099/")(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestLoadBalancerConflict: of two Services that want a port the older has it, the
// younger is told who that is, and follows when it goes.
func TestLoadBalancerConflict(t *testing.T) {
	c, config, _ := newBalanced(t)
	startElbow(t, config)
	c.addBalanced("older", 8080, nil)
	c.awaitStatus("older", "{.status.loadBalancer.ingress[0].ip}", elasticIP)
	c.addBalanced("younger", 8080, func(s *corev1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "own", Port: 8082, TargetPort: intstr.FromString("http")})
	})
	c.addBalanced("file", 80, nil)
	if said := c.awaitEvent("Service", "younger", "PortConflict"); !strings.Contains(said, "port 8080/TCP belongs to Service default/older") {
		t.Errorf("the Event says %q", said)
	}
	c.awaitStatus("younger", "{range .status.loadBalancer.ingress[0].ports[*]}{.port}{.error} {end}", "8080elbow.haslohas.com/PortConflict 8082 ")
	if said := c.awaitEvent("Service", "file", "PortConflict"); !strings.Contains(said, `service "web" of elbow's configuration`) {
		t.Errorf("the Event says %q", said)
	}
	c.awaitStatus("file", "{.status.loadBalancer.ingress}", "")

	c.kubectl("delete", "service", "older", "--timeout=15s")
	c.awaitStatus("younger", "{range .status.loadBalancer.ingress[0].ports[*]}{.port}{.error} {end}", "8080 8082 ")
	if _, err := get(t.Context(), "http://"+elasticIP+":8080/"); err != nil {
		t.Error(err)
	}
}

// TestLoadBalancerWithoutAPI: what was asked for stays in force while nobody can be
// asked, over a restart too.
func TestLoadBalancerWithoutAPI(t *testing.T) {
	c, config, _ := newBalanced(t)
	b := startElbow(t, config)
	c.addBalanced("shop", 8080, nil)
	c.awaitStatus("shop", "{.status.loadBalancer.ingress[0].ip}", elasticIP)
	c.kill()
	for range 2 {
		if _, err := get(t.Context(), "http://"+elasticIP+":8080/"); err != nil {
			t.Error(err)
		}
		if got := resolve(t, "shop.default.public.haslohas.com"); !slices.Equal(got, []string{elasticIP}) {
			t.Errorf("its name: %v", got)
		}
		b.stop()
		b.start()
	}
	c.start()
	c.ready()
	err := c.CoreV1().Services(namespace).Delete(t.Context(), "shop", metav1.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	await(t, 30*time.Second, "it is let go", func(ctx context.Context) error {
		_, err := c.CoreV1().Services(namespace).Get(ctx, "shop", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is still there: %v", err)
	})
	if err := refuses("http://" + elasticIP + ":8080/")(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestLoadBalancerTakenOver: a Service that went to another load balancer while elbow
// was down is not touched.
func TestLoadBalancerTakenOver(t *testing.T) {
	c, config, _ := newBalanced(t)
	b := startElbow(t, config)
	c.addBalanced("shop", 8080, nil)
	c.awaitStatus("shop", "{.status.loadBalancer.ingress[0].ip}", elasticIP)
	b.stop()
	c.kubectl("patch", "service", "shop", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	c.kubectl("delete", "service", "shop", "--timeout=15s")
	other := c.addBalanced("shop", 8080, func(s *corev1.Service) { *s.Spec.LoadBalancerClass = "example.com/other" })
	b.start()
	await(t, 20*time.Second, "elbow has heard of it", refuses("http://"+elasticIP+":8080/"))
	c.addBalanced("next", 8081, nil) // when this one is served, all before it is done
	c.awaitStatus("next", "{.status.loadBalancer.ingress[0].ip}", elasticIP)
	after, err := c.CoreV1().Services(namespace).Get(t.Context(), "shop", metav1.GetOptions{})
	if err != nil || after.ResourceVersion != other.ResourceVersion {
		t.Errorf("it was touched: %v, %v", err, after)
	}
}

// TestBackendEvents: the Service and the node are told when a backend goes down and
// when it comes back, by Events, the Service by a condition, too.
func TestBackendEvents(t *testing.T) {
	c, config, pods := newBalanced(t)
	startElbow(t, config)
	c.addBalanced("shop", 8080, nil)
	awaitBackends(t, "default/shop", map[string]string{pods[0].ip.String() + ":80": "up", pods[1].ip.String() + ":80": "up"})
	const condition = `{.status.conditions[?(@.type=="elbow.haslohas.com/BackendsUp")].status}`
	c.awaitStatus("shop", condition, "True")
	pods[0].stop()
	if said := c.awaitEvent("Service", "shop", "BackendDown"); !strings.Contains(said, pods[0].ip.String()+":80 of service default/shop is down") {
		t.Errorf("the Event says %q", said)
	}
	if said := c.awaitEvent("Node", "minion1", "BackendDown"); !strings.Contains(said, pods[0].ip.String()) {
		t.Errorf("the Event says %q", said)
	}
	c.awaitStatus("shop", condition, "False")
	pods[0].serveAgain()
	c.awaitEvent("Service", "shop", "BackendUp")
	c.awaitStatus("shop", condition, "True")
	if said := c.kubectl("describe", "service", "shop"); !strings.Contains(said, "BackendDown") {
		t.Errorf("kubectl describe does not show the Events:\n%s", said)
	}
}
