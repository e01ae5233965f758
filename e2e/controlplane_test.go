package e2e

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
)

// A controlPlane is a kube-apiserver with its etcd. The API server may be
// killed and started again; what it knew is in etcd.
type controlPlane struct {
	*kubernetes.Clientset // an administrator's, without client-side limits

	t      *testing.T
	dir    string
	config *rest.Config
	server *exec.Cmd // nil: not running
	args   []string
	log    *os.File
}

// newControlPlane starts one, which ends with the test.
func newControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	p := &controlPlane{t: t, dir: t.TempDir()}
	etcd := p.startEtcd()
	signing := filepath.Join(p.dir, "sa.key")
	p.write(signing, signingKey(t))
	token := randomHex()
	tokens := filepath.Join(p.dir, "tokens.csv")
	p.write(tokens, []byte(token+",admin,admin,system:masters\n"))
	address := freePort(t)
	_, port, _ := net.SplitHostPort(address)
	p.args = []string{
		"--etcd-servers=" + etcd,
		"--bind-address=127.0.0.1", "--secure-port=" + port, "--advertise-address=172.31.15.86",
		"--cert-dir=" + filepath.Join(p.dir, "certs"),
		"--token-auth-file=" + tokens,
		"--authorization-mode=RBAC",
		"--disable-admission-plugins=ServiceAccount", // nobody gives pods a token here
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + signing, "--service-account-signing-key-file=" + signing,
		"--service-cluster-ip-range=10.96.0.0/16",
		"--endpoint-reconciler-type=none",
	}
	var err error
	if p.log, err = os.Create(filepath.Join(p.dir, "kube-apiserver.log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		p.log.Close()
		if t.Failed() {
			p.showLog()
		}
	})
	p.config = &rest.Config{
		Host: "https://" + address, BearerToken: token, QPS: -1,
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(p.dir, "certs", "apiserver.crt")},
	}
	p.start()
	await(t, time.Minute, "the API server has made its certificate", func(context.Context) error {
		_, err := os.Stat(p.config.CAFile)
		return err
	})
	if p.Clientset, err = kubernetes.NewForConfig(p.config); err != nil {
		t.Fatal(err)
	}
	p.ready()
	return p
}

// startEtcd starts an etcd in this process and returns its URL.
func (p *controlPlane) startEtcd() string {
	c := embed.NewConfig()
	c.Dir = filepath.Join(p.dir, "etcd")
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop()) // it reports its own end as an error
	c.UnsafeNoFsync = true                                       // of no use after the test
	client := url.URL{Scheme: "http", Host: freePort(p.t)}
	peer := url.URL{Scheme: "http", Host: freePort(p.t)}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	e, err := embed.StartEtcd(c)
	if err != nil {
		p.t.Fatal("starting etcd: ", err)
	}
	p.t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(time.Minute):
		p.t.Fatal("etcd is not ready after a minute")
	}
	return client.String()
}

// start starts the API server, and does not wait until it is ready.
func (p *controlPlane) start() {
	p.server = exec.Command(os.Args[0], p.args...)
	p.server.Env = append(os.Environ(), roleVariable+"="+roleAPIServer)
	p.server.Stdout, p.server.Stderr = p.log, p.log
	p.server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.server.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// ready waits until the API server answers, and can do what is asked of it.
func (p *controlPlane) ready() {
	p.t.Helper()
	await(p.t, time.Minute, "the API server is ready", func(ctx context.Context) error {
		_, err := p.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
}

// kill ends the API server the hard way.
func (p *controlPlane) kill() {
	if p.server == nil {
		return
	}
	_ = p.server.Process.Kill()
	_ = p.server.Wait() // it was killed
	p.server = nil
}

// controlEndpointSlices runs the controller that writes EndpointSlices for
// Services with a selector.
func (p *controlPlane) controlEndpointSlices() {
	ctx, cancel := context.WithCancel(p.t.Context())
	factory := informers.NewSharedInformerFactory(p.Clientset, 0)
	c := endpointslice.NewController(ctx, factory.Core().V1().Pods(), factory.Core().V1().Services(),
		factory.Core().V1().Nodes(), factory.Discovery().V1().EndpointSlices(), 100, p.Clientset, 0)
	factory.Start(ctx.Done())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx, 2) }()
	p.t.Cleanup(func() {
		cancel()
		<-done
		factory.Shutdown()
	})
}

// kubectl runs it and returns what it prints.
func (p *controlPlane) kubectl(args ...string) string {
	p.t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), roleVariable+"="+roleKubectl, "KUBECONFIG="+p.kubeconfig("admin", p.config.BearerToken))
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// kubeconfig writes one for who has that token and returns its path.
func (p *controlPlane) kubeconfig(user, token string) string {
	p.t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["e2e"] = &clientcmdapi.Cluster{Server: p.config.Host, CertificateAuthority: p.config.CAFile}
	c.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: token}
	c.Contexts["e2e"] = &clientcmdapi.Context{Cluster: "e2e", AuthInfo: user}
	c.CurrentContext = "e2e"
	path := filepath.Join(p.dir, user+".kubeconfig")
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// showLog shows the end of what the API server said.
func (p *controlPlane) showLog() {
	text, _ := os.ReadFile(p.log.Name())
	lines := strings.Split(string(text), "\n")
	p.t.Logf("the API server said:\n%s", strings.Join(lines[max(0, len(lines)-30):], "\n"))
}

func (p *controlPlane) write(path string, content []byte) {
	p.t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// signingKey makes a key for the tokens of service accounts.
func signingKey(t *testing.T) []byte {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

func randomHex() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// freePort returns an address of 127.0.0.1 that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// await waits until try succeeds; it fails the test with the last error.
func await(t *testing.T, most time.Duration, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	err := errors.New("not tried")
	for {
		if err = try(ctx); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not after %s: %s: %v", most, what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
