package blocktest

import (
	"context"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends/block"
)

// users is how many goroutines the parallel checks use: enough to meet, few
// enough for a small machine.
const users = 8

// readParallel reads from many goroutines at once; under the race detector it
// is the check of "any number of goroutines".
func readParallel(ctx context.Context, r block.Reader, want []byte) error {
	g, ctx := errgroup.WithContext(ctx)
	for user := range users {
		g.Go(func() error {
			rng := rand.New(rand.NewPCG(3, uint64(user)))
			for range 40 {
				off, n := pieceOf(rng, int64(len(want)))
				if err := readRange(ctx, r, want, off, n); err != nil {
					return err
				}
				if n == 0 {
					continue
				}
				if _, err := extentIn(ctx, r, want, off, n); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// writeParallel gives each of many goroutines a region of its own. Regions are
// neighbours at odd offsets, so that the Device's own blocks are shared: a
// copy-up that forgets a neighbour's write is found here.
func writeParallel(ctx context.Context, d block.Device, model []byte) error {
	g, ctx := errgroup.WithContext(ctx)
	share := len(model) / users
	for user := range users {
		region := model[user*share : (user+1)*share]
		g.Go(func() error {
			return ownRegion(ctx, d, region, int64(user*share), uint64(user))
		})
	}
	g.Go(func() error { return lookOn(ctx, d) })
	return g.Wait()
}

// lookOn reads everywhere while others write. What it finds is nobody's
// promise, but that it finds something is.
func lookOn(ctx context.Context, d block.Device) error {
	rng := rand.New(rand.NewPCG(12, 12))
	for range 60 {
		off, n := pieceOf(rng, d.Size())
		if err := d.ReadAt(ctx, make([]byte, n), off); err != nil {
			return fmt.Errorf("read of %d bytes at %d beside writers: %w", n, off, err)
		}
		if n == 0 {
			continue
		}
		if _, err := block.ExtentAt(ctx, d, off, n); err != nil {
			return fmt.Errorf("extent at %d beside writers: %w", off, err)
		}
	}
	return nil
}

// ownRegion changes its region, which stands at base, and finds what it wrote.
func ownRegion(ctx context.Context, d block.Device, region []byte, base int64, seed uint64) error {
	if len(region) == 0 {
		return nil
	}
	rng := rand.New(rand.NewPCG(4, seed))
	for range 40 {
		off, n := pieceOf(rng, int64(len(region)))
		part := region[off : off+n]
		switch rng.IntN(5) {
		case 0:
			if err := block.ZeroAt(ctx, d, base+off, n, block.ZeroAny); err != nil {
				return fmt.Errorf("ZeroAt(%d, %d): %w", base+off, n, err)
			}
			clear(part)
		case 1:
			if err := d.Flush(ctx); err != nil {
				return fmt.Errorf("flush: %w", err)
			}
		default:
			fill(rng, part)
			if err := d.WriteAt(ctx, part, base+off); err != nil {
				return fmt.Errorf("WriteAt(%d bytes at %d): %w", n, base+off, err)
			}
		}
		got := make([]byte, n)
		if err := d.ReadAt(ctx, got, base+off); err != nil {
			return err
		}
		if err := same(got, part, base+off); err != nil {
			return fmt.Errorf("among other writers: %w", err)
		}
	}
	return nil
}
