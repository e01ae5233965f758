//go:build chaos && linux

package chaos

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Readers of 1 KB a second hold up senders of 1 GB, and cost no memory.
func TestSlowReaders(t *testing.T) {
	const (
		readers = 16
		seconds = 20
	)
	withEachEngine(t, func(t *testing.T, engine string) {
		w := newWorld(t, setting{engine: engine, service: "    idleTimeout: 10s"})
		// With a larger buffer no packet would tell for minutes that it reads.
		w.readBuffer = 4 << 10
		var slow []*session
		for range readers {
			slow = append(slow, w.open(script{Mode: offer, Down: 1 << 30}).mayEnd("backend-closed"))
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		first, most, goroutines := 0, 0, 0
		cpu := w.process.cpu()
		for i := range seconds {
			<-tick.C
			for _, s := range slow {
				if s.err = receive(s.conn, s.down, 1<<10, &s.received); s.err != nil {
					t.Fatalf("a slow reader: %v", s.err)
				}
			}
			rss := w.process.rss()
			if i == 2 { // the buffers of the kernel are full
				first, goroutines, cpu = rss, w.countGoroutines(), w.process.cpu()
			}
			most = max(most, rss)
		}
		cpu = w.process.cpu() - cpu
		t.Logf("resident: %d KiB after 3 s, at most %d KiB; CPU time %s", first>>10, most>>10, cpu)
		// Scrapes and probes make garbage; a reader that is slow adds no buffer
		// to the one it has.
		if most > first+4<<20 {
			t.Errorf("memory grew from %d to %d KiB", first>>10, most>>10)
		}
		if n := w.countGoroutines(); n > goroutines+4 { // a probe may be under way
			t.Errorf("goroutines grew from %d to %d", goroutines, n)
		}
		if cpu > 2*time.Second {
			t.Errorf("%s of CPU time for %d readers of 1 KB/s", cpu, readers)
		}
		// Then they read all that is under way, and nothing is missing.
		for _, s := range slow {
			if s.err = send(s.conn, s.up, 1, &s.sent); s.err == nil {
				s.err = receive(s.conn, s.down, -1, &s.received)
			}
			if s.err == nil {
				s.err = s.close()
			}
			if s.err != nil {
				t.Errorf("a slow reader that reads on: %v", s.err)
			}
		}
		w.settle()
	})
}

func TestIdleClients(t *testing.T) {
	const clients = 5000
	perClient := map[string]int{"epoll": 4 << 10, "portable": 32 << 10} // bytes
	withEachEngine(t, func(t *testing.T, engine string) {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 3*clients {
			t.Skipf("needs %d open files, has %d (%v)", 3*clients, limit.Cur, err)
		}
		w := newWorld(t, setting{engine: engine})
		before := w.process.rss()
		idle := make([]*session, clients)
		each := func(what string, do func(i int) error) {
			t.Helper()
			var wg sync.WaitGroup
			for worker := range 8 {
				wg.Go(func() {
					for i := worker; i < clients; i += 8 {
						if err := do(i); err != nil {
							t.Errorf("client %d cannot %s: %v", i, what, err)
							return
						}
					}
				})
			}
			wg.Wait()
			if t.Failed() {
				t.FailNow()
			}
		}
		each("begin", func(i int) (err error) {
			if idle[i], err = w.dial(clientA, script{Mode: mirror}); err == nil {
				err = idle[i].ping(100)
			}
			return err
		})
		// Connections that last get more options after ten seconds.
		<-time.After(12 * time.Second)
		cpu := w.process.cpu()
		<-time.After(3 * time.Second)
		cpu = w.process.cpu() - cpu
		grown := (w.process.rss() - before) / clients
		t.Logf("%d bytes for each; CPU time of 3 s: %s", grown, cpu)
		if grown > perClient[engine] {
			t.Errorf("an idle client costs %d bytes, want at most %d", grown, perClient[engine])
		}
		if cpu > 600*time.Millisecond {
			t.Errorf("idle clients cost %s of CPU time in 3 s", cpu)
		}
		each("go on", func(i int) error { return idle[i].ping(5000) })
		each("close", func(i int) error { return idle[i].close() })
		w.settle()
	})
}

// Where the kernel takes little at once, every write is cut short somewhere.
func TestTinySocketBuffers(t *testing.T) {
	withEachEngine(t, func(t *testing.T, engine string) {
		w := newWorld(t, setting{engine: engine, backends: 2, host: func(n *namespace) {
			n.set("ipv4/tcp_wmem", "4096 6000 10000")
			n.set("ipv4/tcp_rmem", "4096 70000 200000")
		}})
		var wg sync.WaitGroup
		for i := range uint64(20) {
			s := w.open(script{Mode: exchange, Up: 1<<20 + i*7919, Down: 1<<20 + i*104729})
			wg.Go(func() {
				if err := s.run(); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		w.settle()
	})
}
