package loadbalancer

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	services  *prometheus.GaugeVec
	following prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		services: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "elbow_loadbalancer_services",
			Help: "Services of type LoadBalancer of our class, by state: pending, serving, refused or leaving.",
		}, []string{"state"}),
		following: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "elbow_loadbalancer_following",
			Help: "Whether the Services of the cluster are known as they are now: 1 or 0.",
		}),
	}
	if r != nil {
		r.MustRegister(m.services, m.following)
	}
	return m
}

func (m *metrics) show(counts map[state]int) {
	for s, name := range stateNames {
		m.services.WithLabelValues(name).Set(float64(counts[state(s)]))
	}
}

func (m *metrics) follows(well bool) {
	m.following.Set(0)
	if well {
		m.following.Set(1)
	}
}
