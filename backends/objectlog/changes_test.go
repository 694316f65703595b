package objectlog

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"testing"

	"pgregory.net/rapid"

	"github.com/seed-478a8fee/platter/backends/block"
)

// diffs is what a machine knows of the changes since a snapshot.
type diffs struct{ m block.Mapper }

func (m *machine) changes(t *rapid.T, id string) block.Mapper {
	c, err := m.l.Changes(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// check compares what changed with what is said to have: all of it. What nobody
// touched may be said to have changed as well, where it was cleaned while the
// snapshot was made; that this is all, TestChangesAreSeen shows.
func (k *diffs) check(t *rapid.T, then, now []byte) {
	for off := int64(0); off < modelSize; {
		e, err := k.m.Extent(context.Background(), off, modelSize-off)
		if err != nil {
			t.Fatal(err)
		}
		if e.Off != off || e.Len < 1 || e.End() > modelSize {
			t.Fatalf("extent %+v at %d", e, off)
		}
		if e.Kind != block.Data && !bytes.Equal(now[e.Off:e.End()], then[e.Off:e.End()]) {
			t.Fatalf("%+v has changed", e)
		}
		off = e.End()
	}
}

// TestChangesAreSeen: what is written is told at once, and stays told when it
// has come from the journal to the store, as does what was not written.
func TestChangesAreSeen(t *testing.T) {
	ctx := t.Context()
	r := newRig(t, 1<<20)
	l := r.create(t)
	defer l.Close()
	write := func(off, n int64) {
		t.Helper()
		if err := l.WriteAt(ctx, bytes.Repeat([]byte{7}, int(n)), off); err != nil {
			t.Fatal(err)
		}
	}
	write(0, 300_000)
	id, err := l.Snapshot(ctx, "s")
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Changes(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when string, want ...block.Extent) {
		t.Helper()
		for _, w := range want {
			if e, err := c.Extent(ctx, w.Off, 1<<20-w.Off); err != nil || e != w {
				t.Errorf("%s: %+v, %v, want %+v", when, e, err, w)
			}
		}
	}
	expect("at first", block.Extent{Len: 1 << 20, Kind: block.Absent})
	write(100_000, 5)
	if err := l.Zero(ctx, 600_000, 1000, block.ZeroAny); err != nil {
		t.Fatal(err)
	}
	want := []block.Extent{
		{Off: 0, Len: 100_000, Kind: block.Absent}, {Off: 100_000, Len: 5, Kind: block.Data},
		{Off: 100_005, Len: 499_995, Kind: block.Absent}, {Off: 600_000, Len: 1000, Kind: block.Data},
		{Off: 601_000, Len: 1<<20 - 601_000, Kind: block.Absent},
	}
	expect("in the journal", want...)
	if err := l.Drain(ctx); err != nil {
		t.Fatal(err)
	}
	expect("in the store", want...)
	if _, err := c.Extent(ctx, 1<<20, 1); !errors.Is(err, block.ErrBounds) {
		t.Errorf("past the end: %v", err)
	}
	if err := l.DeleteSnapshot(ctx, id); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Extent(ctx, 0, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the snapshot was deleted: %v", err)
	}
	if _, err := l.Changes(ctx, id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("changes since a snapshot that was deleted: %v", err)
	}
}
