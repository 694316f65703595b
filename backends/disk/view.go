package disk

import (
	"context"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A View is one user's right to read a shared disk. It is a block.ReadCloser
// and a block.Mapper.
type View struct {
	opener *Opener
	stack  *stack
	r      block.Reader // the stack's
	closed atomic.Bool
}

// Key returns the Key of the Spec.
func (v *View) Key() string { return v.stack.key }

// Size returns the number of bytes of the disk.
func (v *View) Size() int64 { return v.r.Size() }

// ReadAt fills p with the bytes of the disk that start at off.
func (v *View) ReadAt(ctx context.Context, p []byte, off int64) error {
	if v.closed.Load() {
		return v.gone("read")
	}
	err := v.r.ReadAt(ctx, p, off)
	if err != nil && ctx.Err() == nil {
		v.stack.failed.Store(true)
	}
	return err
}

// Extent describes the run that starts at off.
func (v *View) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if v.closed.Load() {
		return block.Extent{}, v.gone("extent")
	}
	return block.ExtentAt(ctx, v.r, off, n)
}

// Depth says which image of the stack the bytes at off come from.
func (v *View) Depth(ctx context.Context, off, n int64) (run int64, depth int, err error) {
	if v.closed.Load() {
		return 0, 0, v.gone("depth")
	}
	return block.DepthAt(ctx, v.r, off, n)
}

// Place names the file that the bytes at off lie in.
func (v *View) Place(ctx context.Context, off, n int64) (block.Place, bool) {
	if v.closed.Load() {
		return block.Place{}, false
	}
	return block.PlaceAt(ctx, v.r, off, n)
}

// Prefetch brings a range nearer.
func (v *View) Prefetch(ctx context.Context, off, n int64) error {
	if v.closed.Load() {
		return v.gone("prefetch")
	}
	return block.Prefetch(ctx, v.r, off, n)
}

// Close ends the use of the disk. Reads must have returned. The disk itself is
// closed with the last View of it, or a moment later.
func (v *View) Close() error {
	if v.closed.Swap(true) {
		return v.gone("close")
	}
	return v.opener.leave(v.stack)
}

func (v *View) gone(op string) error {
	return fmt.Errorf("disk %s: %s: %w", v.stack.key, op, fs.ErrClosed)
}
