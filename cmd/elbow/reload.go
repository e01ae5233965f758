package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"haslohas.com/elbow/config"
	"haslohas.com/elbow/delegation"
	"haslohas.com/elbow/discovery"
	"haslohas.com/elbow/discovery/ec2"
	"haslohas.com/elbow/discovery/file"
	"haslohas.com/elbow/discovery/kubernetes"
	"haslohas.com/elbow/discovery/static"
	"haslohas.com/elbow/gateway/controller"
	"haslohas.com/elbow/loadbalancer"
	"haslohas.com/elbow/watch"
)

// A reloader brings configurations into force: the first one, and each that
// SIGHUP or a change of the file announces. One that is not valid changes
// nothing but the metric and the log.
type reloader struct {
	path    string
	apply   func(discovery.Want)
	keep    func(delegation.Settings)
	balance func(loadbalancer.Settings)
	serve   func(controller.Settings)
	tell    func(*config.Config, *kubernetes.Cluster)
	reopen  func() error
	upgrade func(context.Context) (taken bool) // where the program on the disk has changed
	log     *slog.Logger
	serving *atomic.Bool        // of the daemon: systemd is not told READY before it is
	cluster *kubernetes.Cluster // of current
	public  *publicAddresses    // of the nodes of current; nil: they have their own
	started *config.Config      // whose keys that are read at start alone are in force
	current *config.Config
	refused string // the last error that was logged, so that it is logged once

	successful prometheus.Gauge
	at         prometheus.Gauge
}

func newReloader(e *elbow, first *config.Config) *reloader {
	r := &reloader{
		path:    e.path,
		apply:   e.answers.apply,
		keep:    e.parents.Apply,
		balance: e.balancer.Apply,
		serve:   e.gateways.Apply,
		tell:    e.teller.apply,
		reopen: func() error {
			e.names.Reopen()
			return e.connLog.Reopen()
		},
		upgrade: e.upgrades.ifChanged,
		log:     e.log,
		serving: &e.serving,
		started: first,
		current: first,
		successful: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "elbow_config_last_reload_successful",
			Help: "Whether the configuration file as it last was read is in force: 1 or 0.",
		}),
		at: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "elbow_config_last_reload_success_timestamp_seconds",
			Help: "When a configuration last came into force.",
		}),
	}
	e.registry.MustRegister(r.successful, r.at)
	r.accept(first)
	return r
}

// Run reloads until ctx ends.
func (r *reloader) Run(ctx context.Context) error {
	if r.path == "" {
		<-ctx.Done()
		return nil
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	for ctx.Err() == nil {
		files := r.current.Files()
		r.until(ctx, files, hup)
	}
	return nil
}

// until reloads on SIGHUP or a change of one of files, and returns when ctx
// ends or a reload names other files.
func (r *reloader) until(ctx context.Context, files []string, hup <-chan os.Signal) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	changed := make(chan struct{}, 1)
	wg.Go(func() {
		watch.Files(ctx, files, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	})
	for slices.Equal(files, r.current.Files()) {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			r.reload("the file changed")
		case <-hup:
			serving := r.serving.Load()
			if serving {
				notify(reloading())
			}
			if err := r.reopen(); err != nil {
				r.log.Error("the connection log goes on in the old file", "err", err)
			}
			if r.upgrade(ctx) {
				return // the new process reads the configuration, and tells systemd
			}
			r.refused = "" // who asks gets an answer
			r.reload("SIGHUP")
			if serving {
				notify(daemon.SdNotifyReady)
			}
		}
	}
}

func (r *reloader) reload(why string) {
	next, err := loadConfig(r.path)
	if err != nil {
		r.successful.Set(0)
		if err.Error() != r.refused {
			r.refused = err.Error()
			r.log.Error("configuration refused, the old one stays in force", "why", why, "err", err)
		}
		return
	}
	r.refused = ""
	same := reflect.DeepEqual(next, r.current)
	r.accept(next)
	if same {
		return
	}
	r.log.Info("configuration reloaded", "why", why,
		"services", len(next.Services), "zones", len(next.DNS.Zones))
	for _, key := range needRestart(r.started, next) {
		r.log.Warn("this key takes effect at the next start", "key", key)
	}
}

func (r *reloader) accept(c *config.Config) {
	// An unchanged cluster stays: its sources share one connection.
	if r.cluster == nil || c.Kubernetes.Kubeconfig != r.cluster.Kubeconfig {
		r.cluster = kubernetes.New(kubernetes.Options{Kubeconfig: c.Kubernetes.Kubeconfig, Log: r.log})
	}
	r.public = r.public.of(c, r.log)
	r.current = c
	r.tell(c, r.cluster)
	r.balance(loadbalancer.Settings{Site: site(c), Cluster: r.cluster})
	r.serve(controller.Settings{Site: gatewaySite(c), Cluster: r.cluster})
	r.apply(want(c, r.cluster, r.public, r.log))
	r.keep(keepDelegation(c))
	r.successful.Set(1)
	r.at.SetToCurrentTime()
}

// needRestart names the keys that differ and are read at start alone.
func needRestart(old, new *config.Config) []string {
	var keys []string
	if old.Admin != new.Admin {
		keys = append(keys, "admin")
	}
	if old.StateDir != new.StateDir {
		keys = append(keys, "stateDir")
	}
	if old.AWS.ElasticIP != new.AWS.ElasticIP || old.AWS.ElasticIP.On && (old.AWS.Region != new.AWS.Region || old.AWS.Endpoint != new.AWS.Endpoint) {
		keys = append(keys, "aws.elasticIP")
	}
	if old.Log != new.Log {
		keys = append(keys, "log")
	}
	return keys
}

// want translates a configuration into what the catalog is to find.
func want(c *config.Config, cluster *kubernetes.Cluster, public *publicAddresses, log *slog.Logger) discovery.Want {
	w := discovery.Want{Host: c.Host, DNS: c.DNS}
	for _, s := range c.Services {
		d := discovery.Service{Service: *s.Service, OwnProbe: s.OwnProbe}
		d.SourceName = s.Name + "/" + s.Source.Kind.String()
		switch s.Source.Kind {
		case config.File:
			f := s.Source.File
			d.Source = file.New(f.Path, file.Printed{
				Port:     file.Port(f.Port),
				Selector: f.Selector,
				PodIP:    f.Via == config.ViaPodIP,
			}, log)
			d.SourceKey = "file " + f.Path
			if f != (config.FileSource{Path: f.Path}) {
				d.SourceKey += fmt.Sprintf(" %v %q %v", f.Port, f.Selector, f.Via)
			}
		case config.FromKubernetes:
			d.Source = fromKubernetes(s.Source.Kubernetes, cluster)
			k := s.Source.Kubernetes
			d.SourceKey = fmt.Sprintf("kubernetes %q %s %q %q %v %v %t",
				c.Kubernetes.Kubeconfig, k.Namespace, k.Selector, k.Service, k.Port, k.Via, k.IncludeExcluded)
			if public != nil {
				d.Source = public.Enrich(d.Source)
				d.SourceKey += " public addresses of " + public.key
			}
		case config.FromEC2:
			o := fromEC2(s.Source.EC2, log)
			at := way(c)
			at.Region = s.Source.EC2.Region
			o.Connect = ec2.Connect(at, nil)
			d.Source = ec2.New(o)
			d.SourceKey = fmt.Sprintf("ec2 %q %q %s", at.Region, at.Endpoint, o.Key())
		default:
			d.Source = static.New(s.Source.Static)
			d.SourceKey = fmt.Sprintf("static %v", s.Source.Static)
		}
		w.Services = append(w.Services, d)
	}
	return w
}

// publicAddresses are those that nodes have by their instances.
type publicAddresses struct {
	*ec2.Enricher
	key string // equal keys: they come from the same place
}

// of returns those that c wants, p itself where that is the same; nil: none.
func (p *publicAddresses) of(c *config.Config, log *slog.Logger) *publicAddresses {
	if !c.Kubernetes.PublicFromEC2 {
		return nil
	}
	at := way(c)
	key := fmt.Sprintf("%q %q", at.Region, at.Endpoint)
	if p != nil && p.key == key {
		return p
	}
	return &publicAddresses{ec2.NewEnricher(ec2.Options{Connect: ec2.Connect(at, nil), Log: log}), key}
}

func fromKubernetes(k config.KubernetesSource, cluster *kubernetes.Cluster) discovery.Source {
	if k.Service != "" {
		return cluster.Service(kubernetes.Service{
			Namespace:       k.Namespace,
			Name:            k.Service,
			Port:            kubernetes.Port(k.Port),
			NodePort:        k.Via == config.ViaNodePort,
			IncludeExcluded: k.IncludeExcluded,
		})
	}
	return cluster.Pods(kubernetes.Pods{
		Namespace:       k.Namespace,
		Selector:        k.Selector,
		Port:            kubernetes.Port(k.Port),
		HostPort:        k.Via == config.ViaHostPort,
		IncludeExcluded: k.IncludeExcluded,
	})
}

func fromEC2(s config.EC2Source, log *slog.Logger) ec2.Options {
	return ec2.Options{
		Tags:     s.Tags,
		Group:    s.Group,
		VPC:      s.VPC,
		Port:     uint16(s.Port),
		Naming:   ec2.Naming(s.Naming),
		Interval: s.Interval,
		Log:      log,
	}
}

// reloading is what sd_notify(3) wants to hear when a reload begins.
func reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return daemon.SdNotifyReloading
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, time.Duration(now.Nano()).Microseconds())
}
