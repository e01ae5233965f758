package watch

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func TestFiles(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, dir string)
		change  func(t *testing.T, dir string)
	}{
		{"written",
			func(t *testing.T, dir string) { write(t, dir, "f", "old") },
			func(t *testing.T, dir string) { write(t, dir, "f", "newer") }},
		{"renamed into place",
			func(t *testing.T, dir string) { write(t, dir, "f", "old"); write(t, dir, "f.new", "new") },
			func(t *testing.T, dir string) { rename(t, dir, "f.new", "f") }},
		{"removed",
			func(t *testing.T, dir string) { write(t, dir, "f", "old") },
			func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "f"))) }},
		{"comes into being",
			func(*testing.T, string) {},
			func(t *testing.T, dir string) { write(t, dir, "f", "new") }},
		{"link to a folder swapped",
			func(t *testing.T, dir string) {
				for _, v := range []string{"v1", "v2"} {
					must(t, os.Mkdir(filepath.Join(dir, v), 0o755))
					write(t, dir, v+"/f", v)
				}
				must(t, os.Symlink("v1", filepath.Join(dir, "data")))
				must(t, os.Symlink("data/f", filepath.Join(dir, "f")))
			},
			func(t *testing.T, dir string) {
				must(t, os.Symlink("v2", filepath.Join(dir, "data.new")))
				rename(t, dir, "data.new", "data")
			}},
		{"beside a file that never rests",
			func(t *testing.T, dir string) { write(t, dir, "f", "old") },
			func(t *testing.T, dir string) {
				stop := make(chan struct{})
				var busy sync.WaitGroup
				busy.Go(func() {
					for range time.Tick(settle / 5) {
						select {
						case <-stop:
							return
						default:
							_ = os.WriteFile(filepath.Join(dir, "busy"), []byte("x"), 0o644)
						}
					}
				})
				t.Cleanup(func() { close(stop); busy.Wait() })
				write(t, dir, "f", "newer")
			}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			test.prepare(t, dir)
			ctx, cancel := context.WithCancel(t.Context())
			changed := make(chan struct{}, 16)
			var wg sync.WaitGroup
			wg.Go(func() {
				Files(ctx, []string{filepath.Join(dir, "f")}, func() { changed <- struct{}{} })
			})
			defer wg.Wait()
			defer cancel()

			<-changed // it watches
			test.change(t, dir)
			within(t, changed)
		})
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
}

func rename(t *testing.T, dir, from, to string) {
	t.Helper()
	must(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A folder that is removed and made anew takes the kernel's watch with it.
func TestFolderMadeAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "folder")
	build := func(text string) { must(t, os.Mkdir(dir, 0o755)); write(t, dir, "f", text) }
	build("1")
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 16)
	var wg sync.WaitGroup
	wg.Go(func() {
		Files(ctx, []string{filepath.Join(dir, "f")}, func() { changed <- struct{}{} })
	})
	defer wg.Wait()
	defer cancel()
	<-changed // it watches
	must(t, os.RemoveAll(dir))
	build("22")
	within(t, changed)
	write(t, dir, "f", "333")
	within(t, changed)
}

// A folder that is not there yet is seen when it is made, and so is one whose
// parents are missing too.
func TestFolderMadeLater(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "a", "b", "c")
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 16)
	var wg sync.WaitGroup
	wg.Go(func() {
		Files(ctx, []string{filepath.Join(dir, "f")}, func() { changed <- struct{}{} })
	})
	defer wg.Wait()
	defer cancel()
	<-changed // it watches
	must(t, os.MkdirAll(dir, 0o755))
	write(t, dir, "f", "1")
	within(t, changed)
	must(t, os.RemoveAll(filepath.Join(top, "a")))
	within(t, changed)
	must(t, os.MkdirAll(dir, 0o755))
	write(t, dir, "f", "22")
	within(t, changed)
}

// within waits for a change, shorter than until the slow look.
func within(t *testing.T, changed <-chan struct{}) {
	t.Helper()
	select {
	case <-changed:
	case <-time.After(slow / 2):
		t.Fatal("the change was not seen before the slow look")
	}
}
