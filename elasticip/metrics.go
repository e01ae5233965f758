package elasticip

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	moved, failed prometheus.Counter
}

func newMetrics(k *Keeper) *metrics {
	takeovers := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "elbow_elastic_ip_takeovers_total",
		Help: "Attempts to take the Elastic IP, by how they ended: moved, failed.",
	}, []string{"result"})
	m := &metrics{takeovers.WithLabelValues("moved"), takeovers.WithLabelValues("failed")}
	if k.Registerer == nil {
		return m
	}
	k.Registerer.MustRegister(takeovers,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "elbow_elastic_ip_held",
			Help: "Whether this host believes that the Elastic IP is its own: 1 or 0.",
		}, func() float64 { return number(k.Belief().Mine) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "elbow_elastic_ip_locked",
			Help: "Whether this host holds the lock of the Elastic IP: 1 or 0.",
		}, func() float64 { return number(k.Belief().Locked) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "elbow_elastic_ip_age_seconds",
			Help: "How long ago EC2 was asked for what is known about the Elastic IP; +Inf: it has not answered yet.",
		}, func() float64 {
			asked := k.Belief().Asked
			if asked.IsZero() {
				return math.Inf(1)
			}
			return time.Since(asked).Seconds()
		}),
	)
	return m
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
