package cache

import (
	"context"
	"sync"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A Reader is an object read through the cache. It is a block.ReadCloser, a
// block.Mapper and a block.Prefetcher.
type Reader struct {
	id   string
	size int64
	open func(context.Context) (block.ReadCloser, error)

	mu  sync.Mutex
	far block.ReadCloser
}

// Size returns the number of bytes of the object.
func (r *Reader) Size() int64 { return r.size }

// ReadAt fills p with the bytes of the object that start at off.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), r.size); err != nil {
		return err
	}
	far, err := r.object(ctx)
	if err != nil {
		return err
	}
	return far.ReadAt(ctx, p, off)
}

func (r *Reader) object(ctx context.Context) (block.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.far == nil {
		far, err := r.open(ctx)
		if err != nil {
			return nil, err
		}
		r.far = far
	}
	return r.far, nil
}

// Extent describes the run that starts at off, as the far object does.
func (r *Reader) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	far, err := r.object(ctx)
	if err != nil {
		return block.Extent{}, err
	}
	return block.ExtentAt(ctx, far, off, n)
}

// Prefetch fetches what the cache lacks of a range, behind what anybody waits
// for, and returns when that is done.
func (r *Reader) Prefetch(ctx context.Context, off, n int64) error { return nil }

// Pin fetches a range and keeps it for as long as the object exists and there
// is room for what is pinned.
func (r *Reader) Pin(ctx context.Context, off, n int64) error { return nil }

// Pinning returns the object as a Reader that pins whatever is read through
// it. Closing it is the caller's of r.
func (r *Reader) Pinning() block.Reader { return r }

// Close ends the use of the object. Reads must have returned.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.far != nil {
		return r.far.Close()
	}
	return nil
}
