package delegation

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of a [Keeper].
type metrics struct {
	ok       *prometheus.GaugeVec
	findings *prometheus.GaugeVec
	last     prometheus.Gauge
	repaired *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		ok: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "elbow_delegation_ok",
			Help: "Whether the delegation of a zone was as it must be when it was last looked at: 1 or 0.",
		}, []string{"zone"}),
		findings: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "elbow_delegation_findings",
			Help: "What was not as it must be with the delegation of a zone, by kind.",
		}, []string{"zone", "finding"}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "elbow_delegation_last_run_timestamp_seconds",
			Help: "When the delegations were last looked at.",
		}),
		repaired: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "elbow_delegation_repairs_total",
			Help: "Repairs of delegations in the parent zone: done, refused (something that elbow has not written is in the way), failed.",
		}, []string{"result"}),
	}
	if r != nil {
		r.MustRegister(m.ok, m.findings, m.last, m.repaired)
	}
	return m
}

func (m *metrics) repairs(result string) { m.repaired.WithLabelValues(result).Inc() }

// show replaces what the metrics say. What is gone leaves them.
func (m *metrics) show(states []Kept) {
	m.ok.Reset()
	m.findings.Reset()
	for i := range states {
		r := &states[i].Report
		ok := 0.0
		if r.OK() {
			ok = 1
		}
		m.ok.WithLabelValues(r.Zone).Set(ok)
		for _, f := range r.Findings {
			m.findings.WithLabelValues(r.Zone, string(f.Code)).Inc()
		}
	}
	if len(states) > 0 {
		m.last.SetToCurrentTime()
	}
}
