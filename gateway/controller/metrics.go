package controller

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	on, following, services prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		on:        gauge("elbow_gateway_on", "Whether the Gateways of a cluster are served: 1 or 0."),
		following: gauge("elbow_gateway_following", "Whether the Gateways of the cluster are known as they are now: 1 or 0."),
		services:  gauge("elbow_gateway_services", "Services of this host that Gateways ask for."),
	}
	if r != nil {
		r.MustRegister(m.on, m.following, m.services)
	}
	return m
}
