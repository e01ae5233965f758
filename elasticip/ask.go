package elasticip

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"haslohas.com/elbow/amazon"
)

// ask asks EC2 where the address is and takes in the answer.
func (k *Keeper) ask(ctx context.Context) error {
	a, err := k.where(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	k.mu.Lock()
	k.err = err
	if err == nil {
		k.memory.hear(a, k.until())
	}
	k.mu.Unlock()
	poke(k.wake)
	return err
}

// connect returns the way to EC2 and who this instance is.
func (k *Keeper) connect(ctx context.Context) (API, string, error) {
	k.mu.Lock()
	api, self := k.api, k.self
	k.mu.Unlock()
	if api != nil {
		return api, self, nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	api, self, err := k.Connect(ctx)
	if err != nil {
		return nil, "", err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.api, k.self = api, self
	return api, self, nil
}

func (k *Keeper) where(ctx context.Context) (answer, error) {
	api, self, err := k.connect(ctx)
	if err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return where(ctx, api, self, k.Allocation, k.Addresses)
}

// once leaves it to the caller to ask again: it knows better when, and if at all.
func once(o *ec2.Options) { o.RetryMaxAttempts = 1 }

// where asks EC2 once.
func where(ctx context.Context, api API, self, allocation string, addresses []netip.Addr) (answer, error) {
	in := &ec2.DescribeAddressesInput{}
	if allocation != "" {
		in.AllocationIds = []string{allocation}
	} else {
		filter := types.Filter{Name: aws.String("public-ip")}
		for _, a := range addresses {
			filter.Values = append(filter.Values, a.String())
		}
		in.Filters = []types.Filter{filter}
	}
	a := answer{asked: time.Now()}
	out, err := api.DescribeAddresses(ctx, in, once)
	a.heard = time.Now()
	if err != nil {
		return a, amazon.Explain("asking where the Elastic IP is", err)
	}
	found, err := choose(out.Addresses, allocation, addresses)
	if err != nil {
		return a, err
	}
	a.allocation = aws.ToString(found.AllocationId)
	a.holder = aws.ToString(found.InstanceId)
	a.here = a.holder == self && self != ""
	a.address, err = netip.ParseAddr(aws.ToString(found.PublicIp))
	if err != nil {
		return a, fmt.Errorf("EC2 names the address %s, which is none", aws.ToString(found.PublicIp))
	}
	return a, nil
}

// choose returns the address that is meant out of what EC2 has found.
func choose(found []types.Address, allocation string, addresses []netip.Addr) (types.Address, error) {
	if allocation != "" {
		i := slices.IndexFunc(found, func(a types.Address) bool { return aws.ToString(a.AllocationId) == allocation })
		if i < 0 {
			return types.Address{}, fmt.Errorf("EC2 knows no Elastic IP %s: check aws.elasticIP.allocationID and aws.region", allocation)
		}
		return found[i], nil
	}
	for _, want := range addresses {
		i := slices.IndexFunc(found, func(a types.Address) bool { return aws.ToString(a.PublicIp) == want.String() })
		if i >= 0 {
			return found[i], nil
		}
	}
	return types.Address{}, fmt.Errorf("none of host.addresses is an Elastic IP of this account and region: set aws.elasticIP.allocationID, check aws.region")
}
