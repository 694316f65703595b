package catalogtest

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/seed-478a8fee/platter/catalog"
)

// testCopies: several stores have an image's bytes, and whatever ends in
// between leaves nothing behind.
func testCopies(t *testing.T, open Open) {
	c, ctx := Start(t, open(t), catalog.Config{GatewayID: "a"}), t.Context()
	img := must(c.CreateImage(ctx, catalog.Image{}))(t)
	up := func(id, store string) catalog.Upload { return catalog.Upload{ID: id, Image: img.ID, Store: store} }
	loc := func(store, key string) catalog.Location { return catalog.Location{Store: store, Key: key} }
	facts := catalog.Facts{Size: 5, Checksum: "m", HashAlgo: "sha512", HashValue: "h"}
	var status *catalog.StatusError
	if _, err := c.BeginCopy(ctx, up("c0", "a")); !errors.As(err, &status) {
		t.Errorf("copy of a queued image: %v", err)
	}
	must(c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Status = catalog.StatusImporting; return nil }))(t)
	first := must(c.BeginCopy(ctx, up("c1", "a")))(t)
	second := must(c.BeginCopy(ctx, up("c2", "b")))(t)
	if first.Attempts != 1 || second.Attempts != 2 {
		t.Errorf("attempts: %d and %d", first.Attempts, second.Attempts)
	}
	if _, err := c.BeginCopy(ctx, up("c3", "a")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second copy to a store: %v, want ErrExist", err)
	}
	keys := must(c.Objects(ctx, "b"))(t)
	if keys[catalog.UploadKey(img.ID, "c2", 2)] == "" {
		t.Errorf("the objects of store b are %v", keys)
	}
	if err := c.MoveUpload(ctx, catalog.Upload{ID: "c1", Image: img.ID, Store: "a", Copy: true}, "moved"); err != nil {
		t.Error(err)
	}
	got := must(c.FinishCopy(ctx, up("c1", "a"), loc("a", "moved"), facts))(t)
	if got.Status != catalog.StatusImporting || *got.Size != 5 || got.Checksum != "m" || len(got.Locations) != 1 || got.Locations[0].Generation != "c1" {
		t.Errorf("after the first copy: %+v", got)
	}
	if _, err := c.FinishCopy(ctx, up("c2", "b"), loc("b", "k2"), catalog.Facts{Size: 6}); !errors.Is(err, catalog.ErrMismatch) {
		t.Errorf("other bytes: %v, want ErrMismatch", err)
	}
	if err := c.AbandonUpload(ctx, catalog.Upload{ID: "c2", Image: img.ID, Store: "b", Copy: true}); err != nil {
		t.Error(err)
	}
	if now := must(c.Image(ctx, img.ID))(t); now.Status != catalog.StatusImporting || len(now.Locations) != 1 {
		t.Errorf("after a copy was given up: %+v", now)
	}
	must(c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Status = catalog.StatusActive; return nil }))(t)
	if _, err := c.RemoveLocation(ctx, img.ID, "a"); !errors.Is(err, catalog.ErrLastCopy) {
		t.Errorf("remove the last copy: %v", err)
	}
	must(c.BeginCopy(ctx, up("c4", "b")))(t)
	for range 2 { // the answer of the first may have been lost
		got = must(c.FinishCopy(ctx, up("c4", "b"), loc("b", "k4"), facts))(t)
	}
	if len(got.Locations) != 2 || len(must(c.Uploads(ctx))(t)) != 0 {
		t.Errorf("two copies: %+v", got.Locations)
	}
	if _, err := c.RemoveLocation(ctx, img.ID, "z"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("remove what is not there: %v", err)
	}
	got = must(c.RemoveLocation(ctx, img.ID, "a"))(t)
	if len(got.Locations) != 1 || got.Locations[0].Store != "b" {
		t.Errorf("after removing one: %+v", got.Locations)
	}
	garbage := map[string]bool{}
	for _, g := range must(c.Garbage(ctx))(t) {
		garbage[g.Key] = true
	}
	if len(garbage) != 2 || !garbage["moved"] || !garbage[catalog.UploadKey(img.ID, "c2", 2)] {
		t.Errorf("garbage: %v", garbage)
	}
	must(c.BeginCopy(ctx, up("c5", "a")))(t)
	must(c.DeleteImage(ctx, img.ID))(t)
	if _, err := c.FinishCopy(ctx, up("c5", "a"), loc("a", "k5"), facts); !errors.Is(err, catalog.ErrGone) {
		t.Errorf("copy of a deleted image: %v, want ErrGone", err)
	}
	if n := len(must(c.Uploads(ctx))(t)); n != 0 {
		t.Errorf("%d uploads are left", n)
	}
}

func testRequeue(t *testing.T, open Open) {
	c, ctx := Start(t, open(t), catalog.Config{GatewayID: "a"}), t.Context()
	img := must(c.CreateImage(ctx, catalog.Image{}))(t)
	var status *catalog.StatusError
	if _, err := c.Requeue(ctx, img.ID, nil); !errors.As(err, &status) {
		t.Errorf("requeue a queued image: %v", err)
	}
	must(c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Status = catalog.StatusImporting; return nil }))(t)
	must(c.BeginCopy(ctx, catalog.Upload{ID: "c1", Image: img.ID, Store: "s"}))(t)
	must(c.FinishCopy(ctx, catalog.Upload{ID: "c1", Image: img.ID, Store: "s"}, catalog.Location{Store: "s", Key: "k"}, catalog.Facts{Size: 1}))(t)
	got := must(c.Requeue(ctx, img.ID, func(i *catalog.Image) { i.Properties = map[string]string{"a": "b"} }))(t)
	if got.Status != catalog.StatusQueued || got.Size != nil || len(got.Locations) != 0 || got.Properties["a"] != "b" {
		t.Errorf("requeued: %+v", got)
	}
	if g := must(c.Garbage(ctx))(t); len(g) != 1 || g[0].Key != "k" {
		t.Errorf("garbage: %v", g)
	}
	// Another copy must not write where that one is removed.
	must(c.UpdateImage(ctx, img.ID, func(i *catalog.Image) error { i.Status = catalog.StatusImporting; return nil }))(t)
	must(c.BeginCopy(ctx, catalog.Upload{ID: "c2", Image: img.ID, Store: "s"}))(t)
	if key := must(c.Uploads(ctx))(t)[0].Key; key == img.ID || key == "k" {
		t.Errorf("the second attempt writes to %s", key)
	}
}
