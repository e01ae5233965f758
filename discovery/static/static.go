// Package static is the source of endpoints that stand in the configuration.
package static

import (
	"context"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/pool"
)

type source []pool.Endpoint

// New returns a Source that delivers endpoints, once. It keeps the slice.
func New(endpoints []pool.Endpoint) discovery.Source { return source(endpoints) }

func (s source) Run(ctx context.Context, deliver func(discovery.Update)) error {
	deliver(discovery.Update{Endpoints: s})
	<-ctx.Done()
	return nil
}
