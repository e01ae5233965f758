package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// The pause before an API server that fails is asked again.
const (
	minPause = 250 * time.Millisecond
	maxPause = 5 * time.Second
)

// An interest is what an informer is about. It is comparable.
type interest struct {
	kind      *kind
	namespace string // empty: all of them, or the kind has none
	labels    string // a label selector; empty: all
	fields    string // a field selector; empty: all
}

// An informer keeps the objects of an interest as the API server has them. It
// stands on the reflector of client-go: list, watch, go on from where a watch
// ended, list again where that is no longer known. Sources share it.
type informer struct {
	interest
	log   *slog.Logger
	users int // guarded by session.mu

	// The connection it runs on, changed by use alone.
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	objects  map[types.NamespacedName]metav1.Object // guarded by mu; the objects themselves never change
	synced   bool                                   // guarded by mu: objects is a full set
	err      error                                  // guarded by mu: why objects may be out of date
	watchers map[chan<- struct{}]bool               // guarded by mu
}

func newInformer(i interest, log *slog.Logger) *informer {
	return &informer{
		interest: i,
		log:      log,
		objects:  make(map[types.NamespacedName]metav1.Object),
		watchers: make(map[chan<- struct{}]bool),
	}
}

// use has the informer speak to a and no longer to who was before; nil: to
// nobody. It has ended all that ran before when it returns. Calls must not overlap.
func (i *informer) use(a *api) {
	if i.cancel != nil {
		i.cancel()
		i.running.Wait()
		i.cancel = nil
	}
	if a == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	i.cancel = cancel
	i.running.Go(func() { i.run(ctx, a) })
}

// run keeps the objects until ctx is cancelled. A panic in client-go costs a
// pause and no more.
func (i *informer) run(ctx context.Context, a *api) {
	for ctx.Err() == nil {
		func() {
			defer func() {
				if p := recover(); p != nil {
					i.fail(fmt.Errorf("reading %s: client-go gave up: %v", i.kind.resource, p))
				}
			}()
			i.follow(ctx, a)
		}()
		select {
		case <-ctx.Done():
		case <-time.After(maxPause):
		}
	}
}

func (i *informer) follow(ctx context.Context, a *api) {
	var quiet klog.Logger // says nothing: what goes wrong, list and watch below tell
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := a.list(ctx, i.interest, o)
			i.asked(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := a.watch(ctx, i.interest, o)
			if i.asked(ctx, err); err == nil {
				i.fail(nil)
			}
			return w, err
		},
	}
	r := cache.NewReflectorWithOptions(lw, i.kind.example, store{i}, cache.ReflectorOptions{
		Logger:          &quiet,
		Name:            "elbow",
		TypeDescription: i.kind.resource,
		Backoff: &wait.Backoff{
			Duration: minPause,
			Cap:      maxPause,
			Factor:   2,
			Jitter:   0.5,
			Steps:    math.MaxInt32,
		},
	})
	r.RunWithContext(klog.NewContext(ctx, quiet))
}

// asked takes in how a request failed. One that nobody wants answered any more
// says nothing, and a list that was answered neither: until there is a watch
// too, nobody would hear of a change.
func (i *informer) asked(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && !expired(err) { // then the reflector lists anew
		i.fail(explain(err, i.interest))
	}
}

// fail sets why the objects may be out of date, nil: they are not.
func (i *informer) fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if (err == nil) != (i.err == nil) || err != nil && err.Error() != i.err.Error() {
		i.err = err
		i.changed()
	}
}

// changed wakes whoever watches. The caller holds mu.
func (i *informer) changed() {
	for w := range i.watchers {
		poke(w)
	}
}

func (i *informer) watch(c chan<- struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.watchers[c] = true
	poke(c)
}

func (i *informer) unwatch(c chan<- struct{}) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.watchers, c)
}

// known returns the objects of i in any order, which nobody may change. ok is
// false before the first full set; err says why they may be out of date.
func known[T metav1.Object](i *informer) (objects []T, ok bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	objects = make([]T, 0, len(i.objects))
	for _, o := range i.objects {
		if t, ok := o.(T); ok {
			objects = append(objects, t)
		}
	}
	return objects, i.synced, i.err
}

// A store is what the reflector sees of an informer.
type store struct{ *informer }

// Transformer strips the objects also while the reflector gathers the first
// ones (cache.TransformingStore).
func (s store) Transformer() cache.TransformFunc { return s.kind.transform }

func (s store) Add(o any) error    { return s.put(o) }
func (s store) Update(o any) error { return s.put(o) }

// put takes o over. It wakes nobody where nothing that is used has changed:
// most of what a node reports is that it lives.
func (s store) put(o any) error {
	stripped, err := s.kind.transform(o)
	if err != nil {
		return err
	}
	object := stripped.(metav1.Object)
	name := nameOf(object)
	s.mu.Lock()
	defer s.mu.Unlock()
	if reflect.DeepEqual(s.objects[name], object) {
		return nil
	}
	s.objects[name] = object
	s.changed()
	return nil
}

func (s store) Delete(o any) error {
	object, ok := o.(metav1.Object)
	if !ok {
		return fmt.Errorf("deleting a %T", o)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, nameOf(object))
	s.changed()
	return nil
}

// Replace takes a list for all there is.
func (s store) Replace(list []any, _ string) error {
	objects := make(map[types.NamespacedName]metav1.Object, len(list))
	for _, o := range list {
		stripped, err := s.kind.transform(o)
		if err != nil {
			return err
		}
		object := stripped.(metav1.Object)
		objects[nameOf(object)] = object
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects, s.synced = objects, true
	s.changed()
	return nil
}

// Resync is never asked for.
func (store) Resync() error { return nil }

func nameOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}
