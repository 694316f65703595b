package mem

import (
	"context"
	"sync"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A Device is a block.Device in memory, for tests. Its Flush keeps nothing.
type Device struct {
	mu   sync.RWMutex
	data reader
}

// NewDevice returns a Device that holds a copy of data.
func NewDevice(data []byte) *Device {
	return &Device{data: reader{data: append([]byte(nil), data...)}}
}

// Size returns the number of bytes.
func (d *Device) Size() int64 { return d.data.Size() }

// ReadAt fills p with the bytes that start at off.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.data.ReadAt(ctx, p, off)
}

// WriteAt stores p at off.
func (d *Device) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.Size()); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.data.data[off:], p)
	return nil
}

// Flush does nothing: memory does not outlive the process.
func (d *Device) Flush(ctx context.Context) error { return ctx.Err() }

// Extent tells zeros from data, by 4 KiB.
func (d *Device) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.data.Extent(ctx, off, n)
}

// Zero makes [off, off+n) zeros.
func (d *Device) Zero(ctx context.Context, off, n int64, _ block.ZeroMode) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data.data[off : off+n])
	return nil
}

// Discard makes [off, off+n) zeros.
func (d *Device) Discard(ctx context.Context, off, n int64) error {
	return d.Zero(ctx, off, n, block.ZeroAny)
}
