package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/gateway-api/pkg/consts"
)

// newGateways returns a cluster that does not have the Gateway API yet, with a pod on
// each minion behind the Services postgres and other, and a configuration that serves
// Gateways.
func newGateways(t *testing.T) (c *cluster, config string) {
	c, config = newOriginal(t, "podIP")
	c.deploy("gateway.yaml")
	c.controlEndpointSlices()
	for i, name := range []string{"postgres", "other"} {
		labels := map[string]string{"name": name}
		c.addPod(name+"-1", podSpec{node: fmt.Sprint("minion", i+1), labels: labels}).setReady(corev1.ConditionTrue)
		c.addService(namespace, name, corev1.ServiceSpec{Selector: labels,
			Ports: []corev1.ServicePort{{Name: "db", Port: 5432, TargetPort: intstr.FromString("http")}}})
	}
	return c, strings.Replace(config, "kubernetes: {kubeconfig:", "kubernetes: {gatewayController: haslohas.com/elbow, kubeconfig:", 1)
}

func (c *cluster) addService(namespace, name string, spec corev1.ServiceSpec) {
	c.t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	if _, err := c.CoreV1().Services(namespace).Create(c.t.Context(), s, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// installGatewayAPI installs the standard channel of the Gateway API.
func (c *cluster) installGatewayAPI() {
	c.t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		c.t.Fatal("finding the CRDs: ", err)
	}
	c.t.Log("Gateway API ", consts.BundleVersion)
	for _, name := range []string{"gatewayclasses", "gateways", "tcproutes", "tlsroutes", "referencegrants"} {
		text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "standard", "gateway.networking.k8s.io_"+name+".yaml"))
		if err != nil {
			c.t.Fatal(err)
		}
		c.apply(string(text))
		c.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/"+name+".gateway.networking.k8s.io")
	}
}

// addTLS makes a Service without pods and a TLS server behind it, which has a
// certificate for a name and says it.
func (c *cluster) addTLS(namespace, service, ip, name string) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := tls.Listen("tcp", net.JoinHostPort(ip, "8443"), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		c.t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = io.WriteString(conn, name) // a probe only connects
			})
		}
	})
	c.t.Cleanup(func() { l.Close(); serving.Wait() })
	c.addService(namespace, service, corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "https", Port: 443}}})
	portName, port, ready := "https", int32(8443), true
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{ip}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port}},
	}
	if _, err := c.DiscoveryV1().EndpointSlices(namespace).Create(c.t.Context(), slice, metav1.CreateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// tlsAnswers reports whether a TLS client that asks for name is answered by the
// server that has it.
func tlsAnswers(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 2 * time.Second}, Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}}
		conn, err := d.DialContext(ctx, "tcp", elasticIP+":443")
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		said, err := io.ReadAll(conn)
		if err != nil {
			return err
		}
		state := conn.(*tls.Conn).ConnectionState()
		if got := state.PeerCertificates[0].Subject.CommonName; got != name || string(said) != name {
			return fmt.Errorf("asked for %s, %s answered %q", name, got, said)
		}
		return nil
	}
}

// tlsRefused reports whether a TLS client that asks for name is told that nobody has
// it.
func tlsRefused(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		err := tlsAnswers(name)(ctx)
		if alert, ok := errors.AsType[tls.AlertError](err); ok && alert.Error() == "tls: unrecognized name" {
			return nil
		}
		if op, ok := errors.AsType[*net.OpError](err); ok && strings.Contains(op.Error(), "unrecognized name") {
			return nil
		}
		return fmt.Errorf("asked for %s: %v, want the alert unrecognized_name", name, err)
	}
}

// awaitShown waits until kubectl shows that of an object.
func (c *cluster) awaitShown(object, path, want string) {
	c.t.Helper()
	await(c.t, 20*time.Second, object+" has "+path+" "+want, func(context.Context) error {
		if got := c.kubectl("get", object, "-o", "jsonpath="+path); got != want {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

// condition is the path of a condition's status and reason.
func condition(of, kind string) string {
	return fmt.Sprintf(`{%s.conditions[?(@.type=="%s")]['status','reason']}`, of, kind)
}

func listener(name string) string { return fmt.Sprintf(`.status.listeners[?(@.name=="%s")]`, name) }

const database = "http://" + elasticIP + ":5432/"

// answersOf is whose answers come from a URL.
func answersOf(t *testing.T, url string) map[string]int {
	t.Helper()
	answers := make(map[string]int)
	for range 40 {
		who, err := get(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		answers[who]++
	}
	return answers
}

// TestGatewayLifeCycle: a Gateway is served from the moment on at which the Gateway API
// is installed, says so when it is, and leaves nothing.
func TestGatewayLifeCycle(t *testing.T) {
	c, config := newGateways(t)
	c.addTLS(namespace, "shop", "10.244.200.1", "shop.public.haslohas.com")
	b := startElbow(t, config)
	c.installGatewayAPI() // later than elbow
	c.deploy("gateway-example.yaml")

	await(t, time.Minute, "the Gateway API is noticed", func(context.Context) error {
		if got := c.kubectl("get", "gatewayclass", "elbow", "-o", "jsonpath="+condition(".status", "Accepted")); got != "True Accepted" {
			return fmt.Errorf("the class is %q", got)
		}
		return nil
	})
	c.kubectl("wait", "--for=condition=Programmed", "--timeout=20s", "gateway/edge")
	// What the status promises holds from the first moment on.
	if who, err := get(t.Context(), database); err != nil || who != "postgres-1" {
		t.Errorf("a client of the TCPRoute got %q, %v", who, err)
	}
	if err := tlsAnswers("shop.public.haslohas.com")(t.Context()); err != nil {
		t.Error(err)
	}
	c.awaitShown("gateway/edge", `{range .status.listeners[*]}{.name} {.attachedRoutes} {.supportedKinds[*].kind},{end}`, "db 1 TCPRoute,tls 1 TLSRoute,")
	c.awaitShown("gateway/edge", `{.status.addresses[*]['type','value']}`, "IPAddress "+elasticIP)
	for _, route := range []string{"tcproute/db", "tlsroute/shop"} {
		c.awaitShown(route, condition(".status.parents[0]", "Accepted")+" "+condition(".status.parents[0]", "ResolvedRefs"), "True Accepted True ResolvedRefs")
		c.awaitShown(route, "{.status.parents[*].controllerName}", "haslohas.com/elbow")
	}
	if said := c.kubectl("get", "gateways"); !strings.Contains(said, elasticIP) || !strings.Contains(said, "True") {
		t.Errorf("kubectl get gateways does not show the address, or that it is programmed:\n%s", said)
	}
	for _, name := range []string{"shop.public.haslohas.com", "db.public.haslohas.com"} {
		if got := resolve(t, name); !slices.Equal(got, []string{elasticIP}) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if said := b.ask("status"); !strings.Contains(said, "default/edge/db") || !strings.Contains(said, "default/edge/tls/default/shop") {
		t.Errorf("elbow status does not show the listeners:\n%s", said)
	}

	// A second name, of another namespace: the listener must let its route in, and
	// the namespace of its Service too.
	for _, name := range []string{"blog", "backends"} {
		c.kubectl("create", "namespace", name)
	}
	c.addTLS("backends", "blog", "10.244.200.2", "blog.public.haslohas.com")
	c.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: TLSRoute, metadata: {name: blog, namespace: blog}, spec: {
  parentRefs: [{name: edge, namespace: default}], hostnames: [blog.public.haslohas.com, elsewhere.example.com],
  rules: [{backendRefs: [{name: blog, namespace: backends, port: 443}]}]}}`)
	blog := func(path string) func(context.Context) error {
		return func(context.Context) error {
			got := c.kubectl("get", "tlsroute", "blog", "-n", "blog", "-o", "jsonpath="+condition(".status.parents[0]", "Accepted")+" "+condition(".status.parents[0]", "ResolvedRefs"))
			if got != path {
				return fmt.Errorf("it is %q", got)
			}
			return nil
		}
	}
	await(t, 20*time.Second, "the route of another namespace is refused", blog("False NotAllowedByListeners False RefNotPermitted"))
	if err := tlsRefused("blog.public.haslohas.com")(t.Context()); err != nil {
		t.Error(err)
	}
	c.kubectl("label", "namespace", "blog", "edge=yes")
	c.kubectl("patch", "gateway", "edge", "--type=json", "-p",
		`[{"op":"replace","path":"/spec/listeners/1/allowedRoutes","value":{"namespaces":{"from":"Selector","selector":{"matchExpressions":[
			{"key":"edge","operator":"In","values":["yes"]}]}}}}]`)
	await(t, 20*time.Second, "the route of another namespace is let in", blog("True Accepted False RefNotPermitted"))
	c.apply(`{apiVersion: gateway.networking.k8s.io/v1beta1, kind: ReferenceGrant, metadata: {name: blog, namespace: backends}, spec: {
  from: [{group: gateway.networking.k8s.io, kind: TLSRoute, namespace: blog}], to: [{group: "", kind: Service, name: blog}]}}`)
	await(t, 20*time.Second, "its Service too", blog("True Accepted True ResolvedRefs"))
	await(t, 20*time.Second, "it is reached by its name", tlsAnswers("blog.public.haslohas.com"))
	c.kubectl("label", "namespace", "default", "edge=yes")
	await(t, 20*time.Second, "the other name goes elsewhere", tlsAnswers("shop.public.haslohas.com"))

	// Two Services behind one route, three to one.
	c.kubectl("patch", "tcproute", "db", "--type=merge", "-p",
		`{"spec":{"rules":[{"backendRefs":[{"name":"postgres","port":5432,"weight":3},{"name":"other","port":5432},{"name":"gone","port":5432}]}]}}`)
	c.awaitShown("tcproute/db", condition(".status.parents[0]", "ResolvedRefs"), "False BackendNotFound")
	await(t, 20*time.Second, "both serve", func(context.Context) error {
		if got := answersOf(t, database); got["postgres-1"] <= got["other-1"] || got["other-1"] == 0 {
			return fmt.Errorf("answers came from %v", got)
		}
		return nil
	})

	// What another controller says of a route stays when we say something else.
	c.kubectl("patch", "tcproute", "db", "--subresource=status", "--type=json", "-p",
		`[{"op":"add","path":"/status/parents/0","value":{"controllerName":"example.com/mesh","parentRef":{"name":"mesh"},"conditions":[
			{"type":"Accepted","status":"True","reason":"Accepted","message":"ours, too","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}]`)
	c.kubectl("patch", "tcproute", "db", "--type=merge", "-p", `{"spec":{"rules":[{"backendRefs":[{"name":"postgres","port":5432}]}]}}`)
	c.awaitShown("tcproute/db", `{range .status.parents[*]}{.controllerName} {.conditions[?(@.type=="ResolvedRefs")].status}{.conditions[0].message},{end}`,
		"example.com/mesh ours, too,haslohas.com/elbow True,")

	// The same port again, and one that a service of the configuration has.
	c.apply(`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: younger}, spec: {gatewayClassName: elbow, listeners: [
  {name: db, protocol: TCP, port: 5432}, {name: web, protocol: TCP, port: 80}, {name: own, protocol: TCP, port: 5433}, {name: http, protocol: HTTP, port: 8080}]}}`)
	c.awaitShown("gateway/younger", condition(listener("db"), "Accepted")+condition(listener("web"), "Accepted")+
		condition(listener("http"), "Accepted")+condition(listener("own"), "Programmed"),
		"False PortUnavailableFalse PortUnavailableFalse UnsupportedProtocolTrue Programmed")
	c.awaitShown("gateway/younger", condition(".status", "Accepted"), "True ListenersNotValid")
	for name, want := range map[string]string{"db": "Gateway default/edge", "web": `service "web" of elbow's configuration`} {
		path := `{` + listener(name) + `.conditions[?(@.type=="Accepted")].message}`
		if said := c.kubectl("get", "gateway", "younger", "-o", "jsonpath="+path); !strings.Contains(said, want) {
			t.Errorf("listener %s: %q does not say %q", name, said, want)
		}
	}

	// It goes piece by piece.
	c.kubectl("delete", "tlsroute", "shop")
	await(t, 20*time.Second, "nobody has the name any more", tlsRefused("shop.public.haslohas.com"))
	if got := resolve(t, "shop.public.haslohas.com"); len(got) > 0 {
		t.Errorf("it is still answered: %v", got)
	}
	c.awaitShown("gateway/edge", "{.status.listeners[*].attachedRoutes}", "1 1")
	c.kubectl("delete", "gateway", "edge")
	await(t, 20*time.Second, "port 443 is closed", func(ctx context.Context) error {
		conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", elasticIP+":443")
		if err != nil {
			return nil
		}
		conn.Close()
		return errors.New("it is open")
	})
	c.awaitShown("tcproute/db", "{.status.parents[*].controllerName}", "example.com/mesh")
	c.awaitShown("gateway/younger", condition(listener("db"), "Programmed"), "True Programmed") // its turn
	c.kubectl("patch", "tcproute", "db", "--type=merge", "-p", `{"spec":{"parentRefs":[{"name":"younger","sectionName":"db"}]}}`)
	await(t, 20*time.Second, "the younger one has the database", reaches(database))
	c.kubectl("delete", "gateway", "younger")
	await(t, 20*time.Second, "port 5432 is closed", refuses(database))
	if said := b.ask("status"); strings.Contains(said, "default/younger") || strings.Contains(said, "default/edge") {
		t.Errorf("something is left:\n%s", said)
	}
}

// TestGatewayWithoutAPI: what Gateways asked for stays in force while nobody can be
// asked, over a restart too.
func TestGatewayWithoutAPI(t *testing.T) {
	c, config := newGateways(t)
	c.addTLS(namespace, "shop", "10.244.200.1", "shop.public.haslohas.com")
	c.installGatewayAPI()
	c.deploy("gateway-example.yaml")
	b := startElbow(t, config)
	c.kubectl("wait", "--for=condition=Programmed", "--timeout=20s", "gateway/edge")
	version := c.kubectl("get", "gateway/edge", "-o", "jsonpath={.metadata.resourceVersion}")
	c.kill()
	for range 2 {
		if err := reaches(database)(t.Context()); err != nil {
			t.Error(err)
		}
		if err := tlsAnswers("shop.public.haslohas.com")(t.Context()); err != nil {
			t.Error(err)
		}
		b.stop()
		b.start()
	}
	c.start()
	c.ready()
	c.kubectl("delete", "tcproute", "db")
	c.awaitShown("gateway/edge", "{.status.listeners[*].attachedRoutes}", "0 1")
	if err := tlsAnswers("shop.public.haslohas.com")(t.Context()); err != nil {
		t.Error(err)
	}
	if now := c.kubectl("get", "gateway/edge", "-o", "jsonpath={.metadata.resourceVersion}"); now == version {
		t.Error("nothing was written")
	}
}
