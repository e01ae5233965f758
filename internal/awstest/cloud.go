// Package awstest is a small EC2 for tests: the Query protocol over HTTP with
// signatures that are checked, instances and Elastic IPs that behave as the real
// ones do where elbow cares, the instance metadata service in its version 2,
// and faults on demand. It refuses whatever it does not know, so that a
// client that asks for something else fails its test.
package awstest

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The credentials that the cloud accepts, unless it is told others.
const (
	AccessKey = "AKIAELBOWTEST0000001"
	SecretKey = "s3cret/elbow+test+key/that/must/never/be/seen"
	Region    = "eu-central-1"
)

// An Instance is one of EC2.
type Instance struct {
	ID      string
	State   string // pending, running, shutting-down, stopping, stopped, terminated; empty: running
	Private netip.Addr
	Public  netip.Addr // of its own; an Elastic IP hides it
	IPv6    []netip.Addr
	Zone    string
	DNS     string // private name
	VPC     string
	Tags    map[string]string
}

// An Address is an Elastic IP.
type Address struct {
	Allocation string
	Public     netip.Addr
	Instance   string // empty: nowhere
}

// A Call is one request that the cloud has understood, whatever it answered.
type Call struct {
	Action string
	At     time.Time
	Key    string // the access key that it was signed with
	Form   map[string]string
}

// A Fault is what becomes of a call in place of an answer. The zero value is
// none.
type Fault struct {
	Status  int // with Code and Message: an error
	Code    string
	Message string
	Drop    bool          // the connection is closed without an answer, and nothing is done
	Delay   time.Duration // before the call is carried out
	Late    time.Duration // after it was carried out, before the answer
	Pretend bool          // it is answered as if done, and nothing is done
}

// Faults say what becomes of calls, one after the other. What they say may be replaced
// at any time; the zero value: nothing goes wrong.
type Faults struct {
	mu     sync.Mutex
	decide func(Call) Fault // guarded by mu, and called under it
}

// Set has decide say what becomes of calls from now on; nil: nothing goes wrong.
func (f *Faults) Set(decide func(Call) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.decide = decide
}

// Of is for [Cloud.Fault].
func (f *Faults) Of(c Call) Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.decide == nil {
		return Fault{}
	}
	return f.decide(c)
}

// A Cloud is one region of EC2. Its methods may be called by several
// goroutines. Its zero value is empty.
type Cloud struct {
	// Fault is asked before each call; nil: none. It must be set before the
	// first call, and is called without locks.
	Fault func(Call) Fault

	PageSize int // of DescribeInstances; 0: as the client asks

	mu        sync.Mutex
	instances []Instance
	addresses []Address
	secrets   map[string]string // by access key, besides the one above
	calls     []Call
	moves     int
}

// AddInstance adds i, or replaces the one with its ID.
func (c *Cloud) AddInstance(i Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i.State == "" {
		i.State = "running"
	}
	at := slices.IndexFunc(c.instances, func(o Instance) bool { return o.ID == i.ID })
	if at >= 0 {
		c.instances[at] = i
		return
	}
	c.instances = append(c.instances, i)
}

// AddAddress adds a.
func (c *Cloud) AddAddress(a Address) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addresses = append(c.addresses, a)
}

// AddCredentials makes the cloud accept another key.
func (c *Cloud) AddCredentials(key, secret string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.secrets == nil {
		c.secrets = make(map[string]string)
	}
	c.secrets[key] = secret
}

// Holder returns the instance that an Elastic IP is at.
func (c *Cloud) Holder(allocation string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.addresses {
		if a.Allocation == allocation {
			return a.Instance
		}
	}
	return ""
}

// Move moves an Elastic IP, as another program would.
func (c *Cloud) Move(allocation, instance string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.associate(allocation, instance, true); err != nil {
		panic(err)
	}
}

// Calls returns what was called so far.
func (c *Cloud) Calls() []Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

// Count returns how often action was called.
func (c *Cloud) Count(action string) int {
	n := 0
	for _, call := range c.Calls() {
		if call.Action == action {
			n++
		}
	}
	return n
}

// Actions returns what was called, each once, as policies name it.
func (c *Cloud) Actions() []string {
	var out []string
	for _, call := range c.Calls() {
		out = append(out, "ec2:"+call.Action)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// apiError is an error as EC2 tells it.
type apiError struct {
	status        int
	code, message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func refuse(code, format string, args ...any) error {
	return &apiError{400, code, fmt.Sprintf(format, args...)}
}

// associate does as AssociateAddress: the address leaves where it was, and the
// one that the instance had is displaced without a word.
func (c *Cloud) associate(allocation, instance string, allow bool) error {
	i := slices.IndexFunc(c.addresses, func(a Address) bool { return a.Allocation == allocation })
	if i < 0 {
		return refuse("InvalidAllocationID.NotFound", "The allocation ID '%s' does not exist", allocation)
	}
	if !slices.ContainsFunc(c.instances, func(o Instance) bool { return o.ID == instance && o.State != "terminated" }) {
		return refuse("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", instance)
	}
	a := &c.addresses[i]
	if a.Instance == instance {
		return nil
	}
	if a.Instance != "" && !allow {
		return refuse("Resource.AlreadyAssociated", "resource %s is already associated", allocation)
	}
	for j := range c.addresses {
		if c.addresses[j].Instance == instance {
			c.addresses[j].Instance = ""
		}
	}
	a.Instance = instance
	c.moves++
	return nil
}
