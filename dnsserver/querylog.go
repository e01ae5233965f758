package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"syscall"
	"time"

	"haslohas.com/elbow/pool"
)

const (
	logEvery    = 200 * time.Millisecond // a line waits at most as long
	logPatience = time.Second            // for a pipe that nobody reads from
	logChunk    = 64 << 10               // octets that are written with one call

	// lookEvery is how often a file is looked for under its path: it may have
	// been moved away, or could not be opened.
	lookEvery = 10 * time.Second
)

// A queryLog writes samples of the queries as lines of JSON.
type queryLog struct {
	conf   pool.QueryLog
	queue  *queue[sighting]
	counts *watchCounts
	log    *slog.Logger
	again  chan struct{} // asks for the file to be opened anew

	// Those belong to the goroutine of run.
	out     io.Writer // nil: the file is not open
	file    *os.File  // nil: out is not one of ours
	looked  time.Time
	broken  bool
	torn    bool // the last line is not whole
	lines   []byte
	waiting uint64 // lines in lines
}

func newQueryLog(conf pool.QueryLog, s *Server) *queryLog {
	l := &queryLog{conf: conf, queue: newQueue[sighting](s.sockets), counts: &s.watched, log: s.log, again: make(chan struct{}, 1)}
	switch conf.File {
	case "stdout":
		l.out = s.stdout
	case "stderr":
		l.out = s.stderr
	}
	return l
}

// see is called by the goroutines that answer.
func (l *queryLog) see(r *responder, response []byte, client netip.Addr, worker int, tcp bool) {
	if s := l.queue.claim(worker); s != nil {
		s.value.take(r, response, client, tcp, time.Now())
		l.queue.commit(s)
	}
}

// run writes until ctx ends, and then what is left.
func (l *queryLog) run(ctx context.Context) {
	ownFile := l.out == nil
	if ownFile {
		l.open()
	}
	reader(ctx, l.queue.wake, logEvery, func() {
		if ownFile {
			l.follow()
		}
		l.queue.drain(l.add)
		l.flush()
		l.counts.logLost.Add(l.queue.takeLost())
	})
	if l.file != nil {
		l.failed(l.file.Close())
	}
}

// follow opens the file anew where that was asked for, or where it is no
// longer the one at its path.
func (l *queryLog) follow() {
	select {
	case <-l.again:
		l.open()
		return
	default:
	}
	if time.Since(l.looked) < lookEvery {
		return
	}
	l.looked = time.Now()
	if l.file == nil {
		l.open()
		return
	}
	here, err := os.Stat(l.conf.File)
	if err == nil {
		if mine, err := l.file.Stat(); err == nil && os.SameFile(here, mine) {
			return
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return // what is open still is
	}
	l.open()
}

// open opens the file; one that is open stays so if that fails.
func (l *queryLog) open() {
	l.looked = time.Now()
	// Of a pipe without a reader, opening would wait for one.
	f, err := os.OpenFile(l.conf.File, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, 0o640)
	if err != nil {
		l.failed(fmt.Errorf("opening: %w", err))
		return
	}
	if l.file != nil {
		l.failed(l.file.Close())
	}
	l.file, l.out, l.torn = f, f, false
}

func (l *queryLog) add(s *sighting) {
	l.lines = s.appendLine(l.lines, l.conf.Sample)
	l.waiting++
	if len(l.lines) >= logChunk {
		l.flush()
	}
}

// flush writes the lines that wait. They are lost if that fails.
func (l *queryLog) flush() {
	if l.waiting == 0 {
		return
	}
	var err error
	switch {
	case l.out == nil:
		err = errors.New("the file is not open")
	default:
		if l.torn {
			l.lines = append([]byte{'\n'}, l.lines...) // rare: a disk was full
		}
		if l.file != nil {
			_ = l.file.SetWriteDeadline(time.Now().Add(logPatience)) // files have none, and need none
		}
		var n int
		n, err = l.out.Write(l.lines)
		l.torn = err != nil && (l.torn || n > 0)
	}
	if err == nil {
		l.counts.logWritten.Add(l.waiting)
		if l.broken {
			l.log.Info("query log is written again", "file", l.conf.File)
		}
		l.broken = false
	} else {
		l.counts.logFailed.Add(l.waiting)
		l.failed(err)
	}
	l.lines, l.waiting = l.lines[:0], 0
}

// failed says once that something is wrong.
func (l *queryLog) failed(err error) {
	if err == nil || l.broken {
		return
	}
	l.broken = true
	l.log.Error("query log cannot be written; its lines are lost until it can", "file", l.conf.File, "err", err)
}
