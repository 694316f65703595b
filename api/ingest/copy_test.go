package ingest

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// TestFill: an image that is importing gets its bytes in several stores, and
// an active one in one more.
func TestFill(t *testing.T) {
	one, two := mem.New(), mem.New()
	b := newBench(t, memkv.New(), one, nil, func(cfg *Config) {
		cfg.Stores = map[string]backends.Store{"one": one, "two": two, "three": mem.New()}
		cfg.DefaultStore = "one"
	})
	b.image("raw")
	ctx := t.Context()
	var status *catalog.StatusError
	if err := b.in.Fill(ctx, imageID, strings.NewReader("data"), 4, "one"); !errors.As(err, &status) {
		t.Errorf("an image that is queued: %v", err)
	}
	if _, err := b.cat.UpdateImage(ctx, imageID, func(i *catalog.Image) error { i.Status = catalog.StatusImporting; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := b.in.Fill(ctx, imageID, strings.NewReader("data"), 4, "nowhere"); !errors.Is(err, ErrStore) {
		t.Errorf("a store that there is not: %v", err)
	}
	if err := b.in.Fill(ctx, imageID, strings.NewReader("dat"), 4, "one"); !errors.Is(err, ErrBody) {
		t.Errorf("a body that is too short: %v", err)
	}
	if err := b.in.Fill(ctx, imageID, strings.NewReader("data"), -1, "one"); err != nil {
		t.Fatal(err)
	}
	if err := b.in.Fill(ctx, imageID, strings.NewReader("DATA"), 4, "two"); !errors.Is(err, catalog.ErrMismatch) {
		t.Errorf("other bytes: %v", err)
	}
	if err := b.in.Fill(ctx, imageID, strings.NewReader("data"), 4, "one"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a store that has it: %v", err)
	}
	var moved int64
	if err := b.in.CopyTo(ctx, imageID, "two", func(n int64) { moved += n }); err != nil || moved != 4 {
		t.Errorf("copied %d bytes, %v", moved, err)
	}
	if err := b.in.Activate(ctx, imageID, func(i *catalog.Image) { i.Hidden = true }); err != nil {
		t.Fatal(err)
	}
	if err := b.in.CopyTo(ctx, imageID, "three", nil); err != nil {
		t.Errorf("copy of an active image: %v", err)
	}
	img, err := b.cat.Image(ctx, imageID)
	if err != nil {
		t.Fatal(err)
	}
	if img.Status != catalog.StatusActive || !img.Hidden || *img.Size != 4 || img.Checksum != "8d777f385d3dfec8815d20f7496026dc" || len(img.Locations) != 3 {
		t.Errorf("the image is %+v", img)
	}
	for _, l := range img.Locations {
		r, err := b.in.cfg.Stores[l.Store].Open(ctx, l.Key)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4)
		if err := r.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, []byte("data")) {
			t.Errorf("store %s has %q, %v", l.Store, got, err)
		}
		r.Close()
	}
	if _, err := b.in.Tidy(ctx); err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, s := range []*mem.Store{one, two} {
		for _, err := range backends.List(ctx, s) {
			if err != nil {
				t.Fatal(err)
			}
			left++
		}
	}
	if ups, err := b.cat.Uploads(ctx); err != nil || len(ups) != 0 || left != 2 {
		t.Errorf("%d uploads and %d objects of 2 are left, %v", len(ups), left, err)
	}
	if err := b.in.CopyTo(ctx, "none", "two", nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("copy of no image: %v", err)
	}
}
