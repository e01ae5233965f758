package health

import (
	"fmt"

	"haslohas.com/elbow/pool"
)

// said is what r says about the backend, in words.
func (r result) said() string {
	if r.err != nil {
		return r.err.Error()
	}
	return r.words
}

// explain puts in words why the verdict on t followed old; said is what the
// last result said.
func (t *target) explain(old verdict, said string) {
	v := t.verdict
	switch {
	case v.against > 0:
		t.reason = t.doubt(said)
		return
	case v.state == pool.Up || t.live == "" && (old.state == pool.Unknown || old.provisional || t.rule.fall == 1):
		t.cause = said
	case t.live == "":
		t.cause = fmt.Sprintf("%s failed: %s", probes(t.rule.fall), said)
	default:
		t.cause = t.fallen(old, said)
	}
	t.live = ""
	t.reason = t.cause
}

// doubt is the reason while results speak against the state.
func (t *target) doubt(said string) string {
	v := t.verdict
	switch {
	case v.state == pool.Down:
		return fmt.Sprintf("%d of %d successes that bring it up: %s; it went down because: %s", v.against, t.rule.rise, said, t.cause)
	case v.suspect && v.against == t.liveAfter+1:
		return t.live + " on live traffic, a probe decides"
	}
	return fmt.Sprintf("%d of %d failures that take it down: %s", v.against, t.rule.fall, said)
}

// fallen is why t is down where a failed connect of real traffic was among the
// failures.
func (t *target) fallen(old verdict, said string) string {
	text := t.live + " on live traffic"
	if t.liveAfter > 0 {
		text = fmt.Sprintf("%s failed, then %s", probes(t.liveAfter), text)
	}
	after := t.rule.fall - 1 - t.liveAfter
	if old.provisional && !t.verdict.provisional {
		after = 1 // that one decided
	}
	if after > 0 {
		text = fmt.Sprintf("%s, then %s failed: %s", text, probes(after), said)
	}
	return text
}

func probes(n int) string {
	if n == 1 {
		return "1 probe"
	}
	return fmt.Sprintf("%d probes", n)
}
