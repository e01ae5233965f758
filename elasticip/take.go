package elasticip

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"haslohas.com/elbow/amazon"
)

const (
	// moveTimeout bounds the call that moves the address. It is not made where
	// the lock could end before.
	moveTimeout = 2 * time.Second

	// The pauses between attempts to take the address.
	minPause = 250 * time.Millisecond
	maxPause = 5 * time.Second

	// arrival is how long after the call EC2 may still show the address at its
	// former place.
	arrival = 2 * time.Second
)

var (
	errNoTime     = errors.New("the lock ends too soon to move the Elastic IP")
	errNotArrived = errors.New("EC2 accepted the move, but the Elastic IP has not arrived here")
)

// take sees to it that the address is here, as long as the lock is held.
func (k *Keeper) take(ctx context.Context) {
	k.Log.Info("the lock of the Elastic IP is held")
	k.hold(true)
	defer k.hold(false)
	pauses := backoff{least: minPause, most: maxPause}
	said := ""
	for ctx.Err() == nil {
		moved, err := k.takeOnce(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			k.metrics.failed.Inc()
			if err.Error() != said {
				said = err.Error()
				k.Log.Warn("the Elastic IP is not taken yet, trying again", "err", err)
			}
			sleep(ctx, pauses.next())
			continue
		}
		if moved != "" || said != "" {
			k.Log.Info("the Elastic IP is here", "from", moved)
		}
		if moved != "" {
			k.metrics.moved.Inc()
		}
		said = ""
		pauses.reset()
		wait := urgent // until it has settled
		if k.mineAt(time.Now()) {
			wait = regular
		}
		sleep(ctx, jitter(wait))
	}
	k.Log.Info("the lock of the Elastic IP is lost")
}

// takeOnce moves the address here if it is elsewhere, and makes sure that it
// has arrived. moved is the instance that it was at, or "nowhere"; empty: it
// was here.
func (k *Keeper) takeOnce(ctx context.Context) (moved string, err error) {
	if err := k.ask(ctx); err != nil {
		return "", err
	}
	k.mu.Lock()
	api, self, now := k.api, k.self, k.memory.newest
	k.mu.Unlock()
	if now.here {
		return "", nil
	}
	if others := othersHere(ctx, api, self, now.allocation); len(others) > 0 {
		// EC2 does it without a word; the log shall have one.
		k.Log.Warn("taking the Elastic IP displaces another one of this instance", "displaced", others)
	}
	// Fencing: whoever has the lock next may move the address from when it ends on.
	if time.Until(k.Lock.Until()) < moveTimeout {
		return "", errNoTime
	}
	if err := associate(ctx, api, self, now.allocation); err != nil {
		return "", err
	}
	pauses := backoff{least: 50 * time.Millisecond, most: 500 * time.Millisecond}
	for begin := time.Now(); ; {
		if err := k.ask(ctx); err != nil {
			return "", err
		}
		if k.here() {
			return from(now.holder), nil
		}
		if time.Since(begin) > arrival {
			return "", errNotArrived
		}
		if !sleep(ctx, pauses.next()) {
			return "", ctx.Err()
		}
	}
}

func (k *Keeper) here() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.memory.newest.here
}

func from(holder string) string {
	if holder == "" {
		return "nowhere"
	}
	return holder
}

// othersHere returns the Elastic IPs that this instance has besides the one
// that it is to get, as far as that can be found out: nothing depends on it.
func othersHere(ctx context.Context, api API, self, allocation string) []string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out, err := api.DescribeAddresses(ctx, &ec2.DescribeAddressesInput{
		Filters: []types.Filter{{Name: aws.String("instance-id"), Values: []string{self}}},
	}, once)
	if err != nil {
		return nil
	}
	var others []string
	for _, a := range out.Addresses {
		if aws.ToString(a.AllocationId) != allocation {
			others = append(others, aws.ToString(a.PublicIp))
		}
	}
	return others
}

func associate(ctx context.Context, api API, self, allocation string) error {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	_, err := api.AssociateAddress(ctx, &ec2.AssociateAddressInput{
		AllocationId:       &allocation,
		InstanceId:         &self,
		AllowReassociation: aws.Bool(true),
	}, once) // another attempt first looks whether it is still ours to make
	if err != nil {
		return amazon.Explain("moving the Elastic IP here", err)
	}
	return nil
}

// Status asks EC2 where the address is: elbow elasticip status. The options need
// no Lock.
func Status(ctx context.Context, o Options) (Belief, error) {
	api, self, err := o.Connect(ctx)
	if err != nil {
		return Belief{}, err
	}
	k := &Keeper{Options: o, api: api, self: self, wake: make(chan struct{}, 1)}
	if err := k.insist(ctx, fewAttempts, func() error { return k.ask(ctx) }); err != nil {
		return Belief{}, err
	}
	a := k.memory.newest
	return Belief{Address: a.address, Allocation: a.allocation, Instance: self, Holder: a.holder,
		Asked: a.asked, Here: a.here, Mine: a.here}, nil
}

// fewAttempts is how often a person lets EC2 be asked.
const fewAttempts = 4

// Take moves the address here without any lock: elbow elasticip take. It tries
// until it has arrived or ctx ends. moved is the instance that it was at, or
// "nowhere"; empty: it was here. displaced are the Elastic IPs that this
// instance has lost by it.
func Take(ctx context.Context, o Options) (b Belief, moved string, displaced []string, err error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	api, self, err := o.Connect(ctx)
	if err != nil {
		return Belief{}, "", nil, err
	}
	o.Lock = byHand{}
	k := &Keeper{Options: o, api: api, self: self, holding: true, wake: make(chan struct{}, 1)}
	if err := k.insist(ctx, fewAttempts, func() error { return k.ask(ctx) }); err != nil {
		return Belief{}, "", nil, err
	}
	if !k.here() {
		displaced = othersHere(ctx, api, self, k.memory.newest.allocation)
	}
	err = k.insist(ctx, math.MaxInt, func() (err error) {
		moved, err = k.takeOnce(ctx)
		return err
	})
	if err != nil {
		return Belief{}, "", nil, err
	}
	b, err = Status(ctx, o)
	return b, moved, displaced, err
}

// insist tries something until it goes well, can go well no more, was tried that
// often, or ctx ends.
func (k *Keeper) insist(ctx context.Context, attempts int, try func() error) error {
	pauses := backoff{least: minPause, most: maxPause}
	for {
		err := try()
		if err == nil {
			return nil
		}
		attempts--
		if told, ok := errors.AsType[*amazon.Error](err); ok && !told.Temporary() || attempts == 0 || !sleep(ctx, pauses.next()) {
			return err
		}
	}
}

// byHand is the lock of a person.
type byHand struct{}

func (byHand) Run(context.Context, func(context.Context)) error { return nil }
func (byHand) Until() time.Time                                 { return time.Now().Add(time.Hour) }
