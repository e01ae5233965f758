package ec2

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/pool"
)

// addresses is an EC2 with one instance.
type addresses struct {
	mu     sync.Mutex
	public string // guarded by mu; empty: EC2 is away
	calls  int    // guarded by mu
}

func (a *addresses) set(public string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.public = public
}

func (a *addresses) asked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls
}

func (a *addresses) DescribeInstances(context.Context, *ec2.DescribeInstancesInput, ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	if a.public == "" {
		return nil, errors.New("EC2 is away")
	}
	return &ec2.DescribeInstancesOutput{Reservations: []types.Reservation{{Instances: []types.Instance{{
		InstanceId:       aws.String("i-1"),
		PrivateIpAddress: aws.String("172.31.8.233"),
		PublicIpAddress:  aws.String(a.public),
		State:            &types.InstanceState{Name: types.InstanceStateNameRunning},
	}}}}}, nil
}

// nodes is a source of two nodes; one has a public address of its own.
type nodes struct{ ended chan struct{} }

func (n nodes) Run(ctx context.Context, deliver func(discovery.Update)) error {
	deliver(discovery.Update{Endpoints: []pool.Endpoint{
		{Address: netip.MustParseAddrPort("172.31.8.233:80"), Weight: 1},
		{Address: netip.MustParseAddrPort("172.31.8.18:80"), Weight: 1, Public: []netip.Addr{netip.MustParseAddr("203.0.113.18")}},
	}})
	<-ctx.Done()
	close(n.ended)
	return nil
}

func TestEnrich(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &addresses{}
		e := NewEnricher(Options{Interval: time.Minute, Connect: func(context.Context) (API, error) { return cloud, nil }})
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan string, 10)
		done := make(chan error)
		n := nodes{make(chan struct{})}
		begin := time.Now()
		go func() {
			done <- e.Enrich(n).Run(ctx, func(u discovery.Update) {
				text := ""
				for _, e := range u.Endpoints {
					for _, p := range e.Public {
						text += e.Address.Addr().String() + " is " + p.String() + "\n"
					}
				}
				got <- text
			})
		}()
		const other = "172.31.8.18 is 203.0.113.18\n"
		if text := <-got; text != other {
			t.Errorf("while EC2 is away: %q", text)
		}
		if waited := time.Since(begin); waited > firstWord {
			t.Errorf("the first set came after %s", waited)
		}
		cloud.set("203.0.113.233")
		if text, want := <-got, "172.31.8.233 is 203.0.113.233\n"+other; text != want {
			t.Errorf("once it answers: %q, want %q", text, want)
		}
		cloud.set("203.0.113.234")
		if text, want := <-got, "172.31.8.233 is 203.0.113.234\n"+other; text != want {
			t.Errorf("once it answers something else: %q, want %q", text, want)
		}
		cloud.set("")
		time.Sleep(time.Hour)
		if len(got) > 0 {
			t.Errorf("while EC2 is away again: %q", <-got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		<-n.ended
		asked := cloud.asked()
		time.Sleep(time.Hour)
		if cloud.asked() != asked {
			t.Error("EC2 is asked on after the last source has ended")
		}
	})
}
