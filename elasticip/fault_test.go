package elasticip_test

import (
	"context"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"haslohas.com/elbow/amazon"
	"haslohas.com/elbow/elasticip"
	"haslohas.com/elbow/internal/awstest"
)

// Two hosts and one address, while EC2 does what it does on a bad day: the
// address follows the lock all the same, a little later.
func TestTakeoverOnABadDay(t *testing.T) {
	move := func(f awstest.Fault, times int) func(awstest.Call) awstest.Fault {
		return func(c awstest.Call) awstest.Fault {
			if c.Action != "AssociateAddress" || times == 0 {
				return awstest.Fault{}
			}
			times--
			return f
		}
	}
	for _, test := range []struct {
		name  string
		fault func() func(awstest.Call) awstest.Fault
		says  string // in the log
	}{
		{"throttled", func() func(awstest.Call) awstest.Fault {
			return move(awstest.Fault{Status: 503, Code: "RequestLimitExceeded", Message: "Request limit exceeded."}, 2)
		}, "too many requests"},
		{"the move is refused for a while", func() func(awstest.Call) awstest.Fault {
			return move(awstest.Fault{Status: 403, Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation."}, 2)
		}, "the policy of these credentials must allow ec2:AssociateAddress"},
		{"a lost request", func() func(awstest.Call) awstest.Fault { return move(awstest.Fault{Drop: true}, 2) }, "could not be asked"},
		{"a move that EC2 says is done and is not", func() func(awstest.Call) awstest.Fault {
			return move(awstest.Fault{Pretend: true}, 1)
		}, "has not arrived here"},
		{"a lost answer: it is done, and nobody was told", func() func(awstest.Call) awstest.Fault {
			return move(awstest.Fault{Late: 5 * time.Second}, 1)
		}, "could not be asked"},
		{"every third question is lost", func() func(awstest.Call) awstest.Fault {
			n := 0
			return func(awstest.Call) awstest.Fault {
				n++
				return awstest.Fault{Drop: n%3 == 0}
			}
		}, ""},
		{"slow", func() func(awstest.Call) awstest.Fault {
			return func(awstest.Call) awstest.Fault { return awstest.Fault{Delay: 400 * time.Millisecond} }
		}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			synctest.Test(t, func(t *testing.T) {
				var faults awstest.Faults
				w.cloud.Fault = faults.Of
				w.begin(t)
				defer w.end()
				a := w.add("i-a", true)
				w.within(10*time.Second, "a owns the address", func() bool { return a.keeper.Belief().Mine })
				b := w.add("i-b", true)
				w.within(time.Minute, "b knows where the address is", func() bool { return b.keeper.Belief().Holder == "i-a" })
				faults.Set(test.fault())
				w.lock.setCut("i-a", true)
				w.within(20*time.Second, "b has the lock", func() bool { return b.keeper.Belief().Locked })
				took := w.within(10*time.Second, "b owns the address", func() bool { return b.keeper.Belief().Mine })
				t.Logf("the address followed the lock after %s", took)
				if !strings.Contains(w.log.String(), test.says) {
					t.Errorf("the log does not say %q:\n%s", test.says, &w.log)
				}
				checkNoSecrets(t, w.log.String())
			})
		})
	}
}

// The cluster is gone, and with it the lock: the host that has the address goes
// on, as EC2 confirms it. When EC2 is gone as well, it must not.
func TestNoLockNoEC2(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		w.begin(t)
		defer w.end()
		a := w.add("i-a", true)
		w.within(10*time.Second, "a owns the address", func() bool { return a.keeper.Belief().Mine })
		b := w.add("i-b", true)
		time.Sleep(20 * time.Second)

		w.network.Cut("ec2.test", true) // EC2 alone: the lock is enough
		time.Sleep(5 * time.Minute)
		if x := a.keeper.Belief(); !x.Mine || x.Err == "" || time.Since(x.Asked) < 4*time.Minute {
			t.Errorf("without EC2: %+v", x)
		}
		w.network.Cut("ec2.test", false)
		time.Sleep(2 * time.Minute)

		w.lock.setCut("i-a", true) // the lock alone, for both
		w.lock.setCut("i-b", true)
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			if !a.keeper.Belief().Mine {
				t.Fatalf("without the lock: %+v\n%s", a.keeper.Belief(), &w.log)
			}
		}
		if a.keeper.Belief().Locked || b.keeper.Belief().Mine {
			t.Error("somebody has the lock")
		}
		w.network.Cut("ec2.test", true) // both
		w.within(4*time.Second, "nobody owns the address", func() bool { return len(w.owners()) == 0 })
		w.network.Cut("ec2.test", false)
		w.within(15*time.Second, "a owns it again", func() bool { return slices.Equal(w.owners(), []string{"i-a"}) })
	})
}

// Moved by hand, under the eyes of who holds the lock: it is taken back, and
// the other host never answers with it.
func TestMovedByHand(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		w.begin(t)
		defer w.end()
		a := w.add("i-a", true)
		w.within(10*time.Second, "a owns the address", func() bool { return a.keeper.Belief().Mine })
		b := w.add("i-b", true)
		time.Sleep(10 * time.Second)
		w.cloud.Move(allocation, "i-b")
		w.within(10*time.Second, "a has taken it back", func() bool { return w.cloud.Holder(allocation) == "i-a" })
		w.within(10*time.Second, "a owns it", func() bool { return a.keeper.Belief().Mine })
		for _, belief := range b.believed() {
			if belief.Mine {
				t.Errorf("b believed: %+v", belief)
			}
		}
	})
}

// A keeper without a lock looks, and moves nothing.
func TestOnlyLooking(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		w.begin(t)
		defer w.end()
		a := w.add("i-a", false)
		w.within(time.Second, "a knows", func() bool { return !a.keeper.Belief().Asked.IsZero() })
		if b := a.keeper.Belief(); b.Here || b.Mine || b.Withheld() || b.Address != address || b.Holder != "" {
			t.Errorf("at no instance: %+v", b)
		}
		w.cloud.Move(allocation, "i-a")
		w.within(time.Minute, "a knows", func() bool { return a.keeper.Belief().Mine })
		if n := w.cloud.Count("AssociateAddress"); n != 0 {
			t.Errorf("%d moves", n)
		}
		if n := w.cloud.Count("DescribeAddresses"); n > 4 {
			t.Errorf("%d questions in a minute", n)
		}
	})
}

// Take and Status, as a person calls them; and what else is wrong is said in one
// line that names the cure.
func TestByHand(t *testing.T) {
	for _, test := range []struct {
		name  string
		env   [2]string // that is set
		cut   string    // host that cannot be reached
		fault awstest.Fault
		want  string
	}{
		{name: "no metadata", cut: "i-a/" + awstest.MetadataHost, want: "is this an instance of EC2"},
		{name: "no network", cut: "ec2.test", want: "AWS could not be asked: dial tcp: network is unreachable; is there a way to AWS"},
		{name: "an unknown key", env: [2]string{"AWS_ACCESS_KEY_ID", "AKIAUNKNOWN"}, want: "does not accept the credentials"},
		{name: "a wrong secret", env: [2]string{"AWS_SECRET_ACCESS_KEY", "another"}, want: "does not accept the credentials"},
		{name: "another address", fault: awstest.Fault{Status: 400, Code: "InvalidAllocationID.NotFound", Message: "The allocation ID 'eipalloc-1' does not exist"}, want: "The allocation ID 'eipalloc-1' does not exist"},
		{name: "not allowed", fault: awstest.Fault{Status: 403, Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation."}, want: "must allow ec2:DescribeAddresses"},
		{name: "throttled", fault: awstest.Fault{Status: 503, Code: "RequestLimitExceeded", Message: "Request limit exceeded."}, want: "too many requests"},
		{name: "out of order", fault: awstest.Fault{Status: 500, Code: "InternalError", Message: "An internal error has occurred"}, want: "AWS answers with status 500"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			if test.env[0] != "" {
				t.Setenv(test.env[0], test.env[1])
			}
			w.cloud.Fault = func(awstest.Call) awstest.Fault { return test.fault }
			synctest.Test(t, func(t *testing.T) {
				w.begin(t)
				defer w.end()
				w.instance("i-a")
				w.network.Cut(test.cut, true)
				o := elasticip.Options{Connect: w.connect("i-a"), Allocation: allocation}
				for name, call := range map[string]func() error{
					"status": func() error { _, err := elasticip.Status(t.Context(), o); return err },
					"take":   func() error { _, _, _, err := elasticip.Take(t.Context(), o); return err },
				} {
					err := call()
					if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
						t.Errorf("%s: %v, want %q", name, err, test.want)
					}
					if err != nil {
						checkNoSecrets(t, err.Error())
					}
				}
			})
		})
	}
}

// The address is taken from where it is, and the one that this instance had is
// named, since EC2 drops it without a word.
func TestTakeByHand(t *testing.T) {
	w := newWorld(t)
	w.cloud.AddAddress(awstest.Address{Allocation: "eipalloc-2", Public: address.Next(), Instance: "i-a"})
	synctest.Test(t, func(t *testing.T) {
		w.begin(t)
		defer w.end()
		w.instance("i-a")
		w.instance("i-b")
		w.cloud.Move(allocation, "i-b")
		o := elasticip.Options{Connect: w.connect("i-a"), Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), address}}
		b, moved, displaced, err := elasticip.Take(t.Context(), o)
		if err != nil || moved != "i-b" || !b.Here || b.Address != address || !slices.Equal(displaced, []string{address.Next().String()}) {
			t.Errorf("%+v, moved from %q, displaced %v: %v", b, moved, displaced, err)
		}
		if _, moved, _, err = elasticip.Take(t.Context(), o); err != nil || moved != "" {
			t.Errorf("again: moved from %q: %v", moved, err)
		}
		if n := w.cloud.Count("AssociateAddress"); n != 1 {
			t.Errorf("%d moves", n)
		}
		o.Addresses = o.Addresses[:1]
		if _, err := elasticip.Status(t.Context(), o); err == nil || !strings.Contains(err.Error(), "none of host.addresses is an Elastic IP") {
			t.Errorf("an address that is none: %v", err)
		}
		// Whatever was called, the policy allows it, and nothing else.
		allowed, err := awstest.PolicyActions("../deploy/aws/elastic-ip-policy.json")
		if called := w.cloud.Actions(); err != nil || !slices.Equal(called, allowed) {
			t.Errorf("called %v, allowed %v: %v", called, allowed, err)
		}
	})
}

// Over TCP, with the credentials of the instance's role, as on EC2.
func TestRoleOverTCP(t *testing.T) {
	w := newWorld(t)
	w.cloud.AddCredentials(awstest.RoleKey, awstest.RoleSecret)
	w.cloud.AddInstance(awstest.Instance{ID: "i-a"})
	api := httptest.NewServer(&w.cloud)
	defer api.Close()
	metadata := httptest.NewServer(awstest.Metadata(awstest.Instance{ID: "i-a", VPC: "vpc-1"}))
	defer metadata.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.URL)
	b, moved, _, err := elasticip.Take(t.Context(), elasticip.Options{
		Connect: func(ctx context.Context) (elasticip.API, string, error) {
			return elasticip.Connect(ctx, amazon.Options{Endpoint: api.URL}, nil)
		},
		Allocation: allocation,
	})
	if err != nil || moved != "nowhere" || !b.Here {
		t.Errorf("%+v, moved from %q: %v", b, moved, err)
	}
	for _, c := range w.cloud.Calls() {
		if c.Key != awstest.RoleKey {
			t.Errorf("%s was signed with %s", c.Action, c.Key)
		}
	}
}

func checkNoSecrets(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{awstest.AccessKey, awstest.SecretKey, awstest.RoleKey, awstest.RoleSecret} {
		if strings.Contains(text, secret) {
			t.Errorf("%s is shown in:\n%s", secret, text)
		}
	}
}
