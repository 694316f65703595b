//go:build rbd

package rbd

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/backends/block"
)

// How much of a disk is asked for at once, and what the answer is rounded to.
const (
	changesWindow = 1 << 28
	changesUnit   = 4096
)

// Changes returns a Mapper over the disk that tells what may have changed since
// the snapshot id: there it says block.Data, elsewhere block.Absent. It asks
// the cluster, which compares the RADOS objects, for 256 MiB at a time, and
// again what was written to since. It misses nothing that was answered, is
// rounded to 4 KiB, and takes a RADOS object that was copied for changed. Once
// the snapshot is deleted its answer is fs.ErrNotExist.
func (d *Device) Changes(ctx context.Context, id string) (block.Mapper, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	size, err := d.sizeAt(id)
	if err != nil {
		return nil, d.told("find changes of", 0, false, fmt.Errorf("snapshot %s: %w", id, err))
	}
	return &changes{d: d, id: id, size: size, at: -1}, nil
}

// sizeAt returns the size that the disk had at a snapshot.
func (d *Device) sizeAt(id string) (int64, error) {
	if id == "" {
		return 0, fs.ErrNotExist
	}
	im, err := d.c.openImage(d.im.name, id, true)
	if err != nil {
		return 0, err
	}
	size, err := im.size()
	if e := im.close(); err == nil {
		err = e
	}
	return size, err
}

// touched counts the changes of a disk by the window that they are in, so that
// who remembers what a window holds can tell that it holds something else.
type touched [64]atomic.Uint64

// add counts a change that has been answered.
func (t *touched) add(off, n int64) {
	for w := off / changesWindow; n > 0 && w <= (off+n-1)/changesWindow; w++ {
		t.of(w).Add(1)
	}
}

// addAll makes everybody ask again.
func (t *touched) addAll() {
	for i := range t {
		t[i].Add(1)
	}
}

func (t *touched) of(window int64) *atomic.Uint64 { return &t[window%int64(len(t))] }

// changes remembers the window that it was asked for last.
type changes struct {
	d    *Device
	id   string
	size int64 // at the snapshot

	mu   sync.Mutex
	at   int64  // the window, or -1
	seen uint64 // what touched had counted there before it was asked for
	bits [changesWindow / changesUnit / 8]byte
}

// Extent says whether the bytes at off may have changed.
func (c *changes) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := ctx.Err(); err != nil {
		return block.Extent{}, err
	}
	if err := block.CheckRange(off, n, c.d.size); err != nil {
		return block.Extent{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if off >= c.size {
		return block.Extent{Off: off, Len: n, Kind: block.Data}, nil // the disk was smaller
	}
	window := off / changesWindow
	if err := c.load(window); err != nil {
		c.at = -1
		return block.Extent{}, c.d.told("find changes of", off, false, fmt.Errorf("snapshot %s: %w", c.id, err))
	}
	start := window * changesWindow
	end := min(off+n, c.size, start+changesWindow)
	first, last := (off-start)/changesUnit, (end-1-start)/changesUnit
	next := first + 1
	for next <= last && c.has(next) == c.has(first) {
		next++
	}
	e := block.Extent{Off: off, Len: min(end, start+next*changesUnit) - off, Kind: block.Absent}
	if c.has(first) {
		e.Kind = block.Data
	}
	return e, nil
}

func (c *changes) has(unit int64) bool { return c.bits[unit/8]>>(unit%8)&1 != 0 }

// load asks for a window, unless it is known and nothing was written to it
// since. A write that was never answered may land at any time.
func (c *changes) load(window int64) error {
	seen := c.d.touched.of(window).Load()
	if c.at == window && c.seen == seen && !c.d.doubt.Load() {
		return nil
	}
	clear(c.bits[:])
	from := window * changesWindow
	if err := c.d.im.changes(c.id, from, min(changesWindow, c.d.size-from), changesUnit, c.bits[:]); err != nil {
		return err
	}
	c.at, c.seen = window, seen
	return nil
}
