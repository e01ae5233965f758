package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"haslohas.com/elbow/discovery/kubernetes"
	"haslohas.com/elbow/gateway"
)

// The pauses between two looks at the host while something is expected of it, and
// when nothing is.
const (
	soon  = 10 * time.Millisecond
	late  = time.Second
	never = 15 * time.Second

	// grace is how long the host may take until it is written that something is
	// not there yet: mostly it is soon.
	grace = time.Second
)

const (
	writeTimeout = 5 * time.Second

	// The pauses after a write that failed.
	minPause = 250 * time.Millisecond
	maxPause = 30 * time.Second

	// seen is how long the watch may take to show what was written.
	seen = 5 * time.Second
)

// A loop serves the Gateways of one cluster.
type loop struct {
	*Controller
	gateways *kubernetes.Gateways
	writing  map[string]*writing // by resource and name
	said     string              // why a write failed, as it was last logged
}

// writing is what is known of the writes of one status.
type writing struct {
	version string    // of the object when it was written
	until   time.Time // not written before, if it is of that version still
	retry   time.Time // not written before
	pause   time.Duration
	wanted  bool
}

// run works until there are other settings, or ctx ends.
func (l *loop) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var following sync.WaitGroup
	defer following.Wait()
	defer cancel()
	told := make(chan struct{}, 1)
	following.Go(func() { l.follow(ctx, told) })
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
		case <-told:
			pause = soon
		case <-table:
			pause = soon
		case <-timer.C:
		}
		if l.reconcile(ctx, time.Now()) {
			timer.Reset(pause)
			pause = min(2*pause, late)
		} else {
			timer.Reset(never)
			pause = soon
		}
	}
}

// follow keeps on following the Gateways, whatever happens.
func (l *loop) follow(ctx context.Context, told chan<- struct{}) {
	for ctx.Err() == nil {
		err := l.gateways.Run(ctx, func(w *gateway.World, err error) {
			if ctx.Err() == nil {
				l.update(w, err)
				poke(told)
			}
		})
		if err != nil && ctx.Err() == nil {
			l.update(nil, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(late):
		}
	}
}

// reconcile writes the status of what has another one now, and reports whether
// something is expected to change soon.
func (l *loop) reconcile(ctx context.Context, now time.Time) (expecting bool) {
	l.mu.Lock()
	d, fresh, since := l.asked.decision, l.asked.fresh, now.Sub(l.asked.at)
	l.mu.Unlock()
	if d == nil || !fresh {
		return false // of what the last process has left nobody knows how it is now
	}
	became := outcomes(l.Front)
	for _, w := range d.Wishes {
		if o := became(w.ID); !o.Listening && len(o.Refused) == 0 {
			expecting = true
		}
	}
	if expecting && since < grace {
		return true
	}
	for _, w := range l.writing {
		w.wanted = false
	}
	for _, w := range d.Status(became, now) {
		expecting = true
		l.write(ctx, w, now)
	}
	for key, w := range l.writing {
		if !w.wanted {
			delete(l.writing, key)
		}
	}
	return expecting
}

// write writes a status, unless that was done and the watch has not brought it back
// yet.
func (l *loop) write(ctx context.Context, w gateway.Write, now time.Time) {
	key := w.Resource + " " + w.Name.String()
	one := l.writing[key]
	if one == nil {
		one = &writing{}
		l.writing[key] = one
	}
	one.wanted = true
	if now.Before(one.retry) || one.version == w.ResourceVersion && now.Before(one.until) {
		return
	}
	writing, cancel := context.WithTimeout(ctx, writeTimeout)
	err := l.gateways.Write(writing, w)
	cancel()
	switch {
	case ctx.Err() != nil:
	case err == nil, errors.Is(err, kubernetes.ErrGone), errors.Is(err, kubernetes.ErrConflict):
		// The newest version is on its way here.
		one.version, one.until, one.pause = w.ResourceVersion, now.Add(seen), 0
		l.said = ""
	default:
		one.pause = min(max(2*one.pause, minPause), maxPause)
		one.retry = now.Add(one.pause)
		if text := err.Error(); text != l.said {
			l.said = text
			l.Log.Warn("a status cannot be written, trying again", "object", key, "err", err)
		}
	}
}
