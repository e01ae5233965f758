package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// A connLog is where the connection log goes. A file is opened anew by Reopen,
// so that logrotate can move it away and send SIGHUP.
type connLog struct {
	path string // of the file; empty: w is not one of ours

	mu sync.Mutex
	w  io.Writer // guarded by mu; nil: there is no log
}

// openConnLog opens what log.connections names: stdout, stderr, off or a path.
func openConnLog(where string, stdout, stderr io.Writer) (*connLog, error) {
	switch where {
	case "off":
		return &connLog{}, nil
	case "stdout":
		return &connLog{w: stdout}, nil
	case "stderr":
		return &connLog{w: stderr}, nil
	}
	l := &connLog{path: where}
	return l, l.Reopen()
}

// writer returns l, or nil where nothing is to be written.
func (l *connLog) writer() io.Writer {
	if l.w == nil {
		return nil
	}
	return l
}

func (l *connLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// Reopen opens the file anew; the old one stays in use if that fails.
func (l *connLog) Reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("opening the connection log: %w", err)
	}
	l.mu.Lock()
	old := l.w
	l.w = f
	l.mu.Unlock()
	return closeFile(old)
}

// Close closes the file, if it is one of ours.
func (l *connLog) Close() error {
	if l.path == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return closeFile(l.w)
}

func closeFile(w io.Writer) error {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("closing the connection log: %w", err)
	}
	return nil
}
