package catalogtest

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/catalog"
)

// Start opens a Catalog that is closed when the test ends.
func Start(t testing.TB, kv catalog.KV, cfg catalog.Config) *catalog.Catalog {
	t.Helper()
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 50 * time.Millisecond
	}
	c, err := catalog.Open(t.Context(), kv, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// active adds an image with data.
func active(t testing.TB, c *catalog.Catalog) catalog.Image {
	t.Helper()
	size := int64(10)
	return must(c.CreateImage(t.Context(), catalog.Image{
		Status: catalog.StatusActive, Owner: "owner", DiskFormat: "raw", ContainerFormat: "bare", Size: &size,
		Locations: []catalog.Location{{Store: "s", Key: "k", Generation: "g", Size: size}},
	}))(t)
}

func testLife(t *testing.T, open Open) {
	c, ctx := Start(t, open(t), catalog.Config{}), t.Context()
	name := "one"
	img := must(c.CreateImage(ctx, catalog.Image{Name: &name, Owner: "p", Tags: []string{"b", "a", "b"},
		Properties: map[string]string{"os": "linux"}}))(t)
	if img.Status != catalog.StatusQueued || img.Visibility != catalog.VisibilityShared || len(img.Tags) != 2 || img.Revision == 0 {
		t.Errorf("created %+v", img)
	}
	if _, err := c.CreateImage(ctx, catalog.Image{ID: img.ID}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create with a taken id: %v, want fs.ErrExist", err)
	}
	got := must(c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error {
		i.Properties["os"], i.Name, i.ID, i.CreatedAt = "bsd", nil, "ignored", time.Time{}
		return nil
	}))(t)
	if got.Name != nil || got.Properties["os"] != "bsd" || got.ID != img.ID || !got.CreatedAt.Equal(img.CreatedAt) || !got.UpdatedAt.After(img.UpdatedAt) || got.Revision <= img.Revision {
		t.Errorf("updated %+v", got)
	}
	if now := must(c.Image(ctx, img.ID))(t); now.Revision != got.Revision || now.Properties["os"] != "bsd" {
		t.Errorf("read back %+v, want %+v", now, got)
	}
	boom := errors.New("boom")
	if _, err := c.UpdateImage(ctx, img.ID, func(*catalog.Image) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("update that refuses: %v", err)
	}
	var status *catalog.StatusError
	_, err := c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Status = catalog.StatusDeactivated; return nil })
	if !errors.As(err, &status) || status.From != catalog.StatusQueued || status.To != catalog.StatusDeactivated {
		t.Errorf("queued to deactivated: %v, want a StatusError", err)
	}
	_, err = c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error {
		i.Properties = map[string]string{"big": strings.Repeat("x", catalog.MaxRecord)}
		return nil
	})
	if !errors.Is(err, catalog.ErrTooBig) {
		t.Errorf("record over the limit: %v, want ErrTooBig", err)
	}
	must(c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Protected = true; return nil }))(t)
	if _, err := c.DeleteImage(ctx, img.ID); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("delete of a protected image: %v, want fs.ErrPermission", err)
	}
	must(c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Protected = false; return nil }))(t)
	testDeleted(t, c, must(c.DeleteImage(ctx, img.ID))(t))
}

func testDeleted(t *testing.T, c *catalog.Catalog, img catalog.Image) {
	ctx := t.Context()
	if img.Status != catalog.StatusDeleted {
		t.Errorf("deleted image has status %s", img.Status)
	}
	if _, err := c.Image(ctx, img.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted image: %v, want fs.ErrNotExist", err)
	}
	if _, err := c.CreateImage(ctx, catalog.Image{ID: img.ID}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create with the id of a deleted image: %v, want fs.ErrExist", err)
	}
	if _, err := c.DeleteImage(ctx, img.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("delete again: %v, want fs.ErrNotExist", err)
	}
	if _, err := c.UpdateImage(ctx, img.ID, func(*catalog.Image) error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("update of a deleted image: %v, want fs.ErrNotExist", err)
	}
}

func testUploads(t *testing.T, open Open) {
	c, ctx := Start(t, open(t), catalog.Config{GatewayID: "gw"}), t.Context()
	begin := func(image, upload string) error {
		_, err := c.BeginUpload(ctx, catalog.Upload{ID: upload, Image: image, Store: "s", Key: image + "/" + upload})
		return err
	}
	finish := func(image, upload string) (catalog.Image, error) {
		loc := catalog.Location{Store: "s", Key: image + "/" + upload}
		return c.FinishUpload(ctx, upload, image, loc, 42, nil, "md5", "sha512", "hash")
	}
	img := must(c.CreateImage(ctx, catalog.Image{}))(t)
	if err := begin(img.ID, "u1"); err != nil {
		t.Fatal(err)
	}
	var status *catalog.StatusError
	if err := begin(img.ID, "u2"); !errors.As(err, &status) {
		t.Errorf("second upload: %v, want a StatusError", err)
	}
	if u := must(c.Uploads(ctx))(t); len(u) != 1 || u[0].ID != "u1" || u[0].Gateway != "gw" || u[0].Image != img.ID {
		t.Errorf("uploads: %+v", u)
	}
	if err := c.AbandonUpload(ctx, catalog.Upload{ID: "u1", Image: img.ID}); err != nil {
		t.Fatal(err)
	}
	if err := c.AbandonUpload(ctx, catalog.Upload{ID: "u1", Image: img.ID}); err != nil {
		t.Errorf("abandon again: %v", err)
	}
	if got := must(c.Image(ctx, img.ID))(t); got.Status != catalog.StatusQueued {
		t.Errorf("after abandon: %s", got.Status)
	}
	if err := begin(img.ID, "u3"); err != nil {
		t.Fatal(err)
	}
	if _, err := finish(img.ID, "u1"); !errors.Is(err, catalog.ErrGone) {
		t.Errorf("finish of an upload given up: %v, want ErrGone", err)
	}
	if o := must(c.Objects(ctx, "s"))(t); o[img.ID+"/u3"] != "upload u3" || len(o) != 1 {
		t.Errorf("objects while saving: %v", o)
	}
	got := must(finish(img.ID, "u3"))(t)
	if got.Status != catalog.StatusActive || *got.Size != 42 || got.VirtualSize != nil || got.Locations[0].Generation != "u3" {
		t.Errorf("finished: %+v", got)
	}
	if again := must(finish(img.ID, "u3"))(t); again.Status != catalog.StatusActive {
		t.Errorf("finished again: %+v", again)
	}
	if o := must(c.Objects(ctx, "s"))(t); o[img.ID+"/u3"] != "image "+img.ID || len(o) != 1 {
		t.Errorf("objects when active: %v", o)
	}
	if u := must(c.Uploads(ctx))(t); len(u) != 0 {
		t.Errorf("uploads after all ended: %+v", u)
	}
	testGone(t, c, begin, finish)
	must(c.DeleteImage(ctx, img.ID))(t)
	garbage := must(c.Garbage(ctx))(t)
	var collected []string
	for _, g := range garbage {
		collected = append(collected, g.Key)
		if err := c.Collected(ctx, g); err != nil {
			t.Error(err)
		}
	}
	if !slices.Contains(collected, img.ID+"/u1") || !slices.Contains(collected, img.ID+"/u3") {
		t.Errorf("garbage: %q", collected)
	}
	if left := must(c.Garbage(ctx))(t); len(left) != 0 {
		t.Errorf("garbage after collecting: %v", left)
	}
}

// testGone deletes an image under its upload.
func testGone(t *testing.T, c *catalog.Catalog, begin func(image, upload string) error, finish func(image, upload string) (catalog.Image, error)) {
	for _, end := range []string{"finish", "abandon"} {
		img := must(c.CreateImage(t.Context(), catalog.Image{}))(t)
		if err := begin(img.ID, "u"); err != nil {
			t.Fatal(err)
		}
		must(c.DeleteImage(t.Context(), img.ID))(t)
		if end == "finish" {
			if _, err := finish(img.ID, "u"); !errors.Is(err, catalog.ErrGone) {
				t.Errorf("finish after delete: %v, want ErrGone", err)
			}
		} else if err := c.AbandonUpload(t.Context(), catalog.Upload{ID: "u", Image: img.ID}); err != nil {
			t.Errorf("abandon after delete: %v", err)
		}
		garbage := must(c.Garbage(t.Context()))(t)
		if !slices.ContainsFunc(garbage, func(g catalog.Garbage) bool { return g.Key == img.ID+"/u" }) {
			t.Errorf("%s after delete left no garbage: %v", end, garbage)
		}
		if u := must(c.Uploads(t.Context()))(t); len(u) != 0 {
			t.Errorf("%s after delete left uploads: %v", end, u)
		}
	}
}

func testInUse(t *testing.T, open Open) {
	c, ctx := Start(t, open(t), catalog.Config{}), t.Context()
	img := active(t, c)
	o := must(c.CreateOverlay(ctx, catalog.Overlay{ImageID: img.ID, Engine: "file", Size: 1}))(t)
	a := must(c.CreateAttachment(ctx, catalog.Attachment{ImageID: img.ID, Mode: catalog.AttachEphemeral, TokenHash: "th"}))(t)
	_, err := c.DeleteImage(ctx, img.ID)
	var used *catalog.InUseError
	want := []string{"attachment " + a.ID, "overlay " + o.ID}
	if !errors.As(err, &used) || !slices.Equal(used.Users, want) || used.Kind != "image" || used.ID != img.ID {
		t.Fatalf("delete of an image in use: %v, want an InUseError with %q", err, want)
	}
	if err := c.DeleteOverlay(ctx, o.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteImage(ctx, img.ID); !errors.As(err, &used) || len(used.Users) != 1 {
		t.Fatalf("delete of an image in use by one: %v", err)
	}
	if err := c.DeleteAttachment(ctx, a.ID); err != nil {
		t.Fatal(err)
	}
	must(c.DeleteImage(ctx, img.ID))(t)
	if _, err := c.CreateOverlay(ctx, catalog.Overlay{ImageID: img.ID, Engine: "file"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("overlay on a deleted image: %v, want fs.ErrNotExist", err)
	}
	queued := must(c.CreateImage(ctx, catalog.Image{}))(t)
	if _, err := c.CreateOverlay(ctx, catalog.Overlay{ImageID: queued.ID, Engine: "file"}); !errors.Is(err, catalog.ErrNoData) {
		t.Errorf("overlay on a queued image: %v, want ErrNoData", err)
	}
}

func testOverlays(t *testing.T, open Open) {
	c, ctx := Start(t, open(t), catalog.Config{}), t.Context()
	img := active(t, c)
	o := must(c.CreateOverlay(ctx, catalog.Overlay{ImageID: img.ID, Name: "disk", Owner: "p", Engine: "file", Size: 1 << 30}))(t)
	rw := catalog.Attachment{OverlayID: o.ID, Mode: catalog.AttachRW, TokenHash: "hash1"}
	if _, err := c.CreateAttachment(ctx, rw); !errors.Is(err, catalog.ErrNoData) {
		t.Errorf("attach to an overlay that is being created: %v, want ErrNoData", err)
	}
	o = must(c.UpdateOverlay(ctx, o.ID, func(o *catalog.Overlay) error {
		o.Status = catalog.OverlayAvailable
		o.Epoch++ // which is not changed this way
		o.Snapshots = append(o.Snapshots, catalog.OverlaySnapshot{ID: "1", Name: "first", CreatedAt: o.CreatedAt})
		return nil
	}))(t)
	first := must(c.CreateAttachment(ctx, rw))(t)
	var held *catalog.HeldError
	if _, err := c.CreateAttachment(ctx, catalog.Attachment{OverlayID: o.ID, Mode: catalog.AttachRW}); !errors.As(err, &held) || held.Holder != first.ID {
		t.Errorf("second writer: %v, want a HeldError with %s", err, first.ID)
	}
	reader := must(c.CreateAttachment(ctx, catalog.Attachment{OverlayID: o.ID, Mode: catalog.AttachRO, TokenHash: "hash2"}))(t)
	if _, err := c.CreateAttachment(ctx, catalog.Attachment{OverlayID: o.ID, Mode: catalog.AttachEphemeral}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("ephemeral on an overlay: %v, want fs.ErrInvalid", err)
	}
	var used *catalog.InUseError
	if err := c.DeleteOverlay(ctx, o.ID); !errors.As(err, &used) || used.Kind != "overlay" || len(used.Users) != 2 {
		t.Errorf("delete of an overlay in use: %v", err)
	}
	if got := must(c.AttachmentByToken(ctx, "hash1"))(t); got.ID != first.ID {
		t.Errorf("by token: %+v", got)
	}
	if _, err := c.AttachmentByToken(ctx, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("by no token: %v", err)
	}
	seen := time.Now()
	used1 := must(c.UpdateAttachment(ctx, first.ID, func(a *catalog.Attachment) error { a.LastUsed = seen; return nil }))(t)
	if !used1.LastUsed.Equal(seen.Truncate(time.Microsecond)) {
		t.Errorf("last used %v, want %v", used1.LastUsed, seen)
	}
	for _, id := range []string{first.ID, reader.ID} {
		if err := c.DeleteAttachment(ctx, id); err != nil {
			t.Error(err)
		}
	}
	again := must(c.CreateAttachment(ctx, rw))(t)
	if got := must(c.Attachments(ctx, catalog.AttachmentQuery{OverlayID: o.ID}))(t); len(got) != 1 || got[0].ID != again.ID {
		t.Errorf("attachments: %+v", got)
	}
	if got := must(c.Overlays(ctx, catalog.OverlayQuery{ImageID: img.ID}))(t); len(got) != 1 || got[0].Epoch != 0 || len(got[0].Snapshots) != 1 {
		t.Errorf("overlays: %+v", got)
	}
	if err := c.DeleteAttachment(ctx, again.ID); err != nil {
		t.Error(err)
	}
	if err := c.DeleteOverlay(ctx, o.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.Overlay(ctx, o.ID); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted overlay: %v", err)
	}
	must(c.DeleteImage(ctx, img.ID))(t)
}

func testMembers(t *testing.T, open Open) {
	c, ctx := Start(t, open(t), catalog.Config{}), t.Context()
	img := must(c.CreateImage(ctx, catalog.Image{Owner: "owner"}))(t)
	m := must(c.CreateMember(ctx, catalog.Member{Image: img.ID, Project: "a/b"}))(t)
	if m.Status != catalog.MemberPending {
		t.Errorf("new member is %s", m.Status)
	}
	if _, err := c.CreateMember(ctx, m); !errors.Is(err, fs.ErrExist) {
		t.Errorf("member twice: %v, want fs.ErrExist", err)
	}
	viewer := catalog.Viewer{Project: "a/b"}
	if got := must(c.Images(ctx, catalog.Query{Viewer: viewer}))(t); len(got) != 0 {
		t.Errorf("pending member lists %d images", len(got))
	}
	if !c.CanSee(viewer, img) {
		t.Error("a pending member cannot see the image")
	}
	m.Status = catalog.MemberAccepted
	must(c.PutMember(ctx, m))(t)
	if got := must(c.Images(ctx, catalog.Query{Viewer: viewer}))(t); len(got) != 1 {
		t.Errorf("accepted member lists %d images", len(got))
	}
	for i := range 130 { // more than the operations of a transaction
		must(c.PutMember(ctx, catalog.Member{Image: img.ID, Project: fmt.Sprint("p", i)}))(t)
	}
	if list := must(c.Members(ctx, img.ID))(t); len(list) != 131 || list[0].Project != "a/b" {
		t.Errorf("%d members, the first is %v", len(list), list[0])
	}
	if err := c.DeleteMember(ctx, img.ID, "p7"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteMember(ctx, img.ID, "p7"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("delete of no member: %v", err)
	}
	must(c.DeleteImage(ctx, img.ID))(t)
	if _, err := c.Member(ctx, img.ID, "a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("member of a deleted image: %v", err)
	}
	if _, err := c.PutMember(ctx, m); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("new member of a deleted image: %v", err)
	}
}

func testTasks(t *testing.T, open Open) {
	now := time.Now()
	c, ctx := Start(t, open(t), catalog.Config{Now: func() time.Time { now = now.Add(time.Millisecond); return now }}), t.Context()
	var ids []string
	for i := range 5 {
		task := must(c.CreateTask(ctx, catalog.Task{Type: "capture", Owner: fmt.Sprint("p", i%2), Input: map[string]any{"n": i}}))(t)
		ids = append(ids, task.ID)
	}
	done := must(c.UpdateTask(ctx, ids[0], func(task *catalog.Task) error {
		task.Status, task.ExpiresAt = catalog.TaskSuccess, now.Add(-time.Hour)
		task.Progress, task.Result = catalog.Progress{Done: 5, Total: 5}, map[string]any{"image_id": "x"}
		return nil
	}))(t)
	if got := must(c.Task(ctx, ids[0]))(t); got.Progress != done.Progress || got.Result["image_id"] != "x" {
		t.Errorf("task: %+v", got)
	}
	list := must(c.Tasks(ctx, catalog.TaskQuery{Viewer: catalog.Viewer{Admin: true}, Marker: ids[3], Limit: 2}))(t)
	if len(list) != 2 || list[0].ID != ids[2] || list[1].ID != ids[1] {
		t.Errorf("page of tasks: %+v", list)
	}
	if own := must(c.Tasks(ctx, catalog.TaskQuery{Viewer: catalog.Viewer{Project: "p1"}, Asc: true}))(t); len(own) != 2 || own[0].ID != ids[1] {
		t.Errorf("own tasks: %+v", own)
	}
	if _, err := c.Tasks(ctx, catalog.TaskQuery{Viewer: catalog.Viewer{Project: "p1"}, Marker: ids[0]}); !errors.Is(err, catalog.ErrMarker) {
		t.Errorf("marker of another project: %v", err)
	}
	if n := must(c.ExpireTasks(ctx))(t); n != 1 {
		t.Errorf("%d tasks expired, want 1", n)
	}
	if _, err := c.Task(ctx, ids[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("expired task: %v", err)
	}
}
