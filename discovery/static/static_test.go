package static

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"

	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/pool"
)

func TestDeliversOnceAndStays(t *testing.T) {
	want := []pool.Endpoint{{Address: netip.MustParseAddrPort("172.31.8.233:80"), Weight: 1}}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var updates []discovery.Update
		ended := false
		var running sync.WaitGroup
		running.Go(func() {
			if err := New(want).Run(ctx, func(u discovery.Update) { updates = append(updates, u) }); err != nil {
				t.Errorf("Run: %v", err)
			}
			ended = true
		})
		synctest.Wait()
		if ended {
			t.Error("ended without being told to")
		}
		if len(updates) != 1 || updates[0].Err != nil || len(updates[0].Endpoints) != 1 || updates[0].Endpoints[0].Address != want[0].Address {
			t.Errorf("delivered %+v", updates)
		}
		cancel()
		running.Wait()
	})
}
