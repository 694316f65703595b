package delta

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/seed-478a8fee/platter/backends/block"
)

// diffs is what a machine knows of the changes since a snapshot.
type diffs struct {
	m       block.Mapper
	want    []byte // the disk then
	touched [modelSize>>subBits + 1]bool
}

func (m *machine) changes(t *rapid.T, id string) block.Mapper {
	c, err := m.d.Changes(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// touch notes what somebody tried to change.
func (m *machine) touch(off, n int64) {
	for i := off >> subBits; n > 0 && i <= (off+n-1)>>subBits; i++ {
		for _, k := range m.diffs {
			k.touched[i] = true
		}
	}
}

// check compares what changed with what is said to have: all of it, and
// besides only what somebody touched, by 4 KiB, or by the cluster where the
// snapshot had data.
func (k *diffs) check(t *rapid.T, now []byte) {
	c := k.m.(*changes)
	for off := int64(0); off < modelSize; {
		e, err := k.m.Extent(context.Background(), off, modelSize-off)
		if err != nil {
			t.Fatal(err)
		}
		if e.Off != off || e.Len < 1 || e.End() > modelSize {
			t.Fatalf("extent %+v at %d", e, off)
		}
		if e.Kind != block.Data && !bytes.Equal(now[e.Off:e.End()], k.want[e.Off:e.End()]) {
			t.Fatalf("%+v has changed", e)
		}
		for i := e.Off >> subBits; e.Kind == block.Data && i <= (e.End()-1)>>subBits; i++ {
			if !k.touched[i] && !k.copied(t, c, i) {
				t.Fatalf("%+v: nobody touched subcluster %d", e, i)
			}
		}
		off = e.End()
	}
}

// copied tells whether subcluster i can have been copied with its cluster.
func (k *diffs) copied(t *rapid.T, c *changes, i int64) bool {
	cluster := i / subCount
	was, err := c.d.lookup(c.tree, cluster)
	if err != nil {
		t.Fatal(err)
	}
	any := false
	for j := cluster * subCount; j < min((cluster+1)*subCount, int64(len(k.touched))); j++ {
		any = any || k.touched[j]
	}
	return any && was.alloc>>(i%subCount)&1 != 0
}

// TestChangesMeanwhile: changes are told while others write, make snapshots and
// delete the one that is looked at.
func TestChangesMeanwhile(t *testing.T) {
	ctx := t.Context()
	d := mustCreate(t, Config{FS: newFS(t), Size: 64 * clusterSize, CacheSize: 1})
	defer d.Close()
	p := stamp(make([]byte, 3*clusterSize), 1)
	for round := range 8 {
		if err := d.WriteAt(ctx, p, int64(round)*5*subSize); err != nil {
			t.Fatal(err)
		}
		id, err := d.Snapshot(ctx, "s")
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Changes(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range int64(2) {
			wg.Go(func() { // each in its half, which nobody else changes
				for at := i * 32; at < i*32+32; at++ {
					off := at * clusterSize
					if err := d.WriteAt(ctx, p[:subSize], off); err != nil {
						t.Error(err)
						return
					}
					e, err := c.Extent(ctx, off, subSize)
					if errors.Is(err, fs.ErrNotExist) {
						return
					}
					if err != nil || e != (block.Extent{Off: off, Len: subSize, Kind: block.Data}) {
						t.Errorf("what was written is %+v, %v", e, err)
						return
					}
				}
			})
		}
		wg.Go(func() {
			other, err := d.Snapshot(ctx, "t")
			if err == nil {
				err = errors.Join(d.DeleteSnapshot(ctx, id), d.DeleteSnapshot(ctx, other))
			}
			if err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if _, err := c.Extent(ctx, 0, 1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after the snapshot was deleted: %v", err)
		}
	}
}
