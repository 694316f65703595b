package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/format"
)

// Far is what there is to know of an object that is not on this machine.
type Far struct {
	// Generation names the bytes of the object: two objects never have the
	// same, whatever their stores and keys are, and whichever was there
	// before. It is the object's id in the cache.
	Generation string

	// Size is the object's size in bytes. If it is negative, the store is
	// asked, unless the cache remembers.
	Size int64

	// Store names the store.
	Store string

	// Trace is the key under which the first reads of the object are kept.
	// "": none are recorded.
	Trace string
}

// object opens the bytes that spec names: through the cache, if they are far.
func (o *Opener) object(ctx context.Context, s *stack, spec Spec) (block.Reader, error) {
	if spec.Far == nil || o.cache == nil {
		r, err := spec.Store.Open(ctx, spec.Object)
		if err != nil {
			return nil, err
		}
		s.opened = append(s.opened, r.Close)
		return r, nil
	}
	r, err := o.cached(ctx, spec)
	if err != nil {
		return nil, err
	}
	s.opened = append(s.opened, r.Close)
	if spec.Far.Trace == "" || o.traces == nil {
		return r, nil
	}
	t := o.trace(ctx, r, spec)
	s.opened = append(s.opened, t.stop)
	return t.recorder, nil
}

// cached opens the cache's Reader of an object. Only if nobody knows the
// object's size is the store asked.
func (o *Opener) cached(ctx context.Context, spec Spec) (*cache.Reader, error) {
	open := func(ctx context.Context) (block.ReadCloser, error) {
		r, err := spec.Store.Open(ctx, spec.Object)
		if errors.Is(err, fs.ErrNotExist) {
			// What is missing is not what was asked for, but what was promised.
			err = fmt.Errorf("the store no longer has object %q: %v", spec.Object, err)
		}
		return r, err
	}
	size := spec.Far.Size
	if known, ok := o.cache.Size(spec.Far.Generation); size < 0 && ok {
		size = known
	}
	if size < 0 {
		r, err := spec.Store.Open(ctx, spec.Object)
		if err != nil {
			return nil, err
		}
		size = r.Size()
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return o.cache.Reader(spec.Far.Generation, size, open, cache.ReaderConfig{Store: spec.Far.Store})
}

// Pin walks the metadata of the image that spec describes and pins it in the
// cache, so that attaching the image has little to ask its store for. What is
// not far, or has no metadata, is left alone.
func (o *Opener) Pin(ctx context.Context, spec Spec) error {
	if spec.Far == nil || o.cache == nil || spec.Format == "" || spec.Format == "raw" {
		return nil
	}
	spec.Base = nil
	if err := validate(spec); err != nil {
		return err
	}
	r, err := o.cached(ctx, spec)
	if err != nil {
		return fmt.Errorf("pin disk %s: %w", spec.Key, err)
	}
	err = format.Verify(ctx, spec.Format, r.Pinning())
	if err == nil {
		var image format.Image
		if image, err = o.decode(ctx, r.Pinning(), spec); err == nil { // may read what the walk has no need of
			err = image.Close()
		}
	}
	if err == nil && r.Size() > 0 {
		_, err = r.Extent(ctx, 0, 1) // that the file has no holes is remembered as well
	}
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("pin disk %s: %w", spec.Key, err)
	}
	return nil
}
