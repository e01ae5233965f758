// Package lease is the lock of an Elastic IP in a Kubernetes cluster: a Lease
// object that one host holds and renews.
//
// It keeps the rules of client-go's leader election, and so gets along with
// every tool that shows or edits Leases: who finds that the object has not
// changed for its duration, by its own clock, takes it; each write names the
// version that it was made from, so that of two that write at once one fails.
// It is not that package, which knows no end of what it holds, and brings the
// typed clients of the whole of Kubernetes with it, 19 MB of program.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

const (
	// DefaultDuration is how long after the last sign of the holder another host
	// takes the Lease, unless it is said otherwise.
	DefaultDuration = 8 * time.Second

	// Parts of the duration: how often the holder renews; after how long without
	// success it gives up, so that whoever acts under the lock has time to end;
	// and what is taken off for clocks that differ in their rate.
	renewals = 8
	deadline = 5.0 / 8
	skew     = 1.0 / 32
)

// Options say which Lease it is and who wants it. Config, Identity, Namespace
// and Name are required.
type Options struct {
	// Config returns how the cluster is reached. It is called each time that
	// Run begins.
	Config func() (*rest.Config, error)

	// Identity returns what this host is called, and no other. It is called until
	// it has succeeded once.
	Identity func(context.Context) (string, error)

	Namespace, Name string
	Duration        time.Duration // whole seconds; 0: DefaultDuration

	// Keep says, when Run ends, that the Lease is not given back, since another
	// process of this host goes on with it; nil: it always is.
	Keep func() bool

	Log *slog.Logger // nil: silent
}

// A Lock is a Lease as one host sees it.
type Lock struct {
	Options
	identity string // of Run alone
	seen     sighting

	mu    sync.Mutex
	until time.Time // guarded by mu
}

// A sighting is the Lease as it was first seen in its present version, by the
// clock of this host. What times stand in it, another clock has written.
type sighting struct {
	lease *object // nil: there is none, or it was not read yet
	at    time.Time
}

// New returns a Lock that nobody holds until Run.
func New(o Options) *Lock {
	if o.Duration == 0 {
		o.Duration = DefaultDuration
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Lock{Options: o}
}

// Until returns until when no other host can have taken the Lease; the zero
// time: it is not held.
func (l *Lock) Until() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until
}

func (l *Lock) set(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = until
}

// part is a part of the duration.
func (l *Lock) part(of float64) time.Duration { return time.Duration(float64(l.Duration) * of) }

// Run competes for the Lease until ctx is cancelled. Each time it holds it, it
// calls held with a context that ends when it could not be renewed for five
// eighths of the duration, or when another host is seen to hold it, and
// waits until held has returned.
func (l *Lock) Run(ctx context.Context, held func(context.Context)) error {
	config, err := l.Config()
	if err != nil {
		return err
	}
	if l.identity == "" {
		if l.identity, err = l.Identity(ctx); err != nil {
			return err
		}
	}
	api, err := newAPI(config, l.Namespace, l.Name, l.part(1.0/4))
	if err != nil {
		return err
	}
	said := ""
	for ctx.Err() == nil {
		got, err := l.try(ctx, api)
		switch {
		case ctx.Err() != nil:
		case err != nil && err.Error() != said:
			said = err.Error()
			l.Log.Warn("the lease of the Elastic IP cannot be had", "lease", l.Namespace+"/"+l.Name, "err", err)
		case err == nil:
			said = ""
		}
		if got {
			l.hold(ctx, api, held)
		}
		l.wait(ctx)
	}
	if l.Keep == nil || !l.Keep() {
		l.release(ctx, api)
	}
	return nil
}

// wait is the pause between two attempts, as long as that between renewals.
func (l *Lock) wait(ctx context.Context) {
	d := l.part(1.0 / renewals)
	t := time.NewTimer(d - d/10 + rand.N(d/5+1))
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// hold renews what was just taken, as long as that goes.
func (l *Lock) hold(ctx context.Context, api *api, held func(context.Context)) {
	inside, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		held(inside)
	}()
	good := time.Now()
	said := false
	for ctx.Err() == nil {
		l.wait(ctx)
		before := time.Now()
		got, err := l.try(ctx, api)
		if got {
			good, said = before, false
			continue
		}
		if err == nil { // it is another host's
			l.set(time.Time{})
			break
		}
		if time.Since(good) >= l.part(deadline) {
			break
		}
		if ctx.Err() == nil && !said {
			said = true
			l.Log.Warn("the lease of the Elastic IP cannot be renewed", "lease", l.Namespace+"/"+l.Name, "err", err)
		}
	}
	cancel()
	<-done
}

// try takes or renews the Lease. It reports false without an error where another
// host holds it.
func (l *Lock) try(ctx context.Context, api *api) (bool, error) {
	lease, err := api.get(ctx)
	if err != nil && !errors.Is(err, errNotFound) {
		return false, err
	}
	if lease == nil {
		lease = newObject(l.Namespace, l.Name)
	}
	now := time.Now()
	if l.seen.lease == nil || l.seen.lease.Metadata.ResourceVersion != lease.Metadata.ResourceVersion || lease.Metadata.ResourceVersion == "" {
		l.seen = sighting{lease, now}
	}
	mine := lease.Spec.Holder == l.identity
	if !mine && lease.Spec.Holder != "" && now.Before(l.seen.at.Add(lease.length(l.Duration))) {
		return false, nil
	}
	before := time.Now() // who sees the write, sees it later
	written, err := api.put(ctx, lease.taken(l.identity, l.Duration, before, mine))
	switch {
	case errors.Is(err, errConflict):
		return false, fmt.Errorf("another host wrote it at the same time: %w", err)
	case err != nil:
		// Whether it was written is not known. What was known of the time before
		// still holds: a write only makes it longer.
		return false, err
	}
	l.seen = sighting{written, before}
	l.set(before.Add(l.Duration - l.part(skew)))
	return true, nil
}

// release gives the Lease back, so that another host need not wait. If that
// fails, it waits.
func (l *Lock) release(ctx context.Context, api *api) {
	held := time.Now().Before(l.Until())
	l.set(time.Time{}) // first: nobody acts under it any more
	if !held {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.part(1.0/4))
	defer cancel()
	lease, err := api.get(ctx)
	if err == nil && lease.Spec.Holder == l.identity {
		_, err = api.put(ctx, lease.released(time.Now()))
	}
	if err != nil {
		l.Log.Warn("the lease of the Elastic IP is not given back, it runs out by itself", "err", err)
	}
}

func client(config *rest.Config) (*http.Client, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // one request after the other is few enough
	return rest.HTTPClientFor(config)
}
