//go:build rbd

package rbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sync/errgroup"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
)

// Materialize makes an object of what src reads as, so that it can be cloned.
// Holes are kept. What a crash left of an earlier attempt is begun anew; an
// object that is complete is fs.ErrExist. Progress, which may be nil, hears
// how many bytes of the disk are done.
func (s *Store) Materialize(ctx context.Context, key string, src block.Reader, progress func(done int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	return s.with(ctx, "materialize", key, func(c *conn, name string) error {
		im, err := s.begin(c, name, src.Size())
		if err != nil {
			return err
		}
		if err = fill(ctx, im, src, progress); err == nil {
			err = seal(im)
		}
		if err == nil {
			return im.close()
		}
		return errors.Join(err, im.close(), s.scrap(c, name))
	})
}

// begin makes the image, in the place of an unfinished one.
func (s *Store) begin(c *conn, name string, size int64) (*image, error) {
	err := createImage(c, name, size, objectOrder)
	if errors.Is(err, fs.ErrExist) {
		if whole, e := c.openImage(name, snapName, true); e == nil {
			return nil, errors.Join(err, whole.close())
		}
		if err = s.remove(c, name); err == nil {
			err = createImage(c, name, size, objectOrder)
		}
	}
	if err != nil {
		return nil, err
	}
	im, err := c.openImage(name, "", false)
	if err != nil {
		return nil, errors.Join(err, explain(rbd.RemoveImage(c.io, name)))
	}
	return im, nil
}

// fill writes the data of src to an empty image, some RADOS objects at once.
func fill(ctx context.Context, im *image, src block.Reader, progress func(done int64)) error {
	var bufs sync.Pool
	bufs.New = func() any { return new([objectSize]byte) }
	var told struct {
		sync.Mutex
		done int64
	}
	group, bad := errgroup.WithContext(ctx)
	group.SetLimit(uploads)
	for off := int64(0); off < src.Size() && bad.Err() == nil; off += objectSize {
		group.Go(func() error {
			buf := bufs.Get().(*[objectSize]byte)
			defer bufs.Put(buf)
			n := min(objectSize, src.Size()-off)
			if err := fillObject(bad, im, src, off, buf[:n]); err != nil {
				return fmt.Errorf("at %d: %w", off, err)
			}
			told.Lock()
			defer told.Unlock()
			told.done += n
			progress(told.done)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// fillObject copies what src has of one RADOS object.
func fillObject(ctx context.Context, im *image, src block.Reader, off int64, buf []byte) error {
	for e, err := range block.Extents(ctx, src, off, int64(len(buf))) {
		if err != nil {
			return err
		}
		if e.Kind != block.Data {
			continue
		}
		p := buf[e.Off-off : e.End()-off]
		if err := src.ReadAt(ctx, p, e.Off); err != nil {
			return err
		}
		if err := writeRuns(ctx, im, p, e.Off); err != nil {
			return err
		}
	}
	return nil
}

// CopyFrom makes an object from one of another Store of this kind. librbd's
// own copy goes through its client as well, and nobody can interrupt it, so
// this is ours: many RADOS objects at once, without the holes.
func (s *Store) CopyFrom(ctx context.Context, key string, from backends.Store, fromKey string) error {
	src, ok := from.(*Store)
	if !ok {
		return fmt.Errorf("rbd: copy %s from a store that is none of ours: %w", fromKey, errors.ErrUnsupported)
	}
	r, err := src.Open(ctx, fromKey)
	if err != nil {
		return err
	}
	defer r.Close()
	return s.Materialize(ctx, key, r, nil)
}
