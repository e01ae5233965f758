package dnsserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"haslohas.com/elbow/pool"
)

// A told is what a secondary has been told, and when.
type told struct {
	at     time.Duration
	to     string
	serial uint32
}

// A hearing is the secondaries of a zone as a notifier meets them.
type hearing struct {
	notifier *notifier
	log      bytes.Buffer
	begun    time.Time
	deaf     map[string]error // what comes of telling a secondary; nil: it acknowledges
	takes    time.Duration    // that each message takes

	mu   sync.Mutex
	told []told
}

func newHearing() *hearing {
	h := &hearing{begun: time.Now(), deaf: make(map[string]error)}
	h.notifier = newNotifier(slog.New(slog.NewTextHandler(&h.log, nil)), func(ctx context.Context, n notification) error {
		h.mu.Lock()
		h.told = append(h.told, told{time.Since(h.begun), n.secondary.String(), n.zone.serial})
		err := h.deaf[n.secondary.String()]
		h.mu.Unlock()
		select {
		case <-time.After(h.takes):
		case <-ctx.Done():
			return ctx.Err()
		}
		return err
	})
	return h
}

func (h *hearing) setDeaf(secondary string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deaf[secondary] = err
}

// change announces the zone example.com with a serial.
func (h *hearing) change(serial uint32, secondaries ...string) {
	conf := &pool.Zone{Name: "example.com"}
	z := &zone{static: &static{conf: conf, apex: "\x07example\x03com\x00"}, serial: serial, counts: new(zoneCounts)}
	for _, s := range secondaries {
		conf.Transfer.Notify = append(conf.Transfer.Notify, pool.Secondary{Address: netip.MustParseAddrPort(s)})
	}
	h.notifier.announce(&snapshot{sorted: []*zone{z}, transfers: map[name]*pool.Transfer{z.apex: &conf.Transfer}})
}

// heard returns what was told since the last call.
func (h *hearing) heard() []told {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.told
	h.told = nil
	return all
}

func (h *hearing) want(t *testing.T, want ...told) {
	t.Helper()
	if diff := cmp.Diff(want, h.heard(), cmp.AllowUnexported(told{})); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

const first, second = "192.0.2.1:53", "192.0.2.2:53"

func TestNotifyTellsEachChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHearing()
		defer h.notifier.end()
		h.change(1, first)
		h.want(t, told{0, first, 1})
		time.Sleep(10 * time.Second)
		h.change(1, first)
		h.want(t) // it knows
		h.change(2, first)
		h.want(t, told{10 * time.Second, first, 2})
		h.change(2, first, second)
		h.want(t, told{10 * time.Second, second, 2})
	})
}

// TestNotifyCoalesces: however often a zone changes, a secondary is told once a
// second after the first few times, and of the newest state in the end.
func TestNotifyCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHearing()
		defer h.notifier.end()
		h.takes = 10 * time.Millisecond
		for serial := uint32(1); serial <= 1000; serial++ {
			h.change(serial, first)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		all := h.heard()
		if len(all) < 10 || len(all) > 10+notifyBurst+1 || all[len(all)-1].serial != 1000 {
			t.Errorf("told %v", all)
		}
		for i := range all[1:] {
			if i > notifyBurst && all[i+1].at-all[i].at < notifyInterval {
				t.Errorf("told at %s and %s", all[i].at, all[i+1].at)
			}
		}
	})
}

// TestNotifyTriesAgain until the secondary answers; what it is told then is the
// newest.
func TestNotifyTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHearing()
		defer h.notifier.end()
		h.setDeaf(first, fmt.Errorf("%w: timeout", errUnanswered))
		h.change(1, first, second)
		time.Sleep(2500 * time.Millisecond)
		h.change(2, first, second)
		time.Sleep(7 * time.Minute)
		var at []time.Duration
		for _, m := range h.heard() {
			if m.to == first {
				at = append(at, m.at.Round(time.Second))
			} else if m.at > 3*time.Second {
				t.Errorf("the one that answers was told %v", m)
			}
		}
		s := time.Second
		if diff := cmp.Diff([]time.Duration{0, s, 3 * s, 7 * s, 15 * s, 31 * s, 63 * s, 123 * s, 183 * s, 243 * s, 303 * s, 363 * s}, at); diff != "" {
			t.Errorf("told at (-want +got):\n%s", diff)
		}
		h.setDeaf(first, nil)
		time.Sleep(time.Minute)
		if all := h.heard(); len(all) != 1 || all[0].serial != 2 {
			t.Errorf("told %v", all)
		}
		time.Sleep(time.Hour)
		h.want(t)
		log := h.log.String()
		if strings.Count(log, "cannot be told") != 1 || strings.Count(log, "is told of changes") != 2 {
			t.Errorf("log:\n%s", log)
		}
		h.setDeaf(first, fmt.Errorf("%w REFUSED", errRejected))
		h.change(3, first)
		h.heard()
		h.change(4) // it is no secondary any more
		time.Sleep(time.Hour)
		h.want(t)
		if n := len(h.notifier.targets); n != 0 {
			t.Errorf("%d targets are left", n)
		}
	})
}

// TestNotifyHoldsUpNobody: a secondary that is gone has its own few places, and
// end waits for none.
func TestNotifyHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waiting := make(map[string]int)
		var mu sync.Mutex
		n := newNotifier(slog.New(slog.DiscardHandler), func(ctx context.Context, n notification) error {
			mu.Lock()
			waiting[n.secondary.String()]++
			mu.Unlock()
			if n.secondary.String() == first {
				<-ctx.Done()
				return errors.New("gone")
			}
			return nil
		})
		snap := &snapshot{transfers: make(map[name]*pool.Transfer)}
		for i := range 100 {
			z := &zone{static: &static{conf: &pool.Zone{}, apex: mustName(t, fmt.Sprintf("z%d.test", i))}, serial: 1, counts: new(zoneCounts)}
			snap.sorted = append(snap.sorted, z)
			snap.transfers[z.apex] = &pool.Transfer{Notify: []pool.Secondary{
				{Address: netip.MustParseAddrPort(first)}, {Address: netip.MustParseAddrPort(second)},
			}}
		}
		n.announce(snap)
		synctest.Wait()
		mu.Lock()
		if waiting[first] != notifiesPerSecondary || waiting[second] != 100 {
			t.Errorf("told %v", waiting)
		}
		mu.Unlock()
		n.end()
	})
}

// TestNotify sends real messages to a name server that answers in several ways.
func TestNotify(t *testing.T) {
	const key, secret = "key.", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	for name, c := range map[string]struct {
		key    string // that the notifier signs with
		answer func(w dns.ResponseWriter, q, a *dns.Msg)
		want   error
	}{
		"acknowledged":              {want: nil},
		"acknowledged, signed":      {key: "key", want: nil},
		"refused":                   {answer: func(_ dns.ResponseWriter, _, a *dns.Msg) { a.Rcode = dns.RcodeRefused }, want: errRejected},
		"refused, signed":           {key: "key", answer: func(_ dns.ResponseWriter, _, a *dns.Msg) { a.Rcode = dns.RcodeRefused }, want: errRejected},
		"the key is not known":      {key: "other", answer: func(_ dns.ResponseWriter, _, a *dns.Msg) { a.Rcode = dns.RcodeNotAuth; a.Extra = nil }, want: errRejected},
		"another id":                {answer: func(_ dns.ResponseWriter, _, a *dns.Msg) { a.Id++ }, want: errUnanswered},
		"another zone":              {answer: func(_ dns.ResponseWriter, _, a *dns.Msg) { a.Question[0].Name = "example.net." }, want: errUnanswered},
		"another opcode":            {answer: func(_ dns.ResponseWriter, _, a *dns.Msg) { a.Opcode = dns.OpcodeQuery }, want: errUnanswered},
		"a question":                {answer: func(_ dns.ResponseWriter, _, a *dns.Msg) { a.Response = false }, want: errUnanswered},
		"unsigned, though asked to": {key: "key", answer: func(_ dns.ResponseWriter, _, a *dns.Msg) { a.Extra = nil }, want: errUnanswered},
		"signed an hour ago":        {key: "key", answer: func(_ dns.ResponseWriter, _, a *dns.Msg) { a.IsTsig().TimeSigned -= 3600 }, want: errUnanswered},
		"nonsense and then the answer": {answer: func(w dns.ResponseWriter, _, _ *dns.Msg) {
			_, _ = w.Write([]byte("nonsense that is no message")) // the answer follows in any case
		}, want: nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pc, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var got *dns.Msg
			secondary := &dns.Server{PacketConn: pc, TsigSecret: map[string]string{key: secret}, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
			secondary.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
				got = q
				a := new(dns.Msg).SetReply(q)
				if q.IsTsig() != nil && w.TsigStatus() == nil {
					a.SetTsig(q.IsTsig().Hdr.Name, dns.HmacSHA256, 300, time.Now().Unix())
				}
				if c.answer != nil {
					c.answer(w, q, a)
				}
				_ = w.WriteMsg(a) // where it does not arrive the test fails
			})
			done := make(chan error, 1)
			go func() { done <- secondary.ActivateAndServe() }()
			h := newHouse(t, nil)
			h.publish(transferable(example(t)))
			snap := h.snapshot.Load()
			n := notification{zone: snap.zones.get(mustName(t, "example.com")), secondary: netip.MustParseAddrPort(pc.LocalAddr().String())}
			n.key, _ = snap.keys.find(pool.Secondary{Key: c.key})
			if (n.key == nil) != (c.key == "") {
				t.Fatalf("no key %s", c.key)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			err = exchangeNotify(ctx, n)
			if c.want == nil && err != nil || !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err := secondary.Shutdown(); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if got == nil || got.Opcode != dns.OpcodeNotify || !got.Authoritative || len(got.Question) != 1 || got.Question[0] != (dns.Question{Name: "example.com.", Qtype: dns.TypeSOA, Qclass: dns.ClassINET}) {
				t.Fatalf("told %v", got)
			}
			if len(got.Answer) != 1 || got.Answer[0].(*dns.SOA).Serial != n.zone.serial || (got.IsTsig() != nil) != (c.key != "") {
				t.Errorf("told %v", got)
			}
		})
	}
}

// TestSecondaryFollows: a server tells a real secondary of each change.
func TestSecondaryFollows(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serials := make(chan uint32, 100)
	secondary := &dns.Server{PacketConn: pc, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		serials <- q.Answer[0].(*dns.SOA).Serial
		_ = w.WriteMsg(new(dns.Msg).SetReply(q)) // where it does not arrive the test fails
	})}
	done := make(chan error, 1)
	go func() { done <- secondary.ActivateAndServe() }()
	f := transferable(&fixture{down: make(map[netip.Addr]bool)})
	f.zone(&pool.Zone{Name: "example.com", Records: ns, Transfer: pool.Transfer{Notify: []pool.Secondary{{Address: netip.MustParseAddrPort(pc.LocalAddr().String())}}}})
	f.direct("web.example.com", "198.51.100.1", "198.51.100.2")
	r := start(t, f, "127.0.0.1:0")
	begin := r.Zones()[0].Serial
	for i := range uint32(3) {
		select {
		case got := <-serials:
			if got != begin+i {
				t.Errorf("told of %d, want %d", got, begin+i)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("told nothing")
		}
		a := netip.MustParseAddr("198.51.100.1")
		f.down[a] = !f.down[a]
		r.publish()
	}
	r.stop()
	if err := secondary.Shutdown(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
