package proxy

import (
	"io"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxPending bounds the bytes of log lines that wait for a slow writer.
	maxPending = 1 << 20
	// flushTimeout is how long the last lines may take at the end.
	flushTimeout = 2 * time.Second
)

// A lineWriter writes lines in the background. A writer that is slow costs
// lines, which are counted, and never holds up a connection.
type lineWriter struct {
	w       io.Writer
	dropped atomic.Uint64

	mu      sync.Mutex
	pending []byte        // guarded by mu
	some    chan struct{} // holds one while pending may not be empty
}

func newLineWriter(w io.Writer) *lineWriter {
	return &lineWriter{w: w, some: make(chan struct{}, 1)}
}

// add appends a line, whose last byte is a newline, to what is to be written.
func (l *lineWriter) add(line []byte) {
	l.mu.Lock()
	fits := len(l.pending)+len(line) <= maxPending
	if fits {
		l.pending = append(l.pending, line...)
	}
	l.mu.Unlock()
	if !fits {
		l.dropped.Add(1)
		return
	}
	select {
	case l.some <- struct{}{}:
	default:
	}
}

// start writes in the background until the function it returns is called,
// which waits for the lines that are left; a writer that hangs is left behind
// after flushTimeout.
func (l *lineWriter) start(log *slog.Logger) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		var batch []byte
		broken := false
		for last := false; !last; {
			select {
			case <-l.some:
			case <-quit:
				last = true
			}
			l.mu.Lock()
			batch, l.pending = l.pending, batch[:0]
			l.mu.Unlock()
			if len(batch) == 0 {
				continue
			}
			_, err := l.w.Write(batch)
			if err != nil {
				for _, b := range batch {
					if b == '\n' {
						l.dropped.Add(1)
					}
				}
				if !broken {
					log.Error("connection log cannot be written; its lines are lost until it can", "err", err)
				}
			} else if broken {
				log.Info("connection log is written again")
			}
			broken = err != nil
		}
	}()
	return func() {
		close(quit)
		select {
		case <-done:
		case <-time.After(flushTimeout):
			log.Error("connection log takes no more lines; the last ones are lost")
		}
	}
}

// appendLine appends the line of a session that has ended. The format is
// described with the package.
func (s *session) appendLine(dst []byte, why reason, now time.Time) []byte {
	dst = append(dst, `{"time":"`...)
	dst = s.begin.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	dst = append(dst, `","client":"`...)
	dst = s.addresses.source.AppendTo(dst)
	if s.peer != s.addresses.source {
		dst = append(dst, `","peer":"`...)
		dst = s.peer.AppendTo(dst)
	}
	dst = append(dst, `","listener":"`...)
	dst = append(dst, s.listener.text...)
	dst = append(dst, `","service":`...)
	if s.service != nil {
		dst = append(dst, s.service.json...)
	} else {
		dst = append(dst, `""`...)
	}
	if a := s.asked; a != nil {
		key := `,"host":`
		if a.tls {
			key = `,"sni":`
		}
		dst = append(dst, key...)
		dst = appendJSON(dst, string(a.name[:a.n]))
	}
	dst = append(dst, `,"backend":"`...)
	if s.last != nil {
		dst = append(dst, s.last.text...)
	}
	dst = append(dst, `","connect_ms":`...)
	dst = appendMilliseconds(dst, s.connect)
	dst = append(dst, `,"duration_ms":`...)
	dst = appendMilliseconds(dst, now.Sub(s.begin))
	dst = append(dst, `,"bytes_in":`...)
	dst = strconv.AppendInt(dst, s.bytes[in].Load(), 10)
	dst = append(dst, `,"bytes_out":`...)
	dst = strconv.AppendInt(dst, s.bytes[out].Load(), 10)
	dst = append(dst, `,"reason":"`...)
	dst = append(dst, why.String()...)
	dst = append(dst, `","retries":`...)
	dst = strconv.AppendInt(dst, int64(s.retries), 10)
	dst = append(dst, `,"generation":`...)
	dst = strconv.AppendUint(dst, s.generation, 10)
	dst = append(dst, `,"fail_open":`...)
	dst = strconv.AppendBool(dst, s.failOpen)
	return append(dst, '}', '\n')
}

// appendMilliseconds appends d in milliseconds with three decimals.
func appendMilliseconds(dst []byte, d time.Duration) []byte {
	us := max(0, d.Microseconds())
	dst = strconv.AppendInt(dst, us/1000, 10)
	return append(dst, '.', byte('0'+us/100%10), byte('0'+us/10%10), byte('0'+us%10))
}

// appendJSON appends s as a JSON string.
func appendJSON(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for _, r := range s { // what is not UTF-8 becomes U+FFFD
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			dst = append(dst, string(r)...)
		}
	}
	return append(dst, '"')
}
