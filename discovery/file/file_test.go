package file

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"haslohas.com/elbow/discovery"
)

const (
	one = `[{"targets":["172.31.8.233:80"]}]`
	two = `[{"targets":["172.31.8.233:80","172.31.8.18:80"]}]`
)

// A folder is a folder with a targets file in it that a Source follows.
type folder struct {
	t       *testing.T
	path    string
	updates chan discovery.Update
}

func (f *folder) join(name string) string { return filepath.Join(f.path, name) }

func (f *folder) write(name, text string) {
	f.t.Helper()
	f.must(os.WriteFile(f.join(name), []byte(text), 0o644))
}

func (f *folder) rename(from, to string) { f.t.Helper(); f.must(os.Rename(f.join(from), f.join(to))) }
func (f *folder) link(to, name string)   { f.t.Helper(); f.must(os.Symlink(to, f.join(name))) }

func (f *folder) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// follow begins to follow the file called targets.
func (f *folder) follow() {
	ctx, cancel := context.WithCancel(f.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := New(f.join("targets"), Printed{}, nil).Run(ctx, func(u discovery.Update) { f.updates <- u }); err != nil {
			f.t.Errorf("Run: %v", err)
		}
	})
	f.t.Cleanup(func() {
		cancel()
		running.Wait()
		select {
		case u := <-f.updates:
			f.t.Errorf("one more update: %d endpoints, error %v", len(u.Endpoints), u.Err)
		default:
		}
	})
}

// wantEndpoints waits for a set of n.
func (f *folder) wantEndpoints(n int) {
	f.t.Helper()
	if u := f.next(); u.Err != nil || len(u.Endpoints) != n {
		f.t.Fatalf("got %d endpoints, error %v, want %d", len(u.Endpoints), u.Err, n)
	}
}

// wantError waits for an error with text in it.
func (f *folder) wantError(text string) {
	f.t.Helper()
	if u := f.next(); u.Err == nil || !strings.Contains(u.Err.Error(), text) {
		f.t.Fatalf("got %d endpoints, error %v, want an error with %q", len(u.Endpoints), u.Err, text)
	}
}

func (f *folder) next() discovery.Update {
	f.t.Helper()
	select {
	case u := <-f.updates:
		return u
	case <-time.After(9 * time.Second): // shorter than the slow look of package watch
		f.t.Fatal("no update")
		panic("not reached")
	}
}

func TestFollow(t *testing.T) {
	tests := []struct {
		name string
		run  func(*folder)
	}{
		{"a file that is written", func(f *folder) {
			f.write("targets", one)
			f.follow()
			f.wantEndpoints(1)
			f.write("targets", two)
			f.wantEndpoints(2)
		}},
		{"another file renamed into its place", func(f *folder) {
			f.write("targets", one)
			f.follow()
			f.wantEndpoints(1)
			f.write("new", two)
			f.rename("new", "targets")
			f.wantEndpoints(2)
		}},
		{"a ConfigMap: the link to a folder is swapped", func(f *folder) {
			for name, text := range map[string]string{"..1": one, "..2": two} {
				f.must(os.Mkdir(f.join(name), 0o755))
				f.write(name+"/targets", text)
			}
			f.link("..1", "..data")
			f.link("..data/targets", "targets")
			f.follow()
			f.wantEndpoints(1)
			f.link("..2", "..data_tmp")
			f.rename("..data_tmp", "..data")
			f.wantEndpoints(2)
		}},
		{"a file that is removed and comes back the same", func(f *folder) {
			f.write("targets", one)
			f.follow()
			f.wantEndpoints(1)
			f.must(os.Remove(f.join("targets")))
			f.wantError("no such file")
			f.write("targets", one)
			f.wantEndpoints(1)
		}},
		{"a file that is not there yet", func(f *folder) {
			f.follow()
			f.wantError("reading targets: stat " + f.join("targets") + ": no such file")
			f.write("targets", one)
			f.wantEndpoints(1)
		}},
		{"a file that is broken and mended", func(f *folder) {
			f.write("targets", one)
			f.follow()
			f.wantEndpoints(1)
			f.write("targets", `[{"targets":["minion1"]}]`)
			f.wantError(`targets:1: target "minion1"`)
			f.write("targets", one)
			f.wantEndpoints(1)
		}},
		{"the same content again is no update", func(f *folder) {
			f.write("targets", one)
			f.follow()
			f.wantEndpoints(1)
			f.write("same", one)
			f.rename("same", "targets")
			f.write("two", two)
			f.rename("two", "targets")
			f.wantEndpoints(2)
		}},
		{"a folder in the place of the file", func(f *folder) {
			f.must(os.Mkdir(f.join("targets"), 0o755))
			f.follow()
			f.wantError("is not a regular file")
		}},
		{"a pipe in the place of the file does not block", func(f *folder) {
			f.must(syscall.Mkfifo(f.join("targets"), 0o644))
			f.follow()
			f.wantError("is not a regular file")
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(&folder{t, t.TempDir(), make(chan discovery.Update, 16)})
		})
	}
}

// The content is compared, not the time of the file.
func TestUnchangedContentIsNoUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "targets")
	var updates []discovery.Update
	f := follower{
		source:  New(path, Printed{}, nil).(*source),
		deliver: func(u discovery.Update) { updates = append(updates, u) },
	}
	for range 3 {
		if err := os.WriteFile(path, []byte(one), 0o644); err != nil {
			t.Fatal(err)
		}
		f.read()
	}
	if len(updates) != 1 {
		t.Errorf("%d updates for one content", len(updates))
	}
}
