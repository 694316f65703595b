package exports

import (
	"context"
	"testing"

	"github.com/seed-478a8fee/platter/api/wire"
	"github.com/seed-478a8fee/platter/catalog"
)

// TestBare: a flattening takes the image away from what lies over it, so it
// does not go together with snapshots, which lie over it too.
func TestBare(t *testing.T) {
	c := newCluster(t)
	a := c.gateway("a")
	ov := a.overlay(a.image("raw", noise(diskSize, 1)), 0)
	d, err := a.e.acquireOverlay(t.Context(), a.record(ov.ID))
	if err != nil {
		t.Fatal(err)
	}
	defer a.e.release(d)
	b := &bare{s: d.vol.snaps, list: func(ctx context.Context) ([]catalog.OverlaySnapshot, error) { return d.vol.list(ctx) }}
	id, err := b.Snapshot(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	done := 0
	do := func() error {
		done++
		if _, err := b.Snapshot(t.Context(), "two"); err == nil || wire.StatusOf(err) != 409 {
			t.Errorf("a snapshot while it is flattened: %v", err)
		}
		if err := b.flatten(t.Context(), func() error { return nil }); err == nil || wire.StatusOf(err) != 409 {
			t.Errorf("twice at once: %v", err)
		}
		return nil
	}
	if err := b.flatten(t.Context(), do); err == nil || wire.StatusOf(err) != 409 || done > 0 {
		t.Errorf("with a snapshot: %v", err)
	}
	if err := b.DeleteSnapshot(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := b.flatten(t.Context(), do); err != nil || done != 1 {
		t.Errorf("without: %v", err)
	}
	if _, err := b.Snapshot(t.Context(), "three"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
