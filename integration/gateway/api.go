package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// Call asks the API with a JSON body, or none, and returns the answer. Another
// status ends the test.
func (g *Gateway) Call(t testing.TB, method, path, body string, status int) []byte {
	t.Helper()
	got, code, err := g.Ask(method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	if code != status {
		t.Fatalf("%s %s %s: %d, want %d\n%s", method, path, body, code, status, got)
	}
	return got
}

// Ask is Call for what may fail, and from any goroutine.
func (g *Gateway) Ask(method, path, body string) ([]byte, int, error) {
	req, err := http.NewRequest(method, g.URL+path, strings.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return got, resp.StatusCode, err
}

// field returns a text of a JSON object.
func field(t testing.TB, data []byte, name string) string {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return fmt.Sprint(v[name])
}

// NewImage makes an image without data and returns its id.
func (g *Gateway) NewImage(t testing.TB, name, format string) string {
	t.Helper()
	return field(t, g.Call(t, "POST", "/v2/images", fmt.Sprintf(`{"name":%q,"disk_format":%q,"container_format":"bare"}`, name, format), 201), "id")
}

// Upload makes an image of a file and returns its id.
func (g *Gateway) Upload(t testing.TB, name, format, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	id := g.NewImage(t, name, format)
	if err := g.Put(id, f, st.Size()); err != nil {
		t.Fatal(err)
	}
	return id
}

// Put uploads the bytes of an image; size -1 sends them without saying how
// many there are.
func (g *Gateway) Put(id string, body io.Reader, size int64) error {
	req, err := http.NewRequest("PUT", g.URL+"/v2/images/"+id+"/file", io.NopCloser(body))
	if err != nil {
		return err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusNoContent {
		err = fmt.Errorf("upload of %s: %s: %s", id, resp.Status, bytes.TrimSpace(text))
	}
	return err
}

// NewOverlay makes an overlay of an image; more is JSON such as `,"size":1`.
func (g *Gateway) NewOverlay(t testing.TB, image, more string) string {
	t.Helper()
	return field(t, g.Call(t, "POST", "/platter/v1/overlays", fmt.Sprintf(`{"image_id":%q%s}`, image, more), 201), "id")
}

// Capture makes an image of an overlay and waits for it.
func (g *Gateway) Capture(t testing.TB, overlay, image string) (id string) {
	t.Helper()
	got := g.WaitTask(t, g.Call(t, "POST", "/platter/v1/overlays/"+overlay+"/capture", `{"image":`+image+`}`, 202))
	var v struct {
		Result struct {
			Image string `json:"image_id"`
		}
	}
	if err := json.Unmarshal(got, &v); err != nil {
		t.Fatal(err)
	}
	return v.Result.Image
}

// WaitTask waits until a task has succeeded, at most two minutes, and returns
// its record.
func (g *Gateway) WaitTask(t testing.TB, task []byte) []byte {
	t.Helper()
	id := field(t, task, "id")
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		got := g.Call(t, "GET", "/v2/tasks/"+id, "", 200)
		switch status := field(t, got, "status"); {
		case status == "success":
			return got
		case status == "failure" || time.Now().After(end):
			t.Fatalf("the task is %s", got)
		}
	}
}
