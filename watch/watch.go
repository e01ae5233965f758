// Package watch tells when files change.
package watch

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a burst of events must have been over: an editor
	// writes, renames and touches in one go.
	settle = 50 * time.Millisecond

	// restless bounds how long that is waited for: another file in the folder
	// may be written all the time.
	restless = time.Second

	// slow is how often the files are looked at without any event: network file
	// systems send none.
	slow = 10 * time.Second
)

// Files calls changed once it watches, so that no change before that is
// missed, and then each time one of the files at paths was written, replaced,
// removed or came back. It returns when ctx is cancelled. All calls come from
// the goroutine of Files; several changes at once may be one call.
//
// The folders are watched, not the files: a file that is renamed into place
// or reached over a symbolic link that is swapped, as Kubernetes does it with
// ConfigMaps, is seen too. Where the kernel gives no notice, changes are found
// by looking every ten seconds.
func Files(ctx context.Context, paths []string, changed func()) {
	w := watcher{paths: paths}
	var events <-chan fsnotify.Event
	var errors <-chan error
	if notify, err := fsnotify.NewWatcher(); err == nil {
		defer notify.Close()
		w.notify, events, errors = notify, notify.Events, notify.Errors
	}
	w.follow()
	w.prints = w.look()
	changed()

	look := time.NewTimer(slow)
	defer look.Stop()
	var burst time.Time // when it began; zero: there is none
	soon := func() {
		if burst.IsZero() {
			burst = time.Now()
		}
		look.Reset(min(settle, max(0, time.Until(burst.Add(restless)))))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			soon()
		case <-errors: // events were lost: the look finds what they told
			soon()
		case <-look.C:
			burst = time.Time{}
			look.Reset(slow)
			w.follow()
			if prints := w.look(); !equal(prints, w.prints) {
				w.prints = prints
				changed()
			}
		}
	}
}

type watcher struct {
	paths  []string
	notify *fsnotify.Watcher // nil where the kernel gives no notice
	prints []print
	above  []string // folders that are watched because one below is missing
}

// follow watches the folders of the files and of what they link to. To watch
// one a second time does nothing, unless it is another folder of the same name.
func (w *watcher) follow() {
	if w.notify == nil {
		return
	}
	before := w.above
	w.above = nil
	var folders []string
	for _, path := range w.paths {
		folders = append(folders, filepath.Dir(path))
		w.watch(filepath.Dir(path))
		if target, err := filepath.EvalSymlinks(path); err == nil {
			folders = append(folders, filepath.Dir(target))
			w.watch(filepath.Dir(target))
		}
	}
	for _, dir := range before {
		if !slices.Contains(w.above, dir) && !slices.Contains(folders, dir) {
			_ = w.notify.Remove(dir) // it may be gone
		}
	}
}

// watch watches a folder, or where it is missing the one above, which tells
// when it is made. Without any of them, the slow look is left.
func (w *watcher) watch(dir string) {
	above := filepath.Dir(dir)
	if w.notify.Add(dir) == nil || above == dir {
		return
	}
	w.above = append(w.above, above)
	w.watch(above)
	_ = w.notify.Add(dir) // it may have been made meanwhile
}

// A print is what tells one content of a file from another without reading it.
type print struct {
	info os.FileInfo // nil: no such file
}

func (w *watcher) look() []print {
	prints := make([]print, len(w.paths))
	for i, path := range w.paths {
		if info, err := os.Stat(path); err == nil {
			prints[i] = print{info}
		}
	}
	return prints
}

func equal(a, b []print) bool {
	for i := range a {
		x, y := a[i].info, b[i].info
		switch {
		case x == nil && y == nil:
		case x == nil || y == nil:
			return false
		case !os.SameFile(x, y) || x.Size() != y.Size() || !x.ModTime().Equal(y.ModTime()):
			return false
		}
	}
	return true
}
