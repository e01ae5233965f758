package delegation

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"haslohas.com/elbow/internal/route53test"
)

// A kept is a Keeper and what it says.
type kept struct {
	*Keeper
	log      bytes.Buffer
	registry *prometheus.Registry
}

func newKept() *kept {
	k := &kept{registry: prometheus.NewPedanticRegistry()}
	k.Keeper = NewKeeper(KeeperOptions{Log: slog.New(slog.NewTextHandler(&k.log, nil)), Registerer: k.registry})
	return k
}

// The daemon sees a mistake when it is made and when it is put right, and says each
// once.
func TestKeeperLooks(t *testing.T) {
	w := newWorld(t)
	w.verify()
	v := Verifier{ParentZone: "haslohas.com", ParentServers: []netip.AddrPort{w.parents[0].addr}, Private: true, Port: w.servers[0].addr.Port()}
	zone := w.zone
	k := newKept()
	s := Settings{Zones: func(time.Time) ([]Zone, error) { return []Zone{zone}, nil }, Verifier: v, Interval: time.Minute}
	k.round(t.Context(), s)
	k.round(t.Context(), s)
	zone.TTL = time.Minute
	k.round(t.Context(), s)
	k.round(t.Context(), s)
	if text := k.log.String(); strings.Count(text, "is as it must be") != 1 || strings.Count(text, "is not as it must be") != 1 {
		t.Errorf("the log:\n%s", text)
	}
	want := `
# HELP elbow_delegation_findings What was not as it must be with the delegation of a zone, by kind.
# TYPE elbow_delegation_findings gauge
elbow_delegation_findings{finding="ttl-differs",zone="public.haslohas.com"} 1
# HELP elbow_delegation_ok Whether the delegation of a zone was as it must be when it was last looked at: 1 or 0.
# TYPE elbow_delegation_ok gauge
elbow_delegation_ok{zone="public.haslohas.com"} 0
`
	if err := testutil.GatherAndCompare(k.registry, strings.NewReader(want), "elbow_delegation_findings", "elbow_delegation_ok"); err != nil {
		t.Error(err)
	}
	if got := k.Kept(); len(got) != 1 || got[0].OK() || got[0].Findings[0].Code != TTLDiffers {
		t.Errorf("kept is %+v", got)
	}
	k.round(t.Context(), Settings{})
	if n, err := testutil.GatherAndCount(k.registry, "elbow_delegation_ok"); err != nil || n != 0 || len(k.Kept()) != 0 {
		t.Errorf("of zones that are gone there are %d, %v, %v", n, err, k.Kept())
	}
}

// With manage, drift is put right, what is not elbow's is left, and a key that is
// young waits.
func TestKeeperRepairs(t *testing.T) {
	s, p := account(t)
	w := newWorld(t)
	w.verify()
	k := newKept()
	zone := public()
	settings := Settings{
		Zones:    func(time.Time) ([]Zone, error) { return []Zone{zone}, nil },
		Verifier: Verifier{ParentZone: "haslohas.com", ParentServers: []netip.AddrPort{w.parents[0].addr}, Private: true, Port: w.servers[0].addr.Port()},
		Interval: time.Minute,
		Parent:   func(context.Context) (*Parent, error) { return p, nil },
	}
	zone.NameServers = w.zone.NameServers
	ours := func() bool { return slices.Contains(records(s), "ns1.public.haslohas.com. 3600 A 127.0.0.2") }
	k.round(t.Context(), settings)
	if !ours() {
		t.Fatalf("it is not made: %q\n%s", records(s), k.log.String())
	}
	s.PutSet("Z1", set("ns1.public.haslohas.com.", "A", 60, "192.0.2.9"))
	k.round(t.Context(), settings)
	if !ours() {
		t.Errorf("it is not repaired: %q", records(s))
	}

	key, _ := newKey(t)
	zone.Keys = Keys{DS: []string{dsText(key.ToDS(dns.SHA256))}}
	zone.Keys.Young = zone.Keys.DS
	k.round(t.Context(), settings)
	if got := k.Kept()[0].Repair; !strings.Contains(got, "waits") {
		t.Errorf("a young key: %q", got)
	}
	zone.Keys.Young = nil
	k.round(t.Context(), settings)
	if got := k.Kept()[0].Repair; !strings.Contains(got, "does not serve the key") {
		t.Errorf("a key that is not served: %q", got)
	}
	zone.Keys = Keys{}
	s.Put("Z1", "public.haslohas.com. 60 IN DS 1 13 2 "+digest)
	k.round(t.Context(), settings)
	if got := k.Kept()[0].Repair; !strings.Contains(got, "elbow has not written it") || len(records(s)) != 5 {
		t.Errorf("a foreign DS: %q, %q", got, records(s))
	}
	if n := testutil.ToFloat64(k.metrics.repaired.WithLabelValues("done")); n != 2 {
		t.Errorf("%v repairs are counted, want 2", n)
	}
	if text := k.log.String(); strings.Contains(text, route53test.Secret) || strings.Contains(text, route53test.KeyID) {
		t.Errorf("a secret in the log:\n%s", text)
	}
}

// While AWS is away the Keeper asks less and less, and says so once.
func TestKeeperBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		k := newKept()
		var asked []time.Time
		began := time.Now()
		k.Apply(Settings{
			Zones:    func(time.Time) ([]Zone, error) { return []Zone{{Name: "public.haslohas.com"}}, nil }, // nobody to ask
			Verifier: Verifier{ParentZone: "haslohas.com", Resolver: resolver{}},
			Interval: time.Minute,
			Parent: func(context.Context) (*Parent, error) {
				asked = append(asked, time.Now())
				return nil, errors.New("AWS is away")
			},
		})
		done := make(chan error)
		go func() { done <- k.Run(ctx) }()
		time.Sleep(24 * time.Hour)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if first := asked[0].Sub(began); first != firstLook {
			t.Errorf("the first look is after %s, want %s", first, firstLook)
		}
		if n := len(asked); n < 20 || n > 40 {
			t.Errorf("asked %d times in a day", n)
		}
		if n := strings.Count(k.log.String(), "AWS is away"); n != 1 {
			t.Errorf("said %d times:\n%s", n, k.log.String())
		}
	})
}
