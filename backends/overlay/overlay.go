package overlay

import (
	"context"

	"github.com/seed-478a8fee/platter/backends/block"
)

// align is the granularity at which discards are passed on. What is smaller
// would have to be written as zeros, which frees nothing.
const align = 4096

// A Delta keeps what was written on top of a base. Alone it is a disk whose
// unwritten bytes are Absent and read as zeros. Its base it does not hold: the
// three methods that may need bytes of it are given it each time. The base is
// at least as long as the Delta and never changes.
type Delta interface {
	block.Device
	block.Mapper

	// ReadOver fills p as ReadAt does, with the bytes of below where the
	// Delta has none. It must ask below only for these.
	ReadOver(ctx context.Context, below block.Reader, p []byte, off int64) error

	// WriteOver stores p as WriteAt does. If the Delta keeps more than p
	// covers, the rest comes from below.
	WriteOver(ctx context.Context, below block.Reader, p []byte, off int64) error

	// ZeroOver makes a range read as zeros, whatever is below.
	ZeroOver(ctx context.Context, below block.Reader, off, n int64, mode block.ZeroMode) error
}

// An Overlay is a writable disk: a base that never changes, and a Delta on it.
type Overlay struct {
	base  block.Reader
	delta Delta
}

// New returns the disk that d makes of base. It has the size of d; base may
// be shorter or longer. The Overlay closes neither.
func New(base block.Reader, d Delta) *Overlay {
	return &Overlay{base: fit(base, d.Size()), delta: d}
}

// Size returns the size of the Delta.
func (o *Overlay) Size() int64 { return o.delta.Size() }

// ReadAt reads what was written last, and the base where nothing was.
func (o *Overlay) ReadAt(ctx context.Context, p []byte, off int64) error {
	return o.delta.ReadOver(ctx, o.base, p, off)
}

// WriteAt writes to the Delta.
func (o *Overlay) WriteAt(ctx context.Context, p []byte, off int64) error {
	return o.delta.WriteOver(ctx, o.base, p, off)
}

// Flush flushes the Delta.
func (o *Overlay) Flush(ctx context.Context) error { return o.delta.Flush(ctx) }

// Extent says what the merged disk has at off.
func (o *Overlay) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	e, err := o.delta.Extent(ctx, off, n)
	if err != nil || e.Kind != block.Absent {
		return e, err
	}
	return block.ExtentAt(ctx, o.base, off, e.Len)
}

// Depth says which layer the merged disk has its bytes at off from: the Delta is
// the topmost, and those of the base lie below it.
func (o *Overlay) Depth(ctx context.Context, off, n int64) (run int64, layer int, err error) {
	e, err := o.delta.Extent(ctx, off, n)
	if err != nil {
		return 0, 0, err
	}
	return depth(ctx, e, o.base)
}

// Zero makes the range read as zeros.
func (o *Overlay) Zero(ctx context.Context, off, n int64, mode block.ZeroMode) error {
	return o.delta.ZeroOver(ctx, o.base, off, n, mode)
}

// Discard makes the range read as zeros, except for less than 4 KiB at each
// end, and frees the space behind it.
func (o *Overlay) Discard(ctx context.Context, off, n int64) error {
	if err := block.CheckRange(off, n, o.Size()); err != nil {
		return err
	}
	from, to := (off+align-1)&^(align-1), (off+n)&^(align-1)
	if off+n == o.Size() {
		to = o.Size()
	}
	if from >= to {
		return nil
	}
	return o.delta.ZeroOver(ctx, o.base, from, to-from, block.ZeroAny)
}

// Prefetch prefetches what a read of the range would take from the base.
func (o *Overlay) Prefetch(ctx context.Context, off, n int64) error {
	for n > 0 {
		e, err := o.delta.Extent(ctx, off, n)
		if err != nil {
			return err
		}
		if e.Kind == block.Absent {
			if err := block.Prefetch(ctx, o.base, off, e.Len); err != nil {
				return err
			}
		}
		off, n = off+e.Len, n-e.Len
	}
	return nil
}
