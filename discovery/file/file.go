// Package file is the source of endpoints that stand in a file which another
// program writes, in the file_sd format of Prometheus or as kubectl prints pods
// and nodes.
//
// Whoever writes the file should write another one and rename it into place:
// of a file that is written where it stands, half may be read.
package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/watch"
)

// maxSize bounds the file, in bytes.
const maxSize = 16 << 20

type source struct {
	path    string
	printed Printed
	log     *slog.Logger
}

// New returns a Source that follows the file at path: it is read anew each
// time it is written, replaced or comes back, also where path leads over
// symbolic links that are swapped. A file that is missing or has an error
// is delivered as one. printed counts where kubectl wrote it. log may be nil.
func New(path string, printed Printed, log *slog.Logger) discovery.Source {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &source{path, printed, log}
}

func (s *source) Run(ctx context.Context, deliver func(discovery.Update)) error {
	f := follower{source: s, deliver: deliver}
	watch.Files(ctx, []string{s.path}, f.read)
	return nil
}

// A follower is one Run of a source.
type follower struct {
	*source
	deliver func(discovery.Update)
	text    []byte // what was delivered last, nil if that was an error
}

// read reads the file and delivers what is new in it.
func (f *follower) read() {
	text, err := load(f.path)
	if err == nil && f.text != nil && bytes.Equal(text, f.text) {
		return
	}
	f.text = nil
	var u discovery.Update
	if u.Err = err; err == nil {
		if u.Endpoints, u.Err = Parse(f.path, text, f.printed); u.Err == nil {
			f.text = text
			f.log.Debug("targets read", "file", f.path, "targets", len(u.Endpoints))
		}
	}
	f.deliver(u)
}

func load(path string) ([]byte, error) {
	// What is not a regular file may block, or never end.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading targets: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading targets: %s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading targets: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("reading targets: %w", err)
	}
	return text, nil // one that is too large is refused by Parse
}
