// Package elasticip knows whose Elastic IP it is, and takes it over.
//
// A [Keeper] asks EC2 which instance the address is at, and says by a [Belief]
// whether this host may answer with it. With a [Lock] the host that holds the
// lock takes the address; without one the keeper looks and takes nothing.
//
// # Who may answer
//
// Of all hosts that obey one lock, at most one believes that the address is
// its own, whatever the order of events: a host believes so while it holds the
// lock and EC2 has said that the address is here, or, once the lock is lost,
// for the time trust after it asked EC2 and was told that the address is still
// here. A host to which the address has come waits for that time before it
// believes it. docs/decisions/0018-elasticip.md has the argument.
//
// Nothing of this is on the way of a connection or an answer: whoever needs the
// Belief loads a pointer, and is told when it has changed.
package elasticip

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/prometheus/client_golang/prometheus"
)

// API is what is asked of EC2; [ec2.Client] has it.
type API interface {
	DescribeAddresses(context.Context, *ec2.DescribeAddressesInput, ...func(*ec2.Options)) (*ec2.DescribeAddressesOutput, error)
	AssociateAddress(context.Context, *ec2.AssociateAddressInput, ...func(*ec2.Options)) (*ec2.AssociateAddressOutput, error)
}

// A Lock is held by at most one host at a time.
type Lock interface {
	// Run competes for the lock until ctx is cancelled, and then gives it back.
	// Each time it has the lock it calls held with a context that ends when
	// the lock is lost, and waits until held has returned.
	Run(ctx context.Context, held func(context.Context)) error

	// Until returns until when nobody else can have the lock, by the monotonic
	// clock of this host and whatever happens to the host from now on; the
	// zero time: it is not held. It does not block and may be called by
	// several goroutines.
	Until() time.Time
}

// Options say which address it is and who wants it. Connect and an Allocation
// or Addresses are required.
type Options struct {
	// Connect returns the way to EC2 and the ID of this instance. It is called
	// until it has succeeded once.
	Connect func(context.Context) (API, string, error)

	Allocation string       // such as eipalloc-0123456789abcdef0; empty: the first of Addresses that EC2 knows
	Addresses  []netip.Addr // of this host

	Lock Lock // nil: look, take nothing, and withhold nothing

	// Changed is called by one goroutine, without blocking, when the belief
	// differs in more than times. nil: nobody is told.
	Changed func(Belief)

	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: the metrics are not registered
}

// A Belief is what a host knows about the address at one moment. It is
// immutable.
type Belief struct {
	Address    netip.Addr // the zero value: not known yet
	Allocation string
	Instance   string    // this one; empty: not known yet
	Holder     string    // the instance the address is at; empty: none
	Asked      time.Time // before EC2 was asked for what is known; zero: it has not answered yet
	Here       bool      // by that answer the address is at this instance
	Locked     bool      // this host holds the lock
	Mine       bool      // this host, and no other that obeys the lock, may answer with the address
	Takeover   bool      // there is a lock
	Err        string    // why what is known is not the newest; empty: it is
}

// Withheld reports whether this host must not answer with the address.
func (b Belief) Withheld() bool { return b.Takeover && !b.Mine }

// A Keeper keeps a Belief. Its methods may be called by several goroutines.
type Keeper struct {
	Options
	belief  atomic.Pointer[Belief]
	metrics *metrics

	mu      sync.Mutex
	api     API    // guarded by mu, as what follows; nil: not connected yet
	self    string // the ID of this instance
	memory  memory
	holding bool      // the lock is held, and renewed
	last    time.Time // the end of the lock when it was last given up
	err     error
	told    bool          // Changed was called
	wake    chan struct{} // capacity 1: the belief is to be made anew
	look    chan struct{} // capacity 1: EC2 is to be asked now
}

// New returns a Keeper that knows nothing until Run. Metrics that cannot be
// registered are a mistake of the program, and New panics.
func New(o Options) *Keeper {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{Options: o, wake: make(chan struct{}, 1), look: make(chan struct{}, 1)}
	k.belief.Store(&Belief{Allocation: o.Allocation, Takeover: o.Lock != nil})
	k.metrics = newMetrics(k)
	return k
}

// Belief returns what is believed now. It does not block.
func (k *Keeper) Belief() Belief {
	b := *k.belief.Load()
	if b.Mine && b.Takeover && !k.mineAt(time.Now()) {
		b.Mine = false // the keeper comes late: the host was suspended
	}
	return b
}

// Run asks, and takes the address whenever the lock is held, until ctx is
// cancelled.
func (k *Keeper) Run(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { k.watch(ctx) })
	if k.Lock != nil {
		all.Go(func() { k.compete(ctx) })
	}
	k.believe(ctx)
	all.Wait()
	return nil
}

// compete runs the lock, again and again if it gives up.
func (k *Keeper) compete(ctx context.Context) {
	pauses := backoff{least: time.Second, most: 15 * time.Second}
	for ctx.Err() == nil {
		begin := time.Now()
		err := k.Lock.Run(ctx, func(ctx context.Context) { k.take(ctx) })
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errLockEnded
		}
		k.Log.Warn("the lock of the Elastic IP cannot be competed for", "err", err)
		if time.Since(begin) > pauses.most {
			pauses.reset()
		}
		if !sleep(ctx, pauses.next()) {
			return
		}
	}
}

var errLockEnded = errors.New("it ended without being told to")
