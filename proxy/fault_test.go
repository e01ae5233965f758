package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

func TestAcceptFault(t *testing.T) {
	onEachEngine(t, func(t *testing.T, f *fixture) {
		var asked atomic.Int32
		f.server.core.faults.accept = func() error {
			if n := asked.Add(1); n <= 4 {
				return fmt.Errorf("accept4: %w", syscall.EMFILE)
			}
			return nil
		}
		begin := time.Now()
		f.serve(up(web(backendServer(t, echo))))
		exchange(t, f.connect(), "served in the end")
		if took := time.Since(begin); took < 10*time.Millisecond {
			t.Errorf("accepted again after %s: that is no pause", took)
		}
		if got := f.metric("elbow_proxy_accept_pauses_total"); got != 4 {
			t.Errorf("counted %.0f pauses", got)
		}
		if n := strings.Count(f.log.String(), "out of resources"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, f.log.String())
		}
	})
}

// The pause grows to its bound and ends with the first success.
func TestAcceptBackoff(t *testing.T) {
	c := newCore(Options{Table: new(pool.Publisher)})
	f := newFixture(t, newNetEngine)
	c.log = f.options.Log
	l := &listener{}
	now := time.Now()
	for i, want := range []time.Duration{10, 20, 40, 80, 100, 100} {
		if got := c.acceptFailed(l, syscall.ENFILE, now); got != want*time.Millisecond {
			t.Errorf("pause %d is %s, want %dms", i, got, want)
		}
		if got := c.acceptDelay(now.Add(time.Millisecond)); got != (want-1)*time.Millisecond {
			t.Errorf("1ms into pause %d, %s are left", i, got)
		}
	}
	if got := c.acceptFailed(l, syscall.ECONNABORTED, now); got != 0 {
		t.Errorf("a connection that was aborted pauses for %s", got)
	}
	c.works(now.Add(faultForgiven / 2))
	if strings.Contains(f.log.String(), "again") {
		t.Error("the fault is said to be over too early")
	}
	c.works(now.Add(2 * faultForgiven))
	c.works(now.Add(3 * faultForgiven))
	if n := strings.Count(f.log.String(), "has resources again"); n != 1 {
		t.Errorf("the end of the fault is logged %d times:\n%s", n, f.log.String())
	}
}

func TestDialFault(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.ENOBUFS, syscall.ENOMEM} {
		t.Run("that passes: "+errno.Error(), func(t *testing.T) {
			onEachEngine(t, func(t *testing.T, f *fixture) {
				var asked atomic.Int32
				f.server.core.faults.dial = func(netip.AddrPort) error {
					if asked.Add(1) <= 2 {
						return fmt.Errorf("dial: %w", errno)
					}
					return nil
				}
				f.serve(up(web(backendServer(t, echo))))
				client := f.connect()
				exchange(t, client, "served in the end")
				client.CloseWrite()
				expectEnd(t, client)
				if line := f.awaitReason("client-closed"); line.Retries != 0 {
					t.Errorf("a fault of this host was taken for %d retries", line.Retries)
				}
				if got := f.heard.failures(); len(got) != 0 {
					t.Errorf("the observer heard %q", got)
				}
			})
		})
	}
	t.Run("that stays", func(t *testing.T) {
		onEachEngine(t, func(t *testing.T, f *fixture) {
			var asked atomic.Int32
			f.server.core.faults.dial = func(netip.AddrPort) error {
				asked.Add(1)
				return syscall.EADDRNOTAVAIL
			}
			service := web(backendServer(t, echo), backendServer(t, echo))
			service.Connect.Timeout = 200 * time.Millisecond
			f.serve(up(service))
			client := f.connect()
			begin := time.Now()
			expectReset(t, client)
			if took := time.Since(begin); took < service.Connect.Timeout/2 {
				t.Errorf("given up after %s", took)
			}
			f.awaitReason("local-fault")
			if n := asked.Load(); n > int32(service.Connect.Timeout/dialPause)+1 {
				t.Errorf("%d connects in %s are a storm", n, service.Connect.Timeout)
			}
			if got := f.heard.failures(); len(got) != 0 {
				t.Errorf("the observer heard %q", got)
			}
			for _, b := range service.Endpoints {
				for why := range failures {
					if n := f.metric("elbow_proxy_connect_failures_total", b.Address.String(), why.String()); n != 0 {
						t.Errorf("%s was charged with it as %s", b.Address, why)
					}
				}
			}
		})
	})
}

// fewDescriptors has the test binary serve with the real limit set low, until
// its standard input ends.
const fewDescriptors = "ELBOW_TEST_FEW_DESCRIPTORS"

func serveWithFewDescriptors() int {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 30, Max: 30}); err != nil {
		fmt.Println(err)
		return 1
	}
	var table pool.Publisher
	server := New(Options{Table: &table, ConnLog: os.Stderr})
	table.Publish(pool.NewTable(1, time.Now(), &pool.Set{}, []*pool.Pool{
		up(web(netip.MustParseAddrPort(os.Getenv(fewDescriptors)))),
	}))
	ctx, cancel := inputContext()
	defer cancel()
	go func() {
		for range time.Tick(time.Millisecond) {
			if server.Serving() == nil {
				fmt.Println(server.Listeners()[0].Address)
				return
			}
		}
	}()
	if err := server.Run(ctx); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// With 30 descriptors and 40 clients at once, those that fit are served, and
// when they have gone everybody who comes is.
func TestRealDescriptorLimit(t *testing.T) {
	backend := backendServer(t, echo)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	proxy := exec.Command(self)
	proxy.Env = append(os.Environ(), fewDescriptors+"="+backend.String())
	input, err := proxy.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := proxy.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var lines safeBuffer
	proxy.Stderr = &lines
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	first, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := strings.TrimSpace(first)
	var clients []net.Conn
	served := make(chan bool, 40)
	for range 40 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, "x")
		clients = append(clients, conn)
		go func() { // not all fit, and the kernel says which loop has whom
			var b [1]byte
			if _, err := io.ReadFull(conn, b[:]); err == nil {
				served <- true
			}
		}()
	}
	select {
	case <-served:
	case <-time.After(patience):
		t.Fatal("nobody was served")
	}
	for _, conn := range clients {
		conn.Close()
	}
	for range 5 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		exchange(t, conn, "served")
		conn.Close()
	}
	input.Close()
	if err := proxy.Wait(); err != nil {
		t.Errorf("the proxy ended with %v", err)
	}
	if strings.Contains(lines.String(), "connect-failed") {
		t.Errorf("a backend was blamed:\n%s", lines.String())
	}
}

// inputContext ends when the standard input does.
func inputContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx, cancel
}
