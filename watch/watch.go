// Package watch tells when files change.
package watch

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long a burst of events must have been over: an editor
	// writes, renames and touches in one go.
	settle = 50 * time.Millisecond

	// slow is how often the files are looked at without any event: network file
	// systems send none, and a folder may not be there yet.
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
	w := watcher{paths: paths, folders: make(map[string]bool)}
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
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			look.Reset(settle)
		case <-errors: // events were lost: the timer finds what they told
			look.Reset(settle)
		case <-look.C:
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
	paths   []string
	notify  *fsnotify.Watcher // nil where the kernel gives no notice
	folders map[string]bool   // those that notify watches
	prints  []print
}

// follow watches the folders of the files and of what they link to. A folder
// that is missing is tried again with the next look.
func (w *watcher) follow() {
	if w.notify == nil {
		return
	}
	for _, path := range w.paths {
		w.add(filepath.Dir(path))
		if target, err := filepath.EvalSymlinks(path); err == nil {
			w.add(filepath.Dir(target))
		}
	}
	for folder := range w.folders {
		if _, err := os.Stat(folder); err != nil {
			delete(w.folders, folder) // the kernel has dropped the watch with it
		}
	}
}

func (w *watcher) add(folder string) {
	if !w.folders[folder] && w.notify.Add(folder) == nil {
		w.folders[folder] = true
	}
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
