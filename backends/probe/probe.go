// Package probe has layers that watch, check, compare, slow down and break
// what passes.
//
// They are ordinary layers, without a trace of package testing, so they work
// in a running daemon as well as in tests. Each comes for a Reader and for a
// Device; what wraps a Reader is no Device. All of them stand on [Around] and
// [AroundDevice], which call a [Hook] around every call.
package probe

import (
	"context"
	"fmt"

	"github.com/seed-478a8fee/platter/backends/block"
)

// An Op is one of the things that can be asked of a Reader or a Device.
type Op string

// The operations, as they are named in traces and errors.
const (
	Read     Op = "read"
	Extent   Op = "extent"
	Depth    Op = "depth"
	Prefetch Op = "prefetch"
	Write    Op = "write"
	Zero     Op = "zero"
	Discard  Op = "discard"
	Flush    Op = "flush"
)

// A Call is one call on its way down.
type Call struct {
	Op     Op
	Off, N int64
	P      []byte         // of Read and Write
	Mode   block.ZeroMode // of Zero
	Extent block.Extent   // the answer of Extent

	Run   int64 // the answer of Depth: how many bytes
	Layer int   // and which layer they are from
}

// String returns the call as a trace shows it.
func (c *Call) String() string {
	switch c.Op {
	case Flush:
		return string(c.Op)
	case Zero:
		return fmt.Sprintf("%s %d+%d mode %d", c.Op, c.Off, c.N, c.Mode)
	}
	return fmt.Sprintf("%s %d+%d", c.Op, c.Off, c.N)
}

// A Hook is called instead of the layer below and calls do to ask it, which
// uses what c holds then. It may run in many goroutines at once.
type Hook func(ctx context.Context, c *Call, do func() error) error

// Around returns r with hook around every call.
func Around(r block.Reader, hook Hook) block.Reader { return &tap{r: r, hook: hook} }

// AroundDevice returns d with hook around every call.
func AroundDevice(d block.Device, hook Hook) block.Device {
	return &deviceTap{tap: tap{r: d, hook: hook}, d: d}
}

type tap struct {
	r    block.Reader
	hook Hook
}

func (t *tap) Size() int64 { return t.r.Size() }

func (t *tap) ReadAt(ctx context.Context, p []byte, off int64) error {
	c := &Call{Op: Read, Off: off, N: int64(len(p)), P: p}
	return t.hook(ctx, c, func() error { return t.r.ReadAt(ctx, c.P, c.Off) })
}

func (t *tap) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	c := &Call{Op: Extent, Off: off, N: n}
	err := t.hook(ctx, c, func() (err error) {
		c.Extent, err = block.ExtentAt(ctx, t.r, c.Off, c.N)
		return err
	})
	return c.Extent, err
}

func (t *tap) Depth(ctx context.Context, off, n int64) (run int64, depth int, err error) {
	c := &Call{Op: Depth, Off: off, N: n}
	err = t.hook(ctx, c, func() (err error) {
		c.Run, c.Layer, err = block.DepthAt(ctx, t.r, c.Off, c.N)
		return err
	})
	return c.Run, c.Layer, err
}

func (t *tap) Prefetch(ctx context.Context, off, n int64) error {
	c := &Call{Op: Prefetch, Off: off, N: n}
	return t.hook(ctx, c, func() error { return block.Prefetch(ctx, t.r, c.Off, c.N) })
}

// A deviceTap shares the reading half, a struct of our own, with tap.
type deviceTap struct {
	tap
	d block.Device
}

func (t *deviceTap) WriteAt(ctx context.Context, p []byte, off int64) error {
	c := &Call{Op: Write, Off: off, N: int64(len(p)), P: p}
	return t.hook(ctx, c, func() error { return t.d.WriteAt(ctx, c.P, c.Off) })
}

func (t *deviceTap) Flush(ctx context.Context) error {
	return t.hook(ctx, &Call{Op: Flush}, func() error { return t.d.Flush(ctx) })
}

func (t *deviceTap) Zero(ctx context.Context, off, n int64, mode block.ZeroMode) error {
	c := &Call{Op: Zero, Off: off, N: n, Mode: mode}
	return t.hook(ctx, c, func() error { return block.ZeroAt(ctx, t.d, c.Off, c.N, c.Mode) })
}

func (t *deviceTap) Discard(ctx context.Context, off, n int64) error {
	c := &Call{Op: Discard, Off: off, N: n}
	return t.hook(ctx, c, func() error { return block.Discard(ctx, t.d, c.Off, c.N) })
}
