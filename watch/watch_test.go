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
			select {
			case <-changed:
			case <-time.After(slow / 2):
				t.Fatal("the change was not seen before the slow look")
			}
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
