package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"haslohas.com/elbow/labels"
)

// Kubernetes says which cluster is asked.
type Kubernetes struct {
	Kubeconfig string // path; empty: as kubectl finds it

	LoadBalancerClass string // of the Services that are fulfilled; empty: none is
	PublicFromEC2     bool   // nodes without an ExternalIP have the public address of their instance
	GatewayController string // of the GatewayClasses that are served; empty: none is
	Events            bool   // the cluster is told when a backend goes down or comes back
}

// parsePublicFrom parses where the public addresses of nodes come from.
func parsePublicFrom(s string) (ec2 bool, err error) {
	switch s {
	case "nodes":
		return false, nil
	case "ec2":
		return true, nil
	}
	return false, fmt.Errorf("unknown value %s, want nodes or ec2", quote(s))
}

// parseClass parses a loadBalancerClass: a name, or one with a domain in front.
func parseClass(s string) (string, error) {
	name := s
	if domain, rest, ok := strings.Cut(s, "/"); ok {
		if _, err := parseHostname(domain); err != nil {
			return "", fmt.Errorf("%s is no class: %s is no domain", quote(s), quote(domain))
		}
		name = rest
	}
	if s != "" && (name == "" || len(name) > 63 || strings.Trim(name, "-_.") != name || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.", r)
	})) {
		return "", fmt.Errorf("%s is no class; write it like haslohas.com/elbow", quote(s))
	}
	return s, nil
}

// parseController parses the controllerName of GatewayClasses: a domain and a path.
func parseController(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	domain, path, _ := strings.Cut(s, "/")
	name, err := parseHostname(domain)
	if err != nil || name != domain || path == "" || len(s) > 253 || strings.ContainsFunc(path, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"#<>?@[\\]^`{|}", r)
	}) {
		return "", fmt.Errorf("%s is no controller; write it like haslohas.com/elbow", quote(s))
	}
	return s, nil
}

// A Port is a port's number or, where a cluster knows it, its name.
type Port struct {
	Number uint16 // 0: Name counts
	Name   string // empty too: no port is given
}

// Via says where endpoints of a cluster are connected to.
type Via uint8

const (
	ViaHostPort Via = iota // the node, at the hostPort of a container
	ViaPodIP               // the pod
	ViaNodePort            // the nodes, at the node port of a Service
)

func (v Via) String() string { return [...]string{"hostPort", "podIP", "nodePort"}[v] }

func parseVia(s string) (Via, error) {
	for _, v := range []Via{ViaHostPort, ViaPodIP, ViaNodePort} {
		if s == v.String() {
			return v, nil
		}
	}
	return 0, fmt.Errorf("unknown value %s, want one of hostPort, podIP, nodePort", quote(s))
}

// KubernetesSource says which pods, or what behind which Service, the
// endpoints are.
type KubernetesSource struct {
	Namespace string
	Selector  string // where Service is empty
	Service   string
	Port      Port
	Via       Via

	IncludeExcluded bool // nodes that are excluded from load balancers too
}

// FileSource is a list of targets, or one that kubectl printed.
type FileSource struct {
	Path     string
	Port     Port   // of the pods or nodes in it
	Selector string // of the pods or nodes in it
	Via      Via    // of the pods in it; ViaHostPort or ViaPodIP
}

func kubernetesSource(k *KubernetesSource) rule {
	return section{
		{"namespace", label(&k.Namespace, "a namespace")},
		{"selector", selector(&k.Selector)},
		{"service", label(&k.Service, "the name of a Service")},
		{"port", required(clusterPort(&k.Port))},
		{"via", via(&k.Via, "one of hostPort, podIP, nodePort")},
		{"includeExcludedNodes", boolean(&k.IncludeExcluded)},
	}.rule()
}

// fileSource is the rule for a file: its path alone, or a mapping.
func fileSource(f *FileSource) rule {
	long, brief := section{
		{"path", required(path(&f.Path))},
		{"port", clusterPort(&f.Port)},
		{"selector", selector(&f.Selector)},
		{"via", via(&f.Via, "one of hostPort, podIP")},
	}.rule(), path(&f.Path)
	return rule{decode: func(d *decoder, v value) {
		if v.Kind == yaml.MappingNode {
			long.decode(d, v)
		} else {
			brief.decode(d, v)
		}
	}}
}

func via(to *Via, about string) rule {
	r := enum(to, parseVia)
	r.about = func() string { return about }
	return r
}

// label makes a rule for the name of an object in a cluster, RFC 1123: lower
// case letters, digits and hyphens.
func label(to *string, want string) rule {
	return text(to, want, func(s string) (string, error) {
		switch {
		case s == "":
			return "", fmt.Errorf("is empty; want %s", want)
		case len(s) > 63:
			return "", fmt.Errorf("%s has %d bytes; a name in a cluster has at most 63", quote(s), len(s))
		case strings.Trim(s, "-") != s || strings.ContainsFunc(s, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
		}):
			return "", fmt.Errorf("%s is not %s: lower case letters, digits and hyphens, no hyphen first or last", quote(s), want)
		}
		return s, nil
	})
}

// selector makes a rule for a label selector.
func selector(to *string) rule {
	return text(to, "a label selector", func(s string) (string, error) {
		_, err := labels.Parse(s)
		return s, err
	})
}

// clusterPort makes a rule for a port's number or name.
func clusterPort(to *Port) rule {
	return scalar(to, "a port's number or name", parseClusterPort)
}

func parseClusterPort(s string) (Port, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 65535 || strconv.Itoa(n) != s {
			return Port{}, fmt.Errorf("must be from 1 to 65535 or a name, got %s", quote(s))
		}
		return Port{Number: uint16(n)}, nil
	}
	// An IANA service name, RFC 6335 section 5.1. Those of Services may be longer.
	if s == "" || len(s) > 63 || strings.Trim(s, "-") != s || strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	}) {
		return Port{}, fmt.Errorf("%s is neither a port from 1 to 65535 nor the name of one: lower case letters, digits and hyphens", quote(s))
	}
	return Port{Name: s}, nil
}

func (d *decoder) checkFile(f *FileSource, at string) {
	where := at
	if d.has(at + ".path") {
		where += ".path"
	}
	if f.Path == "" && !d.bad(at) && !d.bad(at+".path") {
		d.fail(where, "is empty")
	}
	if f.Via == ViaNodePort && !d.bad(at+".via") {
		d.fail(at+".via", "nodePort is for a service of backends.kubernetes; pods in a file are reached via hostPort or podIP")
	}
}

func (d *decoder) checkKubernetes(k *KubernetesSource, at string) {
	if d.bad(at) {
		return
	}
	if k.Namespace == "" {
		k.Namespace = "default"
	}
	pods, service := d.has(at+".selector"), d.has(at+".service")
	switch {
	case pods && service:
		d.fail(at, "has selector and service; want one of them: pods by their labels, or what is behind a Service")
		return
	case !pods && !service:
		d.fail(at, "has neither selector nor service; want one of them: pods by their labels, or what is behind a Service")
		return
	case !d.has(at + ".via"):
		if service {
			k.Via = ViaPodIP
		}
		return
	case d.bad(at + ".via"):
		return
	}
	if pods && k.Via == ViaNodePort {
		d.fail(at+".via", "nodePort is for a service; pods are reached via hostPort or podIP")
	}
	if service && k.Via == ViaHostPort {
		d.fail(at+".via", "hostPort is for pods by selector; what is behind a service is reached via podIP or nodePort")
	}
}
