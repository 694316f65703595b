package delta

import (
	"context"
	"sync"

	"github.com/seed-478a8fee/platter/backends/block"
)

// ReadAt reads the disk as it is without a base: zeros where nothing was
// written.
func (d *Delta) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.ReadOver(ctx, nil, p, off)
}

// ReadOver reads the disk that the Delta makes of below. Below is asked once
// for each run of bytes that the Delta does not have.
func (d *Delta) ReadOver(ctx context.Context, below block.Reader, p []byte, off int64) error {
	if err := d.check(ctx, off, int64(len(p))); err != nil {
		return err
	}
	return d.readTree(ctx, nil, below, p, off)
}

func (d *Delta) readTree(ctx context.Context, t *tree, below block.Reader, p []byte, off int64) error {
	absent := 0 // bytes at the start of p that are for below to fill
	for len(p) > absent {
		rest := p[absent:]
		kind, n, err := d.readRun(t, rest, off+int64(absent))
		if err != nil {
			return err
		}
		if kind == block.Absent {
			absent += int(n)
			continue
		}
		if absent > 0 {
			if err := readBelow(ctx, below, p[:absent], off); err != nil {
				return err
			}
		}
		p, off, absent = rest[n:], off+int64(absent)+n, 0
	}
	if absent == 0 {
		return nil
	}
	return readBelow(ctx, below, p, off)
}

// readRun serves what of p is of one kind, in one cluster. While it is
// between looking the place up and having read it, nobody may use the place
// for something else.
func (d *Delta) readRun(t *tree, p []byte, off int64) (block.Kind, int64, error) {
	turn := d.grace.enter()
	defer d.grace.leave(turn)
	e, err := d.lookup(t, off>>clusterBits)
	if err != nil {
		return 0, 0, err
	}
	in := off & (clusterSize - 1)
	kind, n := e.span(in, int64(len(p)))
	switch kind {
	case block.Data:
		err = d.read(p[:n], e.host+in)
	case block.Zero:
		clear(p[:n])
	}
	return kind, n, err
}

func readBelow(ctx context.Context, below block.Reader, p []byte, off int64) error {
	if below == nil {
		clear(p)
		return nil
	}
	return below.ReadAt(ctx, p, off)
}

// Extent says what the Delta has at off.
func (d *Delta) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := d.check(ctx, off, n); err != nil {
		return block.Extent{}, err
	}
	return d.extent(nil, off, n)
}

// extentReach is how many clusters one call of Extent looks at. Ranges
// without an L2 table are passed over a gigabyte at a time.
const extentReach = 2048

func (d *Delta) extent(t *tree, off, n int64) (block.Extent, error) {
	turn := d.grace.enter()
	defer d.grace.leave(turn)
	out := block.Extent{Off: off}
	for looked := 0; n > 0 && looked < extentReach; looked++ {
		kind, run := block.Absent, d.untouched(t, off, n)
		if run == 0 {
			e, err := d.lookup(t, off>>clusterBits)
			if err != nil {
				return block.Extent{}, err
			}
			kind, run = e.span(off&(clusterSize-1), n)
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

// untouched returns how many bytes from off on, n at most, have no L2 table.
func (d *Delta) untouched(t *tree, off, n int64) int64 {
	const span = 1 << spanBits
	d.m.RLock()
	defer d.m.RUnlock()
	l1 := d.m.tree(t).l1
	end := off
	for i := off >> spanBits; end < off+n && i < int64(len(l1)) && l1[i] == 0; i++ {
		end = (i + 1) * span
	}
	return min(end-off, n)
}

// lockOf returns the lock that is held to change the mapping of cluster c.
func (d *Delta) lockOf(c int64) *sync.Mutex { return &d.stripe[c%stripes] }
