//go:build integration

package glance_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/servers"
)

// A client talks to a Glance.
type client struct{ *servers.Glance }

// image is what Glance shows of one.
type image struct {
	Status    string
	Size      int64
	Locations []struct{ URL string }
}

// do sends a request and returns the answer's status and body.
func (c *client) do(t *testing.T, method, path string, header map[string]string, body io.Reader) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := (&http.Client{Timeout: 2 * time.Minute}).Do(req)
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Process.Log(8<<10))
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", method, path, err, c.Process.Log(8<<10))
	}
	return resp.StatusCode, data
}

// must is do for what has to work.
func (c *client) must(t *testing.T, method, path string, header map[string]string, body io.Reader) []byte {
	t.Helper()
	status, data := c.do(t, method, path, header, body)
	if status >= 300 {
		t.Fatalf("%s %s: %d\n%s\n%s", method, path, status, data, c.Process.Log(8<<10))
	}
	return data
}

// try returns the status alone.
func (c *client) try(t *testing.T, method, path string) int {
	t.Helper()
	status, _ := c.do(t, method, path, nil, nil)
	return status
}

// create registers an image without data and returns its id.
func (c *client) create(t *testing.T, name string) string {
	t.Helper()
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	body, err := json.Marshal(map[string]string{"id": id, "name": name, "disk_format": "raw", "container_format": "bare"})
	if err != nil {
		t.Fatal(err)
	}
	c.must(t, "POST", "/v2/images", map[string]string{"Content-Type": "application/json"}, bytes.NewReader(body))
	return id
}

// upload sends an image's data into a store; of unknown length, they come in
// chunks.
func (c *client) upload(t *testing.T, id, store string, known bool, data []byte) {
	t.Helper()
	var body io.Reader = bytes.NewReader(data)
	if !known {
		body = io.MultiReader(body)
	}
	c.must(t, "PUT", "/v2/images/"+id+"/file", map[string]string{"Content-Type": "application/octet-stream", "X-Image-Meta-Store": store}, body)
}

// addLocation says where the data of an image are.
func (c *client) addLocation(t *testing.T, id, store, uri string) {
	t.Helper()
	body, err := json.Marshal([]any{map[string]any{"op": "add", "path": "/locations/-",
		"value": map[string]any{"url": uri, "metadata": map[string]string{"store": store}}}})
	if err != nil {
		t.Fatal(err)
	}
	c.must(t, "PATCH", "/v2/images/"+id, map[string]string{"Content-Type": "application/openstack-images-v2.1-json-patch"}, bytes.NewReader(body))
}

func (c *client) show(t *testing.T, id string) image {
	t.Helper()
	var i image
	if err := json.Unmarshal(c.must(t, "GET", "/v2/images/"+id, nil, nil), &i); err != nil {
		t.Fatal(err)
	}
	return i
}

func (c *client) download(t *testing.T, id, ranges string) []byte {
	t.Helper()
	header := map[string]string{}
	if ranges != "" {
		header["Range"] = ranges
	}
	return c.must(t, "GET", "/v2/images/"+id+"/file", header, nil)
}

func (c *client) delete(t *testing.T, id string) {
	t.Helper()
	c.must(t, "DELETE", "/v2/images/"+id, nil, nil)
}
