package loadbalancer

import (
	"cmp"
	"context"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/discovery/kubernetes"
	"haslohas.com/elbow/pool"
)

// A Store keeps values over restarts, by name.
type Store interface {
	Load(name string, v any) (bool, error)
	Save(name string, v any) error
}

// A Teller writes Events; [kubernetes.Recorder] is one.
type Teller interface {
	Tell(s kubernetes.Subject, warning bool, reason, message string)
}

// Options are what a Controller works with. Front, Table and Deliver are required.
type Options struct {
	Front Front
	Table *pool.Publisher // whose changes are reason to look at the Front again

	// Deliver is called with everything that is asked for, whenever that has
	// changed, by one goroutine: first those who were first.
	Deliver func([]discovery.Service)

	Events     Teller                // nil: nobody is told
	Store      Store                 // nil: nothing outlives the process
	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: the metrics are not registered
}

// Settings say whose Services are fulfilled. The zero value: nobody's.
type Settings struct {
	Site    Site
	Cluster *kubernetes.Cluster
}

// A Controller fulfils Services. Its methods may be called by several goroutines.
type Controller struct {
	Options
	metrics *metrics

	mu       sync.Mutex
	settings Settings                      // guarded by mu
	subjects map[string]kubernetes.Subject // guarded by mu: by service of this host
	trouble  string                        // guarded by mu: what was last logged about following
	followed bool                          // guarded by mu: the Services were known once
	changed  chan struct{}                 // capacity 1: there are new settings

	loop *loop // of Run; nil before the first Apply
}

// New returns a Controller that does nothing until it is run and has settings.
func New(o Options) *Controller {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Controller{Options: o, metrics: newMetrics(o.Registerer), changed: make(chan struct{}, 1)}
}

// Apply brings settings into force. The first call, which must be before Run,
// delivers what the last process has left.
func (c *Controller) Apply(s Settings) {
	c.mu.Lock()
	same := reflect.DeepEqual(c.settings.Site, s.Site) && c.settings.Cluster == s.Cluster
	c.settings = s
	c.mu.Unlock()
	if c.loop == nil {
		c.loop = &loop{Controller: c, Settings: s, services: c.load(), said: make(map[string]bool)}
		c.loop.judge()
		c.loop.deliver()
	} else if !same {
		poke(c.changed)
	}
}

// Subject returns the Service that a service of this host was made for.
func (c *Controller) Subject(name string) (kubernetes.Subject, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.subjects[name]
	return s, ok
}

// Run fulfils Services until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		c.mu.Lock()
		s := c.settings
		c.mu.Unlock()
		c.loop.run(ctx, s)
	}
	return nil
}

// A service is one Service that is, or was, ours.
type service struct {
	object *corev1.Service
	class  string   // by which it became ours
	names  []string // of the services of this host that were last asked for on its behalf
	wish   *wish    // nil: it is not ours any more

	conditioned time.Time // when the condition was written last

	told    map[problem]bool
	state   state
	retry   time.Time // not written before
	pause   time.Duration
	written string // resourceVersion at which the status was written last; the answer is on its way
}

func (s *service) key() string { return s.object.Namespace + "/" + s.object.Name }

func (s *service) subject() kubernetes.Subject {
	return kubernetes.Subject{APIVersion: "v1", Kind: "Service", Namespace: s.object.Namespace, Name: s.object.Name, UID: s.object.UID}
}

// A loop is what Run knows. It belongs to its goroutine.
type loop struct {
	*Controller
	Settings
	services  map[types.UID]*service
	delivered []discovery.Service
	told      bool // something was delivered
	listed    bool // the services are those that the cluster has told of, not those of the last process alone
	said      map[string]bool
}

// The pauses between two looks at the host while something is expected of it, and
// when nothing is.
const (
	soon  = 10 * time.Millisecond
	late  = time.Second
	never = 15 * time.Second
)

// run works by one set of settings, until there are others or ctx ends.
func (l *loop) run(ctx context.Context, settings Settings) {
	ctx, cancel := context.WithCancel(ctx)
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	l.Settings, l.listed = settings, false
	l.judge()
	l.deliver()
	if settings.Cluster == nil || settings.Site.Class == "" && len(l.services) == 0 {
		select {
		case <-ctx.Done():
		case <-l.changed:
		}
		return
	}
	in := newInbox()
	following.Go(func() { l.follow(ctx, in) })
	table, stop := l.Table.Watch()
	defer stop()
	timer := time.NewTimer(soon)
	defer timer.Stop()
	pause := soon
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.changed:
			return
		case <-in.woken:
			if objects, ok := in.take(); ok {
				if l.update(objects) {
					l.judge()
					l.deliver()
					pause = soon
				}
				l.listed = true
			}
		case <-table:
			pause = soon
		case <-timer.C:
		}
		if l.Site.Class == "" && len(l.services) == 0 {
			return // the last one has left
		}
		if pending := l.reconcile(ctx); pending {
			timer.Reset(pause)
			pause = min(2*pause, late)
		} else {
			timer.Reset(never)
			pause = soon
		}
	}
}

// follow keeps on following the Services, whatever happens.
func (l *loop) follow(ctx context.Context, in *inbox) {
	for ctx.Err() == nil {
		err := l.Cluster.Balanced().Run(ctx, func(objects []*corev1.Service, err error) {
			in.put(objects, err)
			l.follows(err)
		})
		if err != nil && ctx.Err() == nil {
			l.follows(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(late):
		}
	}
}

// follows says once why the Services are not known as they are now.
func (l *loop) follows(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.metrics.follows(err == nil)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == l.trouble && err != nil {
		return
	}
	first := l.trouble != "" || !l.followed
	l.trouble, l.followed = text, true
	if err != nil {
		l.Log.Warn("the Services cannot be followed, what they last asked for stays in force", "err", err)
	} else if first {
		l.Log.Info("following the Services of type LoadBalancer", "class", l.Site.Class)
	}
}

// update takes over the Services as they are now, and reports whether one of
// those that matter is another.
func (l *loop) update(objects []*corev1.Service) (changed bool) {
	there := make(map[types.UID]bool)
	for _, o := range objects {
		old := l.services[o.UID]
		if old == nil && !ourClass(o, &l.Site) || old != nil && old.left(o) {
			continue // never ours, or no longer
		}
		there[o.UID] = true
		if old == nil {
			l.services[o.UID] = &service{object: o, class: l.Site.Class, told: make(map[problem]bool)}
			changed = true
		} else if !reflect.DeepEqual(old.object, o) {
			old.object = o
			changed = true
		}
	}
	for uid, s := range l.services {
		if !there[uid] {
			l.Log.Info("Service of type LoadBalancer", "service", s.key(), "state", "gone")
			delete(l.services, uid)
			changed = true
		}
	}
	return changed
}

// left reports whether nothing of ours is at o any more, or it belongs to another
// load balancer.
func (s *service) left(o *corev1.Service) bool {
	if o.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return o.Spec.LoadBalancerClass == nil || *o.Spec.LoadBalancerClass != s.class
	}
	return !slices.Contains(o.Finalizers, Finalizer) && len(o.Status.LoadBalancer.Ingress) == 0 && !hasCondition(o)
}

// judge reads what the Services ask for.
func (l *loop) judge() {
	for _, s := range l.services {
		s.wish = nil
		if ours(s.object, &l.Site) {
			w := read(s.object, &l.Site)
			s.wish = &w
		}
	}
}

// deliver hands on what is asked for, if that is something else than before, and
// saves it: only of Services that cannot go unnoticed any more.
func (l *loop) deliver() {
	all := make([]*service, 0, len(l.services))
	for _, s := range l.services {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *service) int { return older(a.object, b.object) })
	var want []discovery.Service
	for _, s := range all {
		if s.wish == nil || !slices.Contains(s.object.Finalizers, Finalizer) {
			continue
		}
		s.names = nil
		for _, d := range s.wish.wanted(func(k kubernetes.Service) discovery.Source { return l.Cluster.Service(k) }) {
			s.names = append(s.names, d.Name)
			want = append(want, d)
		}
	}
	l.mu.Lock()
	l.subjects = make(map[string]kubernetes.Subject)
	for _, s := range all {
		for _, n := range s.names {
			l.subjects[n] = s.subject()
		}
	}
	l.mu.Unlock()
	if !l.told || !sameWanted(l.delivered, want) {
		l.delivered, l.told = want, true
		l.Deliver(want)
	}
	l.save(all)
}

func sameWanted(a, b []discovery.Service) bool {
	return slices.EqualFunc(a, b, func(x, y discovery.Service) bool {
		return x.SourceKey == y.SourceKey && x.OwnProbe == y.OwnProbe && reflect.DeepEqual(x.Service, y.Service)
	})
}

// addresses are those of the host, as texts.
func (l *loop) addresses() []string {
	var out []string
	for _, a := range l.Site.Addresses {
		out = append(out, a.String())
	}
	return out
}

// An inbox holds the newest set of Services.
type inbox struct {
	woken chan struct{}

	mu      sync.Mutex
	objects []*corev1.Service
	full    bool
}

func newInbox() *inbox { return &inbox{woken: make(chan struct{}, 1)} }

// put leaves a set; one that comes with an error is no news.
func (i *inbox) put(objects []*corev1.Service, err error) {
	if err != nil {
		return
	}
	i.mu.Lock()
	i.objects, i.full = objects, true
	i.mu.Unlock()
	poke(i.woken)
}

func (i *inbox) take() ([]*corev1.Service, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	objects, full := i.objects, i.full
	i.objects, i.full = nil, false
	return objects, full
}

// poke leaves a wake-up in a channel of capacity 1, unless one is waiting there.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// names in one line.
func inWords(ingress []corev1.LoadBalancerIngress) string {
	var out []string
	for _, i := range ingress {
		for _, s := range []string{i.Hostname, i.IP} {
			if s != "" && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return cmp.Or(strings.Join(out, ", "), "nowhere")
}
