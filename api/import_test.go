package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/importer"
	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// page is a web with one page.
type page struct{}

func (page) Check(uri string) error {
	if uri != "http://images.example.org/disk" {
		return errors.New("the host is not allowed")
	}
	return nil
}

func (page) Open(context.Context, string) (io.ReadCloser, int64, error) {
	return io.NopCloser(strings.NewReader("data")), 4, nil
}

// A site is a gateway with two stores that take bytes and one that does not.
type site struct {
	*Server
	t   *testing.T
	cat *catalog.Catalog
	imp *importer.Importer
}

func newSite(t *testing.T, kv catalog.KV, id string, stages backends.Store, selfURL string) *site {
	t.Helper()
	cat, err := catalog.Open(t.Context(), kv, catalog.Config{GatewayID: id})
	if err != nil {
		t.Fatal(err)
	}
	in, err := ingest.New(ingest.Config{
		Catalog: cat, GatewayID: id, DefaultStore: "fast",
		Stores: map[string]backends.Store{"fast": mem.New(), "slow": mem.New(), "web": mem.New()},
	})
	if err != nil {
		t.Fatal(err)
	}
	imp := importer.New(importer.Config{Catalog: cat, Bytes: in, GatewayID: id, Staging: stages, SelfURL: selfURL, Fetch: page{}, Every: time.Millisecond})
	s, err := New(Config{
		Catalog: cat, Data: in, Auth: headerAuth{}, Importer: imp, DefaultStore: "fast",
		Stores: []Store{{ID: "fast", Default: true}, {ID: "slow"}, {ID: "web", ReadOnly: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { imp.Close(); cat.Close() })
	return &site{s, t, cat, imp}
}

var importers = map[string][]string{
	"admin":    {"X-Test-Project: p0", "X-Test-Roles: admin,member,reader", "Accept: text/plain"},
	"owner":    {"X-Test-Project: p1", "X-Test-Roles: member,reader", "Accept: text/plain"},
	"reader":   {"X-Test-Project: p1", "X-Test-Roles: reader", "Accept: text/plain"},
	"stranger": {"X-Test-Project: p2", "X-Test-Roles: member,reader", "Accept: text/plain"},
}

// image makes an image of project p1 that has come so far.
func (s *site) image(state string) string {
	s.t.Helper()
	body := `{"disk_format":"raw","container_format":"bare"}`
	if state == "bare" {
		body = `{}`
	}
	id := create(s.t, s.Server, body, importers["owner"]...)
	octet := append([]string{octets}, importers["owner"]...)
	path := map[string]string{"staged": "/stage", "active": "/file"}[state]
	if path != "" {
		if w := do(s.Server, "PUT", "/v2/images/"+id+path, "data", octet...); w.Code != 204 {
			s.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	return id
}

// settle waits until no import of an image is under way, and returns it.
func (s *site) settle(id string) map[string]any {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		w := do(s.Server, "GET", "/v2/images/"+id, "", importers["admin"][:2]...)
		var img map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &img); err != nil {
			s.t.Fatalf("%d %s", w.Code, w.Body)
		}
		if _, locked := img["os_glance_import_task"]; !locked && img["status"] != "importing" {
			return img
		}
		if time.Now().After(end) {
			s.t.Fatalf("the import does not end: %v", img)
		}
	}
}

// ended waits for the end of the only task of an image, which comes a moment
// after that of the import, and returns it.
func (s *site) ended(id string) map[string]any {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		var list struct{ Tasks []map[string]any }
		w := do(s.Server, "GET", "/v2/images/"+id+"/tasks", "", importers["admin"][:2]...)
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list.Tasks) != 1 {
			s.t.Fatalf("tasks: %d %s", w.Code, w.Body)
		}
		if status := list.Tasks[0]["status"]; status == "success" || status == "failure" || time.Now().After(end) {
			return list.Tasks[0]
		}
	}
}

// TestImportChecks: the status of every import that cannot be, by the first of
// its faults.
func TestImportChecks(t *testing.T) {
	s := newSite(t, memkv.New(), "g", mem.New(), "")
	for _, c := range []struct {
		state, who, body, header string
		code                     int
		says                     string
	}{
		{"queued", "owner", ``, "", 400, "Body"},
		{"queued", "owner", `[]`, "", 400, ""},
		{"queued", "owner", `{}`, "", 400, "'method'"},
		{"queued", "owner", `{"method":{}}`, "", 400, "'name'"},
		{"queued", "owner", `{"method":{"name":"telepathy"}}`, "", 400, "telepathy"},
		{"queued", "owner", `{"method":{"name":7}}`, "", 400, "Unknown"},
		{"queued", "owner", `{"method":{"name":"glance-direct"},"all_stores":"yes"}`, "", 400, "all_stores"},
		{"queued", "owner", `{"method":{"name":"glance-direct"},"all_stores_must_succeed":1}`, "", 400, "all_stores_must_succeed"},
		{"queued", "stranger", `{"method":{"name":"glance-direct"}}`, "", 404, ""},
		{"active", "owner", `{"method":{"name":"glance-direct"}}`, "", 409, "active"},
		{"active", "owner", `{"method":{"name":"web-download","uri":"http://images.example.org/disk"}}`, "", 409, "active"},
		{"queued", "admin", `{"method":{"name":"copy-image"},"stores":["slow"]}`, "", 409, "status active"},
		{"queued", "owner", `{"method":{"name":"glance-direct"}}`, "", 409, "staged"},
		{"staged", "owner", `{"method":{"name":"web-download","uri":"http://images.example.org/disk"}}`, "", 409, "queued"},
		{"bare", "owner", `{"method":{"name":"web-download","uri":"http://images.example.org/disk"}}`, "", 409, "container_format"},
		{"staged", "reader", `{"method":{"name":"glance-direct"}}`, "", 403, ""},
		{"active", "owner", `{"method":{"name":"copy-image"},"stores":["slow"]}`, "", 403, "copy_image"},
		{"staged", "owner", `{"method":{"name":"glance-direct"},"stores":["nowhere"]}`, "", 409, "nowhere"},
		{"staged", "owner", `{"method":{"name":"glance-direct"}}`, "X-Image-Meta-Store: nowhere", 409, "nowhere"},
		{"staged", "owner", `{"method":{"name":"glance-direct"},"stores":["slow"]}`, "X-Image-Meta-Store: fast", 400, "both"},
		{"staged", "owner", `{"method":{"name":"glance-direct"},"all_stores":true,"stores":["slow"]}`, "", 400, "all_stores"},
		{"staged", "owner", `{"method":{"name":"glance-direct"},"all_stores":true}`, "X-Image-Meta-Store: fast", 400, "all_stores"},
		{"staged", "owner", `{"method":{"name":"glance-direct"},"stores":"slow"}`, "", 400, "stores"},
		{"active", "admin", `{"method":{"name":"copy-image"},"stores":["fast"]}`, "", 400, "already present"},
		{"queued", "owner", `{"method":{"name":"web-download","uri":"http://127.0.0.1/"}}`, "", 400, "filtering"},
		{"queued", "owner", `{"method":{"name":"web-download"}}`, "", 400, "filtering"},
		{"active", "admin", `{"method":{"name":"copy-image"},"all_stores":true}`, "", 202, ""},
	} {
		id := s.image(c.state)
		header := importers[c.who]
		if c.header != "" {
			header = append([]string{c.header}, header...)
		}
		w := do(s.Server, "POST", "/v2/images/"+id+"/import", c.body, header...)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s image, %s, %s %s: %d %s, want %d and %q", c.state, c.who, c.body, c.header, w.Code, w.Body, c.code, c.says)
		}
		s.settle(id)
	}
}

// TestImports: every method gets the bytes to where they are wanted.
func TestImports(t *testing.T) {
	s := newSite(t, memkv.New(), "g", mem.New(), "")
	for _, c := range []struct{ state, body, header, stores string }{
		{"staged", `{"method":{"name":"glance-direct"}}`, "", "fast"},
		{"staged", `{"method":{"name":"glance-direct"}}`, "X-Image-Meta-Store: slow", "slow"},
		{"staged", `{"method":{"name":"glance-direct"},"stores":["slow","fast"]}`, "", "slow,fast"},
		{"staged", `{"method":{"name":"glance-direct"},"all_stores":true}`, "", "fast,slow"},
		{"queued", `{"method":{"name":"web-download","uri":"http://images.example.org/disk"},"all_stores":true,"all_stores_must_succeed":false}`, "", "fast,slow"},
		{"active", `{"method":{"name":"copy-image"},"stores":["slow"]}`, "", "fast,slow"},
		{"active", `{"method":{"name":"copy-image"},"all_stores":true}`, "", "fast,slow"},
	} {
		id := s.image(c.state)
		header := importers["admin"][:2]
		if c.header != "" {
			header = append([]string{c.header}, header...)
		}
		if w := do(s.Server, "POST", "/v2/images/"+id+"/import", c.body, header...); w.Code != 202 || w.Body.Len() != 0 {
			t.Errorf("%s: %d %s", c.body, w.Code, w.Body)
		}
		img := s.settle(id)
		if img["status"] != "active" || img["stores"] != c.stores || img["size"] != 4.0 || img["os_glance_failed_import"] != "" || img["os_glance_importing_to_stores"] != "" {
			t.Errorf("%s: %v", c.body, img)
		}
		if _, shown := img["os_glance_stage_host"]; shown {
			t.Errorf("%s: the place of the staged data is shown", c.body)
		}
		if w := do(s.Server, "GET", "/v2/images/"+id+"/file", "", importers["admin"]...); w.Body.String() != "data" {
			t.Errorf("%s: the data is %q", c.body, w.Body)
		}
		if task := s.ended(id); task["status"] != "success" || task["type"] != "api_image_import" {
			t.Errorf("%s: the task is %v", c.body, task)
		}
	}
	w := do(s.Server, "GET", "/v2/info/import", "", importers["owner"]...)
	if !strings.Contains(w.Body.String(), `["glance-direct","web-download","copy-image"]`) {
		t.Errorf("methods: %s", w.Body)
	}
	w = do(s.Server, "POST", "/v2/images", `{}`, importers["owner"]...)
	if got := w.Header().Get("OpenStack-Image-Import-Methods"); got != "glance-direct,web-download,copy-image" {
		t.Errorf("a new image says %q", got)
	}
	w = do(s.Server, "GET", "/versions", "")
	for _, level := range []string{"v2.6", "v2.10", "v2.11"} {
		if !strings.Contains(w.Body.String(), `"`+level+`"`) {
			t.Errorf("%s is not listed: %s", level, w.Body)
		}
	}
}

// TestStageChecks: what can be staged, and when.
func TestStageChecks(t *testing.T) {
	s := newSite(t, memkv.New(), "g", mem.New(), "")
	for _, c := range []struct {
		state, who, kind string
		code             int
	}{
		{"queued", "owner", octets, 204},
		{"bare", "owner", octets, 204}, // formats may come later
		{"queued", "admin", octets, 204},
		{"queued", "owner", "Content-Type: text/plain", 415},
		{"queued", "reader", octets, 403},
		{"queued", "stranger", octets, 404},
		{"staged", "owner", octets, 409},
		{"active", "owner", octets, 409},
	} {
		id := s.image(c.state)
		if w := do(s.Server, "PUT", "/v2/images/"+id+"/stage", "data", append([]string{c.kind}, importers[c.who]...)...); w.Code != c.code {
			t.Errorf("%s image, %s, %s: %d, want %d: %s", c.state, c.who, c.kind, w.Code, c.code, w.Body)
		}
	}
	id := s.image("staged")
	if w := do(s.Server, "DELETE", "/v2/images/"+id, "", importers["owner"]...); w.Code != 204 {
		t.Errorf("delete of a staged image: %d", w.Code)
	}
}

// TestImportElsewhere: what one gateway has staged another one imports by
// passing the request on, once.
func TestImportElsewhere(t *testing.T) {
	kv := memkv.New()
	var one *site
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Auth-Token") == "p1" {
			r.Header.Set("X-Test-Project", "p1")
		}
		one.ServeHTTP(w, r)
	}))
	defer door.Close()
	one = newSite(t, kv, "one", mem.New(), door.URL)
	two := newSite(t, kv, "two", mem.New(), "http://two.example.org")
	start := func(id string, extra ...string) *httptest.ResponseRecorder {
		header := append(extra, "X-Test-Project: p1", "X-Test-Roles: member,reader")
		return do(two.Server, "POST", "/v2/images/"+id+"/import", `{"method":{"name":"glance-direct"}}`, header...)
	}
	id := one.image("staged")
	known := func() bool {
		img, err := two.cat.Image(t.Context(), id)
		return err == nil && img.Status == catalog.StatusUploading && img.Size != nil
	}
	for end := time.Now().Add(time.Minute); !known() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if w := start(id); w.Code != 401 {
		t.Errorf("passed on without a token: %d %s", w.Code, w.Body)
	}
	if w := start(id, passedHeader+": x"); w.Code != 502 {
		t.Errorf("passed on twice: %d %s", w.Code, w.Body)
	}
	if w := start(id, "X-Auth-Token: p1"); w.Code != 202 || w.Body.Len() != 0 {
		t.Errorf("passed on: %d %s", w.Code, w.Body)
	}
	if img := one.settle(id); img["status"] != "active" || img["stores"] != "fast" {
		t.Errorf("imported: %v", img)
	}
	id = one.image("staged")
	for end := time.Now().Add(time.Minute); !known() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	door.Close()
	if w := start(id, "X-Auth-Token: p1"); w.Code != 504 {
		t.Errorf("to a gateway that is away: %d %s", w.Code, w.Body)
	}
}

// TestImportTask: the old way to import.
func TestImportTask(t *testing.T) {
	s := newSite(t, memkv.New(), "g", mem.New(), "")
	for _, c := range []struct {
		who, body string
		code      int
	}{
		{"owner", `{"type":"import","input":{}}`, 403},
		{"admin", `{"type":"import","input":{}}`, 400},
		{"admin", `{"type":"import","input":{"import_from":"file:///etc/passwd","import_from_format":"raw","image_properties":{}}}`, 400},
		{"admin", `{"type":"import","input":{"import_from":"http://images.example.org/disk","import_from_format":"raw","image_properties":{"disk_format":"raw"}}}`, 409},
		{"admin", `{"type":"api_image_import","input":{}}`, 403},
		{"admin", `{"type":"import","input":{"import_from":"http://images.example.org/disk","import_from_format":"raw","image_properties":{"disk_format":"raw","container_format":"bare","name":"x"}}}`, 201},
	} {
		w := do(s.Server, "POST", "/v2/tasks", c.body, importers[c.who]...)
		if w.Code != c.code {
			t.Errorf("%s by %s: %d, want %d: %s", c.body, c.who, w.Code, c.code, w.Body)
		}
		if w.Code != 201 {
			continue
		}
		var task struct {
			ID      string
			ImageID string `json:"image_id"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &task); err != nil || !strings.HasSuffix(w.Header().Get("Location"), "/v2/tasks/"+task.ID) {
			t.Errorf("the task is %s, %v", w.Body, err)
		}
		if img := s.settle(task.ImageID); img["status"] != "active" || img["name"] != "x" {
			t.Errorf("the image is %v", img)
		}
	}
}
