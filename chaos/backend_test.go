//go:build chaos && linux

package chaos

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// roleVariable has this binary be a backend on the address that it holds.
const roleVariable = "ELBOW_CHAOS_BACKEND"

// A record is what a backend tells of a session that has ended.
type record struct {
	Seed           uint64
	Received, Sent uint64 // with the script
	End            string // see end; "started" in a record ahead of the others
}

// A backend is a process of its own in a namespace of its own, so that it can
// be killed and stopped.
type backend struct {
	t       *testing.T
	ns      *namespace
	address string // of the service
	probe   string // where it answers HTTP
	cmd     *exec.Cmd
	died    bool // once; what it had to tell then is lost
	read    sync.WaitGroup

	mu      sync.Mutex
	records map[uint64]record // by seed; guarded by mu
}

func newBackend(t *testing.T, ns *namespace, ip string) *backend {
	t.Helper()
	b := &backend{t: t, ns: ns, address: ip + ":80", probe: ip + ":8080", records: make(map[uint64]record)}
	b.start()
	t.Cleanup(b.kill)
	return b
}

// start begins, or begins again after kill.
func (b *backend) start() {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	b.cmd = exec.Command(self)
	b.cmd.Env = append(os.Environ(), roleVariable+"="+b.address+" "+b.probe)
	b.cmd.Stderr = os.Stderr
	if _, err := b.cmd.StdinPipe(); err != nil { // which ends with this process
		b.t.Fatal(err)
	}
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.ns.do(b.cmd.Start); err != nil {
		b.t.Fatal(err)
	}
	started := make(chan struct{})
	b.read.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var r record
			if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
				b.t.Errorf("backend %s said %q: %v", b.address, lines.Text(), err)
				continue
			}
			if r.End == "started" {
				close(started)
				continue
			}
			b.mu.Lock()
			b.records[r.Seed] = r
			b.mu.Unlock()
		}
	})
	select {
	case <-started:
	case <-time.After(5 * time.Second):
		b.t.Fatalf("backend %s does not start", b.address)
	}
}

func (b *backend) record(seed uint64) (record, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.records[seed]
	return r, ok
}

// sessions returns how many have ended there.
func (b *backend) sessions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.records)
}

// kill ends the process as a power cut would, but for the kernel, which
// lives on and says that the connections are no more.
func (b *backend) kill() {
	if b.cmd != nil {
		b.died = true
		b.cmd.Process.Kill()
		b.read.Wait()
		b.cmd.Wait() // says that it was killed
		b.cmd = nil
	}
}

// stop freezes the process: the kernel still accepts connections and bytes.
func (b *backend) stop() { b.signal(syscall.SIGSTOP) }
func (b *backend) goOn() { b.signal(syscall.SIGCONT) }

func (b *backend) signal(s syscall.Signal) {
	b.t.Helper()
	if err := b.cmd.Process.Signal(s); err != nil {
		b.t.Fatal(err)
	}
}

// runBackend is the process. It ends with its standard input.
func runBackend(address, probe string) error {
	silent := net.ListenConfig{KeepAlive: -1} // what finds a peer that is gone is elbow's keep-alive
	l, err := silent.Listen(context.Background(), "tcp4", address)
	if err != nil {
		return err
	}
	p, err := net.Listen("tcp4", probe)
	if err != nil {
		return err
	}
	go http.Serve(p, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	out.Encode(record{End: "started"})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			r := record{}
			err := play(c, &r)
			if r.Received == 0 {
				return // a probe
			}
			r.End = end(err)
			mu.Lock()
			defer mu.Unlock()
			out.Encode(r)
		}()
	}
}

// play does what the script at the begin of c says.
func play(c net.Conn, r *record) error {
	var head [scriptSize]byte
	n, err := io.ReadFull(c, head[:])
	r.Received = uint64(n)
	if err != nil {
		return err
	}
	var s script
	if _, err := binary.Decode(head[:], binary.LittleEndian, &s); err != nil {
		return err
	}
	r.Seed = s.Seed
	up, down := s.up(), s.down()
	switch s.Mode {
	case exchange:
		sent := make(chan error, 1)
		go func() { sent <- send(c, down, s.Down, &r.Sent) }()
		err := receive(c, up, int64(s.Up), &r.Received)
		if err == nil {
			err = receiveEnd(c)
		}
		// A reset is told once, to who reads or to who writes.
		if e := <-sent; err == nil || isReset(e) {
			err = e
		}
		return err
	case mirror:
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			r.Received += uint64(n)
			if _, err := up.Write(b[:n]); err != nil {
				return err
			}
			if err == io.EOF {
				return nil
			}
			if err == nil {
				err = send(c, down, uint64(n), &r.Sent)
			}
			if err != nil {
				return err
			}
		}
	case answerLate:
		if err := receive(c, up, -1, &r.Received); err != nil {
			return err
		}
		time.Sleep(s.Pause)
		return send(c, down, s.Down, &r.Sent)
	case closeFirst:
		if err := send(c, down, s.Down, &r.Sent); err != nil {
			return err
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		return receive(c, up, -1, &r.Received)
	case resetLate:
		sent := make(chan error, 1)
		go func() { sent <- send(c, down, s.Down, &r.Sent) }()
		err := receive(c, up, int64(s.Up), &r.Received)
		reset(c)
		<-sent // the error that the reset makes
		return err
	case offer:
		stop := make(chan error, 1)
		go func() { stop <- receive(c, up, 1, &r.Received) }()
		for r.Sent < s.Down {
			select {
			case err := <-stop:
				return err
			default:
			}
			if err := send(c, down, 64<<10, &r.Sent); err != nil {
				return err
			}
		}
		return <-stop
	}
	return fmt.Errorf("no mode %d", s.Mode)
}
