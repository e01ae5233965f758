package config

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

const (
	maxTags      = 50  // that an instance can have
	maxTagKey    = 128 // characters
	maxTagValue  = 256
	maxGroupName = 255
)

// EC2Source says which instances the endpoints are.
type EC2Source struct {
	Region   string // empty: aws.region
	Tags     map[string]string
	Group    string // the Auto Scaling group; empty: any or none
	VPC      string // the network; empty: any
	Port     int
	Naming   EC2Naming
	Interval time.Duration // from one look to the next
}

// EC2Naming says what an instance is called as a node.
type EC2Naming uint8

const (
	EC2ByID   EC2Naming = iota // its ID
	EC2ByName                  // its tag Name
	EC2ByDNS                   // its private DNS name
)

func (n EC2Naming) String() string { return [...]string{"id", "name", "dns"}[n] }

func parseEC2Naming(s string) (EC2Naming, error) {
	for _, n := range []EC2Naming{EC2ByID, EC2ByName, EC2ByDNS} {
		if s == n.String() {
			return n, nil
		}
	}
	return 0, fmt.Errorf("unknown value %s, want one of id, name, dns", quote(s))
}

func ec2Source(to *EC2Source) rule {
	e := EC2Source{Interval: 15 * time.Second}
	all := section{
		{"region", text(&e.Region, "a region of AWS", parseRegion)},
		{"tags", tags(&e.Tags)},
		{"autoScalingGroup", text(&e.Group, "the name of an Auto Scaling group", parseGroup)},
		{"vpc", text(&e.VPC, "the ID of a VPC", parseVPC)},
		{"port", required(portNumber(&e.Port))},
		{"node", enum(&e.Naming, parseEC2Naming)},
		{"interval", duration(&e.Interval, time.Second, time.Hour)},
	}
	return rule{decode: func(d *decoder, v value) {
		all.decode(d, v)
		*to = e
	}}
}

// portNumber is number without a default.
func portNumber(to *int) rule {
	r := number(to, 1, 65535)
	r.about = func() string { return "number, 1 to 65535" }
	return r
}

// tags makes a rule for a mapping of names of tags to their values.
func tags(to *map[string]string) rule {
	return rule{
		decode: func(d *decoder, v value) {
			if !d.is(v, yaml.MappingNode, "a mapping") {
				return
			}
			if n := len(v.Content) / 2; n > maxTags {
				d.fail(v.path, "has %d entries, at most %d are allowed", n, maxTags)
				return
			}
			all := make(map[string]string)
			for i := 0; i+1 < len(v.Content); i += 2 {
				name := v.Content[i]
				if name.Kind != yaml.ScalarNode {
					d.add(Error{Line: name.Line, Column: name.Column, Path: v.path, Message: "a key must be a word"})
					continue
				}
				at := join(v.path, name.Value)
				if err := checkTag(name.Value, maxTagKey); err != nil || name.Value == "" {
					d.add(Error{Line: name.Line, Column: name.Column, Path: at, Message: "is no name of a tag: 1 to 128 printable characters"})
					continue
				}
				if _, doubled := all[name.Value]; doubled {
					d.add(Error{Line: name.Line, Column: name.Column, Path: at, Message: "stands here twice"})
					continue
				}
				var text string
				d.visit(v.Content[i+1], at, scalar(&text, "a text", func(s string) (string, error) {
					return s, checkTag(s, maxTagValue)
				}))
				all[name.Value] = text
			}
			*to = maps.Clone(all)
		},
		about: func() string { return fmt.Sprintf("a mapping, at most %d", maxTags) },
	}
}

func checkTag(s string, limit int) error {
	switch {
	case utf8.RuneCountInString(s) > limit:
		return fmt.Errorf("has %d characters, at most %d are allowed", utf8.RuneCountInString(s), limit)
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Errorf("%s has characters that cannot be printed", quote(s))
	case strings.ContainsAny(s, "*?\\"):
		return fmt.Errorf("%s has one of * ? and \\, which EC2 takes for patterns; they are not supported", quote(s))
	}
	return nil
}

func parseGroup(s string) (string, error) {
	if s == "" {
		return "", errors.New("is empty; leave the key out instead")
	}
	return s, checkTag(s, maxGroupName)
}

func parseVPC(s string) (string, error) {
	digits, ok := strings.CutPrefix(s, "vpc-")
	if !ok || digits == "" || len(s) > 64 || strings.ContainsFunc(digits, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'f')
	}) {
		return "", fmt.Errorf("%s is no ID of a VPC; write it like vpc-0123456789abcdef0", quote(s))
	}
	return s, nil
}

// checkEC2 checks the source as a whole.
func (d *decoder) checkEC2(e *EC2Source, at string, region string) {
	if d.bad(at) {
		return
	}
	if e.Region == "" {
		e.Region = region
	}
	if len(e.Tags) == 0 && e.Group == "" && !d.bad(at+".tags") && !d.bad(at+".autoScalingGroup") {
		d.fail(at, "has neither tags nor autoScalingGroup: every instance of the account would serve")
	}
}

// checkElasticIP checks what the address needs of the rest of the file.
func (d *decoder) checkElasticIP(c *Config) {
	e := &c.AWS.ElasticIP
	e.On = d.has("aws.elasticIP")
	if e.On && e.AllocationID == "" && len(c.Host.Addresses) == 0 && !d.bad("aws.elasticIP.allocationID") && !d.bad("host.addresses") {
		d.fail("aws.elasticIP", "nothing says which address it is: set allocationID, or host.addresses")
	}
}
