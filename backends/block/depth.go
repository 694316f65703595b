package block

import (
	"context"
	"fmt"
)

// A Depther is a Reader made of others that lie on each other, and can tell
// which of them its bytes come from. Callers use DepthAt, which works for
// every Reader: one that is no Depther is one layer.
type Depther interface {
	// Depth tells from which layer the run of bytes that starts at off comes:
	// 1 is the Reader's own topmost, 2 the one below, 0 none of them. The run
	// covers at least one byte, may end early, and does not look past off+n.
	// The range is inside [0, Size) and n is at least 1.
	Depth(ctx context.Context, off, n int64) (run int64, depth int, err error)
}

// DepthAt tells from which layer of r the bytes at off come, as Depther says,
// and for how many of the n bytes that holds. A Reader that is no Depther is
// one layer, which has all but what is Absent. An empty range, or one outside
// the Reader, is ErrBounds.
func DepthAt(ctx context.Context, r Reader, off, n int64) (run int64, depth int, err error) {
	if n < 1 {
		return 0, 0, fmt.Errorf("depth of %d bytes at %d: %w", n, off, ErrBounds)
	}
	if err := CheckRange(off, n, r.Size()); err != nil {
		return 0, 0, err
	}
	if d, ok := r.(Depther); ok {
		return d.Depth(ctx, off, n)
	}
	e, err := ExtentAt(ctx, r, off, n)
	if err != nil {
		return 0, 0, err
	}
	if e.Kind != Absent {
		depth = 1
	}
	return e.Len, depth, nil
}
