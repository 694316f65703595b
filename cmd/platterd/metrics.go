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
	nbdConns    prometheus.Gauge
	nbdTime     *prometheus.HistogramVec
	nbdBytes    *prometheus.CounterVec
	nbdErrors   *prometheus.CounterVec
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
		nbdConns: prometheus.NewGauge(prometheus.GaugeOpts{Name: "platter_nbd_connections",
			Help: "Open NBD connections."}),
		nbdTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "platter_nbd_request_seconds",
			Help: "Time of NBD requests by command.", Buckets: prometheus.ExponentialBuckets(0.00001, 4, 11)}, []string{"command"}),
		nbdBytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "platter_nbd_bytes_total",
			Help: "Bytes of NBD requests by command."}, []string{"command"}),
		nbdErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "platter_nbd_errors_total",
			Help: "NBD requests that were answered with an error, by command and error number."}, []string{"command", "errno"}),
	}
	m.reg.MustRegister(m.httpTime, m.uploads, m.uploadBytes, m.nbdConns, m.nbdTime, m.nbdBytes, m.nbdErrors,
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

// Connected counts an NBD connection and prepares what its requests need, so
// that counting one allocates nothing.
func (m *metrics) Connected(nbd.ConnInfo) nbd.Meter {
	m.nbdConns.Inc()
	c := &connMeter{m: m}
	for cmd := range c.time {
		name := nbd.Command(cmd).String()
		c.time[cmd] = m.nbdTime.WithLabelValues(name)
		c.bytes[cmd] = m.nbdBytes.WithLabelValues(name)
	}
	return c
}

// connMeter counts the requests of one connection.
type connMeter struct {
	m     *metrics
	time  [nbd.CmdBlockStatus + 1]prometheus.Observer
	bytes [nbd.CmdBlockStatus + 1]prometheus.Counter
}

// Request counts one request.
func (c *connMeter) Request(cmd nbd.Command, bytes int64, took time.Duration, errno nbd.Errno) {
	if int(cmd) >= len(c.time) {
		return
	}
	c.time[cmd].Observe(took.Seconds())
	c.bytes[cmd].Add(float64(bytes))
	if errno != 0 {
		c.m.nbdErrors.WithLabelValues(cmd.String(), strconv.Itoa(int(errno))).Inc()
	}
}

// Closed counts the end of the connection.
func (c *connMeter) Closed() { c.m.nbdConns.Dec() }
