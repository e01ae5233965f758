package health

import (
	"strings"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

// Results are written as letters: + a probe succeeded, - a probe failed,
// r real traffic was refused. States: U up, D down, ? unknown, and u for up
// but suspect.

var testRule = rule{rise: 2, fall: 3, interval: 2 * time.Second, fast: 500 * time.Millisecond, down: 5 * time.Second}

func (v verdict) step(r byte, by rule) verdict {
	if r == 'r' {
		return v.refused(by)
	}
	return v.next(r == '+', by)
}

func (v verdict) letter() byte {
	if v.suspect {
		return 'u'
	}
	return map[pool.State]byte{pool.Unknown: '?', pool.Up: 'U', pool.Down: 'D'}[v.state]
}

func TestVerdict(t *testing.T) {
	once := testRule
	once.rise, once.fall = 1, 1
	for _, c := range []struct {
		name    string
		from    verdict
		rule    rule
		results string
		states  string
	}{
		{"the first success decides", verdict{}, testRule, "+", "U"},
		{"the first failure decides", verdict{}, testRule, "-", "D"},
		{"down after three failures in a row", verdict{}, testRule, "+---", "UUUD"},
		{"a success between starts the count anew", verdict{}, testRule, "+--+--+---", "UUUUUUUUUD"},
		{"up after two successes in a row", verdict{}, testRule, "-++", "DDU"},
		{"a failure between starts the count anew", verdict{}, testRule, "-+-+-++", "DDDDDDU"},
		{"down and up again", verdict{}, testRule, "+---+-++---", "UUUDDDDUUUD"},
		{"a refused connect counts as one failure", verdict{}, testRule, "+r--", "UuuD"},
		{"a thousand refused connects count as one", verdict{}, testRule, "+rrrrrrr--", "UuuuuuuuuD"},
		{"one refused after two failed probes", verdict{}, testRule, "+--r", "UUUD"},
		{"a success clears the suspicion and the count", verdict{}, testRule, "+r+--", "UuUUU"},
		{"suspect again and again", verdict{}, testRule, "+r+r+r+", "UuUuUuU"},
		{"refused while down changes nothing", verdict{}, testRule, "-rr+r+", "DDDDDU"},
		{"refused while unknown changes nothing", verdict{}, testRule, "rr+", "??U"},
		{"fall 1 needs no second opinion", verdict{}, once, "+r+-+", "UDUDU"},
		{"restored up, confirmed", verdict{state: pool.Up, provisional: true}, testRule, "+---", "UUUD"},
		{"restored up, the first failure decides", verdict{state: pool.Up, provisional: true}, testRule, "-++", "DDU"},
		{"restored down, the first success decides", verdict{state: pool.Down, provisional: true}, testRule, "+", "U"},
		{"restored up and refused", verdict{state: pool.Up, provisional: true}, testRule, "r+", "uU"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, got := c.from, ""
			for i := range len(c.results) {
				v = v.step(c.results[i], c.rule)
				got += string(v.letter())
			}
			if got != c.states {
				t.Errorf("results %s\n got %s\nwant %s", c.results, got, c.states)
			}
		})
	}
}

func TestIntervalAndFlip(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name, results string
		wait, flip    time.Duration
	}{
		{"nothing known", "", 500 * ms, 2000 * ms},
		{"up in calm", "+", 2000 * ms, 0},
		{"up, one failure", "+-", 500 * ms, 1000 * ms},
		{"up, two failures", "+--", 500 * ms, 500 * ms},
		{"suspect", "+r", 500 * ms, 500 * ms},
		{"down in calm", "-", 5000 * ms, 5500 * ms},
		{"down, one success", "-+", 500 * ms, 500 * ms},
		{"up again", "-++", 2000 * ms, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v verdict
			for i := range len(c.results) {
				v = v.step(c.results[i], testRule)
			}
			if got := v.wait(testRule); got != c.wait {
				t.Errorf("next probe after %s, want %s", got, c.wait)
			}
			if got := v.flip(testRule); got != c.flip {
				t.Errorf("flip %s, want %s", got, c.flip)
			}
		})
	}
}

func TestRuleDefaults(t *testing.T) {
	got := ruleOf(pool.Probe{Rise: -1})
	want := rule{1, 1, 2 * time.Second, 2 * time.Second, 2 * time.Second}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// FuzzVerdict: a state never turns before its threshold and always at it.
func FuzzVerdict(f *testing.F) {
	f.Add("+---++", uint8(2), uint8(3))
	f.Add("+r-r-r+r--", uint8(1), uint8(1))
	f.Add("-+-++r+---", uint8(5), uint8(4))
	f.Add("++r", uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, results string, rise, fall uint8) {
		by := ruleOf(pool.Probe{Rise: int(rise), Fall: int(fall), Interval: time.Second})
		var v verdict
		successes, probesFailed, refused := 0, 0, 0 // in a row
		for _, r := range strings.Split(results, "") {
			if !strings.Contains("+-r", r) || r == "" {
				continue
			}
			switch r[0] {
			case '+':
				successes, probesFailed, refused = successes+1, 0, 0
			case '-':
				successes, probesFailed = 0, probesFailed+1
			case 'r':
				if v.state == pool.Up { // else it is not evidence
					successes, refused = 0, 1
				}
			}
			old := v
			v = v.step(r[0], by)
			switch {
			case old.state == pool.Unknown:
				if r != "r" && v.state != stateOf(r == "+") {
					t.Fatalf("%q: the first result did not decide", results)
				}
			case old.state == pool.Up && v.state == pool.Down && probesFailed+refused < by.fall:
				t.Fatalf("%q: down after %d+%d failures, fall is %d", results, probesFailed, refused, by.fall)
			case old.state == pool.Down && v.state == pool.Up && successes < by.rise:
				t.Fatalf("%q: up after %d successes, rise is %d", results, successes, by.rise)
			case v.state == pool.Up && probesFailed >= by.fall:
				t.Fatalf("%q: still up after %d failed probes, fall is %d", results, probesFailed, by.fall)
			case v.state == pool.Down && successes >= by.rise:
				t.Fatalf("%q: still down after %d successes, rise is %d", results, successes, by.rise)
			case v.suspect && v.state != pool.Up:
				t.Fatalf("%q: suspect and %s", results, v.state)
			}
			if old.state != v.state { // counts of the old state do not carry over
				successes, probesFailed, refused = 0, 0, 0
			}
			if calm := v.state == pool.Up && v.against == 0 && !v.suspect; calm != (v.flip(by) == 0) || v.flip(by) < 0 || v.wait(by) <= 0 {
				t.Fatalf("%q: %+v waits %s and flips after %s", results, v, v.wait(by), v.flip(by))
			}
		}
	})
}
