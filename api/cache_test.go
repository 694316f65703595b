package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// memCache remembers ids.
type memCache struct {
	cached, queued []string
	full           bool
	cleaned        int
}

func (c *memCache) State(context.Context) ([]CachedImage, []string, error) {
	var list []CachedImage
	for _, id := range c.cached {
		list = append(list, CachedImage{ImageID: id, Hits: 3, Accessed: time.Unix(1e9, 5e8), Modified: time.Unix(1e9, 0), Size: 7})
	}
	return list, c.queued, nil
}

func (c *memCache) Holds(img catalog.Image) bool { return slices.Contains(c.cached, img.ID) }

func (c *memCache) Queue(img catalog.Image) error {
	if c.full {
		return fmt.Errorf("no more: %w", ErrCacheQueueFull)
	}
	if img.Name != nil && *img.Name == "near" {
		return fmt.Errorf("image %s is near: %w", img.ID, errors.ErrUnsupported)
	}
	c.queued = append(c.queued, img.ID)
	return nil
}

func (c *memCache) Remove(_ context.Context, id string, cached, queued bool) (bool, error) {
	n := len(c.cached) + len(c.queued)
	gone := func(other string) bool { return id == "" || id == other }
	if cached {
		c.cached = slices.DeleteFunc(c.cached, gone)
	}
	if queued {
		c.queued = slices.DeleteFunc(c.queued, gone)
	}
	return len(c.cached)+len(c.queued) < n, nil
}

func (c *memCache) Clean(context.Context) error { c.cleaned++; return nil }

func active(t *testing.T, s *Server, body string) string {
	t.Helper()
	id := create(t, s, body)
	if w := do(s, "PUT", "/v2/images/"+id+"/file", "data", "Content-Type: application/octet-stream"); w.Code != 204 {
		t.Fatalf("upload: %d %s", w.Code, w.Body)
	}
	return id
}

func TestCache(t *testing.T) {
	c := &memCache{}
	s, _ := newServer(t, func(cfg *Config) { cfg.Cache = c })
	id := active(t, s, `{"name":"x","disk_format":"raw","container_format":"bare"}`)
	near := active(t, s, `{"name":"near","disk_format":"raw","container_format":"bare"}`)
	queued := create(t, s, `{"name":"q"}`)
	missing := "0d7f5f6c-7e0b-4b0a-9d53-1b1c5b0f7a11"
	c.queued = []string{missing}
	for _, q := range []struct {
		method, path, header string
		want                 int
		cached, queued       string // afterwards
	}{
		{"PUT", "/" + id, "", 202, "", missing + " " + id},
		{"PUT", "/" + queued, "", 400, "", missing + " " + id},
		{"PUT", "/" + near, "", 400, "", missing + " " + id},
		{"PUT", "/none", "", 404, "", missing + " " + id},
		{"DELETE", "/" + missing, "", 204, "", id},
		{"DELETE", "/" + missing, "", 404, "", id},
		{"DELETE", "/" + near, "", 204, "", id},
		{"GET", "/nodes/" + id, "", 200, "", id},
		{"GET", "/nodes/none", "", 404, "", id},
		{"DELETE", "", "both", 400, "", id},
		{"DELETE", "", "CACHE", 204, "", id},
		{"DELETE", "", "queue", 204, "", ""},
		{"POST", "/clean", "", 200, "", ""},
		{"POST", "/prune", "", 200, "", ""},
		{"GET", "/" + id, "", 405, "", ""},
		{"PATCH", "", "", 405, "", ""},
	} {
		w := do(s, q.method, "/v2/cache"+q.path, "", "X-Image-Cache-Clear-Target: "+q.header)
		if w.Code != q.want || strings.Join(c.cached, " ") != q.cached || strings.Join(c.queued, " ") != q.queued {
			t.Errorf("%s %s %s: %d %s; cached %q, queued %q", q.method, q.path, q.header, w.Code, w.Body, c.cached, c.queued)
		}
	}
	if c.cleaned != 1 {
		t.Errorf("cleaned %d times", c.cleaned)
	}
	c.full = true
	if w := do(s, "PUT", "/v2/cache/"+id, ""); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("a full queue: %d %v", w.Code, w.Header())
	}
	c.cached, c.queued = []string{id}, []string{near}
	w := do(s, "GET", "/v2/cache", "")
	want := `{"cached_images": [{"image_id": "` + id + `", "hits": 3, "last_accessed": 1000000000.5, "last_modified": 1000000000, "size": 7}], "queued_images": ["` + near + `"]}`
	if !sameJSON(t, w.Body.String(), want) {
		t.Errorf("%s", w.Body)
	}
	if w := do(s, "GET", "/v2/cache/nodes/"+id, ""); !sameJSON(t, w.Body.String(), `["http://gateway"]`) {
		t.Errorf("nodes: %s", w.Body)
	}
	if w := do(s, "GET", "/versions", ""); !strings.Contains(w.Body.String(), `"v2.18"`) || !strings.Contains(w.Body.String(), `"v2.14"`) {
		t.Errorf("levels: %s", w.Body)
	}
}

func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Errorf("%s: %v", a, err)
	}
	return fmt.Sprint(x) == fmt.Sprint(y)
}

// TestCacheNotThere: where there is no cache, nothing says so to who may not
// know, and no level promises one.
func TestCacheNotThere(t *testing.T) {
	for header, want := range map[string]int{"X-Test-Roles: admin,member,reader": 404, "X-Test-Roles: member,reader": 403} {
		s, _ := newServer(t, func(cfg *Config) { cfg.Auth = headerAuth{} })
		id := create(t, s, `{"name":"x"}`, "X-Test-Project: p1", "X-Test-Roles: admin,member,reader")
		for _, call := range []string{"GET ", "DELETE ", "PUT /" + id, "DELETE /" + id, "GET /nodes/" + id, "POST /clean", "POST /prune"} {
			method, path, _ := strings.Cut(call, " ")
			if w := do(s, method, "/v2/cache"+path, "", "X-Test-Project: p1", header); w.Code != want {
				t.Errorf("%s as %s: %d %s", call, header, w.Code, w.Body)
			}
		}
		if w := do(s, "GET", "/versions", ""); strings.Contains(w.Body.String(), `"v2.14"`) || strings.Contains(w.Body.String(), `"v2.16"`) {
			t.Errorf("levels: %s", w.Body)
		}
	}
}

// TestWhoMayCache: only administrators, whoever owns the image.
func TestWhoMayCache(t *testing.T) {
	s, _ := newServer(t, func(cfg *Config) { cfg.Auth, cfg.Cache = headerAuth{}, &memCache{} })
	owner := []string{"X-Test-Project: p1", "X-Test-Roles: member,reader"}
	id := create(t, s, `{"name":"x"}`, owner...)
	for _, call := range []string{"GET ", "DELETE ", "PUT /" + id, "DELETE /" + id, "GET /nodes/" + id, "POST /clean", "POST /prune"} {
		method, path, _ := strings.Cut(call, " ")
		if w := do(s, method, "/v2/cache"+path, "", owner...); w.Code != 403 {
			t.Errorf("%s: %d %s", call, w.Code, w.Body)
		}
	}
}
