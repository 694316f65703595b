package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/proxy"
)

// content is what the store below holds at every path.
var content = bytes.Repeat([]byte("0123456789abcdef"), 1<<14) // 256 KiB

// A store takes PUTs and knows ranges.
type store struct {
	*httptest.Server
	puts, bytes atomic.Int64
	cut         atomic.Int64 // PUTs that ended early
	last        atomic.Pointer[http.Request]
}

func newStore(t *testing.T) *store {
	s := &store{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.last.Store(r)
		if r.Method == http.MethodPut {
			n, err := io.Copy(io.Discard, r.Body)
			s.bytes.Add(n)
			if err != nil {
				s.cut.Add(1)
				return
			}
			s.puts.Add(1)
			w.WriteHeader(http.StatusCreated)
			return
		}
		w.Header().Set("ETag", `"one"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(s.Close)
	return s
}

// client is a client without pooled connections, so that tests do not disturb
// each other.
func client() *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
}

func do(t *testing.T, c *http.Client, method, url, ranges string, body io.Reader) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp, data, err
}

func TestPassesOn(t *testing.T) {
	s := newStore(t)
	p := proxy.Start(t, s.URL, proxy.Config{})
	c := client()
	resp, data, err := do(t, c, "GET", p.URL+"/a%2Fb/c%20d?x=1&y=%2F", "bytes=10-19", nil)
	if err != nil || resp.StatusCode != 206 || !bytes.Equal(data, content[10:20]) || resp.ContentLength != 10 {
		t.Fatalf("%v, %v, %q", resp, err, data)
	}
	if r := s.last.Load(); r.RequestURI != "/a%2Fb/c%20d?x=1&y=%2F" || r.Host != p.Host() {
		t.Errorf("the store was asked for %s of %s", r.RequestURI, r.Host)
	}
	if resp, _, err := do(t, c, "HEAD", p.URL+"/k", "", nil); err != nil || resp.ContentLength != int64(len(content)) {
		t.Errorf("HEAD: %v, %v", resp, err)
	}
	for range 3 {
		if resp, _, err := do(t, c, "PUT", p.URL+"/k", "", bytes.NewReader(content[:1000])); err != nil || resp.StatusCode != 201 {
			t.Fatalf("PUT: %v, %v", resp, err)
		}
	}
	if _, _, err := do(t, c, "PUT", p.URL+"/k", "", io.MultiReader(bytes.NewReader(content[:77]))); err != nil { // of unknown length
		t.Fatal(err)
	}
	if n := p.Count("GET", "HEAD"); n != (proxy.Count{Requests: 2, Received: 10}) {
		t.Errorf("read %+v", n)
	}
	if n := p.Count("PUT"); n != (proxy.Count{Requests: 4, Sent: 3077}) || s.bytes.Load() != 3077 {
		t.Errorf("written %+v, the store has %d", n, s.bytes.Load())
	}
	if log := p.Requests(); len(log) != 6 || log[0].Range != "bytes=10-19" || log[0].Received != 10 || log[0].Status != 206 || log[0].Path != "/a/b/c d" {
		t.Errorf("remembered %+v", log)
	}
	p.Forget()
	if n := p.Count(); n != (proxy.Count{}) || len(p.Requests()) != 0 {
		t.Errorf("not forgotten: %+v", n)
	}
}

func TestTLS(t *testing.T) {
	p := proxy.Start(t, newStore(t).URL, proxy.Config{TLS: true})
	roots := x509.NewCertPool()
	roots.AddCert(p.Certificate())
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	if _, data, err := do(t, c, "GET", p.URL+"/k", "", nil); err != nil || !bytes.Equal(data, content) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	p.Add(proxy.Rule{}, proxy.ResetBefore())
	if _, _, err := do(t, c, "GET", p.URL+"/k", "", nil); err == nil {
		t.Error("no error")
	}
}

func TestLatencyAndBandwidth(t *testing.T) {
	p := proxy.Start(t, newStore(t).URL, proxy.Config{Latency: 100 * time.Millisecond})
	start := time.Now()
	if _, _, err := do(t, client(), "GET", p.URL+"/k", "", nil); err != nil || time.Since(start) < 100*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	p.SetLatency(0)
	p.SetBandwidth(1 << 20) // 4 x 256 KiB take a second
	start = time.Now()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if _, data, err := do(t, client(), "GET", p.URL+"/k", "", nil); err != nil || !bytes.Equal(data, content) {
				t.Errorf("%d bytes, %v", len(data), err)
			}
		})
	}
	all.Wait()
	if d := time.Since(start); d < 900*time.Millisecond || d > 30*time.Second {
		t.Errorf("1 MiB at 1 MiB/s took %v", d)
	}
	start = time.Now()
	if _, _, err := do(t, client(), "PUT", p.URL+"/k", "", bytes.NewReader(content)); err != nil || time.Since(start) < 200*time.Millisecond {
		t.Errorf("PUT of 256 KiB at 1 MiB/s: %v after %v", err, time.Since(start))
	}
}

func TestRules(t *testing.T) {
	p := proxy.Start(t, newStore(t).URL, proxy.Config{})
	c := client()
	status := func(method, path, ranges string) int {
		t.Helper()
		resp, _, err := do(t, c, method, p.URL+path, ranges, nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	r := p.Add(proxy.Rule{Method: "GET", Path: "/bucket/", Query: "part=2", Range: "bytes=0-", Skip: 1, Every: 2, Times: 2}, proxy.Answer(503, "slow down"))
	for _, other := range [][3]string{{"DELETE", "/bucket/k?part=2", "bytes=0-9"}, {"GET", "/other/k?part=2", "bytes=0-9"},
		{"GET", "/bucket/k?part=1", "bytes=0-9"}, {"GET", "/bucket/k?part=2", "bytes=1-9"}} {
		if got := status(other[0], other[1], other[2]); got == 503 {
			t.Errorf("met %v", other)
		}
	}
	var got []int
	for range 8 {
		got = append(got, status("GET", "/bucket/k?part=2", "bytes=0-9"))
	}
	if want := "[206 206 503 206 503 206 206 206]"; fmt.Sprint(got) != want || r.Hits() != 2 {
		t.Errorf("%v, %d hits; want %s", got, r.Hits(), want)
	}
	p.Add(proxy.Rule{Match: func(r *http.Request) bool { return r.Header.Get("If-Match") == "" }}, proxy.Answer(500, ""))
	if got := status("GET", "/k", ""); got != 500 {
		t.Errorf("Match: %d", got)
	}
	p.Clear()
	r = p.Add(proxy.Rule{}, proxy.Answer(500, ""))
	r.Remove()
	if got := status("GET", "/k", ""); got != 200 {
		t.Errorf("after Remove: %d", got)
	}
}

func TestReadFaults(t *testing.T) {
	s := newStore(t)
	changed := bytes.Clone(content)
	changed[5000] ^= 0x55
	for name, c := range map[string]struct {
		fault  proxy.Fault
		status int
		want   []byte
		err    error // one that it is, or any other than nil for errAny
	}{
		"answer":       {proxy.Answer(403, "no"), 403, []byte("no"), nil},
		"cut":          {proxy.Cut(1000), 200, content[:1000], io.ErrUnexpectedEOF},
		"cut at once":  {proxy.Cut(0), 200, nil, io.ErrUnexpectedEOF},
		"short":        {proxy.Short(1000), 200, content[:1000], nil},
		"corrupt":      {proxy.Corrupt(5000), 200, changed, nil},
		"pretend":      {proxy.Pretend(404), 404, content, nil},
		"header":       {proxy.SetHeader("ETag", `"two"`), 200, content, nil},
		"drip":         {proxy.Drip(1 << 20), 200, content, nil},
		"delay":        {proxy.Delay(50 * time.Millisecond), 200, content, nil},
		"reset before": {proxy.ResetBefore(), 0, nil, syscall.ECONNRESET},
		"reset after":  {proxy.ResetAfter(), 0, nil, syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := proxy.Start(t, s.URL, proxy.Config{})
			p.Add(proxy.Rule{Times: 1}, c.fault)
			resp, data, err := do(t, client(), "GET", p.URL+"/k", "", nil)
			if !errors.Is(err, c.err) || !bytes.Equal(data, c.want) || resp != nil && resp.StatusCode != c.status {
				t.Errorf("%v, %d bytes, %v; want %d, %d bytes, %v", resp, len(data), err, c.status, len(c.want), c.err)
			}
			if resp, data, err := do(t, client(), "GET", p.URL+"/k", "", nil); err != nil || !bytes.Equal(data, content) || resp.Header.Get("ETag") != `"one"` {
				t.Errorf("the next: %d bytes, %v", len(data), err)
			}
		})
	}
}

func TestIgnoreRange(t *testing.T) {
	p := proxy.Start(t, newStore(t).URL, proxy.Config{})
	p.Add(proxy.Rule{Times: 1}, proxy.IgnoreRange())
	p.Add(proxy.Rule{Times: 1}, proxy.Pretend(200))
	if resp, data, err := do(t, client(), "GET", p.URL+"/k", "bytes=0-9", nil); err != nil || resp.StatusCode != 200 || len(data) != len(content) {
		t.Errorf("%v, %d bytes, %v", resp, len(data), err)
	}
	resp, data, err := do(t, client(), "GET", p.URL+"/k", "bytes=0-9", nil)
	if err != nil || resp.StatusCode != 200 || len(data) != 10 || resp.Header.Get("Content-Range") != "" {
		t.Errorf("%v, %d bytes, %v", resp, len(data), err)
	}
}

// TestHangs wants nothing to come until the client gives up, and the proxy to
// end although others wait.
func TestHangs(t *testing.T) {
	s := newStore(t)
	for name, fault := range map[string]proxy.Fault{"before": proxy.HangBefore(), "after": proxy.HangAfter(), "stall": proxy.Stall(100)} {
		t.Run(name, func(t *testing.T) {
			p := proxy.Start(t, s.URL, proxy.Config{})
			p.Add(proxy.Rule{}, fault)
			before := s.puts.Load()
			done := func() int64 { return s.puts.Load() - before }
			wanted := int64(1)
			if name == "before" {
				wanted = 0
			}
			// The client gives up a moment after all that should happen has.
			_, err := until(t, "PUT", p.URL+"/k", bytes.NewReader(content), func(int) bool {
				return p.Count("PUT").Requests == 1 && done() == wanted
			})
			if name != "stall" && !errors.Is(err, context.Canceled) {
				t.Errorf("PUT: %v", err)
			}
			if done() != wanted {
				t.Errorf("the store has done %d", done())
			}
			came := 0
			if name == "stall" {
				came = 100
			}
			n, err := until(t, "GET", p.URL+"/k", nil, func(n int) bool { return p.Count("GET").Requests == 1 && n == came })
			if !errors.Is(err, context.Canceled) || n != came {
				t.Errorf("GET: %d bytes, %v", n, err)
			}
			go func() { // waits still when the proxy ends
				req, _ := http.NewRequestWithContext(context.WithoutCancel(t.Context()), "GET", p.URL+"/k", nil)
				if resp, err := client().Do(req); err == nil {
					resp.Body.Close()
				}
			}()
			for p.Count("GET").Requests < 2 {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// until sends a request and gives up some time after ok says so of the bytes
// that came of the answer's body, or in vain after a minute. It returns how
// many came.
func until(t *testing.T, method, url string, body io.Reader, ok func(n int) bool) (int, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var came counter
	go func() {
		for end := time.Now().Add(time.Minute); !ok(int(came.n.Load())) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond)
		cancel()
	}()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	c := client()
	c.Timeout = 0
	resp, err := c.Do(req)
	if err == nil {
		defer resp.Body.Close()
		_, err = io.Copy(&came, resp.Body)
	}
	return int(came.n.Load()), err
}

// A counter counts what is written to it.
type counter struct{ n atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

func TestWriteFaults(t *testing.T) {
	s := newStore(t)
	p := proxy.Start(t, s.URL, proxy.Config{})
	p.Add(proxy.Rule{Times: 1}, proxy.ResetAfter())
	p.Add(proxy.Rule{Times: 1}, proxy.ResetBefore())
	put := func() error {
		_, _, err := do(t, client(), "PUT", p.URL+"/k", "", bytes.NewReader(content))
		return err
	}
	if err := put(); err == nil || s.puts.Load() != 1 {
		t.Errorf("reset after: %v, %d done", err, s.puts.Load())
	}
	if err := put(); err == nil || s.puts.Load() != 1 {
		t.Errorf("reset before: %v, %d done", err, s.puts.Load())
	}
	p.Add(proxy.Rule{Times: 1}, proxy.CutRequest(1000))
	if err := put(); err == nil {
		t.Error("cut: no error")
	}
	for deadline := time.Now().Add(time.Minute); s.cut.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if s.cut.Load() != 1 || s.puts.Load() != 1 {
		t.Errorf("%d cut, %d done", s.cut.Load(), s.puts.Load())
	}
	if err := put(); err != nil || s.puts.Load() != 2 {
		t.Errorf("%v, %d done", err, s.puts.Load())
	}
}

func TestStoreIsGone(t *testing.T) {
	s := newStore(t)
	p := proxy.Start(t, s.URL, proxy.Config{})
	s.Close()
	if resp, data, err := do(t, client(), "GET", p.URL+"/k", "", nil); err != nil || resp.StatusCode != 502 || !strings.Contains(string(data), "refused") {
		t.Errorf("%v, %q, %v", resp, data, err)
	}
}
