package loadbalancer

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"haslohas.com/elbow/pool"
)

func TestWellness(t *testing.T) {
	table := func(states ...pool.State) *pool.Table {
		s := &pool.Service{Name: "default/shop"}
		var backends []pool.Backend
		for i, state := range states {
			e := pool.Endpoint{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80), Weight: 1}
			s.Endpoints = append(s.Endpoints, e)
			backends = append(backends, pool.Backend{Endpoint: e, State: state, Reason: "refused"})
		}
		other := &pool.Service{Name: "other"}
		return &pool.Table{Pools: []*pool.Pool{pool.NewPool(s, backends), pool.NewPool(other, nil)}}
	}
	for name, test := range map[string]struct {
		states []pool.State
		want   wellness
	}{
		"all are up":      {[]pool.State{pool.Up, pool.ForcedUp}, wellness{"True", "AllUp", "all backends are up"}},
		"one drains":      {[]pool.State{pool.Up, pool.Draining}, wellness{"True", "AllUp", "all backends are up"}},
		"one is down":     {[]pool.State{pool.Up, pool.Down}, wellness{"False", "SomeDown", "down: 10.0.0.1:80 (refused)"}},
		"all are down":    {[]pool.State{pool.Down, pool.ForcedDown}, wellness{"False", "AllDown", "down: 10.0.0.0:80 (refused), 10.0.0.1:80 (refused)"}},
		"many are down":   {[]pool.State{pool.Down, pool.Down, pool.Down, pool.Down}, wellness{"False", "AllDown", "down: 10.0.0.0:80 (refused), 10.0.0.1:80 (refused), 10.0.0.2:80 (refused), and others"}},
		"none was probed": {[]pool.State{pool.Unknown}, wellness{"Unknown", "NotProbed", "no backend was probed yet"}},
		"there is none":   {nil, wellness{"False", "NoBackends", "there is no backend"}},
	} {
		if got := wellnessOf(table(test.states...), []string{"default/shop"}); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestCondition(t *testing.T) {
	long, now := time.Unix(1000, 0), time.Unix(2000, 0)
	s := shop(func(s *corev1.Service) {
		s.Status.Conditions = []metav1.Condition{
			{Type: "example.com/Other", Status: "False"},
			{Type: ConditionBackends, Status: "False", Reason: "SomeDown", Message: "down: a", LastTransitionTime: metav1.NewTime(long)},
		}
	})
	if got := (wellness{"False", "SomeDown", "down: a"}).condition(s, now); got != nil {
		t.Errorf("what stands there already is written: %v", got)
	}
	if got := (wellness{"False", "SomeDown", "down: b"}).condition(s, now); got == nil || !got.LastTransitionTime.Time.Equal(long) {
		t.Errorf("another message: %v", got)
	}
	if got := (wellness{"True", "AllUp", ""}).condition(s, now); got == nil || !got.LastTransitionTime.Time.Equal(now) {
		t.Errorf("another status: %v", got)
	}
	if got := (wellness{"True", "AllUp", ""}).condition(shop(), now); got == nil || !got.LastTransitionTime.Time.Equal(now) {
		t.Errorf("the first one: %v", got)
	}
}
