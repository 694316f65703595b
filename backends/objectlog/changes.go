package objectlog

import (
	"context"
	"fmt"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/objectlog/extent"
)

// changesReach is how many runs one call of Extent looks at.
const changesReach = 256

// Changes returns a Mapper over the disk that tells what may have changed since
// the snapshot id: there it says block.Data, elsewhere block.Absent. It reads
// the snapshot's map once, sees what is written while it is used, misses
// nothing, and holds up nobody: once the snapshot is deleted its answer is
// fs.ErrNotExist.
//
// It compares where bytes are, and so is exact to the byte, except for what is
// cleaned while the snapshot is made.
func (l *Log) Changes(ctx context.Context, id string) (block.Mapper, error) {
	if err := l.check(ctx, 0, 0); err != nil {
		return nil, err
	}
	l.work.Lock()
	s, err := l.findLive(id)
	l.work.Unlock()
	var was *disk
	if err == nil {
		was, err = loadMap(ctx, l.cfg.Store, l.cfg.Prefix, l.src.id, s.m)
	}
	if err != nil {
		return nil, l.wrap("changes since snapshot "+id, err)
	}
	return &changes{l: l, id: s.id, was: was.m, size: was.size}, nil
}

// changes compares the disk with a snapshot. What both have is in a segment
// that stays as it is, and is not cleaned, for as long as the snapshot is there.
type changes struct {
	l    *Log
	id   int64
	was  *extent.Map
	size int64
}

// Extent says whether the bytes at off may have changed.
func (c *changes) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := c.l.check(ctx, off, n); err != nil {
		return block.Extent{}, err
	}
	// Before the maps are looked at: what it covers is in them then.
	covered, err := c.covered()
	if err != nil {
		return block.Extent{}, err
	}
	c.l.mu.RLock()
	defer c.l.mu.RUnlock()
	out := block.Extent{Off: off}
	for i := 0; out.Len < n && i < changesReach; i++ {
		changed, run := c.run(out.End(), n-out.Len, covered)
		kind := block.Absent
		if changed {
			kind = block.Data
		}
		if i > 0 && kind != out.Kind {
			break
		}
		out.Kind = kind
		out.Len += run
	}
	return out, nil
}

// covered returns the position of the journal up to which the head has all, or
// an error once somebody deletes the snapshot.
func (c *changes) covered() (int64, error) {
	c.l.work.Lock()
	defer c.l.work.Unlock()
	if _, err := c.l.findLive(snapshotID(c.id)); err != nil {
		return 0, c.l.wrap(fmt.Sprintf("changes since snapshot %d, which was deleted", c.id), err)
	}
	return c.l.covered, nil
}

// run tells of the bytes at off whether they may have changed, and how many, n
// at most, that goes for. With mu held.
func (c *changes) run(off, n, covered int64) (changed bool, run int64) {
	if off >= c.size {
		return true, n // the disk was smaller
	}
	fresh := c.l.fresh.At(off, min(n, c.size-off))
	was := c.was.At(off, fresh.Len)
	switch {
	case fresh.Target.Kind() == extent.Absent, !isZero(fresh.Target) && fresh.Target.Pos() < covered:
		// The head has it, and what the journal still holds is the same.
		now := c.l.stored.m.At(off, was.Len)
		return now.Target != was.Target, now.Len
	case isZero(fresh.Target):
		return was.Target.Kind() != extent.Zero, was.Len
	}
	return true, was.Len
}
