package platter

import (
	"context"
	"io/fs"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/catalog"
)

// places is a gateway with one far store and a cache, of which tests take the
// parts away.
type places struct {
	noCache, noTrace bool
	dropped, forgot  string
}

func (p *places) Stores(context.Context) []StoreInfo {
	return []StoreInfo{
		{Name: "cold", Type: "s3", Overlay: "object-log", Durability: "gateway", Weight: 3,
			Capabilities: []backends.Capability{{Name: "if-match on put", OK: false, Detail: "answers 412 to everything"}},
			Health:       Health{Message: "dial: refused", Since: time.Unix(1e9, 0), Latency: 20 * time.Millisecond}},
		{Name: "local", Type: "file", Default: true, Overlay: "file", Usage: backends.Usage{Total: 10, Free: 4}, Health: Health{OK: true}},
	}
}

func (p *places) Cache(context.Context) (CacheInfo, error) {
	if p.noCache {
		return CacheInfo{}, fs.ErrNotExist
	}
	return CacheInfo{Dir: "/c", Size: 100, Used: 7, Hits: 2, Message: "disk full", Images: []CachedImage{{Generation: "g", Size: 9, Used: 7}}}, nil
}

func (p *places) DropCached(_ context.Context, img catalog.Image) error {
	p.dropped = img.ID
	return nil
}

func (p *places) Trace(context.Context, catalog.Image) (TraceInfo, error) {
	if p.noTrace {
		return TraceInfo{}, fs.ErrNotExist
	}
	return TraceInfo{Boots: 2, Bytes: 12, Ranges: []Range{{0, 4}, {100, 8}}}, nil
}

func (p *places) ForgetTrace(_ context.Context, img catalog.Image) error {
	p.forgot = img.ID
	return nil
}

func TestPlaces(t *testing.T) {
	d := newDesk(t)
	image := "/images/" + d.img.ID
	// A gateway of local stores alone.
	if got, _ := d.do("GET", "/stores", "", 200); len(got["stores"].([]any)) != 0 {
		t.Errorf("stores of nobody: %v", got)
	}
	d.do("GET", "/cache", "", 404)
	d.do("DELETE", "/cache"+image, "", 404)
	d.do("GET", image+"/trace", "", 404)

	p := &places{}
	d.s.cfg.Places = p
	got, _ := d.do("GET", "/stores", "", 200)
	cold, local := got["stores"].([]any)[0].(map[string]any), got["stores"].([]any)[1].(map[string]any)
	if cold["state"] != "failing" || cold["message"] != "dial: refused" || cold["total"] != nil || cold["since"] != "2001-09-09T01:46:40Z" ||
		local["state"] != "ok" || local["total"] != 10.0 || local["since"] != nil {
		t.Errorf("stores: %v", got)
	}
	if got, _ = d.do("GET", "/cache", "", 200); got["state"] != "reading through" || got["used"] != 7.0 || len(got["images"].([]any)) != 1 {
		t.Errorf("cache: %v", got)
	}
	d.do("DELETE", "/cache"+image, "", 204)
	d.do("DELETE", "/cache/images/none", "", 404)
	if got, _ = d.do("GET", image+"/trace", "", 200); got["boots"] != 2.0 || len(got["ranges"].([]any)) != 2 {
		t.Errorf("trace: %v", got)
	}
	d.do("DELETE", image+"/trace", "", 204)
	if p.dropped != d.img.ID || p.forgot != d.img.ID {
		t.Errorf("dropped %q, forgot %q", p.dropped, p.forgot)
	}
	p.noCache, p.noTrace = true, true
	d.do("GET", "/cache", "", 404)
	d.do("DELETE", "/cache"+image, "", 404)
	d.do("GET", image+"/trace", "", 404)
}

// shaper is an engine that can do everything, or nothing.
type shaper struct{ d *desk }

func (s shaper) Resize(ctx context.Context, id string, size int64) (catalog.Overlay, error) {
	return s.d.f.cat.UpdateOverlay(ctx, id, func(o *catalog.Overlay) error {
		o.Size = size
		return nil
	})
}

func (s shaper) Flatten(ctx context.Context, req FlattenRequest) (catalog.Task, error) {
	return catalog.Task{ID: "t1", Type: "flatten", Status: catalog.TaskPending, RequestID: req.RequestID, CreatedAt: time.Unix(1, 0), UpdatedAt: time.Unix(1, 0)}, nil
}

func TestReshape(t *testing.T) {
	d := newDesk(t)
	ov := "/overlays/" + d.overlay()
	d.do("PATCH", ov, `{}`, 400)
	d.do("PATCH", ov, `{"size":1073741824}`, 501)
	d.do("POST", ov+"/flatten", "", 501)
	d.s.cfg.Reshaper = shaper{d}
	d.do("PATCH", ov, `{"size":1000}`, 400)
	d.do("PATCH", ov, `{"size":-512}`, 400)
	got, _ := d.do("PATCH", ov, `{"size":1073741824,"name":"larger"}`, 200)
	if got["size"] != 1073741824.0 || got["name"] != "larger" {
		t.Errorf("resized: %v", got)
	}
	d.do("PATCH", ov, `{"size":512}`, 400)
	_, w := d.do("POST", ov+"/flatten", "", 202)
	if w.Header().Get("Location") != "/v2/tasks/t1" {
		t.Errorf("flatten: %v", w.Header())
	}
	d.do("POST", "/overlays/none/flatten", "", 404)
}

func TestAcceptLoss(t *testing.T) {
	d := newDesk(t)
	d.do("POST", "/attachments", `{"image_id":"`+d.img.ID+`","accept_loss":true}`, 400)
	ov := d.overlay()
	d.do("POST", "/attachments", `{"overlay_id":"`+ov+`","mode":"ro","accept_loss":true}`, 400)
	d.do("POST", "/attachments", `{"overlay_id":"`+ov+`","accept_loss":true}`, 201)
}
