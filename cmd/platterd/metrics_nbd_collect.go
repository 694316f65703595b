package main

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-478a8fee/platter/nbd"
)

// A family is one metric that is made when somebody asks.
func family(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("platter_nbd_"+name, help, labels, nil)
}

// nbdFamilies are the metrics of NBD.
type nbdFamilies struct {
	conns, byKind, tlsFailed              *prometheus.Desc
	time, bytes, errors                   *prometheus.Desc
	exportTime, exportBytes, exportErrors *prometheus.Desc
	exportConns, exportInFlight           *prometheus.Desc
}

func newNBDFamilies() nbdFamilies {
	return nbdFamilies{
		conns:          family("connections", "NBD connections with an export open."),
		byKind:         family("clients", "NBD connections by transport and kind of replies; \"none\" are those that are still agreeing.", "transport", "headers"),
		tlsFailed:      family("tls_failures_total", "TLS handshakes of NBD clients that failed."),
		time:           family("request_seconds", "Time of NBD requests by command.", "command"),
		bytes:          family("bytes_total", "Bytes of NBD requests by command.", "command"),
		errors:         family("errors_total", "NBD requests that were answered with an error, by command and error number.", "command", "errno"),
		exportTime:     family("export_request_seconds", "Time of NBD requests by export and command. An export that nobody has opened for 15 minutes is left out.", "export", "command"),
		exportBytes:    family("export_bytes_total", "Bytes of NBD requests by export and command.", "export", "command"),
		exportErrors:   family("export_errors_total", "NBD requests that were answered with an error, by export, command and error number.", "export", "command", "errno"),
		exportConns:    family("export_connections", "NBD connections by export.", "export"),
		exportInFlight: family("export_in_flight", "NBD requests under way by export.", "export"),
	}
}

// nbdCollector makes metrics of the numbers of NBD.
type nbdCollector struct {
	nbdFamilies
	m *nbdMetrics
}

// Describe lists the metrics.
func (c *nbdCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.conns, c.byKind, c.tlsFailed, c.time, c.bytes, c.errors,
		c.exportTime, c.exportBytes, c.exportErrors, c.exportConns, c.exportInFlight} {
		out <- d
	}
}

// Collect makes the metrics.
func (c *nbdCollector) Collect(out chan<- prometheus.Metric) {
	all, exports, conns := c.m.snapshot()
	c.collectConns(out, exports, conns)
	out <- prometheus.MustNewConstMetric(c.tlsFailed, prometheus.CounterValue, float64(c.m.tlsFailed.Load()))
	collectTally(out, all, c.time, c.bytes, c.errors)
	for label, t := range exports {
		collectTally(out, t, c.exportTime, c.exportBytes, c.exportErrors, label)
	}
}

func (c *nbdCollector) collectConns(out chan<- prometheus.Metric, exports map[string]*tally, conns []nbd.ConnInfo) {
	type kind struct{ transport, headers string }
	kinds := map[kind]int{}
	open, count, inFlight := 0, map[string]int{}, map[string]int{}
	for _, i := range conns {
		k := kind{i.Client.Transport, i.Headers}
		if i.Export == "" {
			k.headers = "none"
		} else {
			open++
			label := i.Export
			if exports[label] == nil {
				label = otherExports
			}
			count[label]++
			inFlight[label] += i.InFlight
		}
		kinds[k]++
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(c.conns, open)
	for k, n := range kinds {
		gauge(c.byKind, n, k.transport, k.headers)
	}
	for label := range exports {
		gauge(c.exportConns, count[label], label)
		gauge(c.exportInFlight, inFlight[label], label)
	}
}

// collectTally makes the metrics of each command that was used.
func collectTally(out chan<- prometheus.Metric, t *tally, time, bytes, errors *prometheus.Desc, labels ...string) {
	for cmd := range t.commands {
		n := t.commands[cmd].Load()
		if n == nil {
			continue
		}
		with := append(labels[:len(labels):len(labels)], nbd.Command(cmd).String())
		buckets, sum := map[float64]uint64{}, uint64(0)
		for i, bound := range latencyBounds {
			sum += uint64(n.buckets[i].Load())
			buckets[bound.Seconds()] = sum
		}
		sum += uint64(n.buckets[len(latencyBounds)].Load())
		out <- prometheus.MustNewConstHistogram(time, sum, float64(n.took.Load())/1e9, buckets, with...)
		out <- prometheus.MustNewConstMetric(bytes, prometheus.CounterValue, float64(n.bytes.Load()), with...)
	}
	for k, n := range t.errors {
		with := append(labels[:len(labels):len(labels)], k.cmd.String(), strconv.Itoa(int(k.errno)))
		out <- prometheus.MustNewConstMetric(errors, prometheus.CounterValue, float64(n), with...)
	}
}
