package loadbalancer

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"haslohas.com/elbow/pool"
)

// ConditionBackends is the type of the condition of a Service that says how its
// backends are: True where all are up, False where one is not, or there is none.
const ConditionBackends = prefix + "BackendsUp"

const (
	// conditionPause is the least time between two changes of the condition.
	conditionPause = 10 * time.Second

	namedBackends = 3 // in its message, of those that are down
)

// A wellness is how the backends of a Service are.
type wellness struct {
	status          metav1.ConditionStatus
	reason, message string
}

// wellnessOf is that of the services with these names. How many backends there
// are is not in it: a rollout is no reason to write.
func wellnessOf(table *pool.Table, names []string) wellness {
	up, unknown := 0, 0
	var down []string
	for _, p := range table.Pools {
		for _, n := range names {
			if p.Name != n {
				continue
			}
			for i := range p.Backends {
				switch b := &p.Backends[i]; {
				case b.Well():
					up++
				case b.State == pool.Unknown:
					unknown++
				case b.State == pool.Down, b.State == pool.ForcedDown:
					down = append(down, fmt.Sprintf("%s (%s)", b.Address, b.Reason))
				}
			}
		}
	}
	list := strings.Join(down[:min(len(down), namedBackends)], ", ")
	if more := len(down) - namedBackends; more > 0 {
		list += ", and others"
	}
	switch {
	case len(down) > 0 && up > 0:
		return wellness{metav1.ConditionFalse, "SomeDown", "down: " + list}
	case len(down) > 0:
		return wellness{metav1.ConditionFalse, "AllDown", "down: " + list}
	case up > 0:
		return wellness{metav1.ConditionTrue, "AllUp", "all backends are up"}
	case unknown > 0:
		return wellness{metav1.ConditionUnknown, "NotProbed", "no backend was probed yet"}
	}
	return wellness{metav1.ConditionFalse, "NoBackends", "there is no backend"}
}

// condition is what is to be written of w, nil where s says so already.
func (w wellness) condition(s *corev1.Service, now time.Time) *metav1.Condition {
	next := &metav1.Condition{Type: ConditionBackends, Status: w.status, Reason: w.reason, Message: w.message, LastTransitionTime: metav1.NewTime(now)}
	for _, c := range s.Status.Conditions {
		if c.Type != ConditionBackends {
			continue
		}
		if c.Status == next.Status {
			next.LastTransitionTime = c.LastTransitionTime
		}
		if c.Status == next.Status && c.Reason == next.Reason && c.Message == next.Message {
			return nil
		}
	}
	return next
}

// hasCondition reports whether ours is at s.
func hasCondition(s *corev1.Service) bool {
	for _, c := range s.Status.Conditions {
		if c.Type == ConditionBackends {
			return true
		}
	}
	return false
}
