//go:build acceptance

package acceptance

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const (
	// floodTime is how long each flood lasts, and floodRate how many datagrams a
	// second it has at most: the machine is to have time for the honest client, whose
	// datagrams the kernel would drop otherwise.
	floodTime = time.Second
	floodRate = 30_000

	// floodMemory is how many MiB the process may grow by over all floods: by what
	// is bounded.
	floodMemory = 32
)

// TestFloods: whoever floods the server with whatever, honest clients are answered,
// and its memory stays where it was.
func TestFloods(t *testing.T) {
	configurations := map[string]func(t *testing.T) (*elbow, []string){
		"limited and logged": func(t *testing.T) (*elbow, []string) {
			return startFlooded(t, strings.NewReplacer("rateLimit: {perSecond: 0}", `rateLimit: {perSecond: 100, slip: 2, exempt: ["127.0.0.1/32"]}
  queryLog: {file: "DIR/queries", sample: 10}
  dnstap: {socket: "tcp:127.0.0.1:1"}`).Replace(floodedConfiguration)), []string{"web", "mapped", "x.wild"}
		},
		"without a limit": func(t *testing.T) (*elbow, []string) {
			return startFlooded(t, floodedConfiguration), []string{"web", "mapped", "x.wild"}
		},
		"signed": func(t *testing.T) (*elbow, []string) {
			e, _ := startSigned(t, freePorts(t, 1)[0])
			return e, []string{"www", "a.wild", "alias"}
		},
	}
	for name, start := range configurations {
		t.Run(name, func(t *testing.T) {
			e, names := start(t)
			h := &honest{t: t, addr: e.dns, names: names}
			h.ask(100) // what is made on demand is there
			before := resident(t, e.PID())
			most := before
			for _, f := range floods {
				t.Run(f.name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), floodTime)
					defer cancel()
					var sent atomic.Int64
					var flooding sync.WaitGroup
					for range 2 {
						flooding.Go(func() { f.run(ctx, e.dns, &sent) })
					}
					h.t = t
					for ctx.Err() == nil {
						h.ask(20)
						most = max(most, resident(t, e.PID()))
					}
					flooding.Wait()
					if sent.Load() < 50 {
						t.Errorf("only %d were sent: that is no flood", sent.Load())
					}
					t.Logf("%d sent, %d MiB resident", sent.Load(), most)
				})
			}
			h.t = t
			h.ask(20)
			t.Logf("%d honest questions, %d of them asked twice; memory %d MiB before, at most %d", h.asked, h.again, before, most)
			if most-before > floodMemory {
				t.Errorf("memory has grown from %d to %d MiB, at most %d more are bounded", before, most, floodMemory)
			}
			if h.again*20 > h.asked {
				t.Errorf("of %d honest questions %d had to be asked twice", h.asked, h.again)
			}
		})
	}
}

const floodedConfiguration = `
host: {name: master, addresses: [127.0.0.1]}
stateDir: ""
admin: {listen: "ADMIN", socket: DIR/elbow.sock}
log: {connections: "off"}
dns:
  listen: ["DNS"]
  rateLimit: {perSecond: 0}
  zones:
    - name: public.haslohas.com
      hostmaster: hostmaster@haslohas.com
      nameservers: [{name: ns1.public.haslohas.com, addresses: [127.0.0.1]}]
      file: ZONE
services:
  - name: web
    hostnames: [web.public.haslohas.com]
    listen: ["LISTEN"]
    backends: {static: ["127.0.0.11:9"]}
  - name: mapped
    hostnames: [mapped.public.haslohas.com]
    answer: direct
    backends: {static: [{address: "127.0.0.11:9", zone: a}, {address: "127.0.0.12:9", zone: b}]}
    dns:
      clients: [{subnets: [127.0.0.0/8], zones: [b, a]}, {subnets: [10.0.0.0/9], zones: [a, b]}]
`

func startFlooded(t *testing.T, configuration string) *elbow {
	zone := write(t, t.TempDir(), "flooded.zone", "*.wild 60 A 192.0.2.7\nwww 60 A 192.0.2.8\n")
	return startElbow(t, strings.ReplaceAll(configuration, "ZONE", zone))
}

// An honest client asks one after the other, by UDP and TCP.
type honest struct {
	t            *testing.T
	addr         string
	names        []string
	asked, again int
}

func (h *honest) ask(times int) {
	h.t.Helper()
	for range times {
		h.asked++
		q := new(dns.Msg).SetQuestion(h.names[h.asked%len(h.names)]+".public.haslohas.com.", dns.TypeA)
		client := &dns.Client{Timeout: time.Second}
		if h.asked%5 == 0 {
			client.Net, client.Timeout = "tcp", 5*time.Second
		}
		r, _, err := client.Exchange(q, h.addr)
		if err != nil {
			h.again++
			r, _, err = client.Exchange(q, h.addr)
		}
		if err != nil || r.Rcode != dns.RcodeSuccess || len(r.Answer) == 0 {
			h.t.Errorf("an honest question for %s %s: %v, %v", q.Question[0].Name, client.Net, err, r)
			return
		}
	}
}

// resident returns how many MiB a process has in memory.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib / 1024
}

// A flood sends until ctx ends.
type flood struct {
	name string
	run  func(ctx context.Context, addr string, sent *atomic.Int64)
}

var floods = []flood{
	{"names that do not exist", datagrams(func(q *dns.Msg) { q.Question[0].Name = randomLabel() + ".public.haslohas.com." })},
	{"names that do not exist, with proofs", datagrams(func(q *dns.Msg) {
		q.Question[0].Name = randomLabel() + ".www.public.haslohas.com."
		q.SetEdns0(1232, true)
	})},
	{"names below a wildcard", datagrams(func(q *dns.Msg) {
		q.Question[0].Name = randomLabel() + ".wild.public.haslohas.com."
		q.SetEdns0(1232, true)
	})},
	{"zones of others", datagrams(func(q *dns.Msg) { q.Question[0].Name = randomLabel() + ".example." })},
	{"subnets", datagrams(func(q *dns.Msg) {
		q.Question[0].Name = "mapped.public.haslohas.com."
		q.SetEdns0(1232, false)
		o := q.IsEdns0()
		o.Option = append(o.Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IP(randomOctets(4)).Mask(net.CIDRMask(24, 32))})
	})},
	{"cookies", datagrams(func(q *dns.Msg) {
		q.SetEdns0(1232, false)
		o := q.IsEdns0()
		o.Option = append(o.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: fmt.Sprintf("%x", randomOctets(8+8*rand.IntN(3)))})
	})},
	{"zone transfers, NOTIFY and UPDATE", datagrams(func(q *dns.Msg) {
		q.Question[0].Name = "public.haslohas.com."
		switch rand.IntN(4) {
		case 0:
			q.Question[0].Qtype = dns.TypeAXFR
		case 1:
			q.SetIxfr("public.haslohas.com.", rand.Uint32(), "ns1.public.haslohas.com.", "h.haslohas.com.")
		case 2:
			q.Opcode = dns.OpcodeNotify
		case 3:
			q.Opcode = dns.OpcodeUpdate
		}
	})},
	{"malformed packets", packets(func() []byte {
		if rand.IntN(4) == 0 {
			return randomOctets(rand.IntN(600))
		}
		q := question(randomLabel() + ".public.haslohas.com.")
		q.SetEdns0(1232, true)
		wire, err := q.Pack()
		if err != nil {
			return nil
		}
		for range 1 + rand.IntN(8) {
			wire[rand.IntN(len(wire))] = byte(rand.Uint32())
		}
		return wire[:12+rand.IntN(len(wire)-11)]
	})},
	{"messages of 64 KiB", streams(func(c net.Conn) error {
		_, err := c.Write(append([]byte{0xff, 0xff}, make([]byte, 65535)...))
		return err
	}, 0)},
	{"answers that nobody reads", streams(func(c net.Conn) error {
		wire, err := question("public.haslohas.com.").Pack()
		if err != nil {
			return err
		}
		_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...))
		return err
	}, 0)},
	{"an octet every now and then", streams(func(c net.Conn) error {
		_, err := c.Write([]byte{1})
		return err
	}, 100*time.Millisecond)},
	{"connections that come and go", func(ctx context.Context, addr string, sent *atomic.Int64) {
		for ctx.Err() == nil {
			if c, err := dialFrom(addr); err == nil {
				sent.Add(1)
				c.Close()
			}
		}
	}},
	{"malformed streams", streams(func(c net.Conn) error {
		_, err := c.Write(randomOctets(1 + rand.IntN(2000)))
		return err
	}, time.Millisecond)},
}

func question(name string) *dns.Msg { return new(dns.Msg).SetQuestion(name, dns.TypeA) }

func randomOctets(n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(rand.Uint32())
	}
	return out
}

func randomLabel() string { return strconv.FormatUint(rand.Uint64(), 36) }

// somebody is one of the many addresses of loopback that are not the honest one's.
func somebody() netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + rand.IntN(200)), byte(rand.IntN(256)), byte(1 + rand.IntN(254))})
}

// datagrams is a flood of questions, each changed by make, from many addresses.
func datagrams(change func(*dns.Msg)) func(context.Context, string, *atomic.Int64) {
	return packets(func() []byte {
		q := question("web.public.haslohas.com.")
		change(q)
		wire, err := q.Pack()
		if err != nil {
			return nil
		}
		return wire
	})
}

// packets is a flood of datagrams from many addresses.
func packets(make func() []byte) func(context.Context, string, *atomic.Int64) {
	return func(ctx context.Context, addr string, sent *atomic.Int64) {
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil {
			c, err := (&net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(somebody(), 0))}).Dial("udp", addr)
			if err != nil {
				continue
			}
			for range floodRate / 200 / 2 { // there are two of these
				if b := make(); len(b) > 0 {
					if _, err := c.Write(b); err == nil {
						sent.Add(1)
					}
				}
			}
			c.Close()
			<-pace.C
		}
	}
}

func dialFrom(addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(somebody(), 0)), Timeout: time.Second}
	return d.Dial("tcp", addr)
}

// streams is a flood by TCP: several hundred connections that are written to in turn,
// with a pause after each round, and never read.
func streams(write func(net.Conn) error, pause time.Duration) func(context.Context, string, *atomic.Int64) {
	return func(ctx context.Context, addr string, sent *atomic.Int64) {
		open := make([]net.Conn, 300)
		defer func() {
			for _, c := range open {
				if c != nil {
					c.Close()
				}
			}
		}()
		for ctx.Err() == nil {
			for i, c := range open {
				if ctx.Err() != nil {
					return
				}
				if c == nil {
					var err error
					if open[i], err = dialFrom(addr); err != nil {
						open[i] = nil
						continue
					}
					c = open[i]
				}
				_ = c.SetWriteDeadline(time.Now().Add(time.Millisecond))
				if err := write(c); err == nil {
					sent.Add(1)
				} else if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
					c.Close()
					open[i] = nil
				}
			}
			time.Sleep(pause)
		}
	}
}
