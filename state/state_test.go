package state

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type verdicts map[string]string

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func save(t *testing.T, d *Dir, name string, v any) {
	t.Helper()
	if err := d.Save(name, v); err != nil {
		t.Fatal(err)
	}
}

// files are the names in a folder and their content.
func files(t *testing.T, path string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(path, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(text)
	}
	return found
}

func wantFiles(t *testing.T, path string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, files(t, path)); diff != "" {
		t.Errorf("files in the folder -want +got:\n%s", diff)
	}
}

func TestWhatIsSavedIsLoaded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "var", "lib", "elbow") // made by Open
	d := open(t, path)
	save(t, d, "verdicts", verdicts{"minion1": "forced-down"})
	save(t, d, "verdicts", verdicts{"minion2": "forced-up"})
	save(t, d, "serials", 2026112207)

	d = open(t, path)
	var got verdicts
	if ok, err := d.Load("verdicts", &got); !ok || err != nil {
		t.Fatalf("Load: %v, %v", ok, err)
	}
	if diff := cmp.Diff(verdicts{"minion2": "forced-up"}, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	wantFiles(t, path, map[string]string{ // and no temporary ones
		"verdicts.json": "{\n  \"minion2\": \"forced-up\"\n}\n",
		"serials.json":  "2026112207\n",
	})
	info, err := os.Stat(filepath.Join(path, "verdicts.json"))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o640 {
		t.Errorf("mode %o, want 640", got)
	}
}

func TestNothingWasSaved(t *testing.T) {
	got := verdicts{"untouched": ""}
	ok, err := open(t, t.TempDir()).Load("verdicts", &got)
	if ok || err != nil || len(got) != 1 {
		t.Errorf("Load: %v, %v, %v", ok, err, got)
	}
}

func TestBrokenFileIsMovedAside(t *testing.T) {
	for name, text := range map[string]string{
		"cut off":       `{"minion1": "forc`,
		"empty":         "",
		"of other form": `["minion1"]`,
		"two values":    "{}\n{}\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			if err := os.WriteFile(filepath.Join(path, "verdicts.json"), []byte(text), 0o640); err != nil {
				t.Fatal(err)
			}
			d := open(t, path)
			var got verdicts
			ok, err := d.Load("verdicts", &got)
			if ok || err == nil {
				t.Fatalf("Load: %v, %v", ok, err)
			}
			for _, part := range []string{filepath.Join(path, "verdicts.json"), "kept as verdicts.json.broken"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not name %s", err, part)
				}
			}
			wantFiles(t, path, map[string]string{"verdicts.json.broken": text})

			// The next start finds nothing, and saving does not destroy it.
			if ok, err := d.Load("verdicts", &got); ok || err != nil {
				t.Errorf("second Load: %v, %v", ok, err)
			}
			save(t, d, "verdicts", verdicts{})
			wantFiles(t, path, map[string]string{"verdicts.json.broken": text, "verdicts.json": "{}\n"})
		})
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	path := t.TempDir()
	if err := os.Mkdir(filepath.Join(path, "verdicts.json"), 0o750); err != nil {
		t.Fatal(err)
	}
	ok, err := open(t, path).Load("verdicts", new(verdicts))
	if ok || err == nil || !strings.HasPrefix(err.Error(), "reading state: ") {
		t.Errorf("Load: %v, %v", ok, err)
	}
}

func TestFolderThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	d, err := Open(filepath.Join(file, "state"))
	if err == nil || !strings.HasPrefix(err.Error(), "making the state directory: ") || d == nil {
		t.Fatalf("Open: %v, %v", d, err)
	}
	// What it returned is still good to ask.
	if ok, err := d.Load("verdicts", new(verdicts)); ok {
		t.Errorf("Load: %v, %v", ok, err)
	}
	if err := d.Save("verdicts", verdicts{}); err == nil || !strings.HasPrefix(err.Error(), "saving state verdicts: ") {
		t.Errorf("Save: %v", err)
	}
}

func TestFolderThatCannotBeWritten(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	path := t.TempDir()
	save(t, open(t, path), "verdicts", verdicts{"minion1": "forced-down"})
	if err := os.Chmod(path, 0o550); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(path, 0o750) })
	d, err := Open(path)
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Open: %v", err)
	}
	var got verdicts
	if ok, err := d.Load("verdicts", &got); !ok || err != nil || len(got) != 1 {
		t.Errorf("Load: %v, %v, %v", ok, err, got)
	}
	if err := d.Save("verdicts", verdicts{}); err == nil {
		t.Error("Save succeeded")
	}
}

func TestFolderThatGoesAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	d := open(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := d.Save("verdicts", verdicts{}); err == nil || !strings.HasPrefix(err.Error(), "saving state verdicts: ") {
		t.Errorf("Save: %v", err)
	}
}

// A Save that fails leaves the old content and nothing beside it.
func TestSaveIsWholeOrNotAtAll(t *testing.T) {
	path := t.TempDir()
	d := open(t, path)
	save(t, d, "verdicts", verdicts{"minion1": "forced-down"})
	before := files(t, path)
	if err := d.Save("verdicts", func() {}); err == nil || !strings.HasPrefix(err.Error(), "encoding state verdicts: ") {
		t.Errorf("Save of what has no form: %v", err)
	}
	wantFiles(t, path, before)

	// Renaming over a folder fails after the whole file was written.
	if err := os.MkdirAll(filepath.Join(path, "serials.json", "x"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := d.Save("serials", 1); err == nil {
		t.Error("Save over a folder succeeded")
	}
	left, err := filepath.Glob(filepath.Join(path, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Whoever reads meanwhile finds one whole content or the other.
func TestReadersSeeWholeFiles(t *testing.T) {
	d := open(t, t.TempDir())
	long, short := strings.Repeat("x", 1<<16), "y"
	save(t, d, "text", short)
	done := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			var got string
			if ok, err := d.Load("text", &got); !ok || err != nil || (got != long && got != short) {
				t.Errorf("Load: %v, %v, %d bytes", ok, err, len(got))
				return
			}
		}
	})
	for range 25 {
		save(t, d, "text", long)
		save(t, d, "text", short)
	}
	close(done)
	reading.Wait()
}

func TestDirThatKeepsNothing(t *testing.T) {
	t.Chdir(t.TempDir()) // where it would write if it did
	for name, d := range map[string]*Dir{"zero value": {}, "empty path": open(t, "")} {
		t.Run(name, func(t *testing.T) {
			save(t, d, "verdicts", verdicts{})
			if ok, err := d.Load("verdicts", new(verdicts)); ok || err != nil {
				t.Errorf("Load: %v, %v", ok, err)
			}
			if _, err := os.Stat("verdicts.json"); !os.IsNotExist(err) {
				t.Errorf("something was kept: %v", err)
			}
		})
	}
}
