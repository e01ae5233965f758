package kubernetes

import (
	"context"
	"log/slog"
	"sync"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"
)

var quieten sync.Once

// quiet makes client-go a guest in this process, which it takes for its own: a
// panic in one of its goroutines ends that goroutine and not the process, and
// what it logs goes to log, as debugging. What matters the sources say. The
// first log stays.
func quiet(log *slog.Logger) {
	quieten.Do(func() {
		utilruntime.ReallyCrash = false
		klog.SetSlogLogger(slog.New(debugging{log.Handler()}))
	})
}

// debugging hands records on as such of level Debug.
type debugging struct{ to slog.Handler }

func (d debugging) Enabled(ctx context.Context, _ slog.Level) bool {
	return d.to.Enabled(ctx, slog.LevelDebug)
}

func (d debugging) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return d.to.Handle(ctx, r)
}

func (d debugging) WithAttrs(a []slog.Attr) slog.Handler { return debugging{d.to.WithAttrs(a)} }
func (d debugging) WithGroup(g string) slog.Handler      { return debugging{d.to.WithGroup(g)} }
