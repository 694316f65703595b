package platter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/format/qcow2"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// A fake is the daemon's side: it keeps records and no bytes.
type fake struct {
	cat  *catalog.Catalog
	in   *ingest.Ingest
	last CaptureRequest
}

func (f *fake) CreateOverlay(ctx context.Context, req OverlayRequest) (catalog.Overlay, error) {
	return f.cat.CreateOverlay(ctx, catalog.Overlay{
		Name: req.Name, ImageID: req.Image.ID, Owner: req.Owner, Size: max(req.Size, 512), Gateway: "gw",
		Engine: "file", Status: catalog.OverlayAvailable,
	})
}

func (f *fake) DeleteOverlay(ctx context.Context, id string) error {
	return f.cat.DeleteOverlay(ctx, id)
}

func (f *fake) Snapshot(ctx context.Context, id, name string) (catalog.OverlaySnapshot, error) {
	snap := catalog.OverlaySnapshot{ID: "1", Name: name, CreatedAt: time.Now()}
	_, err := f.cat.UpdateOverlay(ctx, id, func(o *catalog.Overlay) error {
		o.Snapshots = append(o.Snapshots, snap)
		return nil
	})
	return snap, err
}

func (f *fake) DeleteSnapshot(ctx context.Context, id, snapshot string) error {
	_, err := f.cat.UpdateOverlay(ctx, id, func(o *catalog.Overlay) error { o.Snapshots = nil; return nil })
	return err
}

func (f *fake) Capture(ctx context.Context, req CaptureRequest) (catalog.Task, error) {
	f.last = req
	return f.cat.CreateTask(ctx, catalog.Task{
		Type: "capture", Status: catalog.TaskPending, Owner: req.Owner, ImageID: req.Image.ID,
		RequestID: req.RequestID, UserID: req.UserID, Input: map[string]any{"overlay_id": req.Overlay.ID},
	})
}

func (f *fake) Attach(ctx context.Context, req AttachRequest) (Attached, error) {
	a := catalog.Attachment{Mode: req.Mode, Transport: req.Transport, TokenHash: fmt.Sprint(time.Now().UnixNano()), Owner: req.Owner, Gateway: "gw"}
	if req.Image != nil {
		a.ImageID = req.Image.ID
	} else {
		a.OverlayID = req.Overlay.ID
	}
	a, err := f.cat.CreateAttachment(ctx, a)
	return Attached{Attachment: a, URI: "nbd://h/attach/SECRET", QEMU: "q SECRET", LibvirtXML: "<disk/>", NBDClient: "n SECRET"}, err
}

func (f *fake) Detach(ctx context.Context, id string) error { return f.cat.DeleteAttachment(ctx, id) }

func (f *fake) OpenDisk(ctx context.Context, img catalog.Image) (block.ReadCloser, error) {
	return f.in.Open(ctx, img)
}

func (f *fake) Use(context.Context, string) Use {
	return Use{Bytes: 7, Clients: []ClientInfo{{Client: "qemu (process 1)", Transport: "unix", Since: time.Now()}}}
}

// A desk is a Server and somebody who asks it.
type desk struct {
	t    *testing.T
	f    *fake
	s    *Server
	who  wire.Identity
	img  catalog.Image
	data []byte
	docs *jsonschema.Compiler
}

var admin = wire.Identity{Admin: true}

func newDesk(t *testing.T) *desk {
	t.Helper()
	cat, err := catalog.Open(t.Context(), memkv.New(), catalog.Config{GatewayID: "gw"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cat.Close() })
	in, err := ingest.New(ingest.Config{Catalog: cat, Stores: map[string]backends.Store{"mem": mem.New()}, GatewayID: "gw"})
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{cat: cat, in: in}
	s, err := New(Config{Catalog: cat, Overlays: f, Attachments: f, Disks: f, KeepAlive: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	d := &desk{t: t, f: f, s: s, who: admin, docs: compiler(t)}
	name := "Debian \"12\"/x"
	d.img, err = cat.CreateImage(t.Context(), catalog.Image{
		Name: &name, Owner: "p1", DiskFormat: "raw", ContainerFormat: "bare", Visibility: catalog.VisibilityPrivate,
	})
	if err != nil {
		t.Fatal(err)
	}
	d.data = bytes.Repeat([]byte("platter!"), 200_000)
	if err := in.Put(t.Context(), d.img.ID, bytes.NewReader(d.data), -1, ""); err != nil {
		t.Fatal(err)
	}
	if d.img, err = cat.Image(t.Context(), d.img.ID); err != nil {
		t.Fatal(err)
	}
	return d
}

// do asks, checks the status and the answer against openapi.json, and
// returns the answer.
func (d *desk) do(method, path, body string, status int) (map[string]any, *httptest.ResponseRecorder) {
	d.t.Helper()
	r := httptest.NewRequest(method, prefix+path, strings.NewReader(body))
	r.Header.Set("Accept", "application/json")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	ctx := wire.WithRequestID(wire.WithIdentity(r.Context(), d.who), "req-1", "")
	w := httptest.NewRecorder()
	rec := &wire.Recorder{ResponseWriter: w}
	d.s.ServeHTTP(rec, r.WithContext(ctx))
	if w.Code != status {
		d.t.Errorf("%s %s %s: %d %s, want %d", method, path, body, w.Code, w.Body, status)
		return nil, w
	}
	var got map[string]any
	if w.Header().Get("Content-Type") == "application/json" && rec.Route != "" {
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			d.t.Fatalf("%s %s: %v in %s", method, path, err, w.Body)
		}
		d.conforms(rec.Route, status, w.Body.Bytes())
	}
	return got, w
}

func (d *desk) overlay() string {
	d.t.Helper()
	got, _ := d.do("POST", "/overlays", `{"image_id":"`+d.img.ID+`","name":"root"}`, 201)
	return got["id"].(string)
}

func TestAttachments(t *testing.T) {
	d := newDesk(t)
	d.do("POST", "/attachments", `{}`, 400)
	d.do("POST", "/attachments", `{"image_id":"a","overlay_id":"b"}`, 400)
	d.do("POST", "/attachments", `{"image_id":"`+d.img.ID+`","mode":"rw"}`, 400)
	d.do("POST", "/attachments", `{"image_id":"`+d.img.ID+`","mode":"x"}`, 400)
	d.do("POST", "/attachments", `{"image_id":"`+d.img.ID+`","transport":"carrier pigeon"}`, 400)
	d.do("POST", "/attachments", `{"image_id":"nothing"}`, 404)
	d.do("POST", "/attachments", `{"image_id":`, 400)
	d.do("POST", "/attachments", `{"image":"x"}`, 400)
	ov := d.overlay()
	d.do("POST", "/attachments", `{"overlay_id":"`+ov+`","mode":"ephemeral"}`, 400)

	got, w := d.do("POST", "/attachments", `{"image_id":"`+d.img.ID+`"}`, 201)
	id := got["id"].(string)
	if got["mode"] != "ro" || got["transport"] != "unix" || got["uri"] == nil || w.Header().Get("Location") != prefix+"/attachments/"+id {
		t.Errorf("attached: %v", got)
	}
	_, w = d.do("GET", "/attachments/"+id, "", 200)
	if strings.Contains(w.Body.String(), "SECRET") {
		t.Errorf("the secret is shown again: %s", w.Body)
	}
	d.do("POST", "/attachments", `{"overlay_id":"`+ov+`"}`, 201)
	d.do("POST", "/attachments", `{"overlay_id":"`+ov+`","mode":"rw"}`, 409)
	got, _ = d.do("GET", "/attachments", "", 200)
	if list := got["attachments"].([]any); len(list) != 2 {
		t.Errorf("%d attachments", len(list))
	}
	got, _ = d.do("GET", "/attachments?overlay_id="+ov, "", 200)
	if list := got["attachments"].([]any); len(list) != 1 {
		t.Errorf("%d attachments of the overlay", len(list))
	}
	d.do("DELETE", "/attachments/"+id, "", 204)
	d.do("DELETE", "/attachments/"+id, "", 404)
	d.do("GET", "/attachments/"+id, "", 404)
}

func TestOverlays(t *testing.T) {
	d := newDesk(t)
	d.do("POST", "/overlays", `{"name":"x"}`, 400)
	d.do("POST", "/overlays", `{"image_id":"`+d.img.ID+`","size":1000}`, 400)
	d.do("POST", "/overlays", `{"image_id":"`+d.img.ID+`","size":-512}`, 400)
	d.do("POST", "/overlays", `{"image_id":"`+d.img.ID+`","name":"`+strings.Repeat("ä", 256)+`"}`, 400)
	d.do("POST", "/overlays", `{"image_id":"`+d.img.ID+`","name":"a\u0000b"}`, 400)
	d.do("POST", "/overlays", `{"image_id":"nothing"}`, 404)
	queued, err := d.f.cat.CreateImage(t.Context(), catalog.Image{Visibility: catalog.VisibilityShared})
	if err != nil {
		t.Fatal(err)
	}
	d.do("POST", "/overlays", `{"image_id":"`+queued.ID+`"}`, 409)
	ids := []string{d.overlay(), d.overlay(), d.overlay()}
	got, _ := d.do("GET", "/overlays/"+ids[0], "", 200)
	if got["name"] != "root" || got["image_id"] != d.img.ID || got["export"] != "overlay/"+ids[0] || got["used"] != 7.0 {
		t.Errorf("overlay: %v", got)
	}
	d.do("PATCH", "/overlays/"+ids[0], `{"name":"data"}`, 200)
	d.do("PATCH", "/overlays/"+ids[0], `{"size":1}`, 400)
	d.do("PATCH", "/overlays/"+ids[0], `{}`, 400)
	got, _ = d.do("GET", "/overlays?name=data", "", 200)
	if list := got["overlays"].([]any); len(list) != 1 {
		t.Errorf("%d overlays of that name", len(list))
	}
	var seen []string
	for path := "/overlays?limit=1"; path != ""; {
		got, _ := d.do("GET", path, "", 200)
		for _, o := range got["overlays"].([]any) {
			seen = append(seen, o.(map[string]any)["id"].(string))
		}
		next, _ := got["next"].(string)
		path = strings.TrimPrefix(next, prefix)
	}
	slices.Sort(seen)
	slices.Sort(ids)
	if !slices.Equal(seen, ids) {
		t.Errorf("pages show %q, want %q", seen, ids)
	}
	d.do("GET", "/overlays?limit=x", "", 400)
	d.do("GET", "/overlays?marker=x", "", 400)
	d.do("GET", "/overlays?colour=red", "", 400)
	d.do("POST", "/overlays/"+ids[0]+"/snapshots", `{"name":"s"}`, 201)
	d.do("GET", "/overlays/"+ids[0]+"/snapshots", "", 200)
	d.do("DELETE", "/overlays/"+ids[0]+"/snapshots/2", "", 404)
	d.do("DELETE", "/overlays/"+ids[0]+"/snapshots/1", "", 204)
	d.do("DELETE", "/overlays/"+ids[0], "", 204)
	d.do("GET", "/overlays/"+ids[0], "", 404)
}

func TestCaptureRequests(t *testing.T) {
	d := newDesk(t)
	path := "/overlays/" + d.overlay() + "/capture"
	for body, status := range map[string]int{
		`{}`:                                   400,
		`{"image":null}`:                       400,
		`{"image":{"disk_format":"vmdk"}}`:     400,
		`{"image":{"container_format":"ova"}}`: 400,
		`{"image":{"id":"x"}}`:                 400,
		`{"image":{"visibility":"all"}}`:       400,
		`{"image":{"min_disk":-1}}`:            400,
		`{"image":{"name":7}}`:                 400,
		`{"image":{"color":7}}`:                400,
		`{"image":{"status":"active"}}`:        403,
		`{"image":{"os_glance_x":"y"}}`:        403,
		`{"image":{"color":"` + strings.Repeat("x", maxValue+1) + `"}}`: 400,
		`{"image":{"tags":[""]}}`: 400,
		`{"image":{},"more":1}`:   400,
	} {
		d.do("POST", path, body, status)
	}
	got, w := d.do("POST", path, `{"image":{"name":"web","tags":["b","a","b"],"color":"red","protected":true},"store":"mem"}`, 202)
	if got["status"] != "pending" || w.Header().Get("Location") != "/v2/tasks/"+got["id"].(string) || got["request_id"] != "req-1" {
		t.Errorf("task: %v", got)
	}
	img := d.f.last.Image
	if *img.Name != "web" || img.DiskFormat != "qcow2" || img.Properties["color"] != "red" || !slices.Equal(img.Tags, []string{"a", "b"}) || !img.Protected || d.f.last.Store != "mem" {
		t.Errorf("asked for %+v", img)
	}
	d.do("POST", "/captures", `{"source":{}}`, 501)
}

func TestMap(t *testing.T) {
	d := newDesk(t)
	got, _ := d.do("GET", "/images/"+d.img.ID+"/map", "", 200)
	if got["size"] != float64(len(d.data)) || got["next_offset"] != nil || len(got["extents"].([]any)) == 0 {
		t.Errorf("map: %v", got)
	}
	got, _ = d.do("GET", "/images/"+d.img.ID+fmt.Sprintf("/map?offset=%d", len(d.data)), "", 200)
	if len(got["extents"].([]any)) != 0 {
		t.Errorf("map from the end: %v", got)
	}
	d.do("GET", "/images/"+d.img.ID+"/map?offset=-1", "", 400)
	d.do("GET", "/images/"+d.img.ID+"/map?limit=0", "", 400)
	d.do("GET", "/images/nothing/map", "", 404)
	d.do("GET", "/images/"+d.img.ID+"/files/1/etc/os-release", "", 501)
}

func TestExport(t *testing.T) {
	d := newDesk(t)
	path := "/images/" + d.img.ID + "/export"
	_, w := d.do("GET", path, "", 200)
	if !bytes.Equal(w.Body.Bytes(), d.data) {
		t.Error("the raw export differs")
	}
	if cd := w.Header().Get("Content-Disposition"); !strings.Contains(cd, "Debian _12__x.raw") {
		t.Errorf("disposition %q", cd)
	}
	_, w = d.do("GET", path+"?format=qcow2", "", 200)
	file := w.Body.Bytes()
	if w.Header().Get("Content-Length") != fmt.Sprint(len(file)) {
		t.Errorf("announced %s bytes, sent %d", w.Header().Get("Content-Length"), len(file))
	}
	q, err := qcow2.Open(t.Context(), block.FromReaderAt(bytes.NewReader(file), int64(len(file))))
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, len(d.data))
	if err := q.ReadAt(t.Context(), disk, 0); err != nil || !bytes.Equal(disk, d.data) {
		t.Errorf("the exported qcow2 has other bytes, %v", err)
	}
	d.do("GET", path+"?format=vmdk", "", 501)
	d.do("GET", path+"?format=vpc", "", 501)
	d.do("GET", path+"?format=doc", "", 400)

	r := httptest.NewRequest("GET", prefix+path, nil)
	r.Header.Set("Range", "bytes=8-15")
	part := httptest.NewRecorder()
	d.s.ServeHTTP(part, r.WithContext(wire.WithIdentity(r.Context(), admin)))
	if part.Code != 206 || part.Body.String() != "platter!" {
		t.Errorf("a range: %d %q", part.Code, part.Body)
	}
}

// TestVisibility: what somebody may not see is 404 everywhere.
func TestVisibility(t *testing.T) {
	d := newDesk(t)
	d.who = wire.Identity{ProjectID: "p1", Roles: []string{"member"}}
	ov := d.overlay()
	got, _ := d.do("POST", "/attachments", `{"image_id":"`+d.img.ID+`"}`, 201)
	att := got["id"].(string)
	d.who = wire.Identity{ProjectID: "p2", Roles: []string{"member"}}
	for _, ask := range []struct{ method, path, body string }{
		{"GET", "/overlays/" + ov, ""}, {"PATCH", "/overlays/" + ov, `{"name":"x"}`}, {"DELETE", "/overlays/" + ov, ""},
		{"GET", "/overlays/" + ov + "/snapshots", ""}, {"POST", "/overlays/" + ov + "/snapshots", `{}`},
		{"POST", "/overlays/" + ov + "/capture", `{"image":{}}`},
		{"GET", "/attachments/" + att, ""}, {"DELETE", "/attachments/" + att, ""},
		{"POST", "/attachments", `{"overlay_id":"` + ov + `"}`}, {"POST", "/attachments", `{"image_id":"` + d.img.ID + `"}`},
		{"POST", "/overlays", `{"image_id":"` + d.img.ID + `"}`},
		{"GET", "/images/" + d.img.ID + "/map", ""}, {"GET", "/images/" + d.img.ID + "/export", ""},
		{"GET", "/images/" + d.img.ID + "/files/1", ""},
	} {
		d.do(ask.method, ask.path, ask.body, 404)
	}
	for path, list := range map[string]string{"/overlays": "overlays", "/attachments": "attachments"} {
		if got, _ := d.do("GET", path, "", 200); len(got[list].([]any)) != 0 {
			t.Errorf("%s shows %v", path, got)
		}
	}
	if _, err := d.f.cat.UpdateImage(t.Context(), d.img.ID, func(i *catalog.Image) error {
		i.Status, i.Visibility = catalog.StatusDeactivated, catalog.VisibilityPublic
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	d.do("GET", "/images/"+d.img.ID+"/export", "", 403)
	d.who = admin
	d.do("GET", "/images/"+d.img.ID+"/export", "", 200)
}

type noPolicy struct{}

func (noPolicy) Allow(_ context.Context, _ wire.Identity, rule string, _ wire.Target) error {
	return wire.Errorf(http.StatusForbidden, "rule %s", rule)
}

// TestEveryRouteAsks: with a policy that allows nothing, nothing is done.
func TestEveryRouteAsks(t *testing.T) {
	d := newDesk(t)
	ov := d.overlay()
	got, _ := d.do("POST", "/attachments", `{"image_id":"`+d.img.ID+`"}`, 201)
	d.s.cfg.Policy = noPolicy{}
	fill := strings.NewReplacer("{overlay_id}", ov, "{attachment_id}", got["id"].(string), "{image_id}", d.img.ID, "{snapshot_id}", "1", "{connection_id}", "1", "{path...}", "x")
	bodies := map[string]string{
		"POST /attachments": `{"image_id":"` + d.img.ID + `"}`, "POST /overlays": `{"image_id":"` + d.img.ID + `"}`,
		"PATCH /overlays/{overlay_id}": `{"name":"x"}`, "POST /overlays/{overlay_id}/snapshots": `{}`,
		"POST /overlays/{overlay_id}/capture": `{"image":{}}`, "POST /captures": `{}`,
	}
	hiding := regexp.MustCompile(`^/(images|overlays|attachments)/{`)
	for _, route := range d.s.Routes() {
		pattern := strings.TrimPrefix(route.Pattern, prefix)
		if route.Rule == "" {
			continue
		}
		want := 403
		if body := bodies[route.Method+" "+pattern]; strings.Contains(body, "image_id") || hiding.MatchString(pattern) {
			want = 404 // who may not even see it learns that there is none
		}
		d.do(route.Method, fill.Replace(pattern), bodies[route.Method+" "+pattern], want)
	}
}

func TestWatch(t *testing.T) {
	d := newDesk(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.s.ServeHTTP(&wire.Recorder{ResponseWriter: w}, r.WithContext(wire.WithIdentity(r.Context(), d.who)))
	}))
	defer srv.Close()
	rev := d.f.cat.Revision()
	resp, err := http.Get(srv.URL + prefix + fmt.Sprintf("/watch?revision=%d", rev))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream" {
		t.Fatalf("content type %q", ct)
	}
	name := "renamed"
	if _, err := d.f.cat.UpdateImage(t.Context(), d.img.ID, func(i *catalog.Image) error { i.Name = &name; return nil }); err != nil {
		t.Fatal(err)
	}
	var event []string
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if text := lines.Text(); text != "" && text[0] != ':' {
			event = append(event, text)
		}
		if len(event) == 3 {
			break
		}
	}
	want := fmt.Sprintf(`"kind":"image","id":"%s","deleted":false}`, d.img.ID)
	if len(event) != 3 || !strings.HasPrefix(event[0], "id: ") || event[1] != "event: image" || !strings.HasSuffix(event[2], want) {
		t.Errorf("the event is %q", event)
	}
	done := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, resp.Body); done <- err }()
	d.s.Close()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("the stream does not end with the server")
	}
	d.do("GET", "/watch", "", 503)
	d.do("GET", "/watch?revision=x", "", 400)
}

func TestWatchShowsWhatMayBeSeen(t *testing.T) {
	d := newDesk(t)
	ctx := wire.WithIdentity(t.Context(), wire.Identity{ProjectID: "p2"})
	seen := map[string]bool{}
	change := catalog.Change{Kind: "image", ID: d.img.ID}
	if d.s.shows(ctx, change, seen) {
		t.Error("a private image of another project is shown")
	}
	gone := change
	gone.Deleted = true
	if d.s.shows(ctx, gone, seen) {
		t.Error("the end of an image that was never seen is shown")
	}
	ctx = wire.WithIdentity(t.Context(), wire.Identity{ProjectID: "p1"})
	if !d.s.shows(ctx, change, seen) || !d.s.shows(ctx, gone, seen) {
		t.Error("the owner does not see the image come and go")
	}
}

func TestUnknown(t *testing.T) {
	d := newDesk(t)
	d.do("GET", "/nothing", "", 404)
	_, w := d.do("PUT", "/overlays", "", 405)
	if w.Header().Get("Allow") != "GET, POST" {
		t.Errorf("Allow: %q", w.Header().Get("Allow"))
	}
	r := httptest.NewRequest("POST", prefix+"/overlays", strings.NewReader("{}"))
	r.Header.Set("Content-Type", "text/plain")
	rec := httptest.NewRecorder()
	d.s.ServeHTTP(rec, r)
	if rec.Code != http.StatusUnsupportedMediaType {
		t.Errorf("a body of text/plain: %d", rec.Code)
	}
}

// compiler knows openapi.json under the address "doc".
func compiler(t *testing.T) *jsonschema.Compiler {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("doc", doc); err != nil {
		t.Fatal(err)
	}
	return c
}

// conforms checks an answer against what the document says of it.
func (d *desk) conforms(route string, status int, body []byte) {
	d.t.Helper()
	method, pattern, _ := strings.Cut(route, " ")
	pattern = strings.ReplaceAll(strings.TrimPrefix(pattern, prefix), "...}", "}")
	pointer := func(code string) string {
		return "doc#/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(pattern) + "/" + strings.ToLower(method) +
			"/responses/" + code + "/content/application~1json/schema"
	}
	schema, err := d.docs.Compile(pointer(fmt.Sprint(status)))
	if err != nil && status >= 400 {
		schema, err = d.docs.Compile(pointer("default"))
	}
	if err != nil {
		d.t.Errorf("%s: the document has nothing for status %d: %v", route, status, err)
		return
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		d.t.Errorf("%s: the answer %s is not what the document says: %v", route, body, err)
	}
}

// TestDocument: document and router know the same paths and methods, and
// every reference in the document leads somewhere.
func TestDocument(t *testing.T) {
	d := newDesk(t)
	_, w := d.do("GET", "/openapi.json", "", 200)
	var doc struct {
		OpenAPI string
		Servers []struct{ URL string }
		Paths   map[string]map[string]struct {
			OperationID string
			Parameters  []struct{ Name, In string }
		}
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" || doc.Servers[0].URL != prefix {
		t.Errorf("version %q, servers %v", doc.OpenAPI, doc.Servers)
	}
	var documented, routed []string
	ids := map[string]bool{}
	braces := regexp.MustCompile(`\{(\w+)\}`)
	for path, methods := range doc.Paths {
		for method, op := range methods {
			documented = append(documented, strings.ToUpper(method)+" "+path)
			if op.OperationID == "" || ids[op.OperationID] {
				t.Errorf("%s %s: operationId %q is missing or taken", method, path, op.OperationID)
			}
			ids[op.OperationID] = true
			for _, m := range braces.FindAllStringSubmatch(path, -1) {
				if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.Name == m[1] && p.In == "path" }) {
					t.Errorf("%s %s does not describe {%s}", method, path, m[1])
				}
			}
		}
	}
	for _, route := range d.s.Routes() {
		routed = append(routed, route.Method+" "+strings.ReplaceAll(strings.TrimPrefix(route.Pattern, prefix), "...}", "}"))
	}
	slices.Sort(documented)
	slices.Sort(routed)
	if !slices.Equal(documented, routed) {
		t.Errorf("the document has\n%s\nthe router has\n%s", strings.Join(documented, "\n"), strings.Join(routed, "\n"))
	}
	for _, m := range regexp.MustCompile(`"\$ref": "#/components/schemas/(\w+)"`).FindAllStringSubmatch(string(openAPI), -1) {
		if doc.Components.Schemas[m[1]] == nil {
			t.Errorf("there is no schema %s", m[1])
		}
	}
	for name := range doc.Components.Schemas {
		if _, err := d.docs.Compile("doc#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
}

func TestNew(t *testing.T) {
	if _, err := New(Config{}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("New without anything: %v", err)
	}
}
