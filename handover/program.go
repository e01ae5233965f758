//go:build linux

package handover

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

// A Program is the file that this process was started from, by the path it was
// started by: what lies there now may be another version. The path is not
// followed through symbolic links, so that one that leads to the version in
// use can be changed.
type Program struct {
	path string
	args []string
	info fs.FileInfo // of the running one
}

// ThisProgram finds out where this process came from. Call it at the start:
// the folder it works in and PATH are those that count.
func ThisProgram() (*Program, error) {
	// The file that runs, also when another one has its name by now.
	info, err := os.Stat("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("finding out what runs: %w", err)
	}
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Stat(path); err == nil && os.SameFile(there, info) {
			return &Program{path, os.Args, info}, nil
		}
	}
	// The first argument may be anything.
	if path, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("finding out what runs: %w", err)
	}
	return &Program{path, os.Args, info}, nil
}

// Path is where the program lies.
func (p *Program) Path() string { return p.path }

// Changed reports whether another file than the one that runs lies at the
// path, or the same with other content. Where there is none it reports false.
func (p *Program) Changed() bool {
	now, err := os.Stat(p.path)
	if err != nil {
		return false
	}
	return !os.SameFile(now, p.info) || now.Size() != p.info.Size() || !now.ModTime().Equal(p.info.ModTime())
}
