package delegation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	askTimeout = 2 * time.Second // for one packet and its answer
	askTimes   = 2               // by UDP; TCP is asked once
	maxAtOnce  = 16              // questions about one zone
)

// Resolver finds what lies outside: *net.Resolver is one.
type Resolver interface {
	LookupNS(ctx context.Context, name string) ([]*net.NS, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// A question is one, without recursion unless asked for.
type question struct {
	name    string
	typ     uint16
	recurse bool
}

// ask asks one server by udp or tcp. An answer that is cut short is asked for by
// TCP.
func ask(ctx context.Context, server netip.AddrPort, network string, q question) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(q.name), q.typ)
	m.RecursionDesired = q.recurse
	m.SetEdns0(1232, false)
	client := &dns.Client{Net: network, Timeout: askTimeout}
	times := askTimes
	if network == "tcp" {
		times = 1
	}
	var last error
	for range times {
		r, _, err := client.ExchangeContext(ctx, m, server.String())
		switch {
		case err == nil && !echoes(r, m):
			last = errors.New("the answer is to another question")
		case err == nil && r.Rcode == dns.RcodeFormatError && m.IsEdns0() != nil: // RFC 6891 section 7
			m.Extra = nil
			last = errors.New("it answers FORMERR")
		case err == nil && r.Truncated && network == "udp":
			return ask(ctx, server, "tcp", q)
		case err == nil:
			return r, nil
		default:
			last = err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, last
}

func echoes(r, m *dns.Msg) bool {
	return r.Response && (len(r.Question) == 0 && r.Rcode != dns.RcodeSuccess ||
		len(r.Question) == 1 && strings.EqualFold(r.Question[0].Name, m.Question[0].Name) && r.Question[0].Qtype == m.Question[0].Qtype)
}

// noRoute reports whether it is this host that has no way to an address, as to
// IPv6 in many places: that says nothing about the server.
func noRoute(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}

// said is what went wrong, in a few words.
func said(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no answer within %s", askTimeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there"
	}
	return err.Error()
}

// first returns IPv4 addresses if there are any, else those of IPv6.
func first(addresses []netip.Addr) []netip.Addr {
	var four, six []netip.Addr
	for _, a := range addresses {
		if a = a.Unmap(); a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	if len(four) > 0 {
		return four
	}
	return six
}

// private says why clients elsewhere cannot reach an address; empty: they may.
func private(a netip.Addr) string {
	switch {
	case a.IsLoopback():
		return "a loopback address"
	case a.IsPrivate():
		return "a private address"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	}
	for _, p := range reserved {
		if p.prefix.Contains(a) {
			return p.what
		}
	}
	return ""
}

var reserved = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("100.64.0.0/10"), "an address behind a carrier's NAT"}, // RFC 6598
	{netip.MustParsePrefix("0.0.0.0/8"), "an address of no host"},
	{netip.MustParsePrefix("192.0.2.0/24"), "an address for examples"}, // RFC 5737
	{netip.MustParsePrefix("198.51.100.0/24"), "an address for examples"},
	{netip.MustParsePrefix("203.0.113.0/24"), "an address for examples"},
	{netip.MustParsePrefix("2001:db8::/32"), "an address for examples"}, // RFC 3849
	{netip.MustParsePrefix("240.0.0.0/4"), "an address of no host"},
}

func sortedAddrs(in []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, len(in))
	for i, a := range in {
		out[i] = a.Unmap()
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
