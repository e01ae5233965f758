package health

import (
	"github.com/prometheus/client_golang/prometheus"

	"haslohas.com/elbow/pool"
)

// Values of the label result.
const (
	resultOK    = "ok"
	resultFail  = "fail"
	resultLocal = "local" // a fault of this host, charged to nobody
)

func resultOf(err error) string {
	if err == nil {
		return resultOK
	}
	return resultFail
}

// allStates are the values of the label state.
var allStates = []pool.State{pool.Unknown, pool.Up, pool.Down, pool.Draining, pool.ForcedUp, pool.ForcedDown}

type metrics struct {
	up          *prometheus.GaugeVec
	transitions *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	probes      *prometheus.CounterVec
	failures    *prometheus.CounterVec
	resets      *prometheus.CounterVec
	backends    *prometheus.GaugeVec
	failOpen    *prometheus.GaugeVec
	priority    *prometheus.GaugeVec
	generation  prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		up: gauge("elbow_backend_up",
			"1 if the backend's state is up or forced-up, else 0.", "service", "backend"),
		transitions: counter("elbow_backend_transitions_total",
			"Changes of a backend's state, by the state it changed to.", "service", "backend", "to"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "elbow_probe_duration_seconds",
			Help:    "Time from the start of a probe to its result.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"type"}),
		probes: counter("elbow_probes_total",
			"Probes of a backend by result: ok, fail, or local for a fault of this host that is charged to nobody. One that services share counts for each.",
			"service", "backend", "result"),
		failures: counter("elbow_passive_connect_failures_total",
			"Failed connects of real traffic that the proxy reported.", "service", "backend"),
		resets: counter("elbow_passive_resets_total",
			"Connections that the backend reset before its first byte.", "service", "backend"),
		backends: gauge("elbow_service_backends",
			"Backends of a service by state.", "service", "state"),
		failOpen: gauge("elbow_service_fail_open",
			"1 while no backend of the service is well and all are tried.", "service"),
		priority: gauge("elbow_service_priority",
			"Priority of the backends that take connections; above the lowest of the service it has failed over.", "service"),
		generation: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "elbow_table_generation",
			Help: "Generation of the newest table.",
		}),
	}
	if r != nil {
		r.MustRegister(m.up, m.transitions, m.duration, m.probes, m.failures, m.resets, m.backends, m.failOpen, m.priority, m.generation)
	}
	return m
}

func (m *metrics) reports(k backendKey) (failures, resets prometheus.Counter) {
	address := k.address.String()
	return m.failures.WithLabelValues(k.service, address), m.resets.WithLabelValues(k.service, address)
}

func (m *metrics) probe(t *target, r result, outcome string) {
	m.duration.WithLabelValues(t.targetKey.probe.Type.String()).Observe(r.took.Seconds())
	for _, k := range t.members {
		m.probes.WithLabelValues(k.backendKey.service, k.names[1], outcome).Inc()
	}
}

func (m *metrics) transition(k backendKey, to pool.State) {
	m.transitions.WithLabelValues(k.service, k.address.String(), to.String()).Inc()
}

func (m *metrics) backend(k backendKey, up bool) {
	m.up.WithLabelValues(k.service, k.address.String()).Set(number(up))
}

// pool shows what was just published of a service.
func (m *metrics) pool(p *pool.Pool) {
	count := make([]int, len(allStates))
	for i := range p.Backends {
		count[p.Backends[i].State]++
	}
	for _, s := range allStates {
		m.backends.WithLabelValues(p.Name, s.String()).Set(float64(count[s]))
	}
	m.failOpen.WithLabelValues(p.Name).Set(number(p.Traffic.FailOpen))
	m.priority.WithLabelValues(p.Name).Set(float64(p.Traffic.Priority))
}

func (m *metrics) forgetBackend(k backendKey) {
	// One by one: a partial match would look at all series for each backend.
	address := k.address.String()
	m.up.DeleteLabelValues(k.service, address)
	m.failures.DeleteLabelValues(k.service, address)
	m.resets.DeleteLabelValues(k.service, address)
	for _, s := range allStates {
		m.transitions.DeleteLabelValues(k.service, address, s.String())
	}
	for _, r := range []string{resultOK, resultFail, resultLocal} {
		m.probes.DeleteLabelValues(k.service, address, r)
	}
}

func (m *metrics) forgetService(name string) {
	for _, s := range allStates {
		m.backends.DeleteLabelValues(name, s.String())
	}
	m.failOpen.DeleteLabelValues(name)
	m.priority.DeleteLabelValues(name)
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
