package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// AWS says what is asked of Amazon, and where. Credentials are never among it:
// they are found as the tools of AWS find them.
type AWS struct {
	Region   string // empty: as the tools of AWS find it
	Endpoint string // URL of all services; empty: that of each

	Delegation Delegation
	ElasticIP  ElasticIP
}

// Delegation says how the parent zone leads to the zones of dns.zones.
type Delegation struct {
	On bool // the file has the section: the daemon looks after it

	ParentZone   string        // empty: the longest public hosted zone around each zone
	HostedZoneID string        // which of several hosted zones of that name; empty: there is one
	TTL          time.Duration // of what is written, whole seconds
	Owner        string        // who writes, in the marker beside it
	Manage       bool          // the daemon repairs what differs

	Interval      time.Duration    // from one look to the next
	ParentServers []netip.AddrPort // who is asked; empty: the name servers of the parent zone
	Private       bool             // addresses of name servers may be private
}

// ElasticIP says which address this host is to hold.
type ElasticIP struct {
	On           bool   // the file has the section: the daemon looks after it
	AllocationID string // empty: the first of host.addresses that EC2 knows
	Takeover     bool   // take it when it is this host's turn
	Lease        Lease  // whose turn it is
}

// A Lease is the one in a cluster that hosts take turns by.
type Lease struct {
	Namespace string
	Name      string
	Duration  time.Duration // for which it is taken and renewed
}

// aws is the rule for the section.
func aws(a *AWS) rule {
	return section{
		{"region", text(&a.Region, "a region of AWS", parseRegion)},
		{"endpoint", text(&a.Endpoint, "a URL", parseEndpoint)},
		{"delegation", section{
			{"parentZone", hostname(&a.Delegation.ParentZone)},
			{"hostedZoneID", text(&a.Delegation.HostedZoneID, "the ID of a hosted zone", parseHostedZone)},
			{"ttl", ttl(&a.Delegation.TTL)},
			{"owner", name(&a.Delegation.Owner)},
			{"manage", boolean(&a.Delegation.Manage)},
			{"interval", duration(&a.Delegation.Interval, time.Minute, 24*time.Hour)},
			{"parentServers", list(&a.Delegation.ParentServers, maxNameServers, remote)},
			{"private", boolean(&a.Delegation.Private)},
		}.rule()},
		{"elasticIP", section{
			{"allocationID", text(&a.ElasticIP.AllocationID, "the ID of an allocation", parseAllocation)},
			{"takeover", boolean(&a.ElasticIP.Takeover)},
			{"lease", section{
				{"namespace", label(&a.ElasticIP.Lease.Namespace, "a namespace")},
				{"name", label(&a.ElasticIP.Lease.Name, "the name of a Lease")},
				{"duration", duration(&a.ElasticIP.Lease.Duration, 4*time.Second, time.Minute)},
			}.rule()},
		}.rule()},
	}.rule()
}

func defaultAWS() AWS {
	return AWS{Delegation: Delegation{TTL: time.Hour, Owner: "elbow", Interval: 5 * time.Minute},
		ElasticIP: ElasticIP{Lease: Lease{Namespace: "default", Name: "elbow-elastic-ip", Duration: 8 * time.Second}}}
}

func parseRegion(s string) (string, error) {
	if len(s) > 64 || strings.Trim(s, "-") != s || strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	}) {
		return "", fmt.Errorf("%s is no region; write it like eu-central-1", quote(s))
	}
	return s, nil
}

func parseEndpoint(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	u, err := url.Parse(s)
	switch {
	case len(s) > 2048:
		return "", fmt.Errorf("has %d bytes, at most 2048 are allowed", len(s))
	case err == nil && u.User != nil: // and the error does not show it
		return "", errors.New("has a user or password in it; credentials belong where the tools of AWS find them")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("%s is no URL of a service; write it like https://HOST:PORT", quote(s))
	}
	return strings.TrimSuffix(s, "/"), nil
}

func parseHostedZone(s string) (string, error) {
	id := strings.TrimPrefix(s, "/hostedzone/")
	if len(id) > 32 || strings.ContainsFunc(id, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') }) {
		return "", fmt.Errorf("%s is no ID of a hosted zone; write it like Z0123456789ABCDEFGHIJ", quote(s))
	}
	return id, nil
}

func parseAllocation(s string) (string, error) {
	digits, ok := strings.CutPrefix(s, "eipalloc-")
	if s != "" && (!ok || digits == "" || len(s) > 64 || strings.ContainsFunc(digits, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'f')
	})) {
		return "", fmt.Errorf("%s is no ID of an allocation; write it like eipalloc-0123456789abcdef0", quote(s))
	}
	return s, nil
}

// checkAWS checks the section as a whole.
func (d *decoder) checkAWS(c *Config) {
	a := &c.AWS
	a.Delegation.On = d.has("aws.delegation")
	if a.Delegation.HostedZoneID != "" && a.Delegation.ParentZone == "" && !d.bad("aws.delegation.parentZone") {
		d.fail("aws.delegation.hostedZoneID", "is given without parentZone, the name of that zone")
	}
	if a.Delegation.On && len(c.DNS.Zones) == 0 && !d.bad("dns.zones") && !d.bad("dns") && !d.bad("aws.delegation") {
		d.fail("aws.delegation", "there is no zone in dns.zones that a parent zone could lead to")
	}
	if a.ElasticIP.Takeover && a.ElasticIP.AllocationID == "" && !d.bad("aws.elasticIP") && !d.bad("aws.elasticIP.allocationID") {
		d.fail("aws.elasticIP.takeover", "is given without allocationID, the address to take")
	}
}
