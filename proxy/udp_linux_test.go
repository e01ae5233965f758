package proxy

import (
	"errors"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// onUDPLoops runs a proxy with as many loops in front of an echo server.
func onUDPLoops(t *testing.T, loops int) *fixture {
	f := newFixture(t, newNetEngine)
	f.server.newUDP = func(c *core) (engine, error) { return makeUDPLoops(c, loops) }
	backend, _ := udpServer(t, echoUDP)
	f.serve(up(names(backend)))
	return f
}

// A datagram of a flow that is there allocates nothing on its way there and
// back, and neither does a flow in the place of one that has ended.
func TestUDPAllocatesNothing(t *testing.T) {
	f := onUDPLoops(t, 1)
	client := f.udpClient()
	data := []byte("some data")
	trip := func() {
		client.Write(data)
		if _, err := client.Read(data); err != nil {
			t.Fatal(err)
		}
	}
	trip()
	if n := testing.AllocsPerRun(500, trip); n >= 1 {
		t.Errorf("%v allocations for each round trip", n)
	}
}

// What flows have opened is closed when they have ended.
func TestUDPLeavesNoDescriptor(t *testing.T) {
	f := onUDPLoops(t, 2)
	before := udpSockets(t)
	for range 20 {
		client := f.udpClient()
		expectUDP(t, client, "x", "x")
		client.Close()
	}
	if got := udpSockets(t); got != before+20 {
		t.Errorf("%d sockets more for 20 flows", got-before)
	}
	f.stop()
	f.awaitFlows(0)
	if got := udpSockets(t); got != before-2 { // those of the listener
		t.Errorf("%d sockets are left, want %d", got, before-2)
	}
}

// udpSockets counts the UDP sockets of this process. Those for TCP are left out:
// a server of a test before may still be closing some.
func udpSockets(t *testing.T) (n int) {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range all {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && kind == unix.SOCK_DGRAM {
			n++
		}
	}
	return n
}

// The wheel finds every flow when its time has come, wherever it lies, and none
// before.
func TestUDPWheel(t *testing.T) {
	c := newCore(Options{Table: publisher()})
	l := &udpLoop{core: c, alarm: never}
	var flows []*udpFlow
	for _, idle := range []time.Duration{time.Millisecond, 63 * time.Millisecond, 64 * time.Millisecond, time.Second, 32 * time.Second, 33 * time.Second, 5 * time.Minute} {
		f := &udpFlow{flow: flow{core: c, idle: idle}}
		f.packets[in] = 2
		l.watch(f)
		flows = append(flows, f)
	}
	forever := &udpFlow{flow: flow{core: c}}
	forever.packets[in] = 2
	l.watch(forever)
	looks := 0
	for len(flows) > 0 && looks < 100 {
		looks++
		l.at = l.alarm
		for n := 0; n < len(flows); n++ { // those whose time has come, as turn would end them
			if f := flows[n]; f.deadline() <= l.at {
				if late := l.at - f.deadline(); late > udpTick {
					t.Errorf("that of %s is looked at %s late", f.idle, time.Duration(late))
				}
				l.wheel.remove(f)
				flows = append(flows[:n], flows[n+1:]...)
				n--
			}
		}
		l.turn()
	}
	if len(flows) > 0 || l.wheel.count != 1 {
		t.Errorf("%d flows are left after %d looks, %d in the wheel", len(flows), looks, l.wheel.count)
	}
	if looks > 30 {
		t.Errorf("%d looks for a handful of flows", looks)
	}
}

// A socket that would answer itself is none to a backend.
func TestUDPToOneself(t *testing.T) {
	c := newCore(Options{Table: publisher()})
	l, err := newUDPLoop(c, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	loopback := netip.MustParseAddr("127.0.0.1")
	for range 40 {
		for port := c.firstPort; port < c.lastPort; port++ { // one of them the system will happen to give
			at := netip.AddrPortFrom(loopback, port)
			fd, err := l.connectUDP(at)
			if errors.Is(err, syscall.ECONNREFUSED) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if sysGetsockname(fd, &l.name) == nil && fromSockaddr(&l.name) == at {
				t.Fatalf("a socket is connected to itself on %s", at)
			}
			sysClose(fd)
		}
	}
	t.Error("no socket was given the port it was to connect to")
}

// One server takes over from another, whatever engines the two have: the port
// stays, every datagram is answered, and who waits for an answer of the old one
// gets it.
func TestUDPSocketsAreInherited(t *testing.T) {
	one, three := udpEngines["epoll"], udpEngines["epoll with 3 loops"]
	for _, c := range []struct {
		name     string
		old, new func(*core) (engine, error)
	}{
		{"net to net", newUDPNetEngine, newUDPNetEngine},
		{"net to 3 loops", newUDPNetEngine, three},
		{"3 loops to net", three, newUDPNetEngine},
		{"3 loops to 1", three, one},
		{"1 loop to 3", one, three},
		{"3 loops to 3", three, three},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, newNetEngine)
			f.server.newUDP = c.old
			answer := make(chan bool)
			quick, _ := udpServer(t, echoUDP)
			slow, _ := udpServer(t, func(b []byte) []byte {
				<-answer
				return b
			})
			service := up(names(quick))
			late := names(slow)
			late.Name, late.ListenUDP = "late", []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:0")}
			f.serve(service, up(late))
			at := f.address("names")
			client, asking := f.udpClient(), udpClient(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), f.address("late").Port()))
			expectUDP(t, client, "old", "old")
			asking.Write([]byte("anybody?"))
			f.awaitFlows(2)

			next := f.inherits(newNetEngine)
			next.server.newUDP = c.new
			next.serve(service, up(late))
			if got := next.address("names"); got != at {
				t.Fatalf("it listens on %s, the old one on %s", got, at)
			}
			f.server.Leave(patience)
			f.awaitFlows(1) // that of who waits
			for range 50 {  // the kernel spreads these over all sockets: none may be an orphan
				expectUDP(t, udpClient(t, at), "new", "new")
			}
			expectUDP(t, client, "goes on", "goes on")
			close(answer)
			if got := hearUDP(t, asking); got != "anybody?" {
				t.Errorf("answered %q", got)
			}
			expectUDP(t, asking, "again", "again")
			if err := <-f.returned; err != nil {
				t.Error(err)
			}
			f.cancel = nil
			next.awaitFlows(52)
		})
	}
}

func TestUDPRefusesOtherSockets(t *testing.T) {
	for name, engine := range udpEngines {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		e, err := engine(newCore(Options{Table: publisher()}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.listen(&listener{udp: true, address: anyPort}, fds[:]); err == nil {
			t.Errorf("%s takes a socket that is not UDP", name)
		}
		for _, fd := range fds {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
				t.Errorf("%s leaves it open", name)
				unix.Close(fd)
			}
		}
		e.close()
	}
}
