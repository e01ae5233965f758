package pool_test

import (
	"fmt"
	"strings"
	"testing"

	"haslohas.com/elbow/pool"
)

// roundTrip parses what String returns for each value and compares the texts,
// which users and files contain.
func roundTrip[T ~uint8](t *testing.T, parse func(string) (T, error), want string) {
	t.Helper()
	texts := strings.Fields(want)
	for i, text := range texts {
		if got := fmt.Sprint(T(i)); got != text {
			t.Errorf("%T(%d) is %q, want %q", T(i), i, got, text)
		}
		if got, err := parse(text); err != nil || got != T(i) {
			t.Errorf("parsing %q: %v, %v", text, got, err)
		}
	}
	if got, want := fmt.Sprint(T(len(texts))), fmt.Sprintf("invalid(%d)", len(texts)); got != want {
		t.Errorf("one past the last %T is %q, want %q", T(0), got, want)
	}
	for _, wrong := range []string{"", strings.ToUpper(texts[0]), texts[0] + " "} {
		_, err := parse(wrong)
		if want := fmt.Sprintf("unknown value %q, want one of %s", wrong, strings.Join(texts, ", ")); err == nil || err.Error() != want {
			t.Errorf("parsing %q: %v, want %s", wrong, err, want)
		}
	}
}

func TestEnumerations(t *testing.T) {
	roundTrip(t, pool.ParseAnswer, "proxied direct")
	roundTrip(t, pool.ParseBalance, "leastconn roundrobin source")
	roundTrip(t, pool.ParseWhenAllDown, "all refuse")
	roundTrip(t, pool.ParseProbeType, "tcp http https tls grpc udp")
	roundTrip(t, pool.ParseProxyVersion, "off v1 v2")
	roundTrip(t, pool.ParseKeyAlgorithm, "hmac-sha256 hmac-sha384 hmac-sha512")
	roundTrip(t, pool.ParseCDS, "publish withdraw off")
	roundTrip(t, pool.ParsePhase, "serving terminating")
	roundTrip(t, pool.ParseState, "unknown up down draining forced-up forced-down")

	for stage, want := range map[pool.DrainStage]string{
		pool.NotDraining: "", pool.LeavingDNS: "leaving-dns", pool.Finishing: "finishing", pool.Drained: "drained",
	} {
		if got := stage.String(); got != want {
			t.Errorf("drain stage %d is %q, want %q", stage, got, want)
		}
	}
}

func TestStatusRanges(t *testing.T) {
	ranges := pool.StatusRanges{{First: 200, Last: 299}, {First: 404, Last: 404}}
	for code, want := range map[int]bool{199: false, 200: true, 250: true, 299: true, 300: false, 404: true, 405: false, 0: false, -1: false} {
		if got := ranges.Contain(code); got != want {
			t.Errorf("status %d: %v, want %v", code, got, want)
		}
	}
	if (pool.StatusRanges{}).Contain(0) {
		t.Error("the empty set contains something")
	}
}
