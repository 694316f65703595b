package blocktest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/seed-478a8fee/platter/backends/block"
)

// extentsTrue walks r and tests that the extents tile it and do not lie: what
// is Zero or Absent must be zeros, for nobody will read it.
func extentsTrue(ctx context.Context, r block.Reader, want []byte) error {
	next := int64(0)
	for next < int64(len(want)) {
		e, err := extentIn(ctx, r, want, next, int64(len(want))-next)
		if err != nil {
			return err
		}
		next = e.End()
	}
	return nil
}

// extentWindows asks at random. An answer must not depend on what was asked
// before, and must not reach past what was asked.
func extentWindows(ctx context.Context, r block.Reader, want []byte) error {
	rng := rand.New(rand.NewPCG(2, uint64(len(want))))
	for range 200 {
		off, n := pieceOf(rng, int64(len(want)))
		if n == 0 {
			continue
		}
		if _, err := extentIn(ctx, r, want, off, n); err != nil {
			return err
		}
	}
	return nil
}

// extentIn asks for one extent and tests it.
func extentIn(ctx context.Context, r block.Reader, want []byte, off, n int64) (block.Extent, error) {
	e, err := block.ExtentAt(ctx, r, off, n)
	if err != nil {
		return e, fmt.Errorf("ExtentAt(%d, %d): %w", off, n, err)
	}
	if e.Off != off || e.Len < 1 || e.Len > n {
		return e, fmt.Errorf("ExtentAt(%d, %d) = %d+%d, which is not a part of it that starts there", off, n, e.Off, e.Len)
	}
	switch e.Kind {
	case block.Data:
		return e, nil
	case block.Zero, block.Absent:
		return e, allZero(want[e.Off:e.End()], e)
	}
	return e, fmt.Errorf("ExtentAt(%d, %d) has kind %v", off, n, e.Kind)
}

func allZero(p []byte, e block.Extent) error {
	for i, b := range p {
		if b != 0 {
			return fmt.Errorf("extent %d+%d is %v, but byte %d is %#02x", e.Off, e.Len, e.Kind, e.Off+int64(i), b)
		}
	}
	return nil
}

func extentBounds(ctx context.Context, r block.Reader, want []byte) error {
	bad := append(badRanges(int64(len(want))), block.Extent{Off: 0, Len: 0})
	for _, e := range bad {
		if _, err := block.ExtentAt(ctx, r, e.Off, e.Len); !errors.Is(err, block.ErrBounds) {
			return fmt.Errorf("ExtentAt(%d, %d) = %v, want ErrBounds", e.Off, e.Len, err)
		}
	}
	return nil
}

// depthsTrue walks r and tests that the depths tile it, and that there is data
// only where there is a layer, and nothing Absent where there is one.
func depthsTrue(ctx context.Context, r block.Reader, want []byte) error {
	size := int64(len(want))
	for off := int64(0); off < size; {
		run, depth, err := depthIn(ctx, r, want, off, size-off)
		if err != nil {
			return err
		}
		for e, err := range block.Extents(ctx, r, off, run) {
			if err != nil {
				return err
			}
			if depth == 0 && e.Kind == block.Data || depth > 0 && e.Kind == block.Absent {
				return fmt.Errorf("DepthAt(%d, %d) = %d bytes of layer %d, and there is %v at %d", off, size-off, run, depth, e.Kind, e.Off)
			}
		}
		off += run
	}
	return nil
}

// depthWindows asks at random for depths, as extentWindows does for extents.
func depthWindows(ctx context.Context, r block.Reader, want []byte) error {
	rng := rand.New(rand.NewPCG(4, uint64(len(want))))
	for range 100 {
		off, n := pieceOf(rng, int64(len(want)))
		if n == 0 {
			continue
		}
		if _, _, err := depthIn(ctx, r, want, off, n); err != nil {
			return err
		}
	}
	for _, e := range append(badRanges(int64(len(want))), block.Extent{}) {
		if _, _, err := block.DepthAt(ctx, r, e.Off, e.Len); !errors.Is(err, block.ErrBounds) {
			return fmt.Errorf("DepthAt(%d, %d) = %v, want ErrBounds", e.Off, e.Len, err)
		}
	}
	return nil
}

// depthIn asks for one depth and tests it.
func depthIn(ctx context.Context, r block.Reader, want []byte, off, n int64) (run int64, depth int, err error) {
	run, depth, err = block.DepthAt(ctx, r, off, n)
	if err != nil {
		return 0, 0, fmt.Errorf("DepthAt(%d, %d): %w", off, n, err)
	}
	if run < 1 || run > n || depth < 0 {
		return 0, 0, fmt.Errorf("DepthAt(%d, %d) = %d bytes of layer %d, which cannot be", off, n, run, depth)
	}
	if depth == 0 {
		return run, depth, allZero(want[off:off+run], block.Extent{Off: off, Len: run, Kind: block.Absent})
	}
	return run, depth, nil
}
