package ec2_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"haslohas.com/elbow/amazon"
	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/discovery/ec2"
	"haslohas.com/elbow/internal/awstest"
)

// A world is a cloud and what a source found in it.
type world struct {
	cloud   awstest.Cloud
	network awstest.Network

	mu      sync.Mutex
	updates []discovery.Update
}

func newWorld(t *testing.T, instances ...awstest.Instance) *world {
	t.Setenv("AWS_ACCESS_KEY_ID", awstest.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", awstest.SecretKey)
	t.Setenv("AWS_CA_BUNDLE", "") // it would be for another client
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	w := new(world)
	for _, i := range instances {
		w.cloud.AddInstance(i)
	}
	return w
}

func (w *world) options() ec2.Options {
	return ec2.Options{
		Connect: ec2.Connect(amazon.Options{Region: awstest.Region, Endpoint: "http://ec2.test"}, w.network.Client("")),
		Tags:    map[string]string{"role": "minion"},
		Port:    80,
	}
}

// run runs do while a source of o runs.
func (w *world) run(t *testing.T, o ec2.Options, do func()) {
	stop := w.network.Serve("ec2.test", &w.cloud)
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		err := ec2.New(o).Run(ctx, func(u discovery.Update) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.updates = append(w.updates, u)
		})
		if err != nil {
			t.Error(err)
		}
	})
	do()
	cancel()
	running.Wait()
}

// found is the last update in words.
func (w *world) found() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.updates) == 0 {
		return "nothing"
	}
	u := w.updates[len(w.updates)-1]
	if u.Err != nil {
		return "error: " + u.Err.Error()
	}
	var words []string
	for _, e := range u.Endpoints {
		words = append(words, fmt.Sprintf("%s %s %v %s %d %v", e.Address, e.Node, e.Public, e.Zone, e.Weight, e.Phase))
	}
	return strings.Join(words, "; ")
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.updates)
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func minion(n int, more ...func(*awstest.Instance)) awstest.Instance {
	i := awstest.Instance{
		ID:      fmt.Sprintf("i-%d", n),
		Private: addr(fmt.Sprintf("172.31.8.%d", n)),
		Zone:    awstest.Region + "a",
		DNS:     fmt.Sprintf("ip-172-31-8-%d.%s.compute.internal", n, awstest.Region),
		VPC:     "vpc-1",
		Tags:    map[string]string{"role": "minion", "Name": fmt.Sprintf("minion%d", n)},
	}
	for _, m := range more {
		m(&i)
	}
	return i
}

func TestInstances(t *testing.T) {
	state := func(s string) func(*awstest.Instance) { return func(i *awstest.Instance) { i.State = s } }
	tag := func(name, value string) func(*awstest.Instance) {
		return func(i *awstest.Instance) {
			i.Tags = maps.Clone(i.Tags)
			i.Tags[name] = value
		}
	}
	gone := func(i *awstest.Instance) { i.Private = netip.Addr{} }
	inGroup := tag("aws:autoscaling:groupName", "minions")
	for _, test := range []struct {
		name      string
		instances []awstest.Instance
		options   func(*ec2.Options)
		want      string
	}{
		{"none", nil, nil, ""},
		{"one", []awstest.Instance{minion(1)}, nil, "172.31.8.1:80 i-1 [] eu-central-1a 1 serving"},
		{"with a public address", []awstest.Instance{minion(1, func(i *awstest.Instance) { i.Public = addr("3.120.1.2") })}, nil,
			"172.31.8.1:80 i-1 [3.120.1.2] eu-central-1a 1 serving"},
		{"of both kinds", []awstest.Instance{minion(1, func(i *awstest.Instance) {
			i.Public, i.IPv6 = addr("3.120.1.2"), []netip.Addr{addr("2a05:d014::1")}
		})}, nil, "172.31.8.1:80 i-1 [3.120.1.2 2a05:d014::1] eu-central-1a 1 serving"},
		{"IPv6 alone", []awstest.Instance{minion(1, gone, func(i *awstest.Instance) { i.IPv6 = []netip.Addr{addr("2a05:d014::1")} })}, nil,
			"[2a05:d014::1]:80 i-1 [2a05:d014::1] eu-central-1a 1 serving"},
		{"other tags", []awstest.Instance{minion(1, tag("role", "master")), minion(2)}, nil, "172.31.8.2:80 i-2 [] eu-central-1a 1 serving"},
		{"all tags", []awstest.Instance{minion(1), minion(2, tag("stage", "blue"))}, func(o *ec2.Options) { o.Tags["stage"] = "blue" },
			"172.31.8.2:80 i-2 [] eu-central-1a 1 serving"},
		{"a group", []awstest.Instance{minion(1), minion(2, inGroup)}, func(o *ec2.Options) { o.Tags, o.Group = nil, "minions" },
			"172.31.8.2:80 i-2 [] eu-central-1a 1 serving"},
		{"a network", []awstest.Instance{minion(1), minion(2, func(i *awstest.Instance) { i.VPC = "vpc-2" })}, func(o *ec2.Options) { o.VPC = "vpc-2" },
			"172.31.8.2:80 i-2 [] eu-central-1a 1 serving"},
		{"on their way", []awstest.Instance{minion(1, state("pending")), minion(2, state("stopping")), minion(3, state("shutting-down")), minion(4, state("stopped")), minion(5, state("terminated")), minion(6, state("shutting-down"), gone)}, nil,
			"172.31.8.2:80 i-2 [] eu-central-1a 1 terminating; 172.31.8.3:80 i-3 [] eu-central-1a 1 terminating"},
		{"by name", []awstest.Instance{minion(1), minion(2, tag("Name", ""))}, func(o *ec2.Options) { o.Naming = ec2.ByName },
			"172.31.8.1:80 minion1 [] eu-central-1a 1 serving; 172.31.8.2:80 i-2 [] eu-central-1a 1 serving"},
		{"as Kubernetes calls it", []awstest.Instance{minion(1)}, func(o *ec2.Options) { o.Naming = ec2.ByDNS },
			"172.31.8.1:80 ip-172-31-8-1.eu-central-1.compute.internal [] eu-central-1a 1 serving"},
		{"one that runs without an address", []awstest.Instance{minion(1), minion(2, gone)}, nil, "error: instance i-2 runs, and EC2 names no address of it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, test.instances...)
			synctest.Test(t, func(t *testing.T) {
				o := w.options()
				if test.options != nil {
					test.options(&o)
				}
				w.run(t, o, func() { time.Sleep(time.Second) })
			})
			if got := w.found(); got != test.want {
				t.Errorf("got %s\nwant %s", got, test.want)
			}
			allowed, err := awstest.PolicyActions("../../deploy/aws/discovery-policy.json")
			if called := w.cloud.Actions(); err != nil || !slices.Equal(called, allowed) {
				t.Errorf("called %v, allowed %v: %v", called, allowed, err)
			}
		})
	}
}

// A set is all pages or none: the one before stays where a page is lost.
func TestPages(t *testing.T) {
	var all []awstest.Instance
	for n := range 23 {
		all = append(all, minion(n+1))
	}
	w := newWorld(t, all...)
	w.cloud.PageSize = 5
	var faults awstest.Faults
	w.cloud.Fault = faults.Of
	lastPage := func(c awstest.Call) awstest.Fault {
		if c.Form["NextToken"] == "page-15" {
			return awstest.Fault{Status: 500, Code: "InternalError", Message: "An internal error has occurred"}
		}
		return awstest.Fault{}
	}
	synctest.Test(t, func(t *testing.T) {
		w.run(t, w.options(), func() {
			time.Sleep(time.Second)
			if got := strings.Count(w.found(), "serving"); got != 23 {
				t.Errorf("found %d", got)
			}
			synctest.Wait()
			faults.Set(lastPage)
			time.Sleep(time.Minute)
			faults.Set(nil)
		})
		for _, u := range w.updates {
			if u.Err == nil && len(u.Endpoints) != 23 {
				t.Errorf("a set of %d", len(u.Endpoints))
			}
		}
	})
	if got := w.found(); !strings.Contains(got, "AWS answers with status 500") {
		t.Errorf("got %s", got)
	}
}

// What is wrong is said in one line that stays the same, EC2 is asked less often
// meanwhile, and the next set comes soon after it is right again.
func TestOutage(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault awstest.Fault
		says  string
	}{
		{"throttled", awstest.Fault{Status: 503, Code: "RequestLimitExceeded", Message: "Request limit exceeded."}, "too many requests"},
		{"not allowed", awstest.Fault{Status: 403, Code: "UnauthorizedOperation", Message: "You are not authorized to perform this operation."}, "must allow ec2:DescribeInstances"},
		{"refused", awstest.Fault{Status: 400, Code: "InvalidParameterValue", Message: "The filter 'tag' is invalid"}, "The filter 'tag' is invalid"},
		{"lost", awstest.Fault{Drop: true}, "AWS could not be asked"},
		{"silent", awstest.Fault{Delay: time.Hour}, "AWS could not be asked"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, minion(1))
			synctest.Test(t, func(t *testing.T) {
				var faults awstest.Faults
				w.cloud.Fault = faults.Of
				w.run(t, w.options(), func() {
					time.Sleep(10 * time.Second)
					faults.Set(func(awstest.Call) awstest.Fault { return test.fault })
					time.Sleep(30 * time.Minute)
					said := w.found()
					if !strings.Contains(said, test.says) || strings.Contains(said, "\n") {
						t.Errorf("got %s", said)
					}
					for _, u := range w.updates[2:] {
						if u.Err == nil || "error: "+u.Err.Error() != said {
							t.Fatalf("another word: %v", u.Err)
						}
					}
					if n := w.count(); n > 25 {
						t.Errorf("%d words in half an hour", n)
					}
					faults.Set(nil)
					time.Sleep(6 * time.Minute)
					if !strings.HasPrefix(w.found(), "172.31.8.1:80") {
						t.Errorf("afterwards: %s", w.found())
					}
				})
				time.Sleep(time.Hour) // for what is still silent
			})
			for _, secret := range []string{awstest.AccessKey, awstest.SecretKey} {
				if strings.Contains(w.found(), secret) {
					t.Errorf("%s is shown", secret)
				}
			}
		})
	}
}

// An instance that comes is there after one interval, one that goes too.
func TestFollows(t *testing.T) {
	w := newWorld(t, minion(1))
	synctest.Test(t, func(t *testing.T) {
		w.run(t, w.options(), func() {
			time.Sleep(time.Second)
			w.cloud.AddInstance(minion(2))
			time.Sleep(17 * time.Second)
			if got := strings.Count(w.found(), "serving"); got != 2 {
				t.Errorf("after it came: %s", w.found())
			}
			w.cloud.AddInstance(minion(1, func(i *awstest.Instance) { i.State = "shutting-down" }))
			time.Sleep(17 * time.Second)
			if got := w.found(); !strings.Contains(got, "i-1 [] eu-central-1a 1 terminating") {
				t.Errorf("while it goes: %s", got)
			}
		})
	})
}

func TestPublicAddresses(t *testing.T) {
	public := func(s string) func(*awstest.Instance) { return func(i *awstest.Instance) { i.Public = addr(s) } }
	other := minion(9, public("3.120.1.9"), func(i *awstest.Instance) { i.ID, i.Private = "i-other", addr("172.31.8.2") })
	w := newWorld(t, minion(1, public("3.120.1.1")), minion(2, public("3.120.1.2")), minion(3), other)
	w.cloud.AddAddress(awstest.Address{Allocation: "eipalloc-1", Public: addr("54.93.167.95")})
	synctest.Test(t, func(t *testing.T) {
		stop := w.network.Serve("ec2.test", &w.cloud)
		defer stop()
		o := w.options()
		o.Tags = nil
		p := ec2.NewPublic(o)
		ctx, cancel := context.WithCancel(t.Context())
		changes := make(chan struct{}, 10)
		var running sync.WaitGroup
		running.Go(func() { _ = p.Run(ctx, func() { changes <- struct{}{} }) })
		got := p.PublicAddresses(ctx)
		if want := map[netip.Addr][]netip.Addr{addr("172.31.8.1"): {addr("3.120.1.1")}}; !maps.EqualFunc(got, want, slices.Equal) {
			t.Errorf("got %v, want %v: one address that two have is nobody's", got, want)
		}
		w.cloud.Move("eipalloc-1", "i-3")
		time.Sleep(70 * time.Second)
		if got := p.PublicAddresses(ctx)[addr("172.31.8.3")]; !slices.Equal(got, []netip.Addr{addr("54.93.167.95")}) {
			t.Errorf("the Elastic IP: %v", got)
		}
		w.network.Cut("ec2.test", true)
		time.Sleep(time.Hour)
		if n := len(p.PublicAddresses(ctx)); n != 2 {
			t.Errorf("%d addresses while EC2 is away", n)
		}
		if len(changes) != 2 {
			t.Errorf("%d changes", len(changes))
		}
		cancel()
		running.Wait()
	})
}

// Where there is nobody to ask, that is said at once and does not hold up.
func TestPublicAddressesOfNobody(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		p := ec2.NewPublic(w.options())
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = p.Run(ctx, nil) })
		begin := time.Now()
		if got := p.PublicAddresses(ctx); got != nil || time.Since(begin) > time.Minute {
			t.Errorf("got %v after %s", got, time.Since(begin))
		}
		cancel()
		running.Wait()
	})
}
