package elasticip_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"haslohas.com/elbow/internal/awstest"
)

// The lock moves and the address follows, within ten seconds of the lock; and
// never do two hosts believe that they own it.
func TestAddressFollowsLock(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		w.begin(t)
		defer w.end()
		a := w.add("i-a", true)
		w.within(10*time.Second, "a owns the address", func() bool { return a.keeper.Belief().Mine })
		b := w.add("i-b", true)
		w.within(time.Minute, "b knows where the address is", func() bool { return b.keeper.Belief().Holder == "i-a" })

		// a is gone without a word: the lock runs out and b takes it.
		w.lock.setCut("i-a", true)
		w.network.Cut("ec2.test", false)
		w.within(20*time.Second, "b has the lock", func() bool { return b.keeper.Belief().Locked })
		took := w.within(10*time.Second, "b owns the address", func() bool { return b.keeper.Belief().Mine })
		t.Logf("the address followed the lock after %s", took)
		if w.cloud.Holder(allocation) != "i-b" {
			t.Errorf("the address is at %s", w.cloud.Holder(allocation))
		}

		// a comes back, b ends as it should and gives the lock back.
		w.lock.setCut("i-a", false)
		b.stop()
		b.stop = func() {}
		took = w.within(10*time.Second, "a owns the address again", func() bool { return a.keeper.Belief().Mine })
		t.Logf("and back after %s", took)
	})
	for _, secret := range []string{awstest.AccessKey, awstest.SecretKey} {
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("the log shows %s", secret)
		}
	}
}
