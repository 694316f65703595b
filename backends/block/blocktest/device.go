package blocktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
)

// TestDevice tests that d keeps every promise of a block.Device and of the
// abilities that it has. At the beginning it holds have; afterwards its bytes
// are anything.
func TestDevice(t *testing.T, d block.Device, have []byte) {
	t.Helper()
	model := slices.Clone(have)
	t.Run("before", func(t *testing.T) { TestReader(t, d, model) })
	for _, c := range deviceChecks() {
		t.Run(c.name, func(t *testing.T) {
			t.Helper()
			if err := c.run(t.Context(), d, model); err != nil {
				t.Error(err)
			}
		})
		if t.Failed() {
			return // the model is no longer what the device holds
		}
	}
	t.Run("after", func(t *testing.T) { TestReader(t, d, model) })
}

// CheckDevice is TestDevice with an error as its answer.
func CheckDevice(ctx context.Context, d block.Device, have []byte) error {
	model := slices.Clone(have)
	if err := CheckReader(ctx, d, model); err != nil {
		return fmt.Errorf("before: %w", err)
	}
	for _, c := range deviceChecks() {
		if err := c.run(ctx, d, model); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if err := CheckReader(ctx, d, model); err != nil {
		return fmt.Errorf("after: %w", err)
	}
	return nil
}

// A deviceCheck changes d and model alike.
type deviceCheck struct {
	name string
	run  func(ctx context.Context, d block.Device, model []byte) error
}

func deviceChecks() []deviceCheck {
	return []deviceCheck{
		{"write", writeOnce},
		{"write bounds", writeBounds},
		{"zero", zeroModes},
		{"discard", discardStays},
		{"random", randomSteps},
		{"parallel", writeParallel},
		{"flush", flushTwice},
	}
}

// fill makes p random and never the same twice.
func fill(rng *rand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
}

// writeOnce writes a few odd ranges, reuses the slice at once (a Device must
// not keep it) and reads back.
func writeOnce(ctx context.Context, d block.Device, model []byte) error {
	rng := rand.New(rand.NewPCG(5, uint64(len(model))))
	for range 20 {
		off, n := pieceOf(rng, int64(len(model)))
		p := make([]byte, n)
		fill(rng, p)
		copy(model[off:], p)
		kept := slices.Clone(p)
		if err := d.WriteAt(ctx, p, off); err != nil {
			return fmt.Errorf("WriteAt(%d bytes at %d): %w", n, off, err)
		}
		if !bytes.Equal(p, kept) {
			return fmt.Errorf("WriteAt(%d bytes at %d) changed its slice", n, off)
		}
		fill(rng, p)
	}
	if err := d.WriteAt(ctx, nil, int64(len(model))); err != nil {
		return fmt.Errorf("WriteAt(nothing at the end): %w", err)
	}
	return Equal(ctx, d, model)
}

func writeBounds(ctx context.Context, d block.Device, model []byte) error {
	for _, bad := range badRanges(int64(len(model))) {
		ops := map[string]error{
			"WriteAt": d.WriteAt(ctx, make([]byte, bad.Len), bad.Off),
			"ZeroAt":  block.ZeroAt(ctx, d, bad.Off, bad.Len, block.ZeroAny),
			"Discard": block.Discard(ctx, d, bad.Off, bad.Len),
		}
		for name, err := range ops {
			if !errors.Is(err, block.ErrBounds) {
				return fmt.Errorf("%s(%d bytes at %d) = %v, want ErrBounds", name, bad.Len, bad.Off, err)
			}
		}
	}
	return Equal(ctx, d, model)
}

// zeroModes zeroes aligned and odd ranges in each mode, over data and over
// what is zero already.
func zeroModes(ctx context.Context, d block.Device, model []byte) error {
	rng := rand.New(rand.NewPCG(6, uint64(len(model))))
	for _, mode := range []block.ZeroMode{block.ZeroAny, block.ZeroAllocated, block.ZeroFast, block.ZeroFastAllocated} {
		for range 10 {
			off, n := pieceOf(rng, int64(len(model)))
			if err := zero(ctx, d, model, off, n, mode); err != nil {
				return err
			}
		}
		if err := Equal(ctx, d, model); err != nil {
			return fmt.Errorf("after ZeroAt in mode %d: %w", mode, err)
		}
	}
	return nil
}

// zero zeroes d and model alike; a refusal of what would be slow must change nothing.
func zero(ctx context.Context, d block.Device, model []byte, off, n int64, mode block.ZeroMode) error {
	err := block.ZeroAt(ctx, d, off, n, mode)
	if mode.Fast() && errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ZeroAt(%d, %d, %d): %w", off, n, mode, err)
	}
	clear(model[off : off+n])
	return nil
}

// discardStays: what discarded bytes read as is the Device's choice, but it
// must choose once, and the bytes beside them must stay.
func discardStays(ctx context.Context, d block.Device, model []byte) error {
	rng := rand.New(rand.NewPCG(7, uint64(len(model))))
	for range 10 {
		off, n := pieceOf(rng, int64(len(model)))
		if err := discard(ctx, d, model, off, n); err != nil {
			return err
		}
	}
	return Equal(ctx, d, model)
}

// discard discards a range of d and lets model hold what it then reads as.
func discard(ctx context.Context, d block.Device, model []byte, off, n int64) error {
	if err := block.Discard(ctx, d, off, n); err != nil {
		return fmt.Errorf("discard(%d, %d): %w", off, n, err)
	}
	if err := d.ReadAt(ctx, model[off:off+n], off); err != nil {
		return fmt.Errorf("ReadAt(%d bytes at %d) after Discard: %w", n, off, err)
	}
	return nil
}

// randomSteps mixes everything and looks at the whole now and then.
func randomSteps(ctx context.Context, d block.Device, model []byte) error {
	rng := rand.New(rand.NewPCG(8, uint64(len(model))))
	for step := range 300 {
		off, n := pieceOf(rng, int64(len(model)))
		if err := randomStep(ctx, d, model, rng, off, n); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		if step%50 != 49 {
			continue
		}
		if err := Equal(ctx, d, model); err != nil {
			return fmt.Errorf("after step %d: %w", step, err)
		}
	}
	return nil
}

func randomStep(ctx context.Context, d block.Device, model []byte, rng *rand.Rand, off, n int64) error {
	switch rng.IntN(8) {
	case 0:
		return zero(ctx, d, model, off, n, block.ZeroAny)
	case 1:
		return zero(ctx, d, model, off, n, block.ZeroAllocated)
	case 2:
		return discard(ctx, d, model, off, n)
	case 3:
		return d.Flush(ctx)
	case 4:
		return readRange(ctx, d, model, off, n)
	}
	fill(rng, model[off:off+n])
	if err := d.WriteAt(ctx, model[off:off+n], off); err != nil {
		return fmt.Errorf("WriteAt(%d bytes at %d): %w", n, off, err)
	}
	return readRange(ctx, d, model, off, n)
}

func flushTwice(ctx context.Context, d block.Device, model []byte) error {
	for range 2 {
		if err := d.Flush(ctx); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	}
	return Equal(ctx, d, model)
}
