package delta

import (
	"context"
	"fmt"
	"io/fs"
	"slices"

	"github.com/seed-478a8fee/platter/backends/block"
)

// Changes returns a Mapper over the disk that tells what may have changed since
// the snapshot id: there it says block.Data, elsewhere block.Absent. It sees
// what is written while it is used, misses nothing, and holds up nobody: once
// the snapshot is deleted its answer is fs.ErrNotExist.
//
// It compares where bytes are. So it is exact to 4 KiB where the snapshot had
// nothing or zeros; of what the snapshot had as data it says 128 KiB, the
// cluster that a write copies.
func (d *Delta) Changes(ctx context.Context, id string) (block.Mapper, error) {
	if err := d.check(ctx, 0, 0); err != nil {
		return nil, err
	}
	d.snaps.Lock()
	defer d.snaps.Unlock()
	s, err := d.findLive(id)
	if err != nil {
		return nil, err
	}
	l1, err := d.readL1(int64(s.L1Offset), int(s.L1Entries))
	if err != nil {
		return nil, err
	}
	return &changes{d: d, s: s, tree: &tree{l1}, size: s.diskSize(d)}, nil
}

// changes compares the active tree with a snapshot's. A cluster that both point
// to is nobody's to write to, for as long as the snapshot is there.
type changes struct {
	d    *Delta
	s    *snapshot
	tree *tree
	size int64 // of the snapshot
}

// Extent says whether the bytes at off may have changed.
func (c *changes) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := c.d.check(ctx, off, n); err != nil {
		return block.Extent{}, err
	}
	// The tables of a snapshot that is deleted stay until we are out.
	turn := c.d.grace.enter()
	defer c.d.grace.leave(turn)
	if err := c.there(); err != nil {
		return block.Extent{}, err
	}
	out := block.Extent{Off: off}
	for looked := 0; n > 0 && looked < extentReach; looked++ {
		kind, run, err := c.run(off, n)
		if err != nil {
			return block.Extent{}, err
		}
		if out.Len > 0 && kind != out.Kind {
			break
		}
		out.Kind = kind
		out.Len += run
		off, n = off+run, n-run
	}
	return out, nil
}

// there is an error once somebody deletes the snapshot. Another may get its id.
func (c *changes) there() error {
	c.d.snaps.Lock()
	defer c.d.snaps.Unlock()
	if c.s.users < 0 || !slices.Contains(c.d.snaps.list, c.s) {
		return fmt.Errorf("overlay %s: changes since snapshot %s, which was deleted: %w", c.d.cfg.Path, c.s.ID, fs.ErrNotExist)
	}
	return nil
}

// run describes what of [off, off+n) is alike, in one cluster or where neither
// tree has a table.
func (c *changes) run(off, n int64) (block.Kind, int64, error) {
	if off >= c.size {
		return block.Data, n, nil // the disk was smaller
	}
	n = min(n, c.size-off)
	if run := min(c.d.untouched(nil, off, n), c.d.untouched(c.tree, off, n)); run > 0 {
		return block.Absent, run, nil
	}
	was, err := c.d.lookup(c.tree, off>>clusterBits)
	if err != nil {
		return 0, 0, err
	}
	now, err := c.d.lookup(nil, off>>clusterBits)
	if err != nil {
		return 0, 0, err
	}
	in := off & (clusterSize - 1)
	i, m, kind := int(in>>subBits), changed(was, now), block.Data
	if m>>i&1 == 0 {
		m, kind = ^m, block.Absent
	}
	return kind, min(n, int64(i+ones(m, i))<<subBits-in), nil
}

// changed returns the subclusters that may hold something else than they did.
func changed(was, now entry) uint32 {
	m := (was.alloc ^ now.alloc) | (was.zero ^ now.zero)
	if was.host != now.host {
		m |= was.alloc & now.alloc
	}
	return m
}
