package kubernetes

import (
	"context"
	"log/slog"
	"time"

	"haslohas.com/elbow/discovery"
)

// fresh is how often a set is delivered though it has not changed. All sources
// do so at the same moments, so that it is one piece of work for the Catalog.
const fresh = 5 * time.Second

// A finding is what a mapping makes of the objects of its informers.
type finding struct {
	discovery.Update
	ok         bool     // the informers know everything
	complaints []string // about single objects; the rest of the set is good
}

// A source follows informers and delivers what find makes of them.
type source struct {
	cluster *Cluster
	name    string // in the log
	wanted  []interest
	find    func([]*informer) finding
}

func (s *source) Run(ctx context.Context, deliver func(discovery.Update)) error {
	session := s.cluster.open()
	defer session.close()
	if err := session.failure(); err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	informers := session.join(s.wanted, changed)
	defer session.leave(informers, changed)

	log := s.cluster.Log.With("backends", s.name)
	said := make(map[string]bool)
	again := time.NewTimer(untilFresh())
	defer again.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again.C:
			again.Reset(untilFresh())
			if failing {
				continue // it has been said
			}
		}
		if f := s.find(informers); f.ok || f.Err != nil {
			failing = f.Err != nil
			said = complain(log, f.complaints, said)
			deliver(f.Update)
		}
	}
}

// untilFresh is the time to the next moment at which all sources deliver.
func untilFresh() time.Duration {
	now := time.Now()
	return now.Truncate(fresh).Add(fresh).Sub(now)
}

// complain logs the complaints that were not made the last time, and returns
// those of this time.
func complain(log *slog.Logger, complaints []string, before map[string]bool) map[string]bool {
	now := make(map[string]bool, len(complaints))
	for _, c := range complaints {
		if !before[c] && !now[c] {
			log.Warn(c)
		}
		now[c] = true
	}
	return now
}

// gather returns what takes over what an informer knows: its objects go to
// objects, the rest into f.
func gather[T any](f *finding, objects *[]T) func(known []T, ok bool, err error) {
	return func(known []T, ok bool, err error) {
		*objects = known
		f.ok = f.ok && ok
		if f.Err == nil {
			f.Err = err
		}
	}
}
