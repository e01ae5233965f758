//go:build linux

package proxy

import (
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Deadlines near and far come neither early nor much late, in whatever steps
// the time passes, and those that were taken back do not come at all.
func TestWheel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	l := &loop{fine: wheel{tick: fineTick}, coarse: wheel{tick: coarseTick}, alarm: never, acceptAt: never}
	pairs := make([]pair, 500)
	wanted := make([]moment, len(pairs)) // never: none
	renew := func(i int) {
		d := moment(random.Int64N(int64(10 * time.Millisecond)))
		for range random.IntN(5) {
			d *= 11 // up to some two minutes, and beyond what the wheels reach
		}
		wanted[i] = l.at + d
		l.set(&pairs[i], wanted[i])
	}
	l.at = moment(random.Int64N(int64(time.Hour)))
	for _, w := range []*wheel{&l.fine, &l.coarse} {
		w.at = l.at / w.tick
	}
	for i := range pairs {
		pairs[i].timer.deadline, wanted[i] = never, never
		renew(i)
	}
	came := 0
	for came < 20*len(pairs) {
		if random.IntN(3) == 0 { // something happens
			l.at += random.Int64N(int64(5 * time.Millisecond))
		} else {
			l.at = max(l.at, l.alarm)
		}
		if l.at/fineTick > l.fine.at {
			l.turn()
		}
		for i := range pairs {
			if is := pairs[i].timer.deadline; is != never {
				if late := l.at - wanted[i]; late > moment(20*time.Millisecond) {
					t.Fatalf("a deadline is %s late", time.Duration(late))
				}
				if is != wanted[i] {
					t.Fatalf("a deadline has changed from %d to %d", wanted[i], is)
				}
				continue
			}
			if wanted[i] == never {
				continue
			}
			if wanted[i] > l.at {
				t.Fatalf("a deadline came %s early", time.Duration(wanted[i]-l.at))
			}
			came++
			renew(i)
		}
		if i := random.IntN(len(pairs)); random.IntN(8) == 0 {
			renew(i)
		} else if random.IntN(8) == 0 {
			l.set(&pairs[i], never)
			wanted[i] = never
		} else if wanted[i] == never {
			renew(i)
		}
	}
}

// A pair that is given back serves the next connection, under another name.
func TestSlab(t *testing.T) {
	l := new(loop)
	s := &l.pairs
	var all []*pair
	for range 3*chunk - 1 {
		p := s.get(l)
		if s.find(p.id) != p {
			t.Fatalf("%+v is not found", p.id)
		}
		all = append(all, p)
	}
	if len(s.chunks) != 3 {
		t.Errorf("%d chunks for %d pairs", len(s.chunks), len(all))
	}
	p := all[70]
	before := p.id
	s.put(p)
	if s.find(before) != nil {
		t.Error("a connection that has ended is found")
	}
	if again := s.get(l); again != p || again.id == before || s.find(before) != nil || s.find(again.id) != p {
		t.Errorf("after %+v there is %+v", before, again.id)
	}
	n := 0
	s.each(func(*pair) { n++ })
	if n != len(all) {
		t.Errorf("each is %d of %d", n, len(all))
	}
}

func TestEpollBulkIsSpliced(t *testing.T) {
	var made *epollEngine
	f := newFixture(t, func(c *core) (engine, error) {
		e, err := newEpollEngine(c, 1)
		made = e.(*epollEngine)
		return e, err
	})
	f.serve(up(web(backendServer(t, func(conn *net.TCPConn) { io.Copy(io.Discard, conn) }))))
	client := f.connect()
	go io.CopyN(client, zeros{}, 16<<20)
	f.await("all bytes", func() bool { return f.metric("elbow_proxy_bytes_total", "in") == 16<<20 })
	made.loops[0].do(func() {
		if len(made.loops[0].pipes.free) == 0 {
			t.Error("no pipe was used")
		}
		if made.loops[0].pipes.lent != 0 {
			t.Error("a stream that waits holds a pipe")
		}
	})
}

func TestEpollBulkWithoutPipes(t *testing.T) {
	f := newFixture(t, func(c *core) (engine, error) {
		e, err := newEpollEngine(c, 1)
		l := e.(*epollEngine).loops[0]
		l.do(func() { l.pipes.lent = maxPipes })
		return e, err
	})
	f.serve(up(web(backendServer(t, echo))))
	client := f.connect()
	go func() {
		io.CopyN(client, zeros{}, 4<<20)
		client.CloseWrite()
	}()
	if n, err := io.Copy(io.Discard, client); n != 4<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// A read stops short of urgent data (RFC 9293, section 3.8.5), which must not
// be taken for the end of what is there.
func TestUrgentData(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		f.serve(up(web(backendServer(t, echo))))
		client := f.connect()
		raw, err := client.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			io.WriteString(client, "before ")
			raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte{'!'}, unix.MSG_OOB, nil) })
			if err != nil {
				t.Skip("no urgent data here: ", err)
			}
			io.WriteString(client, "after ")
			expect(t, client, "before after ") // the urgent byte itself goes nowhere
		}
	})
}

// Sockets of one loop are closed and opened with the same numbers all the
// time; no event of one reaches the next.
func TestChurn(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		f.serve(up(web(backendServer(t, echo), refusing(t))))
		address := f.address("web").String()
		const workers, each = 16, 60
		errs := make(chan error, workers)
		for w := range workers {
			go func() {
				var err error
				for i := 0; i < each && err == nil; i++ {
					err = churn(address, (w+i)%4)
				}
				errs <- err
			}()
		}
		for range workers {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		for _, l := range f.awaitLines(workers * each) {
			if l.Reason != "client-closed" && l.Reason != "client-reset" {
				t.Errorf("logged %+v", l)
			}
		}
		f.await("the end of all", func() bool { return f.server.core.sessions.Load() == 0 })
	})
}

// churn makes one connection and ends it in one of four ways.
func churn(address string, way int) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	conn := c.(*net.TCPConn)
	conn.SetDeadline(time.Now().Add(patience))
	if way == 0 {
		return conn.SetLinger(0) // and closes without a byte
	}
	message := make([]byte, 1<<(4*way))
	if _, err := conn.Write(message); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, message); err != nil {
		return err
	}
	switch way {
	case 1:
		return conn.SetLinger(0)
	case 2:
		if err := conn.CloseWrite(); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, conn)
		return err
	}
	return nil
}

// A loop has nothing to do while a client is slow with its hello.
func TestUnfinishedHelloDoesNotSpin(t *testing.T) {
	var e *epollEngine
	f := newFixture(t, func(c *core) (engine, error) {
		made, err := newEpollEngine(c, 1)
		e, _ = made.(*epollEngine)
		return made, err
	})
	f.serve(sites(t, false)...)
	client := f.connectTo(f.shared())
	io.WriteString(client, "GET /")
	look := func() (round uint64, seen int) {
		l := e.loops[0]
		l.do(func() {
			round = l.round
			l.pairs.each(func(p *pair) { seen = p.seen })
		})
		return round, seen
	}
	f.await("the begin of the hello to be looked at", func() bool {
		_, seen := look()
		return seen == len("GET /")
	})
	const looks = 1000
	before, _ := look()
	for range looks {
		look() // each takes a round by itself
	}
	if after, _ := look(); after-before > 2*looks {
		t.Errorf("%d rounds for %d orders", after-before, looks)
	}
}
