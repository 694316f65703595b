package api

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// memData keeps the bytes of images in memory, in the order that package
// ingest keeps: begin, bytes, finish.
type memData struct {
	cat  *catalog.Catalog
	fail error // of the next Put, before it reads anything

	mu    sync.Mutex
	bytes map[string][]byte
	first chan struct{} // closed when the first byte of an upload has come
}

func (d *memData) Put(ctx context.Context, id string, body io.Reader, size int64, store string) error {
	if d.fail != nil {
		return d.fail
	}
	up := catalog.Upload{ID: uuid.NewString(), Image: id, Store: "mem", Key: id + "/1"}
	if store != "" {
		up.Store = store
	}
	if _, err := d.cat.BeginUpload(ctx, up); err != nil {
		return err
	}
	var b bytes.Buffer
	_, err := io.CopyN(&b, body, 1)
	if err == nil && d.first != nil {
		close(d.first)
	}
	if err == nil || err == io.EOF {
		_, err = io.Copy(&b, body)
	}
	if err != nil || size >= 0 && int64(b.Len()) != size {
		return fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, d.cat.AbandonUpload(context.WithoutCancel(ctx), up))
	}
	sum := md5.Sum(b.Bytes())
	d.mu.Lock()
	d.bytes[id] = b.Bytes()
	d.mu.Unlock()
	n := int64(b.Len())
	_, err = d.cat.FinishUpload(ctx, up.ID, id, catalog.Location{Store: up.Store, Key: up.Key, Generation: up.ID, Size: n},
		n, &n, hex.EncodeToString(sum[:]), "sha512", strings.Repeat("ab", 64))
	return err
}

type memReader struct{ block.Reader }

func (memReader) Close() error { return nil }

func (d *memData) Open(_ context.Context, img catalog.Image) (block.ReadCloser, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.bytes[img.ID]
	if !ok {
		return nil, fmt.Errorf("image %s: %w", img.ID, fs.ErrNotExist)
	}
	return memReader{block.FromReaderAt(bytes.NewReader(b), int64(len(b)))}, nil
}

// newServer starts a server on a catalog in memory.
func newServer(t testing.TB, change func(*Config)) (*Server, *memData) {
	t.Helper()
	cat, err := catalog.Open(t.Context(), memkv.New(), catalog.Config{GatewayID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cat.Close() })
	data := &memData{cat: cat, bytes: map[string][]byte{}}
	cfg := Config{Catalog: cat, Data: data, Hosts: []string{"gateway"}}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, data
}

// headerAuth believes what the headers say, as a test may.
type headerAuth struct{}

func (headerAuth) Authenticate(r *http.Request) (wire.Identity, error) {
	project := r.Header.Get("X-Test-Project")
	if project == "" {
		return wire.Identity{}, wire.Errorf(http.StatusUnauthorized, "This service needs a token.").
			With("Www-Authenticate", `Keystone uri="http://keystone"`)
	}
	roles := strings.Split(r.Header.Get("X-Test-Roles"), ",")
	if roles[0] == "" {
		roles = []string{"member", "reader"}
	}
	id := wire.Identity{UserID: "user-" + project, ProjectID: project, Roles: roles}
	id.Admin = id.HasRole("admin")
	return id, nil
}

// do sends a request. header is "Key: value" lines.
func do(s http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, "http://gateway"+path, rd)
	for _, h := range header {
		k, v, _ := strings.Cut(h, ": ")
		r.Header.Add(k, v)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

// create makes an image and returns its id.
func create(t testing.TB, s http.Handler, body string, header ...string) string {
	t.Helper()
	w := do(s, "POST", "/v2/images", body, header...)
	if w.Code != 201 {
		t.Fatalf("create %s: %d %s", body, w.Code, w.Body)
	}
	var img struct{ ID string }
	if err := json.Unmarshal(w.Body.Bytes(), &img); err != nil {
		t.Fatal(err)
	}
	return img.ID
}

const octets = "Content-Type: application/octet-stream"

func TestVersions(t *testing.T) {
	one, _ := newServer(t, nil)
	two, _ := newServer(t, func(c *Config) { c.Stores = []Store{{ID: "a"}, {ID: "b"}} })
	for _, c := range []struct {
		s      *Server
		method string
		path   string
		accept string
		status int
	}{
		{one, "GET", "/versions", "", 200}, {one, "GET", "/versions/", "", 200}, {one, "GET", "/", "", 300}, {one, "GET", "/v1", "", 300},
		{one, "GET", "/v3/images", "", 300}, {one, "GET", "/v2.99/images", "", 300}, {one, "POST", "/what", "", 300},
		{one, "GET", "/v2/images", "", 200}, {one, "GET", "/v2.0/images", "", 200}, {one, "GET", "/v2.9/images", "", 200},
		{one, "GET", "/v2.6/images", "", 300}, {one, "GET", "/v2.14/images", "", 300},
		{one, "GET", "/v2.8/images", "", 300}, {two, "GET", "/v2.8/images", "", 200}, {two, "GET", "/v2.15/info/stores", "", 200},
		{one, "GET", "/v2", "", 404}, {one, "GET", "/v2/", "", 404}, {one, "GET", "/v2/images/", "", 404},
		{one, "GET", "/images", "application/vnd.openstack.images-v2.1", 200}, {one, "GET", "/images", "application/vnd.openstack.images-v7", 300},
		{one, "GET", "/healthcheck", "", 200}, {one, "POST", "/healthcheck", "", 405}, {one, "GET", "/healthz", "", 200}, {one, "GET", "/readyz", "", 200},
		{one, "GET", "/platter/v1/overlays", "", 300},
	} {
		var h []string
		if c.accept != "" {
			h = []string{"Accept: " + c.accept}
		}
		if w := do(c.s, c.method, c.path, "", h...); w.Code != c.status {
			t.Errorf("%s %s (%s): %d, want %d: %s", c.method, c.path, c.accept, w.Code, c.status, w.Body)
		}
	}
	w := do(one, "GET", "/versions", "")
	want := `{"versions":[{"id":"v2.13","status":"CURRENT","links":[{"rel":"self","href":"http://gateway/v2/"}]},{"id":"v2.12","status":"SUPPORTED"`
	if !strings.HasPrefix(w.Body.String(), want) {
		t.Errorf("versions: %s, want %s…", w.Body, want)
	}
	if w := do(one, "GET", "/healthcheck", "", "Accept: application/json"); w.Body.String() != `{"detailed":false,"reasons":["OK"]}` {
		t.Errorf("healthcheck: %s", w.Body)
	}
	pub, _ := newServer(t, func(c *Config) { c.PublicEndpoint = "https://images.example.org/" })
	if w := do(pub, "GET", "/versions", ""); !strings.Contains(w.Body.String(), `"https://images.example.org/v2/"`) {
		t.Errorf("versions behind public_endpoint: %s", w.Body)
	}
}

// TestMethods asks each path with methods that it does not have.
func TestMethods(t *testing.T) {
	s, _ := newServer(t, nil)
	for _, route := range s.Routes() {
		path := strings.NewReplacer("{id}", uuid.NewString(), "{tag}", "t", "{project}", "p", "{schema}", "image", "{store}", "s").Replace(route.Pattern)
		allowed := s.router.Allowed(path)
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
			w := do(s, method, path, "")
			known := false
			for _, a := range allowed {
				known = known || a == method
			}
			if known == (w.Code == 405) {
				t.Errorf("%s %s: %d, and it has %v", method, path, w.Code, allowed)
			}
			if w.Code == 405 && w.Header().Get("Allow") != strings.Join(allowed, ", ") {
				t.Errorf("%s %s: Allow %q, want %v", method, path, w.Header().Get("Allow"), allowed)
			}
			if id := w.Header().Get(wire.RequestIDHeader); !strings.HasPrefix(id, "req-") {
				t.Errorf("%s %s: request id %q", method, path, id)
			}
		}
		if w := do(s, route.Method, path+"/", ""); w.Code != 404 {
			t.Errorf("%s %s/: %d, want 404", route.Method, path, w.Code)
		}
	}
}

// TestUnknownImage asks every route below an image for one that is not there.
// TestDeleteInUse: what its store says that others need stays, with the answer
// of the Image API.
func TestDeleteInUse(t *testing.T) {
	busy := true
	s, _ := newServer(t, func(cfg *Config) {
		cfg.Deletable = func(_ context.Context, img catalog.Image) error {
			if busy {
				return fmt.Errorf("image %s: %w: 2 clones need it", img.ID, ingest.ErrInUse)
			}
			return nil
		}
	})
	id := create(t, s, `{"disk_format":"raw","container_format":"bare"}`)
	if w := do(s, "DELETE", "/v2/images/"+id, ""); w.Code != 409 || !strings.Contains(w.Body.String(), "2 clones") {
		t.Errorf("in use: %d %s", w.Code, w.Body)
	}
	if w := do(s, "GET", "/v2/images/"+id, ""); w.Code != 200 {
		t.Errorf("a refused delete: %d %s", w.Code, w.Body)
	}
	busy = false
	if w := do(s, "DELETE", "/v2/images/"+id, ""); w.Code != 204 {
		t.Errorf("free again: %d %s", w.Code, w.Body)
	}
}

func TestUnknownImage(t *testing.T) {
	s, _ := newServer(t, nil)
	for _, route := range s.Routes() {
		if !strings.HasPrefix(route.Pattern, "/v2/images/{id}") {
			continue
		}
		for _, id := range []string{uuid.NewString(), "x", "..", "%00", strings.Repeat("a", 3000)} {
			path := strings.NewReplacer("{id}", id, "{tag}", "t", "{project}", "p").Replace(route.Pattern)
			body, header := "", []string{octets}
			want := 404
			switch route.Method + route.Pattern {
			case "PATCH/v2/images/{id}":
				body, header = "[]", []string{"Content-Type: " + patchDraft10}
			case "POST/v2/images/{id}/members":
				body = `{"member":"p"}`
			case "PUT/v2/images/{id}/members/{project}":
				body = `{"status":"accepted"}`
			case "POST/v2/images/{id}/import":
				body, want = `{"method":{"name":"web-download"}}`, 400
			}
			if w := do(s, route.Method, path, body, header...); w.Code != want {
				t.Errorf("%s %.80s: %d, want %d: %s", route.Method, path, w.Code, want, w.Body)
			}
		}
	}
}

func TestAuth(t *testing.T) {
	s, _ := newServer(t, func(c *Config) { c.Auth = headerAuth{} })
	for _, c := range []struct {
		path   string
		status int
	}{{"/versions", 200}, {"/", 300}, {"/healthcheck", 200}, {"/v2", 401}, {"/v2/images", 401}, {"/v2/nothing", 401}} {
		w := do(s, "GET", c.path, "")
		if w.Code != c.status || c.status == 401 && w.Header().Get("Www-Authenticate") == "" {
			t.Errorf("GET %s without a token: %d %v, want %d", c.path, w.Code, w.Header(), c.status)
		}
	}
	if w := do(s, "GET", "/v2/", "", "X-Test-Project: p"); w.Code != 404 {
		t.Errorf("GET /v2/ with a token: %d, want 404", w.Code)
	}
}

// TestGuard asks as web pages would.
func TestGuard(t *testing.T) {
	s, _ := newServer(t, func(c *Config) { c.Listen, c.PublicEndpoint = "10.1.2.3:9292", "https://images.example.org" })
	for _, c := range []struct {
		host, origin, site string
		want               int
	}{
		{"localhost:9292", "", "", 200}, {"127.0.0.1:9292", "", "", 200}, {"[::1]:9292", "", "", 200}, {"10.1.2.3", "", "", 200},
		{"10.1.2.3:9292", "http://10.1.2.3:9292", "same-origin", 200}, {"images.example.org", "", "", 200}, {"IMAGES.example.org.:443", "", "", 200},
		{"evil.example", "", "", 403}, {"", "", "", 403}, {"10.9.9.9", "", "", 403}, {"localhost.evil.example", "", "", 403},
		{"localhost", "https://evil.example", "", 403}, {"localhost", "null", "", 403}, {"localhost", "", "cross-site", 403},
		{"localhost", "http://localhost:9292", "", 200}, {"0.0.0.0", "", "", 403}, {"2130706433", "", "", 403},
	} {
		for _, path := range []string{"/v2/images", "/versions"} {
			r := httptest.NewRequest("GET", path, nil)
			r.Host = c.host
			if c.origin != "" {
				r.Header.Set("Origin", c.origin)
			}
			if c.site != "" {
				r.Header.Set("Sec-Fetch-Site", c.site)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("%s host %q origin %q site %q: %d, want %d", path, c.host, c.origin, c.site, w.Code, c.want)
			}
		}
	}
	for host, want := range map[string]int{"192.0.2.7:9292": 200, "192.0.2.8:9292": 403, "evil.example:9292": 403} {
		r := httptest.NewRequest("GET", "http://"+host+"/v2/images", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 9292}))
		w := httptest.NewRecorder()
		if s.ServeHTTP(w, r); w.Code != want {
			t.Errorf("host %s at 192.0.2.7: %d, want %d", host, w.Code, want)
		}
	}
	tokens, _ := newServer(t, func(c *Config) { c.Auth = headerAuth{} })
	r := httptest.NewRequest("GET", "http://anything.example/v2/images", nil)
	r.Header.Set("X-Test-Project", "p")
	w := httptest.NewRecorder()
	if tokens.ServeHTTP(w, r); w.Code != 200 {
		t.Errorf("with tokens any host is fine: %d", w.Code)
	}
}

// TestHostile sends what no client sends.
func TestHostile(t *testing.T) {
	s, _ := newServer(t, nil)
	id := create(t, s, `{"name":"x"}`)
	deep := strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000)
	for _, c := range []struct {
		method, path, body, header string
		want                       int
	}{
		{"POST", "/v2/images", deep, "", 400},
		{"POST", "/v2/images", `{"name":"a","name":"b"}`, "", 400},
		{"POST", "/v2/images", "{\"name\":\"\xff\xfe\"}", "", 400},
		{"POST", "/v2/images", `{"name":"` + strings.Repeat("x", 256) + `"}`, "", 400},
		{"POST", "/v2/images", `{"name":"` + strings.Repeat("ü", 255) + `"}`, "", 201},
		{"POST", "/v2/images", `{"` + strings.Repeat("k", 256) + `":"v"}`, "", 400},
		{"POST", "/v2/images", `{"k":"` + strings.Repeat("v", 70000) + `"}`, "", 400},
		{"POST", "/v2/images", `{"k":"` + strings.Repeat("v", 2<<20) + `"}`, "", 413},
		{"POST", "/v2/images", `[]`, "", 400}, {"POST", "/v2/images", `null`, "", 400}, {"POST", "/v2/images", `"x"`, "", 400},
		{"POST", "/v2/images", `{"min_disk":1e400}`, "", 400}, {"POST", "/v2/images", `{"min_disk":2147483648}`, "", 400},
		{"PATCH", "/v2/images/" + id, deep, "Content-Type: " + patchDraft10, 400},
		{"GET", "/v2/images?name=%ff", "", "", 400}, {"GET", "/v2/images?%zz", "", "", 400}, {"GET", "/v2/images?limit=1;limit=x", "", "", 400},
		{"GET", "/v2/images?limit=99999999999999999999999", "", "", 200},
		{"GET", "/v2/images", "", wire.RequestIDHeader + ": " + strings.Repeat("x", 65), 431},
		{"PUT", "/v2/images/" + id + "/tags/" + strings.Repeat("t", 256), "", "", 400},
		{"PUT", "/v2/images/" + id + "/tags/%ff", "", "", 400},
		{"PUT", "/v2/images/" + id + "/tags/t", "{}", "", 400},
		{"GET", "/v2/images/" + id, "{}", "", 400}, {"DELETE", "/v2/images/" + id, "x", "", 400},
		{"POST", "/v2/images/" + id + "/actions/deactivate", "{}", "", 400},
		{"POST", "/v2/images/" + id + "/members", `{"member":"` + strings.Repeat("m", 256) + `"}`, "", 400},
		{"PUT", "/v2/images/" + id + "/file", "x", octets + "\r\nx: y", 415},
	} {
		var h []string
		if c.header != "" {
			h = []string{c.header}
		}
		if w := do(s, c.method, c.path, c.body, h...); w.Code != c.want {
			t.Errorf("%s %.60s %.60q: %d, want %d: %.200s", c.method, c.path, c.body, w.Code, c.want, w.Body)
		}
	}
}

func TestQuotas(t *testing.T) {
	s, _ := newServer(t, func(c *Config) { c.Limits = Limits{Members: 2, Tags: 2, Properties: 2} })
	patch := "Content-Type: " + patchDraft10
	id := create(t, s, `{"tags":["a","b","a"],"x":"1","y":"2"}`)
	for _, c := range []struct {
		method, path, body, header string
		want                       int
	}{
		{"POST", "/v2/images", `{"tags":["a","b","c"]}`, "", 413},
		{"POST", "/v2/images", `{"a":"1","b":"1","c":"1"}`, "", 413},
		{"PATCH", "/v2/images/" + id, `[{"op":"add","path":"/z","value":"3"}]`, patch, 413},
		{"PATCH", "/v2/images/" + id, `[{"op":"remove","path":"/x"},{"op":"add","path":"/z","value":"3"}]`, patch, 200},
		{"PUT", "/v2/images/" + id + "/tags/a", "", "", 204},
		{"PUT", "/v2/images/" + id + "/tags/c", "", "", 413},
		{"POST", "/v2/images/" + id + "/members", `{"member":"1"}`, "", 200},
		{"POST", "/v2/images/" + id + "/members", `{"member":"1"}`, "", 409},
		{"POST", "/v2/images/" + id + "/members", `{"member":"2"}`, "", 200},
		{"POST", "/v2/images/" + id + "/members", `{"member":"3"}`, "", 413},
	} {
		if w := do(s, c.method, c.path, c.body, c.header); w.Code != c.want {
			t.Errorf("%s %s %s: %d, want %d: %s", c.method, c.path, c.body, w.Code, c.want, w.Body)
		}
	}
}

// TestLog looks for the line of a request, that of a change, and the hook.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	var seen []Request
	s, _ := newServer(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.Observe = func(r Request) { seen = append(seen, r) }
	})
	w := do(s, "POST", "/v2/images?secret=1", `{"name":"x"}`, wire.RequestIDHeader+": req-mine", "X-Auth-Token: hush")
	id := w.Header().Get(wire.RequestIDHeader)
	for _, want := range []string{"msg=request", "request_id=" + id, "global_request_id=req-mine", "status=201", "msg=audit", "action=image.create"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in %s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "hush") || strings.Contains(log.String(), "secret") {
		t.Errorf("the log tells too much: %s", log.String())
	}
	if len(seen) != 1 || seen[0].Route != "POST /v2/images" || seen[0].Status != 201 || seen[0].Bytes == 0 {
		t.Errorf("observed %+v", seen)
	}
}

type panicky struct{ *memData }

func (panicky) Open(context.Context, catalog.Image) (block.ReadCloser, error) { panic("ouch") }

func TestPanic(t *testing.T) {
	s, data := newServer(t, nil)
	id := create(t, s, `{"disk_format":"raw","container_format":"bare"}`)
	if w := do(s, "PUT", "/v2/images/"+id+"/file", "x", octets); w.Code != 204 {
		t.Fatalf("upload: %d %s", w.Code, w.Body)
	}
	s.cfg.Data = panicky{data}
	if w := do(s, "GET", "/v2/images/"+id+"/file", ""); w.Code != 500 || strings.Contains(w.Body.String(), "ouch") {
		t.Errorf("a panic: %d %s", w.Code, w.Body)
	}
}

// TestNoKeyTwice checks that what a client calls like a property of ours does
// not show beside it.
func TestNoKeyTwice(t *testing.T) {
	s, _ := newServer(t, nil)
	w := do(s, "POST", "/v2/images", `{"os_hash_algo": "mine", "os_hash_value": null}`)
	if w.Code != 201 {
		t.Fatalf("create: %d %s", w.Code, w.Body)
	}
	if err := wire.CheckJSON(w.Body.Bytes()); err != nil {
		t.Errorf("%v: %s", err, w.Body)
	}
}

// TestQuotaForm checks that a quota is refused in the form the client accepts.
func TestQuotaForm(t *testing.T) {
	s, _ := newServer(t, func(c *Config) { c.Limits.Properties, c.Limits.Tags = 1, 1 })
	for _, body := range []string{`{"a": "1", "b": "2"}`, `{"tags": ["a", "b"]}`} {
		w := do(s, "POST", "/v2/images", body, "Accept: application/json")
		if w.Code != 413 || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v", body, w.Code, w.Header())
		}
	}
}
