package kubernetes

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"haslohas.com/elbow/discovery"
)

func TestInformerWakesForWhatIsUsedAlone(t *testing.T) {
	i := newInformer(interest{kind: kindPod}, nil)
	changed := make(chan struct{}, 1)
	i.watch(changed)
	woken := func() bool {
		select {
		case <-changed:
			return true
		default:
			return false
		}
	}
	woken()
	s := store{i}
	steps := []struct {
		name string
		do   func() error
		want bool
	}{
		{"the first list", func() error { return s.Replace([]any{apache()}, "1") }, true},
		{"another label", func() error {
			return s.Update(apache(func(p *corev1.Pod) { p.Labels = map[string]string{"pod-template-hash": "x"} }))
		}, false},
		{"a weight", func() error { return s.Update(apache(weighs("2"))) }, true},
		{"another pod", func() error { return s.Add(apache(named("http-2", "10.244.0.2"))) }, true},
		{"one that is gone", func() error { return s.Delete(apache()) }, true},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if got := woken(); got != step.want {
			t.Errorf("%s: woken %t, want %t", step.name, got, step.want)
		}
	}
	if pods, ok, err := known[*corev1.Pod](i); len(pods) != 1 || pods[0].Name != "http-2" || !ok || err != nil {
		t.Errorf("known are %v, full set %t, error %v", pods, ok, err)
	}
}

// An answering is an API server that gives one answer to everything.
func answering(t *testing.T, status int, body string) (kubeconfig string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // the client may be gone
	}))
	t.Cleanup(server.Close)
	return kubeconfigOf(t, server.URL)
}

func kubeconfigOf(t *testing.T, url string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: %q}}],
contexts: [{name: c, context: {cluster: c, user: u}}],
users: [{name: u, user: {token: secret}}]}`, url)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is wrong is said in one line, with the cure, and a source ends with all
// it has started.
func TestWhatIsWrong(t *testing.T) {
	const failure = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"no"}`
	tests := []struct {
		name, kubeconfig, want string
	}{
		{"not allowed", answering(t, 403, fmt.Sprintf(failure, "Forbidden", 403)), `not allowed to list and watch pods in namespace shop (403): ` +
			`bind us to a Role in namespace shop with {apiGroups: [""], resources: [pods], verbs: [list, watch]}`},
		{"not known", answering(t, 401, fmt.Sprintf(failure, "Unauthorized", 401)),
			"the API server does not know us (401): renew the token or the client certificate of the kubeconfig"},
		{"no API server", answering(t, 200, "hello"), "asking the API server for pods in namespace shop: "},
		{"nobody there", kubeconfigOf(t, "http://127.0.0.1:1"), "asking the API server for pods in namespace shop: dial tcp 127.0.0.1:1: connect: connection refused"},
		{"no kubeconfig", filepath.Join(t.TempDir(), "missing"), "reading the kubeconfig: stat "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := New(Options{Kubeconfig: test.kubeconfig})
			said := make(chan error, 100)
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() {
				err := c.Pods(Pods{Namespace: "shop", Port: Port{Number: 80}}).Run(ctx, func(u discovery.Update) { said <- u.Err })
				if err != nil {
					said <- err
				}
			})
			select {
			case err := <-said:
				if err == nil || !strings.HasPrefix(err.Error(), test.want) {
					t.Errorf("got error %v\nwant      %s", err, test.want)
				}
			case <-time.After(10 * time.Second):
				t.Error("nothing is said")
			}
			cancel()
			running.Wait()
			if c.session != nil {
				t.Error("the session goes on without a source")
			}
		})
	}
}

// TestMemory: 10,000 pods of ordinary size take less than 100 MiB.
func TestMemory(t *testing.T) {
	const pods, limit = 10_000, 100 << 20
	before := heap()
	i := newInformer(interest{kind: kindPod}, nil)
	for n := range pods {
		if err := (store{i}).Add(ordinaryPod(n)); err != nil {
			t.Fatal(err)
		}
	}
	used := heap() - before
	t.Logf("%d pods take %.1f MiB", pods, float64(used)/(1<<20))
	if used > limit {
		t.Errorf("more than %d MiB", limit>>20)
	}
	if all, _, _ := known[*corev1.Pod](i); len(all) != pods {
		t.Errorf("%d pods are known", len(all))
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// ordinaryPod returns a pod as the API server sends one.
func ordinaryPod(n int) *corev1.Pod {
	p := apache(named(fmt.Sprintf("http-%d", n), fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255)))
	p.Labels = map[string]string{"name": "http", "pod-template-hash": fmt.Sprint("hash-", n)}
	p.Annotations = map[string]string{"checksum/config": strings.Repeat("a", 64), annotationWeight: "1"}
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: &metav1.FieldsV1{}}}
	p.Spec.Volumes = make([]corev1.Volume, 4)
	p.Spec.Tolerations = make([]corev1.Toleration, 4)
	p.Spec.Containers[0].Env = make([]corev1.EnvVar, 20)
	p.Status.ContainerStatuses = make([]corev1.ContainerStatus, 2)
	return p
}

func BenchmarkPodEndpoints(b *testing.B) {
	var pods []*corev1.Pod
	for n := range 10_000 {
		pods = append(pods, stripPod(ordinaryPod(n)))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := podEndpoints(podIP80, pods, nil); err != nil {
			b.Fatal(err)
		}
	}
}
