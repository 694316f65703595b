package disk

import (
	"context"
	"errors"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/overlay"
)

// A Delta keeps what is written to a Device.
type Delta interface {
	overlay.Delta
	Close() error
}

// A Device is a writable disk on top of a View.
type Device struct {
	over  *overlay.Overlay
	view  *View
	delta Delta
}

// Fork returns the disk that delta makes of view. Closing it closes both; if
// somebody else is to close the Delta, use overlay.New.
func Fork(view *View, delta Delta) *Device {
	return &Device{over: overlay.New(view, delta), view: view, delta: delta}
}

// Size returns the size of the Delta.
func (d *Device) Size() int64 { return d.over.Size() }

// ReadAt reads what was written last, and the View where nothing was.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.over.ReadAt(ctx, p, off)
}

// WriteAt writes to the Delta.
func (d *Device) WriteAt(ctx context.Context, p []byte, off int64) error {
	return d.over.WriteAt(ctx, p, off)
}

// Flush makes what was written durable.
func (d *Device) Flush(ctx context.Context) error { return d.over.Flush(ctx) }

// Extent describes the run that starts at off.
func (d *Device) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	return d.over.Extent(ctx, off, n)
}

// Depth says which layer the bytes at off come from; the Delta is the topmost.
func (d *Device) Depth(ctx context.Context, off, n int64) (run int64, depth int, err error) {
	return d.over.Depth(ctx, off, n)
}

// Zero makes a range read as zeros.
func (d *Device) Zero(ctx context.Context, off, n int64, mode block.ZeroMode) error {
	return d.over.Zero(ctx, off, n, mode)
}

// Discard frees the space behind a range.
func (d *Device) Discard(ctx context.Context, off, n int64) error {
	return d.over.Discard(ctx, off, n)
}

// Prefetch brings a range nearer.
func (d *Device) Prefetch(ctx context.Context, off, n int64) error {
	return d.over.Prefetch(ctx, off, n)
}

// Close closes the Delta, which may still need the View, and then the View.
func (d *Device) Close() error {
	return errors.Join(d.delta.Close(), d.view.Close())
}
