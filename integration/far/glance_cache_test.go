//go:build integration

package far

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/integration/gateway"
)

// cacheState is what /v2/cache shows.
type cacheState struct {
	Cached []struct {
		ImageID  string  `json:"image_id"`
		Hits     int64   `json:"hits"`
		Accessed float64 `json:"last_accessed"`
		Modified float64 `json:"last_modified"`
		Size     int64   `json:"size"`
	} `json:"cached_images"`
	Queued []string `json:"queued_images"`
}

func stateOf(t *testing.T, g *gateway.Gateway) (s cacheState) {
	t.Helper()
	if err := json.Unmarshal(g.Call(t, "GET", "/v2/cache", "", 200), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// awaitCached waits until exactly these images are there, and none is queued.
func awaitCached(t *testing.T, g *gateway.Gateway, ids ...string) cacheState {
	t.Helper()
	slices.Sort(ids)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		s := stateOf(t, g)
		var got []string
		for _, c := range s.Cached {
			got = append(got, c.ImageID)
		}
		slices.Sort(got)
		if slices.Equal(got, ids) && len(s.Queued) == 0 {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("cached are %q and not %q; queued %q\n%s", got, ids, s.Queued, g.Log())
		}
	}
}

// length is how long the images are that the cache is to have whole.
const length = 20 << 20

// TestCacheByClients drives the cache with Debian's glance command and with
// platter: images in S3 that nobody has read come whole, are served without
// the bucket, are still there after a restart, and go.
func TestCacheByClients(t *testing.T) {
	gateway.Need(t, "glance")
	for _, k := range kinds() {
		if k.name != "s3 versitygw" { // one is enough: the cache is the same above all of them
			continue
		}
		g := start(t, k)
		glance := func(args ...string) string {
			t.Helper()
			return g.Command(t, "env", append([]string{"-u", "OS_AUTH_TYPE", "glance", "--os-image-url", g.URL, "--os-auth-token", "none"}, args...)...)
		}
		platter := func(args ...string) string {
			t.Helper()
			return g.Command(t, gateway.Binary(t, "platter"), append([]string{"--url", g.URL}, args...)...)
		}
		file, _ := disk(t, length)
		one, two := g.Upload(t, "one", "raw", file), g.Upload(t, "two", "raw", file)
		g.Call(t, "DELETE", "/v2/cache", "", 204)
		glance("cache-queue", one, two)
		awaitCached(t, g, one, two)
		if out := glance("cache-list"); !strings.Contains(out, one) || !strings.Contains(out, two) {
			t.Errorf("cache-list:\n%s", out)
		}
		before := farBytes(t, g)
		if n := len(g.Call(t, "GET", "/v2/images/"+one+"/file", "", 200)); n != length {
			t.Errorf("%d bytes were downloaded", n)
		}
		if n := farBytes(t, g) - before; n != 0 {
			t.Errorf("%d bytes of a cached image came from the store", n)
		}
		for _, c := range stateOf(t, g).Cached {
			if want := map[string]int64{one: 1}[c.ImageID]; c.Hits != want || c.Size != length || c.Accessed < c.Modified {
				t.Errorf("%+v", c)
			}
		}
		g.Stop(t)
		g.Run(t)
		for _, c := range awaitCached(t, g, one, two).Cached {
			if want := map[string]int64{one: 1}[c.ImageID]; c.Hits != want {
				t.Errorf("after a restart: %+v", c)
			}
		}
		glance("cache-delete", one)
		awaitCached(t, g, two)
		glance("cache-clear")
		awaitCached(t, g)
		platter("cache", "queue", "two")
		awaitCached(t, g, two)
		if out := platter("cache", "list", "--whole", "-f", "value"); !strings.Contains(out, two+" cached") || strings.Contains(out, one) {
			t.Errorf("platter cache list --whole: %q", out)
		}
		platter("cache", "clean")
		if out := platter("cache", "prune", "-f", "value"); strings.Contains(out, "1") {
			t.Errorf("platter cache prune: %q", out)
		}
		g.Call(t, "DELETE", "/v2/images/"+two, "", 204)
		awaitCached(t, g)
		platter("cache", "clear", "--target", "queue")
	}
}

// farBytes is how much the cache has fetched.
func farBytes(t *testing.T, g *gateway.Gateway) int64 {
	t.Helper()
	var s struct {
		Far int64 `json:"far_bytes"`
	}
	if err := json.Unmarshal(g.Call(t, "GET", "/platter/v1/cache", "", 200), &s); err != nil {
		t.Fatal(err)
	}
	return s.Far
}
