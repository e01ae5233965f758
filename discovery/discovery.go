// Package discovery finds out who could serve. A [Source] finds the endpoints
// of one service; the [Catalog] runs the sources and merges what they find
// with what the configuration says into one complete [pool.Set].
//
// # What holds for every source
//
// A source delivers complete sets and nothing else. When it cannot make one,
// it says so and why ([Update].Err), and the last good set stays in force: to
// serve from a list that is old is better than from one that is wrong, since
// the probes find out who on it is no longer there.
//
// # Who wins a conflict
//
// A listener or a hostname belongs to one service, and where several share a
// listener by their [pool.Match], so does each name there. Of two that claim it,
// the one keeps it that already had it; where none had, the first in
// [Want].Services. The other is served without it, and the conflict is
// logged, counted and shown until it is gone.
package discovery

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/pool"
)

// A Source finds the endpoints of a service.
type Source interface {
	// Run finds and keeps on finding until ctx is cancelled, then it returns
	// nil. It calls deliver with the full set as soon as it has one and each
	// time the set has changed. deliver may be called by several goroutines,
	// does not block, and keeps the slice.
	//
	// A Source that returns before it was told to is run again, after a pause
	// that grows from a second to half a minute.
	Run(ctx context.Context, deliver func(Update)) error
}

// An Update is what a Source found: the full set of endpoints in any order,
// or the reason why it has none.
type Update struct {
	Endpoints []pool.Endpoint

	// Probe is what the source knows about how to ask the endpoints for their
	// health. The zero value: nothing.
	Probe Probe

	// Err, if not nil, says why there is no set; Endpoints is ignored and the
	// last good set stays in force. It is logged when its text changes, so
	// that should not contain what differs each time.
	Err error
}

// A Probe is a GET over HTTP that endpoints answer with 200 to 399 if they are
// well. It is comparable.
type Probe struct {
	Port uint16 // 0: there is none
	Path string
}

// A Service is a wanted service and where its endpoints come from.
type Service struct {
	pool.Service // without Endpoints: what stands there is ignored

	Source     Source // required
	SourceName string // in logs, metrics and the status, such as "web/static"; empty: the name of the service

	// SourceKey tells one source from another. As long as a key is wanted, the
	// Source that came with it first keeps running; services with one key
	// share it. Empty: SourceName.
	SourceKey string

	// OwnProbe: Probe of the pool.Service says what is asked; what the source
	// knows about that is ignored. Its times hold in any case.
	OwnProbe bool
}

// Want is everything that the configuration asks for.
type Want struct {
	Host     pool.Host
	DNS      pool.DNS
	Services []Service
}

// A Store keeps values over restarts, by name.
type Store interface {
	Load(name string, v any) (bool, error)
	Save(name string, v any) error
}

// A Saver takes what is given to a process that takes over.
type Saver interface {
	Save(name string, v any) error
}

// Options are what a [Catalog] works with. Only Deliver is required.
type Options struct {
	// Deliver is called with each Set that differs from the one before, by
	// one goroutine. It should not block.
	Deliver func(*pool.Set)

	Store      Store                 // nil: nothing outlives the process
	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: the metrics are not registered
}

// A Conflict is something that a service wants and another one has.
type Conflict struct {
	Service string
	Claim   string // in words, such as "listener 0.0.0.0:80" or "name web.example.com"
	Holder  string // the service that has it
}

// SourceStatus is how the source of one service is doing.
type SourceStatus struct {
	Name      string
	Endpoints int       // in the set in force
	Updated   time.Time // when that set was delivered; zero: never
	Err       string    // why that set is not the newest, and what the service was refused; empty: all is well
}
