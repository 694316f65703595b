package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/cmd/platterd/config"
)

// TestStopHTTP: a request that ends in time ends whole; one that does not is
// cut, and that is no error.
func TestStopHTTP(t *testing.T) {
	for _, slow := range []bool{false, true} {
		begun, goOn := make(chan struct{}), make(chan struct{})
		s := newHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			http.NewResponseController(w).Flush()
			close(begun)
			select {
			case <-goOn:
				io.WriteString(w, "whole")
			case <-r.Context().Done():
			}
		}), slog.New(slog.DiscardHandler))
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go s.Serve(ln)
		answer := make(chan string)
		go func() {
			resp, err := http.Get("http://" + ln.Addr().String())
			if err != nil {
				answer <- err.Error()
				return
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				text = []byte("cut")
			}
			answer <- string(text)
		}()
		<-begun
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		want := "cut"
		if !slow {
			ctx, want = t.Context(), "whole"
			time.AfterFunc(20*time.Millisecond, func() { close(goOn) })
		}
		if err := stopHTTP(ctx, s); err != nil {
			t.Errorf("slow=%t: %v", slow, err)
		}
		cancel()
		if got := <-answer; got != want {
			t.Errorf("slow=%t: the client got %q", slow, got)
		}
	}
}

// TestCloseOfHalfAGateway: whatever a failed start has opened is closed.
func TestCloseOfHalfAGateway(t *testing.T) {
	cfg := doorsConfig(t)
	cfg.DataDir, cfg.Limits.StopWithin = t.TempDir(), config.Duration(time.Second)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg.Debug.Listen = taken.Addr().String()
	err = run(t.Context(), cfg, slog.New(slog.DiscardHandler), false)
	if err == nil || !strings.Contains(err.Error(), "--debug-listen") {
		t.Fatalf("a start with a port in use: %v", err)
	}
	d, err := openDataDir(cfg.DataDir)
	if err != nil {
		t.Fatalf("the failed start still holds the data directory: %v", err)
	}
	d.Close()
}

// TestMethodsOfMetrics: clients cannot make series at will.
func TestMethodsOfMetrics(t *testing.T) {
	m := newMetrics()
	for _, method := range []string{"GET", "BREW", "TEA", strings.Repeat("X", 100)} {
		m.request(method, "", 405, time.Millisecond)
	}
	families, err := m.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if n := len(f.GetMetric()); f.GetName() == "platter_http_request_seconds" && n != 2 {
			t.Errorf("%d series for one known and three unknown methods", n)
		}
	}
}
