package ingest_test

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/api/ingest"
	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/catalog/memkv"
)

// TestAdopt: an object of somebody else becomes an image's data if it is what
// it should be, and else stays what it was; no sweep takes it.
func TestAdopt(t *testing.T) {
	ctx := t.Context()
	cat, err := catalog.Open(ctx, memkv.New(), catalog.Config{GatewayID: "gw"})
	if err != nil {
		t.Fatal(err)
	}
	defer cat.Close()
	theirs, ours := mem.New(), mem.New()
	late := time.Now().Add(24 * time.Hour)
	in, err := ingest.New(ingest.Config{Catalog: cat, Stores: map[string]backends.Store{"theirs": theirs, "ours": ours}, DefaultStore: "ours",
		Shared: map[string]bool{"theirs": true}, GatewayID: "gw", Now: func() time.Time { return late }})
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("whatever it is")
	put := func(s backends.Store, key string) {
		t.Helper()
		w, err := s.Create(ctx, key, int64(len(data)))
		if err == nil {
			_, err = w.Write(data)
		}
		if err == nil {
			err = w.Commit(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	image := func() string {
		t.Helper()
		img, err := cat.CreateImage(ctx, catalog.Image{DiskFormat: "raw", ContainerFormat: "bare"})
		if err != nil {
			t.Fatal(err)
		}
		return img.ID
	}
	there := func(s backends.Store, key string) bool {
		r, err := s.Open(ctx, key)
		if err == nil {
			r.Close()
		}
		return err == nil
	}
	sum := md5.Sum(data)
	want := catalog.Facts{Size: int64(len(data)), Checksum: hex.EncodeToString(sum[:])}
	id, absent := image(), image()
	put(theirs, id)
	put(theirs, "not-yet")
	put(ours, id)
	put(ours, "orphan")
	for _, c := range []struct {
		name, id, store string
		change          func(*catalog.Facts)
		err             error
	}{
		{"no store", id, "nowhere", nil, ingest.ErrStore},
		{"ours", id, "ours", nil, ingest.ErrNotShared},
		{"no object", absent, "theirs", nil, fs.ErrNotExist},
		{"size", id, "theirs", func(f *catalog.Facts) { f.Size++ }, catalog.ErrMismatch},
		{"checksum", id, "theirs", func(f *catalog.Facts) { f.Checksum = "00" }, catalog.ErrMismatch},
		{"hash", id, "theirs", func(f *catalog.Facts) { f.HashAlgo, f.HashValue = "sha512", "00" }, catalog.ErrMismatch},
	} {
		w := want
		if c.change != nil {
			c.change(&w)
		}
		if err := in.Adopt(ctx, c.id, c.store, w); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
		if img, err := cat.Image(ctx, c.id); err != nil || img.Status != catalog.StatusQueued {
			t.Errorf("%s: the image is %s, %v", c.name, img.Status, err)
		}
	}
	if err := in.Adopt(ctx, id, "theirs", want); err != nil {
		t.Fatal(err)
	}
	img, err := cat.Image(ctx, id)
	if err != nil || img.Status != catalog.StatusActive || *img.Size != want.Size || img.Checksum != want.Checksum || len(img.HashValue) != 128 {
		t.Fatalf("the image is %+v, %v", img, err)
	}
	var status *catalog.StatusError
	if err := in.Adopt(ctx, id, "theirs", want); !errors.As(err, &status) {
		t.Errorf("adopted twice: %v", err)
	}
	r, err := in.Open(ctx, img)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if err := r.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %q, %v", got, err)
	}
	r.Close()

	if _, err := in.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if !there(theirs, "not-yet") || !there(theirs, id) || there(ours, "orphan") {
		t.Errorf("after a sweep: theirs %t and %t, ours %t", there(theirs, "not-yet"), there(theirs, id), there(ours, "orphan"))
	}
	if _, err := cat.DeleteImage(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Tidy(ctx); err != nil || there(theirs, id) {
		t.Errorf("a deleted image's object: %t, %v", there(theirs, id), err)
	}
}
