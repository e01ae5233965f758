package ec2

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"haslohas.com/elbow/pool"
)

// endpoints makes an endpoint of each instance that serves or has just ceased
// to.
func endpoints(instances []types.Instance, port uint16, naming Naming) ([]pool.Endpoint, error) {
	out := make([]pool.Endpoint, 0, len(instances))
	for i := range instances {
		in := &instances[i]
		phase, ok := phaseOf(in)
		if !ok {
			continue
		}
		addr, err := private(in)
		switch {
		case err != nil:
			return nil, err
		case addr.IsValid():
		case phase == pool.Terminating:
			continue // its address is gone already
		default:
			return nil, fmt.Errorf("instance %s runs, and EC2 names no address of it", aws.ToString(in.InstanceId))
		}
		reachable, err := public(in)
		if err != nil {
			return nil, err
		}
		e := pool.Endpoint{
			Address: netip.AddrPortFrom(addr, port),
			Node:    nodeOf(in, naming),
			Public:  reachable,
			Weight:  1,
			Phase:   phase,
		}
		if in.Placement != nil {
			e.Zone = aws.ToString(in.Placement.AvailabilityZone)
		}
		out = append(out, e)
	}
	// EC2 lists in any order.
	slices.SortStableFunc(out, func(a, b pool.Endpoint) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Phase, b.Phase))
	})
	return out, nil
}

// phaseOf says whether an instance serves or is on its way down; false: neither.
func phaseOf(in *types.Instance) (pool.Phase, bool) {
	if in.State == nil {
		return 0, false
	}
	switch in.State.Name {
	case types.InstanceStateNameRunning:
		return pool.Serving, true
	case types.InstanceStateNameShuttingDown, types.InstanceStateNameStopping:
		return pool.Terminating, true
	}
	return 0, false
}

func nodeOf(in *types.Instance, naming Naming) string {
	id := aws.ToString(in.InstanceId)
	switch naming {
	case ByName:
		for _, t := range in.Tags {
			if aws.ToString(t.Key) == "Name" {
				return cmp.Or(aws.ToString(t.Value), id)
			}
		}
	case ByDNS:
		return cmp.Or(aws.ToString(in.PrivateDnsName), id)
	}
	return id
}

// private returns the address that the proxy dials: the private one, or where
// the instance has IPv6 alone, the first of those.
func private(in *types.Instance) (netip.Addr, error) {
	if s := aws.ToString(in.PrivateIpAddress); s != "" {
		return parse(in, s)
	}
	v6, err := addresses6(in)
	if err != nil || len(v6) == 0 {
		return netip.Addr{}, err
	}
	return v6[0], nil
}

// public returns where clients reach the instance by themselves: its public
// IPv4 address, and its IPv6 addresses, which are public in EC2.
func public(in *types.Instance) ([]netip.Addr, error) {
	var out []netip.Addr
	if s := aws.ToString(in.PublicIpAddress); s != "" {
		a, err := parse(in, s)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	v6, err := addresses6(in)
	return append(out, v6...), err
}

// addresses6 returns the IPv6 addresses of the first interface.
func addresses6(in *types.Instance) ([]netip.Addr, error) {
	if len(in.NetworkInterfaces) == 0 {
		return nil, nil
	}
	var out []netip.Addr
	for _, v6 := range in.NetworkInterfaces[0].Ipv6Addresses {
		a, err := parse(in, aws.ToString(v6.Ipv6Address))
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func parse(in *types.Instance, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("EC2 names %.64q as an address of instance %s", s, aws.ToString(in.InstanceId))
	}
	return a.Unmap(), nil
}
