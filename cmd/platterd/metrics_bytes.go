package main

import (
	"errors"
	"io/fs"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/far"
	"github.com/seed-478a8fee/platter/backends/objectlog"
)

// storeMetrics count what is asked of far stores.
type storeMetrics struct {
	time   *prometheus.HistogramVec
	wait   *prometheus.CounterVec
	bytes  *prometheus.CounterVec
	errors *prometheus.CounterVec
}

// watchStores registers what is counted for far stores.
func (m *metrics) watchStores(stores []*place) *storeMetrics {
	labels := []string{"store", "op"}
	s := &storeMetrics{
		time: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "platter_store_request_seconds",
			Help: "Time of requests to far stores, by store and operation.", Buckets: prometheus.ExponentialBuckets(0.0002, 3, 12)}, labels),
		wait: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "platter_store_wait_seconds_total",
			Help: "Time that requests to far stores waited for one of the parallel ones to end."}, labels),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "platter_store_bytes_total",
			Help: "Bytes of requests to far stores."}, labels),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "platter_store_errors_total",
			Help: "Requests to far stores that failed, each try counted."}, labels),
	}
	m.reg.MustRegister(s.time, s.wait, s.bytes, s.errors)
	for _, p := range stores {
		m.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "platter_store_ok",
			Help: "1 while the store answers.", ConstLabels: prometheus.Labels{"store": p.name}}, func() float64 {
			if p.trouble() != nil {
				return 0
			}
			return 1
		}))
	}
	return s
}

// observe counts one request to a store.
func (s *storeMetrics) observe(store string, e far.Event) {
	op := string(e.Op)
	s.time.WithLabelValues(store, op).Observe(e.Took.Seconds())
	s.wait.WithLabelValues(store, op).Add(e.Wait.Seconds())
	s.bytes.WithLabelValues(store, op).Add(float64(e.Bytes))
	if e.Err != nil && !errors.Is(e.Err, fs.ErrNotExist) && !errors.Is(e.Err, fs.ErrExist) {
		s.errors.WithLabelValues(store, op).Inc()
	}
}

// watchCache registers what the cache counts.
func (m *metrics) watchCache(c *cache.Cache) {
	m.reg.MustRegister(&cacheMetrics{cache: c, rows: []cacheRow{
		gauge("size_bytes", "Bytes that the cache may keep.", func(s cache.Stats) int64 { return s.Size }),
		gauge("used_bytes", "Bytes in the cache.", func(s cache.Stats) int64 { return s.Used }),
		gauge("pinned_bytes", "Bytes in the cache that are never given up.", func(s cache.Stats) int64 { return s.Pinned }),
		gauge("ok", "0 while the cache's disk is full or broken and reads pass through.", func(s cache.Stats) int64 {
			if s.Degraded != "" {
				return 0
			}
			return 1
		}),
		gauge("fetches_running", "Fetches under way.", func(s cache.Stats) int64 { return int64(s.Running) }),
		gauge("fetches_waiting", "Fetches that wait for others to end.", func(s cache.Stats) int64 { return int64(s.Waiting) }),
		counter("hits_total", "Reads that the cache had whole.", func(s cache.Stats) int64 { return s.Hits }),
		counter("misses_total", "Reads that had to ask a store.", func(s cache.Stats) int64 { return s.Misses }),
		counter("waits_total", "Reads that waited for what another one fetched.", func(s cache.Stats) int64 { return s.Waits }),
		counter("hit_bytes_total", "Bytes served from the cache.", func(s cache.Stats) int64 { return s.HitBytes }),
		counter("miss_bytes_total", "Bytes served from what was fetched for them.", func(s cache.Stats) int64 { return s.MissBytes }),
		counter("far_bytes_total", "Bytes read from stores.", func(s cache.Stats) int64 { return s.FarBytes }),
		counter("ahead_bytes_total", "Bytes read from stores ahead of whoever may want them.", func(s cache.Stats) int64 { return s.AheadBytes }),
		counter("fetches_total", "Requests to stores.", func(s cache.Stats) int64 { return s.Fetches }),
		counter("far_errors_total", "Requests to stores that failed.", func(s cache.Stats) int64 { return s.FarErrors }),
		counter("hedges_total", "Requests sent again because the first was slow.", func(s cache.Stats) int64 { return s.Hedges }),
		counter("corrupt_total", "Pieces found damaged on the cache's disk, and fetched again.", func(s cache.Stats) int64 { return s.Corrupt }),
		counter("evicted_bytes_total", "Bytes given up for others.", func(s cache.Stats) int64 { return s.Evicted }),
	}})
}

// cacheMetrics shows a cache's own counters.
type cacheMetrics struct {
	cache *cache.Cache
	rows  []cacheRow
}

type cacheRow struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(cache.Stats) int64
}

func gauge(name, help string, of func(cache.Stats) int64) cacheRow {
	return cacheRow{prometheus.NewDesc("platter_cache_"+name, help, nil, nil), prometheus.GaugeValue, of}
}

func counter(name, help string, of func(cache.Stats) int64) cacheRow {
	return cacheRow{prometheus.NewDesc("platter_cache_"+name, help, nil, nil), prometheus.CounterValue, of}
}

// Describe lists the metrics.
func (m *cacheMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, r := range m.rows {
		out <- r.desc
	}
}

// Collect reads the counters.
func (m *cacheMetrics) Collect(out chan<- prometheus.Metric) {
	s := m.cache.Stats()
	for _, r := range m.rows {
		out <- prometheus.MustNewConstMetric(r.desc, r.kind, float64(r.of(s)))
	}
}

// watchLogs registers what is told of overlays that are logs of objects.
func (m *metrics) watchLogs(logs func() map[string]objectlog.Stats) {
	m.reg.MustRegister(&logMetrics{logs: logs, rows: []logRow{
		logGauge("open", "Overlays that are open.", func(objectlog.Stats) float64 { return 1 }),
		logGauge("failing", "Overlays of which the store or the catalog takes nothing now.", func(s objectlog.Stats) float64 {
			if s.Err != nil {
				return 1
			}
			return 0
		}),
		logGauge("journal_bytes", "Bytes that journals take on disk.", func(s objectlog.Stats) float64 { return float64(s.Journal) }),
		logGauge("pending_bytes", "Bytes in journals that the stores do not have yet.", func(s objectlog.Stats) float64 { return float64(s.Pending) }),
		logGauge("stored_bytes", "Bytes of data in segments.", func(s objectlog.Stats) float64 { return float64(s.Stored) }),
		logGauge("live_bytes", "Bytes of segments that the disks use.", func(s objectlog.Stats) float64 { return float64(s.Live) }),
		logGauge("uploaded_bytes", "Bytes of segments uploaded since the overlays were opened.", func(s objectlog.Stats) float64 { return float64(s.Uploaded) }),
		logGauge("cleaned_bytes", "Of these, bytes that cleaning copied.", func(s objectlog.Stats) float64 { return float64(s.Cleaned) }),
	}})
}

// logMetrics adds up the numbers of all logs that are open.
type logMetrics struct {
	logs func() map[string]objectlog.Stats
	rows []logRow
}

type logRow struct {
	desc *prometheus.Desc
	of   func(objectlog.Stats) float64
}

func logGauge(name, help string, of func(objectlog.Stats) float64) logRow {
	return logRow{prometheus.NewDesc("platter_log_"+name, help, nil, nil), of}
}

// Describe lists the metrics.
func (m *logMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, r := range m.rows {
		out <- r.desc
	}
}

// Collect adds up.
func (m *logMetrics) Collect(out chan<- prometheus.Metric) {
	logs := m.logs()
	for _, r := range m.rows {
		var sum float64
		for _, s := range logs {
			sum += r.of(s)
		}
		out <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, sum)
	}
}
