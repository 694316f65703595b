package probe

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/seed-478a8fee/platter/backends/block"
)

// ErrDiffer is the error of a read on which two Readers do not agree.
var ErrDiffer = errors.New("the two sides differ")

// Compare returns r, and asks other for every read as well: an answer that is
// not the same is ErrDiffer. Extents are those of r, except that what it calls
// zeros must be zeros in other. Sizes that differ are ErrDiffer at once.
func Compare(r, other block.Reader) (block.Reader, error) {
	if r.Size() != other.Size() {
		return nil, fmt.Errorf("%d bytes, and %d bytes: %w", r.Size(), other.Size(), ErrDiffer)
	}
	return Around(r, func(ctx context.Context, c *Call, do func() error) error {
		err := do()
		switch {
		case err != nil:
			return err
		case c.Op == Read:
			return agree(ctx, other, c.Off, c.P)
		case c.Op == Extent && c.Extent.Kind != block.Data:
			return agreeZeros(ctx, other, c.Extent)
		}
		return nil
	}), nil
}

func agree(ctx context.Context, other block.Reader, off int64, got []byte) error {
	want := make([]byte, len(got))
	if err := other.ReadAt(ctx, want, off); err != nil {
		return fmt.Errorf("read the other side: %w", err)
	}
	if bytes.Equal(got, want) {
		return nil
	}
	i := 0
	for got[i] == want[i] {
		i++
	}
	return fmt.Errorf("byte %d is %#02x, and %#02x: %w", off+int64(i), got[i], want[i], ErrDiffer)
}

// agreeZeros reads by pieces what e says is nothing but zeros.
func agreeZeros(ctx context.Context, other block.Reader, e block.Extent) error {
	zeros := make([]byte, min(e.Len, 1<<20))
	for off := e.Off; off < e.End(); off += int64(len(zeros)) {
		zeros = zeros[:min(int64(len(zeros)), e.End()-off)]
		if err := agree(ctx, other, off, zeros); err != nil {
			return err
		}
	}
	return nil
}
