// Package ec2 is the source of endpoints that run on EC2 instances, found by
// their tags or their Auto Scaling group, and of the public addresses of
// instances whose private ones are known from elsewhere.
//
// EC2 tells of no change, so that it is asked again and again. An answer has
// pages; a set is delivered when all of them are there.
package ec2

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"haslohas.com/elbow/amazon"
	"haslohas.com/elbow/discovery"
)

const (
	// DefaultInterval is how often EC2 is asked unless it is said otherwise.
	DefaultInterval = 15 * time.Second

	// maxInterval is the longest pause after errors.
	maxInterval = 5 * time.Minute

	// minRetry is the pause after the first of several errors, where the interval
	// is not shorter still.
	minRetry = 2 * time.Second

	// pageTimeout bounds the wait for one page.
	pageTimeout = 10 * time.Second

	pageSize = 1000 // the most that EC2 gives

	maxInstances = 100_000 // what a source may deliver
)

// API is what is asked of EC2.
type API = ec2.DescribeInstancesAPIClient

// Naming says by what an instance is called here, in the status and in elbow
// drain.
type Naming uint8

const (
	ByID   Naming = iota // its ID
	ByName               // its tag Name, or its ID where it has none
	ByDNS                // its private DNS name, as Kubernetes calls it, or its ID where it has none
)

func (n Naming) String() string {
	switch n {
	case ByName:
		return "name"
	case ByDNS:
		return "dns"
	}
	return "id"
}

// Options say which instances are meant and where they serve. Connect and
// Port are required, and one of Tags and Group.
type Options struct {
	// Connect returns the way to EC2. It is called until it has succeeded once.
	Connect func(context.Context) (API, error)

	Tags     map[string]string // an instance has all of them
	Group    string            // the Auto Scaling group it is in; empty: any or none
	VPC      string            // the network it is in; empty: any
	Port     uint16
	Naming   Naming
	Interval time.Duration // 0: DefaultInterval

	Log *slog.Logger // nil: silent
}

// Key tells the instances and the way in which o asks for them from those of
// other Options; the region is not part of it.
func (o Options) Key() string {
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(o.Tags)) {
		fmt.Fprintf(&key, "%q=%q ", name, o.Tags[name])
	}
	fmt.Fprintf(&key, "group %q vpc %q port %d by %s every %s", o.Group, o.VPC, o.Port, o.Naming, o.interval())
	return key.String()
}

func (o Options) interval() time.Duration {
	if o.Interval == 0 {
		return DefaultInterval
	}
	return o.Interval
}

// groupTag is what Auto Scaling writes on each instance, so that the service
// itself need not be asked.
const groupTag = "aws:autoscaling:groupName"

func (o Options) filters() []types.Filter {
	filters := []types.Filter{filter("instance-state-name", "running", "shutting-down", "stopping")}
	for _, name := range slices.Sorted(maps.Keys(o.Tags)) {
		filters = append(filters, filter("tag:"+name, o.Tags[name]))
	}
	if o.Group != "" {
		filters = append(filters, filter("tag:"+groupTag, o.Group))
	}
	if o.VPC != "" {
		filters = append(filters, filter("vpc-id", o.VPC))
	}
	return filters
}

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: aws.String(name), Values: values}
}

type source struct{ Options }

// New returns a Source of the instances that o means.
func New(o Options) discovery.Source {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &source{o}
}

func (s *source) Run(ctx context.Context, deliver func(discovery.Update)) error {
	poll(ctx, s.Connect, s.interval(), func(ctx context.Context, api API) error {
		instances, err := list(ctx, api, s.filters())
		if err == nil {
			var u discovery.Update
			if u.Endpoints, err = endpoints(instances, s.Port, s.Naming); err == nil {
				deliver(u)
			}
		}
		if err != nil && ctx.Err() == nil {
			deliver(discovery.Update{Err: err})
		}
		return err
	}, func(err error) { deliver(discovery.Update{Err: err}) })
	return nil
}

// poll calls look now and again after each interval, later after errors, until
// ctx is cancelled. unconnected is told why there is nobody to ask.
func poll(ctx context.Context, connect func(context.Context) (API, error), interval time.Duration,
	look func(context.Context, API) error, unconnected func(error)) {
	var api API
	retry := time.Duration(0)
	for ctx.Err() == nil {
		var err error
		if api == nil {
			api, err = dial(ctx, connect)
			if err != nil && ctx.Err() == nil {
				unconnected(err)
			}
		}
		if err == nil {
			err = look(ctx, api)
		}
		wait := interval
		if err != nil {
			retry = min(max(2*retry, min(minRetry, interval)), max(maxInterval, interval))
			wait = retry
		} else {
			retry = 0
		}
		select {
		case <-ctx.Done():
		case <-time.After(jitter(wait)):
		}
	}
}

func dial(ctx context.Context, connect func(context.Context) (API, error)) (API, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return connect(ctx)
}

// jitter is d, a tenth more or less, so that what was started together does
// not ask together.
func jitter(d time.Duration) time.Duration { return d - d/10 + rand.N(d/5+1) }

// list returns all instances that pass the filters, or an error.
func list(ctx context.Context, api API, filters []types.Filter) ([]types.Instance, error) {
	var all []types.Instance
	in := &ec2.DescribeInstancesInput{Filters: filters, MaxResults: aws.Int32(pageSize)}
	for pages := 0; ; pages++ {
		page, err := describe(ctx, api, in)
		if err != nil {
			return nil, amazon.Explain("listing EC2 instances", err)
		}
		for _, r := range page.Reservations {
			all = append(all, r.Instances...)
		}
		token := aws.ToString(page.NextToken)
		if token == "" {
			return all, nil
		}
		if len(all) > maxInstances || pages > maxInstances || token == aws.ToString(in.NextToken) {
			return nil, fmt.Errorf("listing EC2 instances: more than %d, or pages without end: ask for fewer by tags", maxInstances)
		}
		in.NextToken = &token
	}
}

func describe(ctx context.Context, api API, in *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return api.DescribeInstances(ctx, in, func(o *ec2.Options) {
		o.RetryMaxAttempts = 1 // poll asks again, later each time
	})
}

// Connect returns the way to EC2; it is for Options.Connect. client is what is
// spoken by; nil: the SDK's own.
func Connect(o amazon.Options, client *http.Client) func(context.Context) (API, error) {
	return func(ctx context.Context) (API, error) {
		api, err := amazon.EC2(ctx, o, client)
		if err != nil {
			return nil, err // not a nil *Client in an interface
		}
		return api, nil
	}
}
