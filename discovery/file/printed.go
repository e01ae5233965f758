package file

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"haslohas.com/elbow/labels"
	"haslohas.com/elbow/pool"
)

// Printed says what is taken from a list that kubectl printed.
type Printed struct {
	// Port of a container whose pod is listed, or, by its number, to connect to on
	// a node that is listed. The zero value: the only one that a pod has.
	Port Port

	Selector string // only pods or nodes with these labels; empty: all
	PodIP    bool   // connect to pods themselves; else to their nodes, at the hostPort
}

// A Port is a port's number or its name.
type Port struct {
	Number uint16 // 0: Name counts
	Name   string
}

// labelZone and the annotations are those of package discovery/kubernetes.
const (
	labelZone          = "topology.kubernetes.io/zone"
	annotationWeight   = "elbow.haslohas.com/weight"
	annotationPriority = "elbow.haslohas.com/priority"
)

// A printedList is what kubectl get -o json prints: many objects, or one. The
// kind and, below, most fields stand in several places, as there were several
// versions: v1 of today, v1beta1 of 2014, and what kubectl made of that.
type printedList struct {
	Kind     string            `json:"kind"`
	Metadata printedMeta       `json:"metadata"`
	SelfLink string            `json:"selfLink"`
	Items    []json.RawMessage `json:"items"`
}

type printedMeta struct {
	Name              string            `json:"name"`
	SelfLink          string            `json:"selfLink"`
	Labels            map[string]string `json:"labels"`
	Annotations       map[string]string `json:"annotations"`
	DeletionTimestamp string            `json:"deletionTimestamp"`
}

// A printedObject is a pod or a node. v1 has metadata, spec and status; v1beta1
// has id and labels on top, and of pods desiredState and currentState.
type printedObject struct {
	Kind     string      `json:"kind"`
	Metadata printedMeta `json:"metadata"`
	Spec     struct {
		NodeName    string             `json:"nodeName"`
		HostNetwork bool               `json:"hostNetwork"`
		Containers  []printedContainer `json:"containers"`
	} `json:"spec"`
	Status struct {
		Phase     string `json:"phase"`
		Host      string `json:"host"`
		HostIP    string `json:"hostIP"`
		PodIP     string `json:"podIP"`
		Addresses []struct {
			Type    string `json:"type"`
			Address string `json:"address"`
		} `json:"addresses"`
	} `json:"status"`

	ID           string            `json:"id"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	HostIP       string            `json:"hostIP"`
	DesiredState printedState      `json:"desiredState"`
	CurrentState printedState      `json:"currentState"`
}

type printedState struct {
	Manifest struct {
		Containers []printedContainer `json:"containers"`
	} `json:"manifest"`
	Status string `json:"status"`
	Host   string `json:"host"`
	HostIP string `json:"hostIP"`
	PodIP  string `json:"podIP"`
}

type printedContainer struct {
	Ports []printedPort `json:"ports"`
}

type printedPort struct {
	Name          string `json:"name"`
	ContainerPort int    `json:"containerPort"`
	HostPort      int    `json:"hostPort"`
	HostIP        string `json:"hostIP"`
	Protocol      string `json:"protocol"`
}

func (o *printedObject) name() string { return cmp.Or(o.Metadata.Name, o.ID) }

func (o *printedObject) labels() map[string]string {
	if o.Metadata.Labels != nil {
		return o.Metadata.Labels
	}
	return o.Labels
}

func (o *printedObject) node() string {
	node := cmp.Or(o.Spec.NodeName, o.CurrentState.Host, o.Status.Host, o.DesiredState.Host)
	return strings.TrimSuffix(node, "/") // as in 172.31.8.233/ of 2014
}

func (o *printedObject) containers() []printedContainer {
	if len(o.Spec.Containers) > 0 {
		return o.Spec.Containers
	}
	return o.DesiredState.Manifest.Containers
}

// runs reports whether the pod is there: whether it is well the probes find out.
func (o *printedObject) runs() bool {
	return cmp.Or(o.Status.Phase, o.CurrentState.Status) == "Running"
}

// A printedNode is what is used of a node.
type printedNode struct {
	internal netip.Addr // invalid: it has none
	public   []netip.Addr
	zone     string
}

// isPrinted reports whether text is for parsePrinted: an object, not a list.
func isPrinted(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) && json.Valid(text)
}

// A printedParser reads a list that kubectl printed.
type printedParser struct {
	*parser
	Printed
	text     []byte
	selector labels.Selector
	nodes    map[string]printedNode
}

// parsePrinted reads pods or nodes. Where both are listed, the pods are what
// counts, and the nodes tell their addresses and zones.
func (p *parser) parsePrinted(text []byte, what Printed) error {
	pp := &printedParser{parser: p, Printed: what, text: text, nodes: make(map[string]printedNode)}
	var err error
	if pp.selector, err = labels.Parse(what.Selector); err != nil {
		return p.errorf(1, "%w", err)
	}
	var list printedList
	if err := json.Unmarshal(text, &list); err != nil {
		return pp.jsonError(0, "the list", text, err)
	}
	items, ofAll := list.Items, kindOf(list.Kind, cmp.Or(list.Metadata.SelfLink, list.SelfLink))
	if list.Items == nil {
		if ofAll == "" || strings.HasSuffix(list.Kind, "List") {
			return p.errorf(1, "want a list of target groups, or of pods or nodes as kubectl get -o json prints it: "+
				"this is an object without items")
		}
		items = []json.RawMessage{text}
	}
	if len(items) > maxTargets {
		return p.errorf(1, "%d items, the limit is %d", len(items), maxTargets)
	}
	objects, kinds := make([]printedObject, len(items)), make(map[string]int)
	offset := 0
	lines := make([]int, len(items))
	for i, item := range items {
		at := bytes.Index(text[offset:], item)
		lines[i] = 1 + bytes.Count(text[:offset+at], []byte("\n"))
		if err := json.Unmarshal(item, &objects[i]); err != nil {
			return pp.jsonError(lines[i]-1, fmt.Sprintf("items[%d]", i), item, err)
		}
		offset += at + len(item)
		kind := cmp.Or(kindOf(objects[i].Kind, objects[i].Metadata.SelfLink), ofAll)
		if kind == "" {
			return p.errorf(lines[i], "items[%d]: %s, want a pod or a node", i, unknownKind(objects[i].Kind, list.Kind))
		}
		objects[i].Kind = kind
		kinds[kind]++
	}
	return pp.endpoints(objects, lines, kinds)
}

func unknownKind(kind, ofList string) string {
	if kind = cmp.Or(kind, ofList); kind == "" || kind == "List" {
		return "neither a kind nor a selfLink says what it is"
	}
	return "it is of kind " + strconv.Quote(kind)
}

// kindOf returns Pod or Node by a kind or, where that is missing as in some
// lists of v1beta1, by the link to itself; "" if it is neither.
func kindOf(kind, link string) string {
	if kind == "" || kind == "List" {
		link, _, _ = strings.Cut(link, "?")
		kind = path.Base(link)
	}
	switch strings.TrimSuffix(kind, "List") {
	case "Pod", "pods":
		return "Pod"
	case "Node", "Minion", "nodes", "minions":
		return "Node"
	}
	return ""
}

func (p *printedParser) endpoints(objects []printedObject, lines []int, kinds map[string]int) error {
	for i := range objects {
		if o := &objects[i]; o.Kind == "Node" {
			p.nodes[o.name()] = readNode(o)
		}
	}
	of := "Pod"
	if kinds["Pod"] == 0 {
		of = "Node"
	}
	selected := 0
	for i := range objects {
		o := &objects[i]
		if o.Kind != of || !p.selector.Matches(o.labels()) {
			continue
		}
		selected++
		e, ok, err := p.endpoint(o)
		if err != nil {
			return p.errorf(lines[i], "items[%d], %s %q: %w", i, strings.ToLower(of), o.name(), err)
		}
		if ok {
			p.parser.endpoints = append(p.parser.endpoints, e)
		}
	}
	if selected > 0 && len(p.parser.endpoints) == 0 {
		return p.errorf(1, "of %d pods in the list none is running", selected)
	}
	return nil
}

// endpoint returns what o becomes; ok is false for a pod that does not run.
func (p *printedParser) endpoint(o *printedObject) (e pool.Endpoint, ok bool, err error) {
	e = pool.Endpoint{Weight: 1}
	for _, a := range []struct {
		name string
		most int
		to   *int
	}{{annotationWeight, maxWeight, &e.Weight}, {annotationPriority, maxPriority, &e.Priority}} {
		if v := cmp.Or(o.Metadata.Annotations[a.name], o.Annotations[a.name]); v != "" {
			if *a.to, err = parseNumber(v, a.most); err != nil {
				return e, false, fmt.Errorf("annotation %s: %w", a.name, err)
			}
		}
	}
	if o.Metadata.DeletionTimestamp != "" {
		e.Phase = pool.Terminating
	}
	if o.Kind == "Node" {
		e.Node = o.name()
		e.Address, err = p.atNode(p.nodes[e.Node])
	} else {
		if !o.runs() {
			return e, false, nil
		}
		e.Node = o.node()
		e.Zone = o.labels()[labelZone]
		e.Address, err = p.atPod(o)
	}
	if n, known := p.nodes[e.Node]; known {
		e.Zone = n.zone
		if !p.PodIP {
			e.Public = n.public
		}
	}
	return e, true, err
}

func readNode(o *printedObject) printedNode {
	n := printedNode{zone: o.labels()[labelZone]}
	for _, a := range o.Status.Addresses {
		ip, err := parseIP(a.Address)
		switch {
		case err != nil:
		case a.Type == "ExternalIP":
			n.public = append(n.public, ip)
		case (a.Type == "InternalIP" || a.Type == "LegacyHostIP") && !n.internal.IsValid():
			n.internal = ip
		}
	}
	// v1beta1: an address of its own, or the name is one.
	for _, s := range []string{o.HostIP, o.Status.HostIP, o.name()} {
		if ip, err := parseIP(s); err == nil && !n.internal.IsValid() {
			n.internal = ip
		}
	}
	return n
}

func (p *printedParser) atNode(n printedNode) (at netip.AddrPort, err error) {
	if p.Port.Number == 0 {
		return at, errors.New("a list of nodes does not say which port serves; set file: {path: ..., port: 80}")
	}
	if !n.internal.IsValid() {
		return at, errors.New("has no address of type InternalIP, and its name is no IP address")
	}
	return netip.AddrPortFrom(n.internal, p.Port.Number), nil
}

func (p *printedParser) atPod(o *printedObject) (at netip.AddrPort, err error) {
	port, err := p.choose(o)
	if err != nil {
		return at, err
	}
	number := port.ContainerPort
	if !p.PodIP && !o.Spec.HostNetwork {
		number = port.HostPort
	}
	if number <= 0 || number > 65535 {
		return at, fmt.Errorf("%d is not a port to connect to", number)
	}
	if p.PodIP {
		ip, err := parseIP(cmp.Or(o.Status.PodIP, o.CurrentState.PodIP))
		if err != nil {
			return at, fmt.Errorf("has no podIP: %w", err)
		}
		return netip.AddrPortFrom(ip, uint16(number)), nil
	}
	if n := p.nodes[o.node()]; n.internal.IsValid() {
		return netip.AddrPortFrom(n.internal, uint16(number)), nil
	}
	for _, s := range []string{port.HostIP, o.Status.HostIP, o.CurrentState.HostIP, o.node()} {
		if ip, err := parseIP(s); err == nil {
			return netip.AddrPortFrom(ip, uint16(number)), nil
		}
	}
	return at, errors.New("has no hostIP, and the name of its node is no IP address; print the nodes too: kubectl get -o json pods,nodes")
}

// choose returns the port of o that is connected to.
func (p *printedParser) choose(o *printedObject) (printedPort, error) {
	var fit []printedPort
	for _, c := range o.containers() {
		for _, port := range c.Ports {
			switch {
			case p.Port.Number != 0 && port.ContainerPort != int(p.Port.Number),
				p.Port.Name != "" && port.Name != p.Port.Name,
				!p.PodIP && !o.Spec.HostNetwork && port.HostPort == 0:
				continue
			}
			fit = append(fit, port)
		}
	}
	kind := "hostPort"
	if p.PodIP || o.Spec.HostNetwork {
		kind = "container port"
	}
	switch {
	case len(fit) == 0 && p.Port == Port{}:
		return printedPort{}, fmt.Errorf("has no %s", kind)
	case len(fit) == 0 && kind == "hostPort":
		return printedPort{}, fmt.Errorf("has no container port %s with a hostPort", p.Port)
	case len(fit) == 0:
		return printedPort{}, fmt.Errorf("has no container port %s", p.Port)
	case len(fit) > 1 && p.Port == Port{}:
		return printedPort{}, fmt.Errorf("has %d ports; say which: file: {path: ..., port: %d}", len(fit), fit[0].ContainerPort)
	}
	return fit[0], nil
}

func (p Port) String() string {
	if p.Number != 0 {
		return strconv.Itoa(int(p.Number))
	}
	return p.Name
}

func parseIP(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err == nil && (ip.IsUnspecified() || ip.Zone() != "") {
		err = fmt.Errorf("%q is not an address to connect to", s)
	}
	return ip.Unmap(), err
}

// jsonError is err of reading text, which begins after that many lines.
func (p *printedParser) jsonError(before int, what string, text []byte, err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		line := before + 1 + bytes.Count(text[:min(len(text), int(e.Offset))], []byte("\n"))
		return p.errorf(line, "%s: %s: this is no place for %s", what, e.Field, article(e.Value))
	}
	return p.errorf(before+1, "%s: %w", what, err)
}

// article names a JSON value as package json does, with its article.
func article(value string) string {
	switch kind, _, _ := strings.Cut(value, " "); kind {
	case "array", "object":
		return "an " + kind
	default:
		return "a " + kind
	}
}
