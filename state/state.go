// Package state keeps what must outlive a restart: zone serials, operator
// verdicts, the last health states, the last good sets of endpoints. Each is
// one JSON file in one folder.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A Dir is a folder of such files. Its methods may be called by several
// goroutines as long as no two save the same name at once. The zero value
// keeps nothing and finds nothing.
type Dir struct {
	path string
}

// Open returns the folder at path and makes it if it is missing. An empty path
// is the Dir that keeps nothing.
//
// Where the folder cannot be made or written, Open returns the reason and a
// Dir that still loads what can be loaded: the loss of a disk costs no start.
func Open(path string) (*Dir, error) {
	d := &Dir{path: path}
	if path == "" {
		return d, nil
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return d, fmt.Errorf("making the state directory: %w", err)
	}
	probe, err := os.CreateTemp(path, ".writable-*")
	if err != nil {
		return d, fmt.Errorf("state directory %s: %w", path, err)
	}
	probe.Close()
	return d, os.Remove(probe.Name())
}

// Load reads what was last saved under name into v, a pointer. It reports
// false, with v untouched, if there is nothing. A file that cannot be read or
// decoded is an error; a decoding error has moved the file aside, under the
// same name with ".broken" added, so that the next Save does not destroy it.
func (d *Dir) Load(name string, v any) (bool, error) {
	if d.path == "" {
		return false, nil
	}
	path := d.file(name)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading state: %w", err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		err = fmt.Errorf("state file %s: %w; it is kept as %s.broken and its content is not used", path, err, filepath.Base(path))
		return false, errors.Join(err, os.Rename(path, path+".broken"))
	}
	return true, nil
}

// Save writes v under name, whole or not at all: a reader after a crash finds
// the old content or the new. The file is readable by its owner and group.
func (d *Dir) Save(name string, v any) error {
	if d.path == "" {
		return nil
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding state %s: %w", name, err)
	}
	tmp, err := os.CreateTemp(d.path, "."+name+"-*")
	if err != nil {
		return fmt.Errorf("saving state %s: %w", name, err)
	}
	defer os.Remove(tmp.Name()) // fails, as it should, once the file was renamed
	_, err = tmp.Write(append(text, '\n'))
	err = errors.Join(err, tmp.Chmod(0o640), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), d.file(name))
	}
	if err != nil {
		return fmt.Errorf("saving state %s: %w", name, err)
	}
	return nil
}

func (d *Dir) file(name string) string { return filepath.Join(d.path, name+".json") }
