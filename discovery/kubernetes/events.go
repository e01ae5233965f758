package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The rate of Events: so many at once, then one in each interval, about one
// object and about all together.
const (
	eventBurst    = 6
	eventInterval = time.Minute
	allBurst      = 60
	allInterval   = time.Second

	eventQueue   = 256 // that wait to be written
	eventTimeout = 10 * time.Second

	// maxMessage bounds the message of an Event, in bytes; the API server takes
	// no more.
	maxMessage = 1024
)

// A Subject is the object that an Event is about.
type Subject struct {
	APIVersion string // such as v1
	Kind       string // such as Service
	Namespace  string // empty: it has none
	Name       string
	UID        types.UID
}

// A Recorder writes Events, as many as a person wants to read: the rest is left
// out. Its methods may be called by several goroutines.
type Recorder struct {
	host string // that reports
	log  *slog.Logger

	queue chan told

	mu      sync.Mutex
	cluster *Cluster            // guarded by mu; nil: Events go nowhere
	all     bucket              // guarded by mu
	buckets map[Subject]*bucket // guarded by mu
}

type told struct {
	subject         Subject
	warning         bool
	reason, message string
	at              time.Time
}

// NewRecorder returns a Recorder that speaks for a host. It tells nobody until it
// is run and has a cluster.
func NewRecorder(host string, log *slog.Logger) *Recorder {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Recorder{host: host, log: log, queue: make(chan told, eventQueue), buckets: make(map[Subject]*bucket),
		all: bucket{burst: allBurst, interval: allInterval}}
}

// Use has Events written to c; nil: to nobody.
func (r *Recorder) Use(c *Cluster) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cluster = c
}

// Tell has an Event written about s, unless there were too many of late. It does
// not block.
func (r *Recorder) Tell(s Subject, warning bool, reason, message string) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cluster == nil {
		return
	}
	b := r.buckets[s]
	if b == nil {
		r.tidy(now)
		b = &bucket{burst: eventBurst, interval: eventInterval}
		r.buckets[s] = b
	}
	if !b.take(now) || !r.all.take(now) {
		return
	}
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "")
	}
	select {
	case r.queue <- told{s, warning, reason, message, now}:
	default:
	}
}

// tidy forgets the objects that nothing was told about for long. mu is held.
func (r *Recorder) tidy(now time.Time) {
	for s, b := range r.buckets {
		if b.full(now) {
			delete(r.buckets, s)
		}
	}
}

// Run writes Events until ctx ends, and returns nil.
func (r *Recorder) Run(ctx context.Context) error {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case t := <-r.queue:
			r.mu.Lock()
			c := r.cluster
			r.mu.Unlock()
			if c == nil {
				continue
			}
			writing, cancel := context.WithTimeout(ctx, eventTimeout)
			err := c.emit(writing, r.event(t))
			cancel()
			switch {
			case ctx.Err() != nil:
			case err == nil:
				failing = false
			case !failing: // the next may fail for another object, and for the same reason
				failing = true
				r.log.Warn("Events are lost", "reason", t.reason, "about", t.subject.Kind+" "+t.subject.Name, "err", err)
			}
		}
	}
}

func (r *Recorder) event(t told) *corev1.Event {
	kind := corev1.EventTypeNormal
	if t.warning {
		kind = corev1.EventTypeWarning
	}
	namespace := t.subject.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where those of nodes are
	}
	at := metav1.NewTime(t.at)
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%x", t.subject.Name, t.at.UnixNano())},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: t.subject.APIVersion,
			Kind:       t.subject.Kind,
			Namespace:  t.subject.Namespace,
			Name:       t.subject.Name,
			UID:        t.subject.UID,
		},
		Type:                kind,
		Reason:              t.reason,
		Message:             t.message,
		Source:              corev1.EventSource{Component: "elbow", Host: r.host},
		ReportingController: "haslohas.com/elbow",
		ReportingInstance:   r.host,
		FirstTimestamp:      at,
		LastTimestamp:       at,
		Count:               1,
	}
}

// A bucket holds tokens, one more after each interval up to the burst. It begins
// full.
type bucket struct {
	burst    int
	interval time.Duration
	empty    time.Time // when it was, or would have been, empty
}

func (b *bucket) take(now time.Time) bool {
	if least := now.Add(-time.Duration(b.burst) * b.interval); b.empty.Before(least) {
		b.empty = least
	}
	if now.Sub(b.empty) < b.interval {
		return false
	}
	b.empty = b.empty.Add(b.interval)
	return true
}

func (b *bucket) full(now time.Time) bool {
	return now.Sub(b.empty) >= time.Duration(b.burst)*b.interval
}
