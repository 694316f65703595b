//go:build integration

package rbd_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/overlay"
	"github.com/seed-478a8fee/platter/backends/rbd"
	"github.com/seed-478a8fee/platter/integration/servers"
)

// objectSize is that of the RADOS objects of an overlay: what a change can be
// rounded to.
const objectSize = 4 << 20

// A changing disk is one whose changes are followed.
type changing struct {
	disk     block.Device
	snapshot func(ctx context.Context, name string) (string, error)
	remove   func(ctx context.Context, id string) error
	changes  func(ctx context.Context, id string) (block.Mapper, error)
}

// since is what is known of a snapshot.
type since struct {
	id      string
	m       block.Mapper
	want    []byte
	touched []bool // by RADOS object
}

func (s *since) check(t *testing.T, now []byte) {
	t.Helper()
	var said, differs int64
	for off, size := int64(0), int64(len(now)); off < size; {
		e, err := s.m.Extent(t.Context(), off, size-off)
		if err != nil {
			t.Fatal(err)
		}
		if e.Off != off || e.Len < 1 || e.End() > size {
			t.Fatalf("extent %+v at %d", e, off)
		}
		if e.Kind != block.Data && !bytes.Equal(now[off:e.End()], s.want[off:e.End()]) {
			t.Fatalf("%+v has changed", e)
		}
		if e.Kind == block.Data {
			said += e.Len
		}
		for i := off / objectSize; e.Kind == block.Data && i <= (e.End()-1)/objectSize; i++ {
			if !s.touched[i] {
				t.Fatalf("%+v: nobody touched object %d", e, i)
			}
		}
		off = e.End()
	}
	for i := range now {
		if now[i] != s.want[i] {
			differs++
		}
	}
	t.Logf("%d KiB differ, %d KiB are said to", differs>>10, said>>10)
}

// follow does random things to a disk that holds want and looks at what is
// said to have changed since each of its snapshots.
func follow(t *testing.T, d changing, want []byte) {
	ctx, rng := t.Context(), rand.New(rand.NewPCG(4, uint64(len(want))))
	var all []*since
	touch := func(off, n int64) {
		for i := off / objectSize; i <= (off+n-1)/objectSize; i++ {
			for _, s := range all {
				s.touched[i] = true
			}
		}
	}
	for step := range 60 {
		n := rng.Int64N(1<<rng.IntN(21)) + 1
		off := rng.Int64N(int64(len(want)) - n)
		if rng.IntN(2) == 0 {
			off = off &^ 4095
		}
		var err error
		touch(off, n)
		switch rng.IntN(5) {
		case 0:
			err = block.ZeroAt(ctx, d.disk, off, n, block.ZeroMode(rng.IntN(2)))
			clear(want[off : off+n])
		case 1:
			if err = block.Discard(ctx, d.disk, off, n); err == nil {
				err = d.disk.ReadAt(ctx, want[off:off+n], off)
			}
		default:
			for i := range n {
				want[off+i] = byte(rng.Uint32())
			}
			err = d.disk.WriteAt(ctx, want[off:off+n], off)
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(all) > 0 { // at once, with what it remembers of before
			e, err := all[0].m.Extent(ctx, off, n)
			if err != nil {
				t.Fatal(err)
			}
			if e.Kind != block.Data && !bytes.Equal(want[off:e.End()], all[0].want[off:e.End()]) {
				t.Fatalf("step %d: %+v has just been changed", step, e)
			}
		}
		if step%12 == 3 {
			s := &since{want: bytes.Clone(want), touched: make([]bool, len(want)/objectSize+1)}
			if s.id, err = d.snapshot(ctx, "s"); err != nil {
				t.Fatal(err)
			}
			if s.m, err = d.changes(ctx, s.id); err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		if step%20 == 19 {
			for _, s := range all {
				s.check(t, want)
			}
		}
	}
	for i, s := range all {
		if err := d.remove(ctx, s.id); err != nil {
			t.Fatal(err)
		}
		if _, err := s.m.Extent(ctx, 0, 1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("changes since a snapshot that was deleted: %v", err)
		}
		for _, other := range all[i+1:] {
			other.check(t, want)
		}
	}
	for _, id := range []string{"none", "", all[0].id} {
		if _, err := d.changes(ctx, id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("changes since %q: %v", id, err)
		}
	}
}

func TestChanges(t *testing.T) {
	const size = 40<<20 + 4096
	for kind, c := range map[string]func(servers.TB) *servers.Ceph{"memstore": ceph, "bluestore": blue} {
		t.Run(kind+" clone", func(t *testing.T) {
			s := open(t, config(t, c(t)))
			data := sparse(size)
			clone(t, s, "o", data, 0)
			d := device(t, s, "o", 1)
			defer closing(t, d)
			follow(t, changing{d, d.Snapshot, d.DeleteSnapshot, d.Changes}, data)
		})
		t.Run(kind+" bare", func(t *testing.T) {
			s := open(t, config(t, c(t)))
			data := sparse(size)
			clone(t, s, "b", data, 0)
			below := openObject(t, s, "base-of-b")
			d := bare(t, s, "o", size, 1)
			defer closing(t, d)
			follow(t, changing{overlay.New(below, d), d.Snapshot, d.DeleteSnapshot, d.Changes}, data)
		})
	}
}

// TestDepth: what was written is the overlay's, the rest its parent's, and what
// neither has is of no layer.
func TestDepth(t *testing.T) {
	s := open(t, config(t, ceph(t)))
	data := make([]byte, 6*objectSize) // in objects of twice the size, in the parent
	copy(data[2*objectSize:], bytes.Repeat([]byte{1}, 2*objectSize))
	clone(t, s, "o", data, 7*objectSize)
	d := device(t, s, "o", 1)
	want := []int{0, 0, 2, 2, 0, 0, 0}
	expect := func(d *rbd.Device) {
		t.Helper()
		for i, w := range want {
			run, depth, err := block.DepthAt(t.Context(), d, int64(i)*objectSize, objectSize)
			if err != nil || run != objectSize || depth != w {
				t.Errorf("object %d: %d bytes of layer %d, %v, want %d", i, run, depth, err, w)
			}
		}
	}
	expect(d)
	for _, i := range []int{3, 5, 6} {
		if err := d.WriteAt(t.Context(), []byte("new"), int64(i)*objectSize+9); err != nil {
			t.Fatal(err)
		}
		want[i] = 1
	}
	expect(d)
	closing(t, d)
	d = device(t, s, "o", 2)
	defer closing(t, d)
	expect(d)
}
