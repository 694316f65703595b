//go:build integration

package servers_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/integration/servers"
)

func TestGlance(t *testing.T) {
	v := servers.StartVersity(t, servers.VersityConfig{})
	v.MakeBucket(t, "images")
	g := servers.StartGlance(t, servers.GlanceConfig{S3: &v.S3, Bucket: "images"})
	call := func(method, path, kind, body string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, g.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", kind)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode >= 300 {
			t.Fatalf("%s %s: %s, %v\n%s\n%s", method, path, resp.Status, err, data, g.Process.Log(8<<10))
		}
		return string(data)
	}
	const id = "6f1f1c9e-8c5b-4f5e-9d3c-0d8a4f0a7e11"
	call("POST", "/v2/images", "application/json", `{"id": "`+id+`", "disk_format": "raw", "container_format": "bare"}`)
	call("PUT", "/v2/images/"+id+"/file", "application/octet-stream", "what was put")
	if got := call("GET", "/v2/images/"+id+"/file", "", ""); got != "what was put" {
		t.Errorf("%q", got)
	}
}
