package main

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/nbd"
)

// TestMetricsOfExports: numbers outlive a connection, and an export that
// nobody uses is forgotten, but not in the sums.
func TestMetricsOfExports(t *testing.T) {
	m := newMetrics()
	now := time.Unix(1e9, 0)
	m.nbd.now = func() time.Time { return now }
	var live []nbd.ConnInfo
	m.nbd.watch(func() []nbd.ConnInfo { return live })
	info := nbd.ConnInfo{Export: "image/a", Headers: "structured", Client: nbd.Client{Transport: "tcp"}, InFlight: 3}
	one, two := m.Connected(info), m.Connected(info)
	live = []nbd.ConnInfo{info, info, {Client: nbd.Client{Transport: "unix"}}}
	one.Request(nbd.CmdRead, 4096, 20*time.Microsecond, 0)
	two.Request(nbd.CmdRead, 4096, time.Minute, 0)
	two.Request(nbd.CmdWrite, 512, time.Millisecond, nbd.ENOSPC)
	two.Request(99, 1, 1, 0) // nobody knows it
	one.Closed()
	want := map[string]string{
		`platter_nbd_export_request_seconds_bucket{command="read",export="image/a",le="1e-05"}`:   "0",
		`platter_nbd_export_request_seconds_bucket{command="read",export="image/a",le="2.5e-05"}`: "1",
		`platter_nbd_export_request_seconds_bucket{command="read",export="image/a",le="10"}`:      "1",
		`platter_nbd_export_request_seconds_count{command="read",export="image/a"}`:               "2",
		`platter_nbd_export_bytes_total{command="read",export="image/a"}`:                         "8192",
		`platter_nbd_export_errors_total{command="write",errno="28",export="image/a"}`:            "1",
		`platter_nbd_export_connections{export="image/a"}`:                                        "2",
		`platter_nbd_export_in_flight{export="image/a"}`:                                          "6",
		`platter_nbd_clients{headers="structured",transport="tcp"}`:                               "2",
		`platter_nbd_clients{headers="none",transport="unix"}`:                                    "1",
		`platter_nbd_connections`:                              "2",
		`platter_nbd_bytes_total{command="read"}`:              "8192",
		`platter_nbd_errors_total{command="write",errno="28"}`: "1",
		`platter_nbd_tls_failures_total`:                       "0",
	}
	wantMetrics(t, m, want)
	two.Closed()
	now, live = now.Add(exportIdle-time.Second), nil
	wantMetrics(t, m, map[string]string{`platter_nbd_export_bytes_total{command="read",export="image/a"}`: "8192"})
	now = now.Add(2 * time.Second)
	wantMetrics(t, m, map[string]string{`platter_nbd_bytes_total{command="read"}`: "8192", `platter_nbd_errors_total{command="write",errno="28"}`: "1"})
	if text := exposed(t, m); strings.Contains(text, "image/a") {
		t.Errorf("an export that nobody uses is still there:\n%s", text)
	}
}

// TestMetricsAreBounded: however many exports there are.
func TestMetricsAreBounded(t *testing.T) {
	m := newMetrics()
	for i := range exportsKept + 100 {
		m.Connected(nbd.ConnInfo{Export: fmt.Sprint("image/", i)}).Request(nbd.CmdRead, 1, 1, 0)
	}
	if n := len(m.nbd.exports); n > exportsKept+1 {
		t.Errorf("%d exports have numbers", n)
	}
	wantMetrics(t, m, map[string]string{
		`platter_nbd_export_bytes_total{command="read",export="other"}`: "100",
		`platter_nbd_bytes_total{command="read"}`:                       fmt.Sprint(exportsKept + 100),
	})
}

// TestMeterAllocates: counting a request costs no memory.
func TestMeterAllocates(t *testing.T) {
	c := newMetrics().Connected(nbd.ConnInfo{Export: "e"})
	c.Request(nbd.CmdRead, 1, 1, 0)
	if n := testing.AllocsPerRun(1000, func() { c.Request(nbd.CmdRead, 4096, time.Millisecond, 0) }); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

// BenchmarkMeter counts requests of connections side by side.
func BenchmarkMeter(b *testing.B) {
	m := newMetrics()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		c := m.Connected(nbd.ConnInfo{Export: "e"})
		for pb.Next() {
			c.Request(nbd.CmdRead, 4096, 80*time.Microsecond, 0)
		}
	})
}

func exposed(t *testing.T, m *metrics) string {
	t.Helper()
	if _, err := m.reg.Gather(); err != nil {
		t.Error(err)
	}
	rec := httptest.NewRecorder()
	debugHandler(m.reg, nil).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	return rec.Body.String()
}

func wantMetrics(t *testing.T, m *metrics, want map[string]string) {
	t.Helper()
	text := exposed(t, m)
	for name, value := range want {
		if !strings.Contains(text, "\n"+name+" "+value+"\n") {
			t.Errorf("%s should be %s", name, value)
		}
	}
	if t.Failed() {
		t.Fatal(text)
	}
}
