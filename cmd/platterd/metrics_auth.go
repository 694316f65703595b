package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-478a8fee/platter/api/keystone"
)

// authMetrics count how tokens are checked.
type authMetrics struct {
	requests *prometheus.CounterVec
	time     *prometheus.HistogramVec
}

func (m *metrics) newAuth() *authMetrics {
	a := &authMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "platter_auth_total",
			Help: "Tokens that Keystone was asked about (validation), whose answer was remembered, and logins of the gateway itself; good, bad, or failed because Keystone does not do its part."},
			[]string{"kind", "result"}),
		time: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "platter_auth_seconds",
			Help: "Time until Keystone had answered.", Buckets: prometheus.ExponentialBuckets(0.001, 3, 10)}, []string{"kind"}),
	}
	m.reg.MustRegister(a.requests, a.time)
	for _, kind := range []keystone.Kind{keystone.Validation, keystone.Remembered, keystone.Login} {
		for _, result := range []keystone.Result{keystone.Good, keystone.Bad, keystone.Failed} {
			if kind != keystone.Remembered || result != keystone.Failed { // a failure is not remembered
				a.requests.WithLabelValues(string(kind), string(result))
			}
		}
	}
	return a
}

// observe counts one event.
func (a *authMetrics) observe(e keystone.Event) {
	a.requests.WithLabelValues(string(e.Kind), string(e.Result)).Inc()
	if e.Kind != keystone.Remembered {
		a.time.WithLabelValues(string(e.Kind)).Observe(e.Took.Seconds())
	}
}

// watchKeystone shows whether tokens can be checked.
func (m *metrics) watchKeystone(trouble func() error) {
	m.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "platter_auth_ok",
		Help: "1 while Keystone does its part."}, func() float64 {
		if trouble() != nil {
			return 0
		}
		return 1
	}))
}
