//go:build integration

package swift

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	client "github.com/ncw/swift/v2"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/storetest"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// put stores an object as another client does.
func put(t *testing.T, c *client.Connection, container, name string, data []byte, header client.Headers) {
	t.Helper()
	if _, err := c.ObjectPut(t.Context(), container, name, bytes.NewReader(data), true, "", "", header); err != nil {
		t.Fatalf("put %s/%s: %v", container, name, err)
	}
}

// putStatic makes a static large object: each line of the manifest is as the
// API has it.
func putStatic(t *testing.T, c *client.Connection, container, name string, lines ...map[string]any) {
	t.Helper()
	manifest, err := json.Marshal(lines)
	if err != nil {
		t.Fatal(err)
	}
	target, err := c.GetStorageUrl(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = c.Call(t.Context(), target, client.RequestOpts{Container: container, ObjectName: name, Operation: http.MethodPut,
		Parameters: map[string][]string{"multipart-manifest": {"put"}}, Body: bytes.NewReader(manifest), NoResponse: true,
		Headers: client.Headers{"Content-Length": fmt.Sprint(len(manifest))}})
	if err != nil {
		t.Fatalf("manifest %s: %v", name, err)
	}
}

// names returns what a container holds below a prefix.
func names(t *testing.T, c *client.Connection, container, prefix string) []string {
	t.Helper()
	names, err := c.ObjectNamesAll(t.Context(), container, &client.ObjectsOpts{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestWhatOthersWrote reads and deletes large objects of other clients.
func TestWhatOthersWrote(t *testing.T) {
	onEach(t, func(t *testing.T, a servers.SwiftAccount) {
		cfg := config(a)
		s, c, dir := open(t, cfg), a.Connection(), cfg.Prefix
		if err := c.ContainerCreate(t.Context(), "parts", nil); err != nil {
			t.Fatal(err)
		}
		data := storetest.Bytes(1, 5<<20)
		first, second := data[:2<<20], data[2<<20:]
		line := func(container, name string, p []byte) map[string]any {
			return map[string]any{"path": "/" + container + "/" + name, "size_bytes": len(p)}
		}

		put(t, c, "images", dir+"plain", data, nil)
		put(t, c, "images", dir+"glance-00001", first, nil)
		put(t, c, "images", dir+"glance-00002", second, nil)
		put(t, c, "images", dir+"glance", nil, client.Headers{"X-Object-Manifest": "images/" + dir + "glance-"})
		put(t, c, "parts", dir+"client/1/2/00000000", first, nil)
		put(t, c, "parts", dir+"client/1/2/00000001", second, nil)
		put(t, c, "images", dir+"client", nil, client.Headers{"X-Object-Manifest": "parts/" + dir + "client/1/2/"})
		put(t, c, "parts", dir+"s/1", first, nil)
		put(t, c, "parts", dir+"s/2", second, nil)
		putStatic(t, c, "images", dir+"static", line("parts", dir+"s/1", first), line("parts", dir+"s/2", second))
		keys := []string{"plain", "glance", "client", "static"}
		if a != ceph(t).RGW.Swift { // which ignores ranges of segments, and puts no manifest into another
			put(t, c, "parts", dir+"r/1", slices.Concat([]byte("before"), first, []byte("after")), nil)
			put(t, c, "parts", dir+"r/2", second, nil)
			part := line("parts", dir+"r/1", slices.Concat([]byte("before"), first, []byte("after")))
			part["range"] = fmt.Sprintf("6-%d", 6+len(first)-1)
			putStatic(t, c, "images", dir+"ranges", part, line("parts", dir+"r/2", second))
			put(t, c, "parts", dir+"n/1", first[:1<<20], nil)
			put(t, c, "parts", dir+"n/2", first[1<<20:], nil)
			put(t, c, "parts", dir+"n/3", second, nil)
			putStatic(t, c, "parts", dir+"n/inner", line("parts", dir+"n/1", first[:1<<20]), line("parts", dir+"n/2", first[1<<20:]))
			putStatic(t, c, "images", dir+"nested", map[string]any{"path": "/parts/" + dir + "n/inner"}, line("parts", dir+"n/3", second))
			keys = append(keys, "ranges", "nested")
		}
		for _, key := range keys {
			if err := storetest.Want(t.Context(), s, key, data); err != nil {
				t.Errorf("%s: %v", key, err)
			}
			if err := s.Delete(t.Context(), key); err != nil {
				t.Errorf("delete %s: %v", key, err)
			}
			if r, err := s.Open(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s after Delete: %v %v", key, r, err)
			}
		}
		if left := names(t, c, "images", dir); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		// Ceph does not tell whose segments these are.
		if left := names(t, c, "parts", dir); len(left) != 0 && a != ceph(t).RGW.Swift {
			t.Errorf("left: %v", left)
		}
	})
}

// TestOthersRead: another client reads what we wrote.
func TestOthersRead(t *testing.T) {
	onEach(t, func(t *testing.T, a servers.SwiftAccount) {
		cfg := config(a)
		c, data := a.Connection(), storetest.Bytes(1, 5<<20)
		for key, set := range map[string]struct {
			segment int64
			static  bool
		}{"plain": {0, false}, "dynamic": {1 << 20, false}, "static": {1 << 20, true}} {
			cfg.SegmentSize, cfg.Static = set.segment, set.static
			s := open(t, cfg)
			if err := storetest.Put(t.Context(), s, key, -1, data); err != nil {
				t.Fatal(err)
			}
			got, err := c.ObjectGetBytes(t.Context(), "images", cfg.Prefix+key)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: %d bytes that are others, or %v", key, len(got), err)
			}
			if _, h, err := c.Object(t.Context(), "images", cfg.Prefix+key); err != nil || h.IsLargeObject() != (set.segment > 0) {
				t.Errorf("%s: %v %v", key, h, err)
			}
			if err := backends.CopyInside(t.Context(), s, key+".copy", s, key); err != nil {
				t.Errorf("copy %s: %v", key, err)
			} else if got, err := c.ObjectGetBytes(t.Context(), "images", cfg.Prefix+key+".copy"); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s: the copy has %d bytes that are others, or %v", key, len(got), err)
			}
			for _, key := range []string{key, key + ".copy"} {
				if err := s.Delete(t.Context(), key); err != nil {
					t.Error(err)
				}
			}
		}
		if left := names(t, c, "images", cfg.Prefix); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// TestGlance: a Glance on the same container serves and deletes what we wrote,
// under the location that it gave, and we read and delete what it wrote.
func TestGlance(t *testing.T) {
	a := tempauth(t).Account
	cfg := config(a)
	cfg.Container, cfg.Prefix, cfg.Reference, cfg.SegmentSize = "glance", "", servers.SwiftReference, 1<<20
	s := open(t, cfg)
	g := servers.StartGlance(t, servers.GlanceConfig{Swift: &a, Container: cfg.Container, LargeObject: 1})
	for _, n := range []int{100, 5<<20 + 17} {
		data := storetest.Bytes(1, n)
		for _, last := range []string{"glance", "platter"} {
			id := uuid.NewString()
			ask(t, http.MethodPost, g.URL+"/v2/images", "application/json", newImage(id))
			ask(t, http.MethodPut, g.URL+"/v2/images/"+id+"/file", "application/octet-stream", data)
			if image := ask(t, http.MethodGet, g.URL+"/v2/images/"+id, "", nil); !bytes.Contains(image, []byte(`"`+s.URI(id)+`"`)) {
				t.Errorf("Glance's location is not %s: %s", s.URI(id), image)
			}
			written := names(t, a.Connection(), cfg.Container, "")
			if err := storetest.Want(t.Context(), s, id, data); err != nil {
				t.Errorf("what Glance wrote: %v", err)
			}
			if err := s.Delete(t.Context(), id); err != nil {
				t.Error(err)
			}
			if left := names(t, a.Connection(), cfg.Container, ""); len(left) != 0 {
				t.Errorf("left after we deleted Glance's: %v", left)
			}
			if last == "glance" {
				continue
			}
			if err := storetest.Put(t.Context(), s, id, int64(n), data); err != nil {
				t.Fatal(err)
			}
			if ours := names(t, a.Connection(), cfg.Container, ""); !slices.Equal(ours, written) {
				t.Errorf("we wrote %v, Glance %v", ours, written)
			}
			if got := ask(t, http.MethodGet, g.URL+"/v2/images/"+id+"/file", "", nil); !bytes.Equal(got, data) {
				t.Errorf("Glance serves %d bytes that are others than the %d we wrote", len(got), n)
			}
			ask(t, http.MethodDelete, g.URL+"/v2/images/"+id, "", nil)
			if left := names(t, a.Connection(), cfg.Container, ""); len(left) != 0 {
				t.Errorf("left after Glance deleted ours: %v", left)
			}
		}
	}
}

func newImage(id string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"name":"x","disk_format":"raw","container_format":"bare"}`, id)
}

func ask(t *testing.T, method, address, kind string, body []byte) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s, %v\n%s", method, address, resp.Status, err, strings.TrimSpace(string(got)))
	}
	return got
}
