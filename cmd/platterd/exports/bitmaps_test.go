package exports

import (
	"context"
	"errors"
	"io/fs"
	"testing"

	"github.com/seed-478a8fee/platter/api/platter"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/catalog"
	"github.com/seed-478a8fee/platter/nbd"
)

// changed tells whether a bitmap has the byte at off as changed.
func changed(t *testing.T, b nbd.Bitmap, off int64) bool {
	t.Helper()
	x, err := b.Changed.Extent(t.Context(), off, 1)
	if err != nil {
		t.Fatalf("bitmap %s: %v", b.Name, err)
	}
	return x.Kind == block.Data
}

func names(x nbd.Export) []string {
	var out []string
	for _, b := range x.Bitmaps {
		out = append(out, b.Name)
	}
	return out
}

func TestBitmaps(t *testing.T) {
	r := newRig(t, nil)
	img := r.image("qcow2", noise(diskSize, 1))
	ov := r.overlay(img, 0)
	snap := func(name string) string {
		t.Helper()
		s, err := r.e.Snapshot(t.Context(), ov.ID, name)
		if err != nil {
			t.Fatal(err)
		}
		return s.ID
	}
	x := r.open(first, "overlay/"+ov.ID)
	if len(x.Bitmaps) != 0 {
		t.Errorf("without snapshots there are the bitmaps %q", names(x))
	}
	r.write(x, noise(4096, 2), 0)
	old := snap("monday")
	r.write(x, noise(4096, 3), 1<<20)
	snap("tuesday")
	snap("monday")
	r.close(x)

	a := r.attach(platter.AttachRequest{Overlay: &ov, Mode: catalog.AttachRW})
	x = r.open(first, exportOf(a))
	if got := names(x); len(got) != 3 || got[0] != old || got[1] != "tuesday" || got[2] != "monday" {
		t.Fatalf("bitmaps %q, want %q, tuesday, monday", got, old)
	}
	for _, b := range x.Bitmaps {
		if b.Changed.(*since).m != nil {
			t.Errorf("bitmap %s was looked up before anybody asked", b.Name)
		}
	}
	if changed(t, x.Bitmaps[0], 0) || !changed(t, x.Bitmaps[0], 1<<20) || changed(t, x.Bitmaps[1], 1<<20) {
		t.Error("what had changed is told wrongly")
	}
	r.write(x, []byte("now"), 0)
	if !changed(t, x.Bitmaps[0], 0) || !changed(t, x.Bitmaps[1], 0) || changed(t, x.Bitmaps[2], 1<<20) {
		t.Error("what changes while it is open is told wrongly")
	}
	if err := r.e.DeleteSnapshot(t.Context(), ov.ID, old); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Bitmaps[0].Changed.Extent(t.Context(), 0, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("since a snapshot that is deleted: %v", err)
	}
	b := x.Bitmaps[1]
	r.close(x)
	if _, err := b.Changed.Extent(t.Context(), 0, 1); err == nil {
		t.Error("a bitmap outlives its session")
	}
	if e := r.open(first, "ephemeral/"+img.ID); !e.Transient || e.Bitmaps != nil || e.Close() != nil {
		t.Errorf("ephemeral: %+v", e)
	}
}

// TestBitmapTriesAgain: that an engine could not tell once is no answer for
// ever, and who waits for it can give up.
func TestBitmapTriesAgain(t *testing.T) {
	broken, calls := errors.New("away"), 0
	v := &volume{changes: func(context.Context, string) (block.Mapper, error) {
		if calls++; calls == 1 {
			return nil, broken
		}
		return block.Mapper(&gatedReader{r: &memory{make([]byte, 8)}, g: &gate{}}), nil
	}}
	list := bitmaps(v, &gate{}, []catalog.OverlaySnapshot{{ID: "1", Name: ""}, {ID: "2", Name: ownSnapshot + "capture"}})
	if len(list) != 1 || list[0].Name != "1" {
		t.Fatalf("bitmaps %+v", list)
	}
	b := list[0].Changed.(*since)
	if _, err := b.Extent(t.Context(), 0, 1); !errors.Is(err, broken) {
		t.Errorf("first: %v", err)
	}
	for range 2 {
		if x, err := b.Extent(t.Context(), 0, 8); err != nil || x.Len != 8 {
			t.Errorf("then: %+v, %v", x, err)
		}
	}
	if calls != 2 {
		t.Errorf("the engine was asked %d times", calls)
	}
	b.m = nil
	b.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Extent(ctx, 0, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("while another looks: %v", err)
	}
}
