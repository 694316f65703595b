package mem

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/seed-478a8fee/platter/backends/block"
)

// Reader returns data as a Reader that knows where its zeros are. It keeps
// data, which must not change any more.
func Reader(data []byte) block.ReadCloser { return &reader{data: data} }

type reader struct {
	data   []byte
	closed atomic.Bool
}

func (r *reader) Size() int64 { return int64(len(r.data)) }

func (r *reader) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), r.Size()); err != nil {
		return err
	}
	if r.closed.Load() {
		return fmt.Errorf("mem: read: %w", fs.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	copy(p, r.data[off:])
	return nil
}

// grain is how finely zeros are told apart from data, as a file system would.
const grain = 4096

func (r *reader) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := ctx.Err(); err != nil {
		return block.Extent{}, err
	}
	end := off + n
	e := block.Extent{Off: off, Kind: r.kind(off)}
	next := off
	for next < end && r.kind(next) == e.Kind {
		next = min(end, next/grain*grain+grain)
	}
	e.Len = next - off
	return e, nil
}

// kind tells of which kind the whole grain around off is.
func (r *reader) kind(off int64) block.Kind {
	low := off / grain * grain
	high := min(low+grain, r.Size())
	var zeros [grain]byte
	if bytes.Equal(r.data[low:high], zeros[:high-low]) {
		return block.Zero
	}
	return block.Data
}

func (r *reader) Close() error {
	if r.closed.Swap(true) {
		return fmt.Errorf("mem: close: %w", fs.ErrClosed)
	}
	return nil
}
