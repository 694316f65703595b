//go:build integration

package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// newImage is the image that creates make.
const newImage = `{"name":"bench","disk_format":"raw","container_format":"bare","visibility":"private"}`

// An apiSide is one server of the Image API.
type apiSide struct {
	who, url string
	pid      int
	http     *http.Client
	sent     string // an image with data
}

func newAPISide(t testing.TB, who, url string, pid int) *apiSide {
	transport := &http.Transport{MaxIdleConnsPerHost: crowd, WriteBufferSize: 256 << 10, ReadBufferSize: 256 << 10}
	t.Cleanup(transport.CloseIdleConnections)
	return &apiSide{who: who, url: url, pid: pid, http: &http.Client{Transport: transport, Timeout: 10 * time.Minute}}
}

// send sends a request and copies the body of an answer of the status that is
// wanted to w.
func (s *apiSide) send(method, path, kind string, body io.Reader, size int64, status int, w io.Writer) (int64, error) {
	req, err := http.NewRequest(method, s.url+path, body)
	if err != nil {
		return 0, err
	}
	req.ContentLength = size
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", s.who, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != status {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000)) // whatever it says
		return 0, fmt.Errorf("%s: %s %s: %s: %s", s.who, method, path, resp.Status, text)
	}
	return io.Copy(w, resp.Body)
}

// must is send for what has to work.
func (s *apiSide) must(t testing.TB, method, path, kind string, body io.Reader, size int64, status int) int64 {
	t.Helper()
	n, err := s.send(method, path, kind, body, size, status, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// create makes an image.
func (s *apiSide) create(t testing.TB) string {
	t.Helper()
	var text strings.Builder
	_, err := s.send("POST", "/v2/images", "application/json", strings.NewReader(newImage), int64(len(newImage)), 201, &text)
	var image struct{ ID string }
	if err == nil {
		err = json.Unmarshal([]byte(text.String()), &image)
	}
	if err != nil {
		t.Fatal(err)
	}
	return image.ID
}

func (s *apiSide) upload(t testing.TB, id string, size int64) {
	t.Helper()
	s.must(t, "PUT", "/v2/images/"+id+"/file", "application/octet-stream", body(size), size, 204)
}

// rate does one request after another for the time of a round, and returns how
// many came to a second.
func (s *apiSide) rate(t testing.TB, one func()) float64 {
	t.Helper()
	n, began := 0, time.Now()
	for end := began.Add(time.Duration(seconds()) * time.Second); time.Now().Before(end); n++ {
		one()
	}
	return float64(n) / time.Since(began).Seconds()
}
