package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"haslohas.com/elbow/admin"
	"haslohas.com/elbow/config"
	"haslohas.com/elbow/delegation"
	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/discovery/kubernetes"
	"haslohas.com/elbow/dnsserver"
	"haslohas.com/elbow/elasticip"
	"haslohas.com/elbow/gateway/controller"
	"haslohas.com/elbow/health"
	"haslohas.com/elbow/loadbalancer"
	"haslohas.com/elbow/pool"
	"haslohas.com/elbow/proxy"
	"haslohas.com/elbow/state"
)

// settings are what a daemon is given besides its configuration.
type settings struct {
	path     string        // of the configuration; empty: it cannot be reloaded
	shutdown time.Duration // see proxy.Options.ShutdownTimeout
	engine   proxy.Engine  // see proxy.Options.Engine
	loops    int           // see proxy.Options.Loops
	stdout   io.Writer
	stderr   io.Writer
	minions  admin.Minions // of the demo; nil: none
	ready    func(*elbow)  // called once when everything serves; nil: nothing
	upgrade  upgrading
}

// An elbow is the daemon: every part, wired, and nothing that decides.
type elbow struct {
	settings
	log      *slog.Logger
	registry *prometheus.Registry
	connLog  *connLog

	table    pool.Publisher
	catalog  *discovery.Catalog
	checker  *health.Checker
	proxy    *proxy.Server
	names    *dnsserver.Server
	admin    *admin.Server
	balancer *loadbalancer.Controller // of the Services of a cluster
	gateways *controller.Controller   // of its Gateways
	events   *kubernetes.Recorder
	teller   *teller
	parents  *delegation.Keeper
	reload   *reloader
	upgrades *upgrader
	store    *store
	elders   elders
	answers  *answers
	address  *elasticip.Keeper // nil: there is no Elastic IP

	serving atomic.Bool   // set once everything served for the first time
	ending  chan struct{} // closed when run has been told to end
	left    chan struct{} // closed when another process has taken over
}

func newDaemon(cfg *config.Config, s settings) (*elbow, error) {
	e := &elbow{
		settings: s,
		log:      newLog(cfg.Log, s.stderr),
		registry: prometheus.NewRegistry(),
		ending:   make(chan struct{}),
		left:     make(chan struct{}),
	}
	if s.upgrade.program != nil { // there may be several at a time
		e.log = e.log.With("pid", os.Getpid())
	}
	e.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	connections, err := openConnLog(cfg.Log.Connections, s.stdout, s.stderr)
	if err != nil {
		return nil, err
	}
	e.connLog = connections

	disk, err := state.Open(cfg.StateDir)
	if err != nil {
		e.log.Warn("nothing will outlive a restart", "err", err)
	}
	e.store = &store{disk: disk, inherited: s.upgrade.inherited}
	startTimeout := time.Duration(0)
	if s.upgrade.inherited != nil {
		startTimeout = upgradeProbes
	}

	e.checker = health.New(health.Options{
		Publisher:    &e.table,
		Store:        e.store,
		Answered:     answered{e},
		Load:         load{e},
		Elsewhere:    e.elders.any,
		Log:          e.log,
		Registerer:   e.registry,
		StartTimeout: startTimeout,
	})
	e.catalog = discovery.New(discovery.Options{
		Deliver:    e.checker.Update,
		Store:      e.store,
		Log:        e.log,
		Registerer: e.registry,
	})
	e.proxy = proxy.New(proxy.Options{
		Engine:          s.engine,
		Loops:           s.loops,
		Table:           &e.table,
		Observer:        e.checker,
		ConnLog:         e.connLog.writer(),
		Log:             e.log,
		Registerer:      e.registry,
		ShutdownTimeout: s.shutdown,
		Inherited:       e.inherited("proxy"),
	})
	e.names = dnsserver.New(dnsserver.Options{
		Table:      &e.table,
		Store:      e.store,
		Log:        e.log,
		Registerer: e.registry,
		Inherited:  e.inherited("dns"),
		Prepared:   s.upgrade.prepared,
		Sockets:    s.loops,
		Version:    "elbow " + readBuild().version,
		Stdout:     s.stdout,
		Stderr:     s.stderr,
	})
	e.parents = delegation.NewKeeper(delegation.KeeperOptions{Log: e.log, Registerer: e.registry})
	e.answers = &answers{deliver: e.catalog.Apply, takeover: cfg.AWS.ElasticIP.Takeover}
	e.address = newElasticIP(e, cfg)
	e.events = kubernetes.NewRecorder(cfg.Host.Name, e.log)
	e.teller = &teller{e: e}
	e.balancer = newLoadBalancer(e)
	e.gateways = newGateways(e)
	e.admin = newAdmin(e, cfg.Admin)
	e.upgrades = newUpgrader(e)
	e.reload = newReloader(e, cfg)
	return e, nil
}

// reserveLoops returns how many event loops the proxy is to have, one for each
// processor that Go may use, and has Go use one more: while the loops wait or
// are busy, probes and answers find a processor of the scheduler free.
func reserveLoops() int {
	loops := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(loops + 1)
	return loops
}

// answered and load break the ring of health, proxy and DNS server: health
// is made first and asks the other two only once all run.
type answered struct{ e *elbow }

func (a answered) Expires(addr netip.Addr, generation uint64) (time.Time, bool) {
	return a.e.names.Expires(addr, generation)
}

type load struct{ e *elbow }

func (l load) Active(service string, backend netip.AddrPort) int {
	return l.e.proxy.Active(service, backend)
}

// run serves until ctx ends or a part fails. The proxy ends first: while its
// connections finish, probes go on and names are answered. Where another
// process takes over, the proxy ends last: the other one does all the rest.
func (e *elbow) run(ctx context.Context) error {
	e.log.Info("starting", "version", readBuild().version, "config", e.path)
	defer e.connLog.Close()

	all, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	rest, stopRest := context.WithCancel(failed)
	traffic, stopTraffic := context.WithCancel(failed)
	defer stopTraffic()
	told := context.AfterFunc(ctx, func() {
		e.log.Info("ending", "cause", context.Cause(ctx))
		close(e.ending)
		if !e.hasLeft() { // else systemd follows the other one
			notify(daemon.SdNotifyStopping)
		}
		stopTraffic()
	})
	defer told()

	all.Go(func() error {
		defer stopRest()
		return e.proxy.Run(traffic)
	})
	all.Go(func() error {
		select {
		case <-rest.Done():
		case <-e.left:
			stopRest()
		}
		return nil
	})
	for _, part := range []interface{ Run(context.Context) error }{
		e.catalog, e.checker, e.names, e.admin, e.parents, e.balancer, e.gateways, e.teller, e.events, e.reload, e.upgrades,
	} {
		all.Go(func() error { return part.Run(rest) })
	}
	if e.address != nil {
		all.Go(func() error { return e.address.Run(rest) })
	}
	all.Go(func() error { return e.awaitServing(traffic) })
	err := all.Wait()
	if err == nil {
		e.log.Info("ended")
	}
	return err
}

const (
	// bindPatience is how long listeners may take to open after the first table and
	// once the zones are loaded: an earlier elbow on the same ports may just be ending.
	bindPatience = 5 * time.Second

	// Large zones take as long as they take to be loaded and signed. Every
	// extendEvery systemd is told that it is to wait that much longer.
	extendEvery = 5 * time.Second
	extendBy    = 30 * time.Second
)

// awaitServing waits for the first round of probes and for every listener and
// zone, then declares the daemon ready.
func (e *elbow) awaitServing(ctx context.Context) error {
	select {
	case <-e.checker.Ready():
	case <-ctx.Done():
		return nil
	}
	extended := time.Now()
	deadline := extended.Add(bindPatience)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := errors.Join(e.proxy.Serving(), e.names.Serving())
		if err == nil {
			break
		}
		now := time.Now()
		if errors.Is(err, dnsserver.ErrLoading) {
			deadline = now.Add(bindPatience)
			if now.Sub(extended) > extendEvery {
				notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", extendBy.Microseconds()))
				extended = now
			}
		}
		if now.After(deadline) {
			return fmt.Errorf("not everything could be opened: %w", err)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
	}
	e.serving.Store(true)
	t := e.table.Load()
	e.log.Info("ready", "generation", t.Generation, "services", len(t.Pools), "zones", len(t.DNS.Zones))
	if !e.upgrades.takeOver(ctx) {
		return nil
	}
	notify(daemon.SdNotifyReady)
	if e.settings.ready != nil {
		e.settings.ready(e)
	}
	return nil
}

// readiness is what /readyz says.
func (e *elbow) readiness() error {
	if e.serving.Load() {
		return nil
	}
	if err := e.names.Serving(); errors.Is(err, dnsserver.ErrLoading) {
		return fmt.Errorf("starting: %w", err)
	}
	return errors.New("starting: the first round of probes or a listener is not there yet")
}

// notify tells systemd; without systemd it does nothing.
func notify(what string) {
	_, _ = daemon.SdNotify(false, what) // nobody could be told of the failure
}

func newLog(c config.Log, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
