package discovery

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	endpoints *prometheus.GaugeVec
	updated   *prometheus.GaugeVec
	errors    *prometheus.CounterVec
	conflicts prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	label := []string{"source"}
	m := &metrics{
		endpoints: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "elbow_discovery_endpoints",
			Help: "Endpoints in the set of a source that is in force.",
		}, label),
		updated: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "elbow_discovery_last_update_timestamp_seconds",
			Help: "When a source delivered the set that is in force.",
		}, label),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "elbow_discovery_errors_total",
			Help: "Errors that a source delivered or returned.",
		}, label),
		conflicts: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "elbow_discovery_conflicts",
			Help: "Listeners, hostnames and names that a service claims and another one has.",
		}),
	}
	if r != nil {
		r.MustRegister(m.endpoints, m.updated, m.errors, m.conflicts)
	}
	return m
}

// report sets what is shown of a source that had that many errors since the
// last report.
func (m *metrics) report(s SourceStatus, errors int) {
	m.endpoints.WithLabelValues(s.Name).Set(float64(s.Endpoints))
	if !s.Updated.IsZero() {
		m.updated.WithLabelValues(s.Name).Set(float64(s.Updated.UnixNano()) / 1e9)
	}
	m.errors.WithLabelValues(s.Name).Add(float64(errors))
}

// forget removes the series of sources that are no longer wanted.
func (m *metrics) forget(before, now []wanted) {
	names := make(map[string]bool)
	for i := range now {
		names[now[i].sourceName] = true
	}
	for i := range before {
		if name := before[i].sourceName; !names[name] {
			m.endpoints.DeleteLabelValues(name)
			m.updated.DeleteLabelValues(name)
			m.errors.DeleteLabelValues(name)
		}
	}
}
