package proxy_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/proxy"
)

// BenchmarkGet shows what the proxy itself costs: small answers and large
// ones, and one at a bandwidth that it has to keep.
func BenchmarkGet(b *testing.B) {
	for _, c := range []struct {
		name      string
		size      int
		bandwidth int64
	}{{"4KiB", 4 << 10, 0}, {"4MiB", 4 << 20, 0}, {"512KiB at 100MB/s", 512 << 10, 100_000_000}} {
		b.Run(c.name, func(b *testing.B) {
			body := make([]byte, c.size)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(body) }))
			defer s.Close()
			p := proxy.Start(b, s.URL, proxy.Config{Bandwidth: c.bandwidth})
			client := &http.Client{Timeout: time.Minute}
			b.SetBytes(int64(c.size))
			for b.Loop() {
				resp, err := client.Get(p.URL)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(c.size) {
					b.Fatal(n, err)
				}
				resp.Body.Close()
			}
		})
	}
}
