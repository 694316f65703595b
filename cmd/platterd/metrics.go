package main

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/nbd"
)

// metrics are what the gateway counts. Names follow Prometheus' conventions;
// sizes are bytes, times seconds.
type metrics struct {
	reg         *prometheus.Registry
	httpTime    *prometheus.HistogramVec
	uploads     *prometheus.CounterVec
	uploadBytes prometheus.Counter
	nbd         *nbdMetrics
}

func newMetrics() *metrics {
	m := &metrics{
		reg: prometheus.NewRegistry(),
		httpTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "platter_http_request_seconds",
			Help: "Time of API requests by route and status.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10)}, []string{"method", "route", "status"}),
		uploads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "platter_uploads_total",
			Help: "Uploads that ended, by store and result."}, []string{"store", "result"}),
		uploadBytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "platter_upload_bytes_total",
			Help: "Bytes taken in by uploads and captures."}),
		nbd: newNBDMetrics(),
	}
	m.reg.MustRegister(m.httpTime, m.uploads, m.uploadBytes, &nbdCollector{newNBDFamilies(), m.nbd},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// watchCatalog shows the catalog's state.
func (m *metrics) watchCatalog(revision func() int64, ready func() error) {
	m.reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "platter_catalog_revision",
			Help: "Revision of the catalog that this gateway has seen."}, func() float64 { return float64(revision()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "platter_catalog_ready",
			Help: "1 while the catalog can be changed."}, func() float64 {
			if ready() != nil {
				return 0
			}
			return 1
		}))
}

// request counts one HTTP request. Methods are what clients write: those that
// nobody knows are one, or a client could fill the memory with their names.
func (m *metrics) request(method, route string, status int, took time.Duration) {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
	default:
		method = "other"
	}
	m.httpTime.WithLabelValues(method, route, strconv.Itoa(status)).Observe(took.Seconds())
}

// attempt counts one upload or capture.
func (m *metrics) attempt(a ingest.Attempt) {
	result := "active"
	if a.Err != nil {
		result = "failed"
	}
	m.uploads.WithLabelValues(a.Store, result).Inc()
	m.uploadBytes.Add(float64(a.Bytes))
}

// Connected makes the meter of an NBD connection.
func (m *metrics) Connected(info nbd.ConnInfo) nbd.Meter { return m.nbd.Connected(info) }
