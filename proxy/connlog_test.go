package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

func TestConnectionLog(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		backend := backendServer(t, echo)
		service := web(backend)
		f.generation = 41
		f.serve(up(service, func(b []pool.Backend) { b[0].State = pool.Down }))
		client := f.connect()
		exchange(t, client, "hello")
		client.CloseWrite()
		expectEnd(t, client)
		f.awaitLines(1)
		want := fmt.Sprintf(`^\{"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","client":"%s","listener":"127.0.0.1:0","service":"web",`+
			`"backend":"%s","connect_ms":\d+\.\d{3},"duration_ms":\d+\.\d{3},"bytes_in":5,"bytes_out":5,"reason":"client-closed",`+
			`"retries":0,"generation":42,"fail_open":true\}\n$`, client.LocalAddr(), backend)
		if got := f.lines.String(); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("logged %s\nwant   %s", got, want)
		}
		for _, m := range []struct {
			name   string
			labels []string
			want   float64
		}{
			{"elbow_proxy_connections_total", []string{"web", backend.String()}, 1},
			{"elbow_proxy_bytes_total", []string{"web", "out"}, 5},
			{"elbow_proxy_connect_duration_seconds", []string{"web"}, 1},
			{"elbow_proxy_log_dropped_total", nil, 0},
		} {
			if got := f.metric(m.name, m.labels...); got != m.want {
				t.Errorf("%s is %v, want %v", m.name, got, m.want)
			}
		}
		f.await("the count of active connections", func() bool { return f.metric("elbow_proxy_connections_active", "web") == 0 })
	})
}

// Whatever a service is called, its line is JSON.
func TestAppendJSON(t *testing.T) {
	for _, s := range []string{"", "web", `a"b\c`, "\x00\x1f\n", "grün", "\xff", "\u2028"} {
		var got string
		if err := json.Unmarshal(appendJSON(nil, s), &got); err != nil || got != strings.ToValidUTF8(s, "\ufffd") {
			t.Errorf("%q became %q, %v", s, got, err)
		}
	}
}

// A writer that hangs costs lines, which are counted, and neither connections
// nor memory.
func TestLogWriterThatHangs(t *testing.T) {
	hold := make(chan bool)
	l := newLineWriter(writerFunc(func(p []byte) (int, error) { <-hold; return len(p), nil }))
	stop := l.start(slog.New(slog.DiscardHandler))
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 3 * maxPending / len(line) {
		l.add(line)
	}
	if got := l.dropped.Load(); got < maxPending/uint64(len(line)) {
		t.Errorf("dropped %d lines", got)
	}
	l.mu.Lock()
	if len(l.pending) > maxPending {
		t.Errorf("%d bytes wait", len(l.pending))
	}
	l.mu.Unlock()
	close(hold)
	stop()
}

// A log that cannot be written is reported once and counted, and so is its return.
func TestLogWriterThatFails(t *testing.T) {
	var reported safeBuffer
	full := true
	written := make(chan bool, 10)
	l := newLineWriter(writerFunc(func(p []byte) (int, error) {
		defer func() { written <- true }()
		if full {
			return 0, errors.New("no space left on device")
		}
		return len(p), nil
	}))
	stop := l.start(slog.New(slog.NewTextHandler(&reported, nil)))
	for range 3 {
		l.add([]byte("line\n"))
		<-written
	}
	full = false
	l.add([]byte("line\n"))
	<-written
	stop()
	if got := l.dropped.Load(); got != 3 {
		t.Errorf("dropped %d lines, want 3", got)
	}
	if s := reported.String(); strings.Count(s, "cannot be written") != 1 || strings.Count(s, "written again") != 1 {
		t.Errorf("reported:\n%s", s)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// The steps of a connection that is served allocate nothing.
func TestSessionAllocatesNothing(t *testing.T) {
	f := newFixture(t, newNetEngine)
	f.publish(up(web(source4, destination4)))
	l := &listener{address: anyPort, text: anyPort.String()}
	now := time.Now()
	s := new(session)
	allocations := testing.AllocsPerRun(100, func() {
		*s = session{}
		next := s.accepted(f.server.core, l, nil, source4, destination4, now)
		if next.do != doDial {
			t.Fatalf("after accept: %+v", next)
		}
		if next = s.connected(now); next.do != doRelay {
			t.Fatalf("after connect: %+v", next)
		}
		s.moved(in, 10)
		s.ended(clientClosed, now)
	})
	if allocations != 0 {
		t.Errorf("%.0f allocations", allocations)
	}
}
