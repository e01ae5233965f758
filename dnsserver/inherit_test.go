package dnsserver

import (
	"context"
	"encoding/json"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"haslohas.com/elbow/pool"
)

// documents are what one process gives to the next.
type documents map[string]json.RawMessage

func (d documents) Save(name string, v any) (err error) {
	d[name], err = json.Marshal(v)
	return err
}

func (d documents) Load(name string, v any) (bool, error) {
	text, ok := d[name]
	if !ok {
		return false, nil
	}
	return true, json.Unmarshal(text, v)
}

// A Server that takes over goes on with the serial, also in the middle of a
// block, and knows what caches hold that it has never answered itself.
func TestTakeOver(t *testing.T) {
	one, two, three := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("198.51.100.3")
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{down: map[netip.Addr]bool{}}
		f.zone(&pool.Zone{Name: "example.com", Records: "@ NS ns.example.net.\n"})
		f.direct("web.example.com", one.String(), two.String())
		f.direct("quiet.example.com", three.String())
		h := newHouse(t, nil)
		h.publish(f)
		h.ask(t, "web.example.com A")
		f.down[one] = true
		h.publish(f) // one has left, and two goes on alone
		h.ask(t, "web.example.com A")
		time.Sleep(10 * time.Second)
		serial := h.serialOf(t, "example.com")

		given := documents{}
		if err := h.builder.saveTo(t.Context(), given); err != nil {
			t.Fatal(err)
		}
		next := newHouse(t, given)
		defer next.builder.end()
		next.handedOut.restore(given, next.Server.log)
		next.publish(f)
		if got := next.serialOf(t, "example.com"); got != serial {
			t.Errorf("the serial is %d, it was %d", got, serial)
		}
		f.services = nil // nothing of it is answered by the new one
		next.publish(f)
		if got := next.serialOf(t, "example.com"); got != serial+1 {
			t.Errorf("after a change the serial is %d, it was %d", got, serial)
		}
		for addr, want := range map[netip.Addr]time.Duration{
			one:   30*time.Second + grace - 10*time.Second, // since it was replaced
			two:   30*time.Second + grace,                  // answered until now
			three: 30*time.Second + grace,                  // as far as the new one can know
		} {
			until, ok := next.Expires(addr, next.handedOut.generation)
			if left := time.Until(until); !ok || left != want {
				t.Errorf("%s: %s left, %v, want %s", addr, left, ok, want)
			}
		}
		time.Sleep(time.Minute)
		if until, ok := next.Expires(one, next.handedOut.generation); !ok || !until.IsZero() {
			t.Errorf("a minute later: %s, %v", until, ok)
		}
	})
}

// Who asks for the state of a Server that has ended, or does not come to it,
// is not kept waiting.
func TestSaveToEnds(t *testing.T) {
	s := New(Options{Table: new(pool.Publisher)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.SaveTo(ctx, documents{}); err == nil {
		t.Error("a server that does not run has saved its state")
	}
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveTo(t.Context(), documents{}); err == nil {
		t.Error("a server that has ended has saved its state")
	}
}
