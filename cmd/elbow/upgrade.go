package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/dnsserver"
	"haslohas.com/elbow/handover"
)

const (
	// takeLimit bounds how long nothing changes here: from the moment that a
	// new process is given the state until it serves.
	takeLimit = 10 * time.Second

	// upgradeProbes bounds the first round of probes of a new process. It
	// knows the backends but for those that its configuration has and the
	// old one's had not.
	upgradeProbes = 2 * time.Second

	// diskPatience is how long an upgrade waits for a disk that hangs.
	diskPatience = 2 * time.Second

	upgradesName = "upgrades" // of the document with upgradeCounts
)

// upgrading is what a daemon is given to be replaced by a new process, and to
// be one. The zero value is neither.
type upgrading struct {
	program     *handover.Program     // nil: there are no upgrades
	predecessor *handover.Predecessor // nil: this process was started by itself
	inherited   *handover.Inheritance // from the predecessor
	prepared    *dnsserver.Prepared   // the large zones; nil: none
	signals     <-chan os.Signal      // SIGUSR2
	start       time.Duration         // how long a new process may take until it serves
	drain       time.Duration         // how long connections may go on after it does
}

// upgradeCounts are handed on from process to process.
type upgradeCounts struct {
	Succeeded int `json:"succeeded"`
	Failed    int `json:"failed"`
}

// An upgrader replaces this process by a new one, on SIGUSR2 or when asked.
type upgrader struct {
	upgrading
	e   *elbow
	log *slog.Logger

	mu     sync.Mutex    // held by the one upgrade that is under way; guards counts
	counts upgradeCounts // of all processes up to this one

	taken chan struct{} // closed when this process has taken over

	total      *prometheus.CounterVec
	successful prometheus.Gauge
}

func newUpgrader(e *elbow) *upgrader {
	u := &upgrader{
		upgrading: e.settings.upgrade,
		e:         e,
		log:       e.log,
		taken:     make(chan struct{}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "elbow_upgrades_total",
			Help: "Upgrades of the running program by how they ended, counted on from process to process.",
		}, []string{"result"}),
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "elbow_upgrade_last_successful",
			Help: "Whether the last upgrade succeeded, or there was none: 1 or 0.",
		}),
	}
	if _, err := u.inherited.Load(upgradesName, &u.counts); err != nil {
		u.log.Warn("upgrades are counted from zero", "err", err)
	}
	e.elders.add(u.inherited.TakeElders()...)
	if u.predecessor != nil {
		e.elders.add(u.predecessor)
	}
	if u.program != nil {
		e.registry.MustRegister(u.total, u.successful)
	}
	u.total.WithLabelValues("succeeded").Add(float64(max(0, u.counts.Succeeded)))
	u.total.WithLabelValues("failed").Add(float64(max(0, u.counts.Failed)))
	u.successful.Set(1)
	return u
}

// inherited returns what asks for the sockets that a part of the process
// before has had.
func (e *elbow) inherited(part string) func(network, address string) []int {
	return func(network, address string) []int {
		return e.settings.upgrade.inherited.Take(part + " " + network + " " + address)
	}
}

// Run upgrades on each signal until ctx ends.
func (u *upgrader) Run(ctx context.Context) error {
	var under sync.WaitGroup
	defer under.Wait()
	for _, elder := range u.e.elders.all() {
		under.Go(func() {
			if elder == u.predecessor {
				select {
				case <-u.taken: // until then the two still talk
				case <-ctx.Done():
					return
				}
			}
			if elder.Wait(ctx) == nil { // else this process ends
				u.e.elders.remove(elder)
			}
		})
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-u.signals:
			under.Go(func() { u.upgrade(ctx, "SIGUSR2") })
		}
	}
}

// ifChanged upgrades if the program on the disk is another than this one.
func (u *upgrader) ifChanged(ctx context.Context) (taken bool) {
	if u.program == nil || !u.program.Changed() {
		return false
	}
	return u.upgrade(ctx, "the program has changed")
}

var errEnding = errors.New("this process was told to end")

// upgrade starts a new process and hands over to it. It returns true if that
// has taken over; otherwise everything is as it was.
func (u *upgrader) upgrade(ctx context.Context, why string) (taken bool) {
	if !u.mu.TryLock() {
		u.log.Warn("an upgrade is under way, this signal changes nothing", "why", why)
		return false
	}
	defer u.mu.Unlock()
	if u.program == nil {
		u.log.Warn("this system has no upgrades", "why", why)
		return false
	}
	if u.e.hasLeft() {
		return false
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with ctx
		select {
		case <-u.e.ending:
			cancel(errEnding)
		case <-ctx.Done():
		}
	}()
	u.log.Info("upgrade begins", "why", why, "program", u.program.Path())
	err := u.try(ctx)
	if err == nil {
		return true
	}
	u.counts.Failed++
	u.total.WithLabelValues("failed").Inc()
	u.successful.Set(0)
	if errors.Is(err, errEnding) { // systemd has been told, or is about to be
		u.log.Warn("upgrade given up", "err", err)
		return false
	}
	u.log.Error("upgrade failed, this process goes on as before", "err", err)
	if u.e.serving.Load() {
		notify(daemon.SdNotifyReady)
	}
	return false
}

// try makes one attempt. With an error the new process is gone.
func (u *upgrader) try(ctx context.Context) error {
	if !u.e.serving.Load() {
		return errors.New("this process does not serve yet")
	}
	notify(reloading())
	begun := time.Now()
	next, err := u.program.Start()
	if err != nil {
		return fmt.Errorf("starting the new process: %w", err)
	}
	preparing, cancel := context.WithTimeoutCause(ctx, u.start,
		fmt.Errorf("the new process has not read its configuration within %s, large zones included (--upgrade-start-timeout)", u.start))
	defer cancel()
	err = next.Prepared(preparing)
	if err == nil {
		var estate handover.Estate
		defer estate.Close()
		var giving error
		// From here on nothing changes until it is decided who goes on: what
		// is given is the last word.
		err = u.e.checker.HandOver(&estate, func() (taken bool) {
			giving = u.give(ctx, next, &estate)
			return giving == nil
		})
		err = errors.Join(err, giving)
	}
	if err != nil {
		next.Kill()
		return err
	}
	u.leave(next.PID(), time.Since(begun))
	return nil
}

// give hands everything over and returns nil once the new process has taken
// over.
func (u *upgrader) give(ctx context.Context, next *handover.Successor, estate *handover.Estate) error {
	limit := min(takeLimit, u.start)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the new process does not serve within %s of being given the state", limit))
	defer cancel()
	if err := u.collect(ctx, estate); err != nil {
		return err
	}
	u.e.store.hold(diskPatience)
	err := next.Give(ctx, estate)
	if err == nil {
		err = next.Ready(ctx)
	}
	if err == nil {
		// Before the new process says READY, as systemd listens to the main
		// process alone (NotifyAccess=main).
		notify(fmt.Sprintf("MAINPID=%d", next.PID()))
		if err = next.Leave(ctx); err != nil {
			notify(fmt.Sprintf("MAINPID=%d", os.Getpid()))
		}
	}
	u.e.store.decide(err == nil)
	return err
}

// collect adds all sockets and documents to estate but those of health.
func (u *upgrader) collect(ctx context.Context, estate *handover.Estate) error {
	counts := u.counts
	counts.Succeeded++
	err := errors.Join(
		u.e.catalog.SaveTo(estate),
		u.e.names.SaveTo(ctx, estate),
		estate.Save(upgradesName, counts),
	)
	for _, elder := range u.e.elders.all() {
		err = errors.Join(err, estate.AddElder(elder))
	}
	for part, from := range map[string]interface {
		Sockets(visit func(network, address string, fd int))
	}{"proxy": u.e.proxy, "dns": u.e.names, "admin": u.e.admin} {
		from.Sockets(func(network, address string, fd int) {
			err = errors.Join(err, estate.AddSocket(part+" "+network+" "+address, fd))
		})
	}
	return err
}

// leave has this process do nothing more but finish its connections.
func (u *upgrader) leave(successor int, took time.Duration) {
	u.log.Info("a new process has taken over, this one finishes its connections",
		"successor", successor, "took", took, "connections", u.e.proxy.Connections(), "within", u.drain)
	// Without a handler SIGHUP would end this process, which is not what
	// anybody means by it.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() { // ends with the process
		for range hup {
			if err := u.e.connLog.Reopen(); err != nil {
				u.log.Error("the connection log goes on in the old file", "err", err)
			}
		}
	}()
	u.e.admin.Leave()
	u.e.proxy.Leave(u.drain)
	close(u.e.left)
}

// hasLeft reports whether another process has taken over.
func (e *elbow) hasLeft() bool {
	select {
	case <-e.left:
		return true
	default:
		return false
	}
}

// takeOver tells the process before, if there is one, that this one serves,
// and waits for its leave. It reports false if ctx has ended meanwhile.
func (u *upgrader) takeOver(ctx context.Context) bool {
	if u.predecessor == nil {
		return true
	}
	if err := u.predecessor.Ready(ctx); err != nil {
		if ctx.Err() != nil {
			return false
		}
		u.log.Warn("the process before has said no good-bye", "err", err)
	}
	close(u.taken)
	for _, name := range u.inherited.Close() {
		u.log.Info("socket of the process before is not wanted any more", "socket", name)
	}
	u.log.Info("taken over from the process before")
	return true
}
