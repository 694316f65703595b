package exports

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A gate lets requests through until it is closed.
type gate struct {
	mu     sync.RWMutex // requests share it
	closed atomic.Bool
}

// enter begins a request; leave must be called if it returns nil.
func (g *gate) enter() error {
	g.mu.RLock()
	if g.closed.Load() {
		g.mu.RUnlock()
		return errEnded
	}
	return nil
}

func (g *gate) leave() { g.mu.RUnlock() }

// shut turns away new requests.
func (g *gate) shut() { g.closed.Store(true) }

// close is shut, and waits for the requests in flight: only without them can
// the lock be had.
func (g *gate) close() {
	g.shut()
	g.mu.Lock()
	defer g.mu.Unlock()
}

// A gatedReader is a Reader behind a gate.
type gatedReader struct {
	r block.Reader
	g *gate
}

// Size returns the size of the disk.
func (d *gatedReader) Size() int64 { return d.r.Size() }

// ReadAt reads the disk.
func (d *gatedReader) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := d.g.enter(); err != nil {
		return err
	}
	defer d.g.leave()
	return d.r.ReadAt(ctx, p, off)
}

// Extent tells what the disk has at off.
func (d *gatedReader) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := d.g.enter(); err != nil {
		return block.Extent{}, err
	}
	defer d.g.leave()
	return block.ExtentAt(ctx, d.r, off, n)
}

// Depth tells which layer the bytes at off come from.
func (d *gatedReader) Depth(ctx context.Context, off, n int64) (run int64, depth int, err error) {
	if err := d.g.enter(); err != nil {
		return 0, 0, err
	}
	defer d.g.leave()
	return block.DepthAt(ctx, d.r, off, n)
}

// Place names the file that the bytes at off lie in. Who was given it may send
// the bytes after the session has ended: they never change, and it could have
// read them before.
func (d *gatedReader) Place(ctx context.Context, off, n int64) (block.Place, bool) {
	if d.g.enter() != nil {
		return block.Place{}, false
	}
	defer d.g.leave()
	return block.PlaceAt(ctx, d.r, off, n)
}

// Prefetch brings a range nearer.
func (d *gatedReader) Prefetch(ctx context.Context, off, n int64) error {
	if err := d.g.enter(); err != nil {
		return err
	}
	defer d.g.leave()
	return block.Prefetch(ctx, d.r, off, n)
}

// A gatedDevice is a Device behind a gate.
type gatedDevice struct {
	reader gatedReader
	d      block.Device
	g      *gate
}

func gated(d block.Device, g *gate) *gatedDevice {
	return &gatedDevice{reader: gatedReader{d, g}, d: d, g: g}
}

// Size returns the size of the disk.
func (d *gatedDevice) Size() int64 { return d.d.Size() }

// ReadAt reads the disk.
func (d *gatedDevice) ReadAt(ctx context.Context, p []byte, off int64) error {
	return d.reader.ReadAt(ctx, p, off)
}

// Extent tells what the disk has at off.
func (d *gatedDevice) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	return d.reader.Extent(ctx, off, n)
}

// Depth tells which layer the bytes at off come from.
func (d *gatedDevice) Depth(ctx context.Context, off, n int64) (run int64, depth int, err error) {
	return d.reader.Depth(ctx, off, n)
}

// Prefetch brings a range nearer.
func (d *gatedDevice) Prefetch(ctx context.Context, off, n int64) error {
	return d.reader.Prefetch(ctx, off, n)
}

// WriteAt writes to the disk.
func (d *gatedDevice) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := d.g.enter(); err != nil {
		return err
	}
	defer d.g.leave()
	return d.d.WriteAt(ctx, p, off)
}

// Flush flushes the disk.
func (d *gatedDevice) Flush(ctx context.Context) error {
	if err := d.g.enter(); err != nil {
		return err
	}
	defer d.g.leave()
	return d.d.Flush(ctx)
}

// Zero makes a range read as zeros.
func (d *gatedDevice) Zero(ctx context.Context, off, n int64, mode block.ZeroMode) error {
	if err := d.g.enter(); err != nil {
		return err
	}
	defer d.g.leave()
	return block.ZeroAt(ctx, d.d, off, n, mode)
}

// Discard frees the space behind a range.
func (d *gatedDevice) Discard(ctx context.Context, off, n int64) error {
	if err := d.g.enter(); err != nil {
		return err
	}
	defer d.g.leave()
	return block.Discard(ctx, d.d, off, n)
}
