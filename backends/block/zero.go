package block

import (
	"context"
	"errors"
	"fmt"
)

// A ZeroMode says what zeroing may do besides making bytes read as zero.
type ZeroMode uint8

// The modes of ZeroAt. The zero ZeroMode may do anything.
const (
	// ZeroAny may free the space behind the range.
	ZeroAny ZeroMode = iota
	// ZeroAllocated keeps the space: a later write there must not fail for
	// want of it.
	ZeroAllocated
	// ZeroFast is refused with errors.ErrUnsupported, changing nothing, unless
	// it is much faster than writing zeros.
	ZeroFast
	// ZeroFastAllocated is both: it keeps the space, and is refused unless that
	// is fast.
	ZeroFastAllocated
)

// Keeps reports whether the mode keeps the space.
func (m ZeroMode) Keeps() bool { return m == ZeroAllocated || m == ZeroFastAllocated }

// Fast reports whether the mode refuses what is slow.
func (m ZeroMode) Fast() bool { return m == ZeroFast || m == ZeroFastAllocated }

// RefuseSlow returns the error of a Device that keeps space by writing zeros,
// if mode wants that to be fast, else nil.
func RefuseSlow(mode ZeroMode) error {
	if mode == ZeroFastAllocated {
		return fmt.Errorf("fast zero that keeps the space: %w", errors.ErrUnsupported)
	}
	return nil
}

// A Zeroer is a Device that can make a range read as zeros without being
// sent them.
type Zeroer interface {
	// Zero makes [off, off+n) read as zeros. The range is inside [0, Size).
	// With a mode that is Fast it may return errors.ErrUnsupported and change
	// nothing.
	Zero(ctx context.Context, off, n int64, mode ZeroMode) error
}

// A Discarder is a Device that can free the space behind a range.
type Discarder interface {
	// Discard says that the bytes of [off, off+n) are no longer needed. What
	// they read as afterwards is the Device's choice, but does not change
	// until they are written again. The range is inside [0, Size).
	Discard(ctx context.Context, off, n int64) error
}

// A Prefetcher is a Reader that can bring a range nearer before it is read.
type Prefetcher interface {
	// Prefetch begins or does what makes a later read of [off, off+n) fast.
	// The range is inside [0, Size). An error says only that it did not help.
	Prefetch(ctx context.Context, off, n int64) error
}

// zeros is what a Device that is no Zeroer is sent, piece by piece.
// It is never written to.
var zeros [64 << 10]byte

// ZeroAt makes [off, off+n) of d read as zeros. For a Device that is no
// Zeroer it writes them, except that a mode which is Fast is then
// errors.ErrUnsupported.
func ZeroAt(ctx context.Context, d Device, off, n int64, mode ZeroMode) error {
	if err := CheckRange(off, n, d.Size()); err != nil {
		return err
	}
	if z, ok := d.(Zeroer); ok {
		return z.Zero(ctx, off, n, mode)
	}
	if mode.Fast() {
		return fmt.Errorf("fast zero: %w", errors.ErrUnsupported)
	}
	for n > 0 {
		piece := min(n, int64(len(zeros)))
		if err := d.WriteAt(ctx, zeros[:piece], off); err != nil {
			return err
		}
		off, n = off+piece, n-piece
	}
	return nil
}

// Discard tells d that the bytes of [off, off+n) are no longer needed. For a
// Device that is no Discarder it does nothing.
func Discard(ctx context.Context, d Device, off, n int64) error {
	if err := CheckRange(off, n, d.Size()); err != nil {
		return err
	}
	if t, ok := d.(Discarder); ok {
		return t.Discard(ctx, off, n)
	}
	return nil
}

// Prefetch tells r that [off, off+n) will be read soon. For a Reader that is
// no Prefetcher it does nothing.
func Prefetch(ctx context.Context, r Reader, off, n int64) error {
	if err := CheckRange(off, n, r.Size()); err != nil {
		return err
	}
	if f, ok := r.(Prefetcher); ok {
		return f.Prefetch(ctx, off, n)
	}
	return nil
}
