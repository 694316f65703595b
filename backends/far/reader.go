package far

import (
	"context"
	"fmt"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A reader is an open object of a far store.
type reader struct {
	s   *Store
	r   block.ReadCloser
	key string
}

func (r *reader) Size() int64 { return r.r.Size() }

func (r *reader) ReadAt(ctx context.Context, p []byte, off int64) error {
	if len(p) == 0 {
		return r.r.ReadAt(ctx, p, off) // nothing to ask the store for
	}
	if err := block.CheckRange(off, int64(len(p)), r.r.Size()); err != nil {
		return err
	}
	what := func() string { return fmt.Sprintf("read %s at %d", r.key, off) }
	return r.s.retry(ctx, Event{Op: OpRead, Bytes: int64(len(p))}, what, func(ctx context.Context) error {
		return r.r.ReadAt(ctx, p, off)
	})
}

// Extent is tried again as reads are.
func (r *reader) Extent(ctx context.Context, off, n int64) (e block.Extent, err error) {
	what := func() string { return fmt.Sprintf("extents of %s at %d", r.key, off) }
	err = r.s.retry(ctx, Event{Op: OpExtent}, what, func(ctx context.Context) (err error) {
		e, err = block.ExtentAt(ctx, r.r, off, n)
		return err
	})
	return e, err
}

// Prefetch is tried once: it only would have helped.
func (r *reader) Prefetch(ctx context.Context, off, n int64) error {
	return block.Prefetch(ctx, r.r, off, n)
}

func (r *reader) Close() error { return r.r.Close() }
