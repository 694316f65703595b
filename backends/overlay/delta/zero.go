package delta

import (
	"context"
	"errors"
	"fmt"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

// Zero makes the range read as zeros.
func (d *Delta) Zero(ctx context.Context, off, n int64, mode block.ZeroMode) error {
	return d.ZeroOver(ctx, nil, off, n, mode)
}

// ZeroOver makes the range read as zeros, whatever is below. Nothing is
// recorded where the Delta has nothing and below has no data. Space behind
// whole subclusters of 4 KiB is freed, unless mode is ZeroAllocated: then they
// are data, for which the file system is asked to keep the space.
func (d *Delta) ZeroOver(ctx context.Context, below block.Reader, off, n int64, mode block.ZeroMode) error {
	if err := d.check(ctx, off, n); err != nil || n == 0 {
		return err
	}
	if err := block.RefuseSlow(mode); err != nil {
		return err
	}
	end := off + n
	from, to := (off+subSize-1)&^(subSize-1), end&^(subSize-1)
	if end == d.size {
		to = end
	}
	if mode == block.ZeroAllocated || from >= to {
		return d.writeZeros(ctx, below, off, n, mode)
	}
	if err := d.writeZeros(ctx, below, off, from-off, mode); err != nil {
		return err
	}
	if err := d.zeroRuns(ctx, below, from, to); err != nil {
		return err
	}
	return d.writeZeros(ctx, below, to, end-to, mode)
}

// writeZeros writes zeros, except where a range of less than a subcluster
// reads as zeros already and no space was asked for.
func (d *Delta) writeZeros(ctx context.Context, below block.Reader, off, n int64, mode block.ZeroMode) error {
	if n > 0 && n < 2*subSize && mode != block.ZeroAllocated {
		if e, err := d.Extent(ctx, off, n); err == nil && e.Kind == block.Absent && e.Len == n {
			e, err = extentBelow(ctx, below, off, n)
			if err == nil && e.Kind != block.Data && e.Len == n {
				return nil
			}
		} else if err == nil && e.Kind == block.Zero && e.Len == n {
			return nil
		}
	}
	if n <= 0 {
		return nil
	}
	store := d.put
	if mode == block.ZeroAllocated {
		store = d.reserve
	}
	b := d.buffer.Get().(*[clusterSize]byte)
	defer d.buffer.Put(b)
	clear(b[:min(n, clusterSize)])
	for n > 0 {
		piece := min(n, clusterSize-off&(clusterSize-1))
		if err := d.writeOver(ctx, below, b[:piece], off, store); err != nil {
			return err
		}
		off, n = off+piece, n-piece
	}
	return nil
}

// reserve is write for zeros that shall have their space. Less than 16 KiB is
// written: more pieces of the file for the file system to know would cost more.
func (d *Delta) reserve(zeros []byte, at int64) error {
	if len(zeros) < 16<<10 {
		return d.write(zeros, at)
	}
	if err := localfs.Allocate(d.f, at, int64(len(zeros))); err != nil {
		return d.wrap(fmt.Sprintf("allocate file at %d", at), err)
	}
	return nil
}

func extentBelow(ctx context.Context, below block.Reader, off, n int64) (block.Extent, error) {
	if below == nil {
		return block.Extent{Off: off, Len: n, Kind: block.Absent}, nil
	}
	return block.ExtentAt(ctx, below, off, n)
}

// zeroRuns zeroes whole subclusters, told apart by whether below has data
// there, which must be hidden.
func (d *Delta) zeroRuns(ctx context.Context, below block.Reader, off, end int64) error {
	for off < end {
		e, err := extentBelow(ctx, below, off, end-off)
		if err != nil {
			return err
		}
		to, hide := e.End()&^(subSize-1), e.Kind == block.Data
		if hide || to <= off { // rather hide too much: zeros are never wrong here
			to, hide = (max(e.End(), off+1)+subSize-1)&^(subSize-1), true
		}
		to = min(to, end)
		if e.End() == end {
			to = end
		}
		if err := d.clearRange(ctx, off, to, hide); err != nil {
			return err
		}
		off = to
	}
	return nil
}

// Discard makes whole subclusters of 4 KiB that have data read as zeros and
// frees their space. What was never written stays so.
func (d *Delta) Discard(ctx context.Context, off, n int64) error {
	if err := d.check(ctx, off, n); err != nil {
		return err
	}
	from, to := (off+subSize-1)&^(subSize-1), (off+n)&^(subSize-1)
	if off+n == d.size {
		to = off + n
	}
	return d.clearRange(ctx, from, to, false)
}

// clearRange makes the data of whole subclusters zero, and with hide also
// what is left to the base.
func (d *Delta) clearRange(ctx context.Context, off, end int64, hide bool) error {
	for off < end {
		if skip := d.untouched(nil, off, end-off); skip > 0 && !hide {
			off += skip
			continue
		}
		if err := errors.Join(ctx.Err(), d.relieve(ctx)); err != nil {
			return err
		}
		c, in := off>>clusterBits, off&(clusterSize-1)
		n := min(end-off, clusterSize-in)
		err := d.clearGated(c, mask(in, in+n), hide)
		if errors.Is(err, errNoSpace) && d.reclaim(ctx) {
			err = d.clearGated(c, mask(in, in+n), hide)
		}
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

func (d *Delta) clearGated(c int64, subs uint32, hide bool) error {
	d.gate.RLock()
	defer d.gate.RUnlock()
	if err := d.writable(); err != nil {
		return err
	}
	lock := d.lockOf(c)
	lock.Lock()
	defer lock.Unlock()
	e, err := d.lookup(nil, c)
	if err != nil {
		return err
	}
	if !hide {
		subs &= e.alloc
	}
	if subs&^e.zero == 0 {
		return nil
	}
	return d.clearSubs(c, e, subs)
}

// clearSubs maps subclusters as zeros. A cluster without data gives up its
// place.
func (d *Delta) clearSubs(c int64, e entry, subs uint32) error {
	if err := d.table(c); err != nil {
		return err
	}
	lost := e.alloc & subs
	n, drop, hollow := e, int64(0), uint32(0)
	n.alloc, n.zero = e.alloc&^subs, e.zero|subs
	switch {
	case n.alloc == 0:
		drop, n.host, n.own = e.host, 0, false
	case e.own:
		hollow = lost
	}
	if err := d.update(c, n, drop, hollow); err != nil {
		return err
	}
	if e.own {
		d.used.Add(-weight(lost))
	}
	return nil
}
