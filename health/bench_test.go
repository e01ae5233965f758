package health

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"haslohas.com/elbow/pool"
)

// BenchmarkStorm is one report of a storm about one backend, as the proxy's
// event loops make them at the same time.
func BenchmarkStorm(b *testing.B) {
	c := New(Options{Publisher: new(pool.Publisher)})
	w := newWorld()
	w.kill(one)
	c.prober = w.prober
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- c.Run(ctx) }()
	c.Update(setOf(serviceOf("web", one, two)))
	<-c.Ready()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.ConnectFailed("web", one, "connect refused")
		}
	})
	cancel()
	<-ended
}

// BenchmarkPublish is a table after one backend of many has changed.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n, " backends"), func(b *testing.B) {
			var addresses []netip.AddrPort
			for i := range n {
				addresses = append(addresses, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80))
			}
			c := New(Options{Publisher: new(pool.Publisher)})
			c.prober = newWorld().prober
			l := newLoop(c)
			ctx, cancel := context.WithCancel(b.Context())
			l.apply(ctx, setOf(serviceOf("web", addresses...)), time.Now())
			l.startBy = time.Now()
			l.publish(time.Now())
			t := l.members[backendKey{"web", addresses[0]}].target
			up := false
			b.ReportAllocs()
			for b.Loop() {
				up = !up
				l.judge(t, verdict{state: stateOf(up)}, "a change", time.Now())
				l.publish(time.Now())
			}
			cancel()
			l.probes.Wait()
			l.saver.close()
		})
	}
}

// BenchmarkProbe is one probe of a server on the loopback, both sides counted.
func BenchmarkProbe(b *testing.B) {
	ok := func(http.ResponseWriter, *http.Request) {}
	plain, secure := httptest.NewServer(http.HandlerFunc(ok)), httptest.NewTLSServer(http.HandlerFunc(ok))
	defer plain.Close()
	defer secure.Close()
	for kind, server := range map[pool.ProbeType]*httptest.Server{
		pool.ProbeTCP: plain, pool.ProbeHTTP: plain, pool.ProbeHTTPS: secure,
	} {
		b.Run(kind.String(), func(b *testing.B) {
			probe := newProbe(netip.MustParseAddrPort(server.Listener.Addr().String()), pool.Probe{Type: kind})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := probe(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
