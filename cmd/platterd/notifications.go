package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	events "github.com/seed-478a8fee/platter/api/notify"
	"github.com/seed-478a8fee/platter/catalog"
)

// openNotifications makes what tells others of changes; nothing does if nobody
// wants to know. Neither broker nor webhook need answer yet.
func (g *gateway) openNotifications() error {
	c := g.cfg.Notifications
	if !c.Any() {
		return nil
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCA != "" {
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return fmt.Errorf("notifications.tls_ca: %w", err)
		}
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("notifications.tls_ca: %s holds no certificate in PEM form", c.TLSCA)
		}
	}
	sinks := map[string]events.Sink{}
	if c.Webhook != "" {
		sinks["webhook"] = events.NewWebhook(events.WebhookConfig{URL: c.Webhook, Secret: c.WebhookSecret, TLS: secure.Clone()})
	}
	if len(c.Brokers) > 0 {
		a := events.AMQPConfig{Hosts: c.Brokers, VHost: c.VHost, Username: c.Username, Password: c.Password,
			Exchange: c.Exchange, Topics: c.Topics, Durable: c.Durable}
		if c.TLS {
			a.TLS = secure
		}
		if c.TLSCert != "" {
			pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
			if err != nil {
				return fmt.Errorf("notifications.tls_cert: %w", err)
			}
			secure.Certificates = []tls.Certificate{pair}
		}
		sinks["amqp"] = events.NewAMQP(a)
	}
	g.notify = events.New(events.Config{Sinks: sinks, PublisherID: c.PublisherID, Disabled: c.Disabled,
		QueueEvents: c.QueueEvents, QueueBytes: int64(c.QueueBytes), Logger: g.log})
	g.metrics.watchNotifications(g.notify.Stats)
	return nil
}

// observer returns who learns of changes in the catalog, or nil.
func (g *gateway) observer() catalog.Observer {
	if g.notify == nil {
		return nil // and not an interface that holds a nil
	}
	return g.notify
}

// closeNotifications lets out what waits, as long as the configuration says.
func (g *gateway) closeNotifications() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(g.cfg.Notifications.DrainWithin))
	defer cancel()
	g.notify.Close(ctx)
}

// notifyMetrics shows what became of events.
type notifyMetrics struct {
	stats                 func() []events.Stats
	total, waiting, bytes *prometheus.Desc
	ok                    *prometheus.Desc
}

func (m *metrics) watchNotifications(stats func() []events.Stats) {
	sink := []string{"sink"}
	m.reg.MustRegister(&notifyMetrics{
		stats: stats,
		total: prometheus.NewDesc("platter_notifications_total",
			"Events that were sent, dropped because the queue was full or the gateway stopped, or refused by the receiver; and attempts that failed and were made again.",
			[]string{"sink", "result"}, nil),
		waiting: prometheus.NewDesc("platter_notifications_waiting", "Events that wait to be sent.", sink, nil),
		bytes:   prometheus.NewDesc("platter_notifications_waiting_bytes", "Bytes of the events that wait to be sent.", sink, nil),
		ok:      prometheus.NewDesc("platter_notifications_ok", "1 while events can be sent.", sink, nil),
	})
}

// Describe names the metrics.
func (n *notifyMetrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(n, out) }

// Collect reads them.
func (n *notifyMetrics) Collect(out chan<- prometheus.Metric) {
	for _, s := range n.stats() {
		for result, value := range map[string]uint64{"sent": s.Sent, "dropped": s.Dropped, "refused": s.Refused, "failed": s.Failed} {
			out <- prometheus.MustNewConstMetric(n.total, prometheus.CounterValue, float64(value), s.Sink, result)
		}
		ok := 0.0
		if s.OK {
			ok = 1
		}
		out <- prometheus.MustNewConstMetric(n.waiting, prometheus.GaugeValue, float64(s.Waiting), s.Sink)
		out <- prometheus.MustNewConstMetric(n.bytes, prometheus.GaugeValue, float64(s.Bytes), s.Sink)
		out <- prometheus.MustNewConstMetric(n.ok, prometheus.GaugeValue, ok, s.Sink)
	}
}
