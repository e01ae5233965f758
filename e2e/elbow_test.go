package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
)

// A balancer is elbow, with the rights that deploy/kubernetes gives it.
type balancer struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
	log string // the path
}

// deploy applies the manifests of a file under deploy/kubernetes.
func (c *cluster) deploy(file string) {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "deploy", "kubernetes", file))
	if err != nil {
		c.t.Fatal(err)
	}
	c.apply(string(text))
}

// apply creates what the documents of a YAML text describe, but for what is there.
func (c *cluster) apply(text string) {
	c.t.Helper()
	client, err := dynamic.NewForConfig(c.config)
	if err != nil {
		c.t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(c.Discovery())
	if err != nil {
		c.t.Fatal(err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	documents := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	for {
		var o unstructured.Unstructured
		switch err := documents.Decode(&o.Object); {
		case err == io.EOF:
			return
		case err != nil:
			c.t.Fatal(err)
		case len(o.Object) == 0:
			continue
		}
		gvk := o.GroupVersionKind()
		m, err := mapper.RESTMapping(schema.GroupKind{Group: gvk.Group, Kind: gvk.Kind}, gvk.Version)
		if err != nil {
			c.t.Fatalf("%s %s: %v", gvk.Kind, o.GetName(), err)
		}
		var into dynamic.ResourceInterface = client.Resource(m.Resource)
		if m.Scope.Name() == meta.RESTScopeNameNamespace {
			if o.GetNamespace() == "" {
				o.SetNamespace(namespace)
			}
			into = client.Resource(m.Resource).Namespace(o.GetNamespace())
		}
		if _, err := into.Create(c.t.Context(), &o, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			c.t.Fatalf("creating %s %s: %v", gvk.Kind, o.GetName(), err)
		}
	}
}

// account returns a kubeconfig with the rights of a service account.
func (c *cluster) account(namespace, name string) string {
	c.t.Helper()
	request := &authenticationv1.TokenRequest{}
	token, err := c.CoreV1().ServiceAccounts(namespace).CreateToken(c.t.Context(), name, request, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return c.kubeconfig(name, token.Status.Token)
}

// startElbow runs elbow with that configuration until the test ends, and
// returns once it is ready.
func startElbow(t *testing.T, config string) *balancer {
	t.Helper()
	dir, err := os.MkdirTemp("", "elbow") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{t: t, dir: dir, log: filepath.Join(dir, "log")}
	config = strings.ReplaceAll(config, "DIR", dir)
	if err := os.WriteFile(filepath.Join(dir, "elbow.yaml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	t.Cleanup(func() {
		b.stop()
		if t.Failed() {
			text, _ := os.ReadFile(b.log)
			t.Logf("elbow said:\n%s", text)
		}
		os.RemoveAll(dir)
	})
	return b
}

func (b *balancer) start() {
	b.t.Helper()
	log, err := os.OpenFile(b.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	defer log.Close()
	b.cmd = exec.Command(os.Getenv(elbowVariable), "run", "--config", filepath.Join(b.dir, "elbow.yaml"), "--shutdown-timeout", "1s")
	b.cmd.Stderr = log
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	await(b.t, 30*time.Second, "elbow is ready", func(ctx context.Context) error {
		_, err := get(ctx, "http://127.0.0.1:9653/readyz")
		return err
	})
}

func (b *balancer) stop() {
	if b.cmd == nil {
		return
	}
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	if err := b.cmd.Wait(); err != nil {
		b.t.Errorf("elbow: %v", err)
	}
	b.cmd = nil
}

// ask runs a command of elbow that talks to the daemon.
func (b *balancer) ask(args ...string) string {
	b.t.Helper()
	cmd := exec.Command(os.Getenv(elbowVariable), append(args, "--socket", filepath.Join(b.dir, "sock"))...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("elbow %s: %v: %s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out)
}

// get asks on a new connection.
func get(ctx context.Context, url string) (string, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", url, answer.Status, body)
	}
	return strings.TrimSpace(string(body)), nil
}
