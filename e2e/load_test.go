package e2e

import (
	"context"
	"sync"
	"testing"
	"time"
)

// A load asks one URL again and again, each time on a new connection.
type load struct {
	t       *testing.T
	stop    context.CancelFunc
	workers sync.WaitGroup

	mu      sync.Mutex
	answers map[string]int // guarded by mu: by the name of the pod
	failed  []failure      // guarded by mu
}

type failure struct {
	at  time.Time // when the request was begun
	err error
}

// startLoad asks with a few workers, about 200 times a second together.
func startLoad(t *testing.T, url string) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, stop: cancel, answers: make(map[string]int)}
	for range 4 {
		l.workers.Go(func() {
			pace := time.NewTicker(20 * time.Millisecond)
			defer pace.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-pace.C:
				}
				begun := time.Now()
				who, err := get(context.WithoutCancel(ctx), url) // what was begun is finished
				l.mu.Lock()
				if err != nil {
					l.failed = append(l.failed, failure{begun, err})
				} else {
					l.answers[who]++
				}
				l.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { cancel(); l.workers.Wait() })
	return l
}

// answered returns how many answers came from whom.
func (l *load) answered(who string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers[who]
}

// end stops the load and reports how it went: not one request may have failed.
func (l *load) end() {
	l.t.Helper()
	l.stop()
	l.workers.Wait()
	total := 0
	for _, n := range l.answers {
		total += n
	}
	l.t.Logf("%d requests answered by %d pods, %d failed", total, len(l.answers), len(l.failed))
	if total == 0 {
		l.t.Error("nothing was asked")
	}
	for i, f := range l.failed {
		if i == 5 {
			break
		}
		l.t.Errorf("begun at %s: %v", f.at.Format("15:04:05.000"), f.err)
	}
}
