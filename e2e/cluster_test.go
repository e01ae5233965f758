package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const namespace = "default"

// A cluster is a control plane with nodes and pods, for which the test is the
// kubelet.
type cluster struct {
	*controlPlane

	mu   sync.Mutex
	pods map[string]*pod // guarded by mu
	next int             // guarded by mu: numbers the pods' addresses
}

func newCluster(t *testing.T) *cluster {
	return &cluster{controlPlane: newControlPlane(t), pods: make(map[string]*pod)}
}

// A pod is an HTTP server that says its name.
type pod struct {
	c       *cluster
	name    string
	node    string
	ip      netip.Addr
	listen  []string
	server  *http.Server
	serving sync.WaitGroup
	asked   atomic.Int64
}

// addNode makes a node as the original cluster had them, which is ready.
func (c *cluster) addNode(name, internal, external string) {
	c.t.Helper()
	addresses := []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: internal}, {Type: corev1.NodeHostName, Address: name}}
	if external != "" {
		addresses = append(addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: external})
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: "eu-central-1a"}}}
	node, err := c.CoreV1().Nodes().Create(c.t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	node.Status.Addresses = addresses
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}
	if _, err := c.CoreV1().Nodes().UpdateStatus(c.t.Context(), node, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// setNodeReady says what the node controller says of a node.
func (c *cluster) setNodeReady(name string, ready corev1.ConditionStatus) {
	c.t.Helper()
	c.patch("nodes", name, "status", map[string]any{"status": map[string]any{"conditions": []any{
		map[string]any{"type": "Ready", "status": ready, "lastTransitionTime": metav1.Now(), "reason": "Test"}}}})
}

// patch changes a part of an object, or of its status.
func (c *cluster) patch(resource, name, sub string, change any) {
	c.t.Helper()
	body, err := json.Marshal(change)
	if err != nil {
		c.t.Fatal(err)
	}
	r := c.CoreV1().RESTClient().Patch(types.StrategicMergePatchType).Resource(resource).Name(name).Body(body)
	if resource != "nodes" {
		r = r.Namespace(namespace)
	}
	if sub != "" {
		r = r.SubResource(sub)
	}
	if err := r.Do(c.t.Context()).Error(); err != nil {
		c.t.Fatal(err)
	}
}

// A podSpec is what differs between the pods of a test.
type podSpec struct {
	node     string
	labels   map[string]string
	hostPort int32 // 0: none
	hostIP   string
}

// addPod makes a pod and starts its server. It is not ready yet.
func (c *cluster) addPod(name string, spec podSpec) *pod {
	c.t.Helper()
	c.mu.Lock()
	c.next++
	p := &pod{c: c, name: name, node: spec.node, ip: netip.AddrFrom4([4]byte{10, 244, byte(c.next >> 8), byte(c.next)})}
	c.pods[name] = p
	c.mu.Unlock()
	port := corev1.ContainerPort{Name: "http", ContainerPort: 80, HostPort: spec.hostPort}
	created, err := c.CoreV1().Pods(namespace).Create(c.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: spec.labels},
		Spec: corev1.PodSpec{NodeName: spec.node, Containers: []corev1.Container{{
			Name: "httpd", Image: "fedora/apache", Ports: []corev1.ContainerPort{port}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	listen := []string{netip.AddrPortFrom(p.ip, 80).String()}
	if spec.hostPort != 0 {
		listen = append(listen, net.JoinHostPort(spec.hostIP, strconv.Itoa(int(spec.hostPort)))) // as docker-proxy does
	}
	p.listen = listen
	p.serveAgain()
	c.t.Cleanup(p.stop)
	created.Status.PodIP = p.ip.String()
	created.Status.PodIPs = []corev1.PodIP{{IP: p.ip.String()}}
	created.Status.HostIP = spec.hostIP
	created.Status.Phase = corev1.PodRunning
	if _, err := c.CoreV1().Pods(namespace).UpdateStatus(c.t.Context(), created, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
	return p
}

// setReady says what the pod's readiness probe says.
func (p *pod) setReady(ready corev1.ConditionStatus) {
	p.c.t.Helper()
	p.c.patch("pods", p.name, "status", map[string]any{"status": map[string]any{"conditions": []any{
		map[string]any{"type": "Ready", "status": ready, "lastTransitionTime": metav1.Now()}}}})
}

// terminate is kubectl delete: the pod has its grace, and serves on.
func (p *pod) terminate() {
	p.c.t.Helper()
	if err := p.c.CoreV1().Pods(namespace).Delete(p.c.t.Context(), p.name, metav1.DeleteOptions{}); err != nil {
		p.c.t.Fatal(err)
	}
}

// finish ends a pod: its server finishes what is under way, then it is gone.
func (p *pod) finish() {
	p.c.t.Helper()
	ctx, cancel := context.WithTimeout(p.c.t.Context(), 5*time.Second)
	defer cancel()
	if err := p.server.Shutdown(ctx); err != nil {
		p.c.t.Errorf("%s still has requests after five seconds: %v", p.name, err)
	}
	p.remove()
}

// remove takes the pod out of the API at once.
func (p *pod) remove() {
	p.c.t.Helper()
	now := int64(0)
	err := p.c.CoreV1().Pods(namespace).Delete(p.c.t.Context(), p.name, metav1.DeleteOptions{GracePeriodSeconds: &now})
	if err != nil && !apierrors.IsNotFound(err) {
		p.c.t.Fatal(err)
	}
}

// serveAgain starts the server, at first or after stop.
func (p *pod) serveAgain() {
	p.c.t.Helper()
	p.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.asked.Add(1)
		fmt.Fprintln(w, p.name)
	})}
	server := p.server
	for _, address := range p.listen {
		l, err := net.Listen("tcp", address)
		if err != nil {
			p.c.t.Fatal(err)
		}
		p.serving.Go(func() { _ = server.Serve(l) }) // ends with stop
	}
}

func (p *pod) stop() {
	_ = p.server.Close() // connections end with it
	p.serving.Wait()
}
