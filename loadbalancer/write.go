package loadbalancer

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"haslohas.com/elbow/discovery/kubernetes"
)

const (
	writeTimeout = 5 * time.Second

	// The pauses after a write that failed.
	minPause = 250 * time.Millisecond
	maxPause = 30 * time.Second

	// seen is how long the watch may take to show what was written.
	seen = 5 * time.Second
)

// reconcile writes what has to be written, and reports whether something is
// expected to change soon.
func (l *loop) reconcile(ctx context.Context) (expecting bool) {
	f, table, now := look(l.Front), l.Table.Load(), time.Now()
	addresses := l.addresses()
	slow := !l.listed // what the last process has left may be somebody else's by now
	counts := make(map[state]int)
	for _, s := range l.services {
		var v verdict
		if s.wish != nil {
			v = decide(s.wish, f, addresses)
			if v.state == serving {
				v.condition = wellnessOf(table, s.names).condition(s.object, now)
			}
			if v.condition != nil && now.Before(s.conditioned.Add(conditionPause)) {
				v.condition, expecting = nil, true // in a moment, as it is then
			}
		} else {
			v = farewell(s.object, s.names, f)
		}
		if s.state != v.state {
			s.state = v.state
			l.Log.Info("Service of type LoadBalancer", "service", s.key(), "state", stateNames[v.state], "at", inWords(v.ingress))
		}
		counts[v.state]++
		if v.state != pending {
			l.tell(s, v.problems)
		}
		if v.finalize || v.release || v.status || v.condition != nil || v.forget {
			expecting = true
			if !slow {
				slow = l.write(ctx, s, v)
			}
		}
		expecting = expecting || v.pending
	}
	l.metrics.show(counts)
	return expecting
}

// tell tells the people of a Service what is wrong with it, each thing once.
func (l *loop) tell(s *service, problems []problem) {
	for p := range s.told {
		if !slices.Contains(problems, p) {
			delete(s.told, p)
		}
	}
	for _, p := range problems {
		if !s.told[p] {
			s.told[p] = true
			l.Log.Warn("Service of type LoadBalancer: "+p.Text, "service", s.key(), "reason", p.Reason)
			l.event(s, true, p.Reason, p.Text)
		}
	}
}

func (l *loop) event(s *service, warning bool, reason, message string) {
	if l.Events != nil {
		l.Events.Tell(s.subject(), warning, reason, message)
	}
}

// write writes one of the things that v says; the watch brings the object back, and
// the next one follows. It reports whether the API server took too long: the others
// had better wait for the next round.
func (l *loop) write(ctx context.Context, s *service, v verdict) (slow bool) {
	now := time.Now()
	if now.Before(s.retry) || s.written == s.object.ResourceVersion && now.Before(s.retry.Add(seen)) {
		return false
	}
	target := kubernetes.Target{Group: corev1.SchemeGroupVersion, Resource: "services", Namespace: s.object.Namespace, Name: s.object.Name}
	apply := l.Cluster.Patch
	var patch any
	switch {
	case v.finalize:
		patch = l.finalizers(s, append(slices.Clone(s.object.Finalizers), Finalizer))
	case v.status:
		target.Subresource = "status"
		patch = object{"metadata": s.version(), "status": object{"loadBalancer": object{"ingress": v.ingress}}}
	case v.condition != nil:
		target.Subresource, apply = "status", l.Cluster.PatchLists
		patch = object{"metadata": s.version(), "status": object{"conditions": []any{v.condition}}}
	case v.forget:
		target.Subresource, apply = "status", l.Cluster.PatchLists
		patch = object{"metadata": s.version(), "status": object{"conditions": []any{object{"type": ConditionBackends, "$patch": "delete"}}}}
	default:
		patch = l.finalizers(s, slices.DeleteFunc(slices.Clone(s.object.Finalizers), func(f string) bool { return f == Finalizer }))
	}
	body, err := json.Marshal(patch)
	if err == nil {
		writing, cancel := context.WithTimeout(ctx, writeTimeout)
		err = apply(writing, target, body)
		cancel()
	}
	switch {
	case ctx.Err() != nil:
	case err == nil, errors.Is(err, kubernetes.ErrGone), errors.Is(err, kubernetes.ErrConflict):
		// The newest version is on its way here.
		s.written, s.retry, s.pause = s.object.ResourceVersion, now, 0
		if err == nil {
			l.wrote(s, v)
		}
	default:
		s.pause = min(max(2*s.pause, minPause), maxPause)
		s.retry = now.Add(s.pause)
		if text := err.Error(); !l.said[text] && len(l.said) < 1000 {
			l.said[text] = true
			l.Log.Warn("a Service cannot be written, trying again", "service", s.key(), "err", err)
		}
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// wrote tells what was written.
func (l *loop) wrote(s *service, v verdict) {
	clear(l.said)
	switch {
	case v.finalize:
	case !v.status && v.condition != nil:
		s.conditioned = time.Now()
	case !v.status && v.forget:
	case v.status && len(v.ingress) > 0:
		l.event(s, false, "EnsuredLoadBalancer", "reached at "+inWords(v.ingress))
	case v.status:
		l.Log.Info("the Service is reached no more", "service", s.key())
	default:
		l.event(s, false, "DeletedLoadBalancer", "nothing is left of it on this host")
	}
}

// object is one of JSON.
type object map[string]any

// version names the Service as it was read: a patch does nothing to another one of
// its name, or to one that has changed since.
func (s *service) version() object {
	return object{"uid": s.object.UID, "resourceVersion": s.object.ResourceVersion}
}

// finalizers is the patch that sets them.
func (l *loop) finalizers(s *service, all []string) object {
	metadata := s.version()
	metadata["finalizers"] = all
	return object{"metadata": metadata}
}
