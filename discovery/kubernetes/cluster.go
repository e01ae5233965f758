package kubernetes

import (
	"context"
	"log/slog"
	"sync"

	"k8s.io/client-go/rest"

	"haslohas.com/elbow/watch"
)

// Options are what a [Cluster] works with.
type Options struct {
	// Kubeconfig is the path of the kubeconfig file. Empty: that of the variable
	// KUBECONFIG, ~/.kube/config, or the service account of the pod that elbow
	// runs in, whichever is found first.
	Kubeconfig string

	Log *slog.Logger // nil: silent
}

// A Cluster is one connection to an API server. It costs nothing until a
// source made of it runs, and is closed when the last of them ends; all its
// goroutines have ended then. Where the kubeconfig file changes, it connects
// anew and keeps what it knows. Its methods may be called by several
// goroutines.
type Cluster struct {
	Options

	mu      sync.Mutex
	session *session // guarded by mu; nil: no source runs
}

// New returns a Cluster. It reads nothing yet.
func New(o Options) *Cluster {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	quiet(o.Log)
	return &Cluster{Options: o}
}

// Config returns how the cluster is reached, for others who speak to it.
func (c *Cluster) Config() (*rest.Config, error) { return loadConfig(c.Kubeconfig) }

// A session is a Cluster while sources run.
type session struct {
	cluster *Cluster
	users   int // guarded by cluster.mu
	cancel  context.CancelFunc
	running sync.WaitGroup

	connecting sync.Mutex // held by connect

	mu        sync.Mutex
	api       *api                     // guarded by mu; nil: there is none, see err
	err       error                    // guarded by mu: why there is no api
	informers map[interest]*informer   // guarded by mu
	waiting   map[chan<- struct{}]bool // guarded by mu: poked when api or err changes
}

// open returns the session, and begins one if there is none. Each call needs
// a close.
func (c *Cluster) open() *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.session == nil:
		ctx, cancel := context.WithCancel(context.Background())
		s := &session{
			cluster:   c,
			cancel:    cancel,
			informers: make(map[interest]*informer),
			waiting:   make(map[chan<- struct{}]bool),
		}
		c.session = s
		s.connect()
		if files := kubeconfigFiles(c.Kubeconfig); len(files) > 0 {
			s.running.Go(func() { watch.Files(ctx, files, s.connect) })
		}
	case c.session.failure() != nil:
		c.session.connect()
	}
	c.session.users++
	return c.session
}

// close ends the session with its last user.
func (s *session) close() {
	c := s.cluster
	c.mu.Lock()
	s.users--
	last := s.users == 0
	if last {
		c.session = nil
	}
	c.mu.Unlock()
	if last {
		s.cancel()
		s.running.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.api != nil {
			s.api.close()
		}
	}
}

// connect reads the kubeconfig and, where it says something new, replaces the
// connection.
func (s *session) connect() {
	s.connecting.Lock()
	defer s.connecting.Unlock()
	next, err := loadAPI(s.cluster.Kubeconfig)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		// A file that is broken or gone for a moment takes no connection away.
		if s.api != nil {
			s.cluster.Log.Warn("the kubeconfig cannot be used, the connection made of the old one stays", "err", err)
			return
		}
		s.err = err
	case s.api != nil && s.api.same(next):
		return
	default:
		former := s.api
		s.api, s.err = next, nil
		if former != nil {
			s.cluster.Log.Info("the kubeconfig changed, connecting anew", "server", next.host)
		}
		for _, i := range s.informers {
			i.use(next)
		}
		if former != nil {
			former.close()
		}
	}
	for w := range s.waiting {
		poke(w)
	}
}

// join returns the informers of what is wanted; changed is poked whenever one
// of them knows something new. Each call needs a leave.
func (s *session) join(wanted []interest, changed chan<- struct{}) []*informer {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[changed] = true
	informers := make([]*informer, len(wanted))
	for n, w := range wanted {
		i := s.informers[w]
		if i == nil {
			i = newInformer(w, s.cluster.Log)
			s.informers[w] = i
			i.use(s.api)
		}
		i.users++
		i.watch(changed)
		informers[n] = i
	}
	return informers
}

// leave gives up what join gave, and waits for the informers that nobody uses
// any more.
func (s *session) leave(informers []*informer, changed chan<- struct{}) {
	s.mu.Lock()
	delete(s.waiting, changed)
	var ended []*informer
	for _, i := range informers {
		i.unwatch(changed)
		if i.users--; i.users == 0 {
			delete(s.informers, i.interest)
			ended = append(ended, i)
		}
	}
	s.mu.Unlock()
	for _, i := range ended {
		i.use(nil)
	}
}

// failure returns why there is no connection at all, nil if there is one.
func (s *session) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// poke leaves a wake-up in a channel of capacity 1, unless one is waiting there.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
