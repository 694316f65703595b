//go:build rbd

package rbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/ceph/go-ceph/rbd"
)

const (
	// overlayOrder is the size of the RADOS objects of an overlay: rbd's own
	// default. The first write into one copies all of it from the parent.
	overlayOrder = 22

	// bareMark in the metadata of an image says that it lies over a base.
	bareMark = "platter_bare"

	// epochMark in the metadata of an image is the highest epoch that ever had
	// it open.
	epochMark = "platter_epoch"
)

// CreateClone makes an overlay. It takes no time and no space. A taken key is
// fs.ErrExist, a parent that is none fs.ErrNotExist.
func (s *Store) CreateClone(ctx context.Context, cfg CloneConfig) error {
	if err := checkSize(cfg.Size); err != nil {
		return err
	}
	return s.with(ctx, "make overlay", cfg.Key, func(c *conn, name string) error {
		if cfg.Parent == "" {
			return createBare(c, name, cfg.Size)
		}
		if err := cloneImage(c, cfg.Parent, name); err != nil {
			return fmt.Errorf("clone %s: %w", cfg.Parent, err)
		}
		err := fitClone(c, name, cfg.Size)
		if err != nil {
			return errors.Join(err, explain(rbd.RemoveImage(c.io, name)))
		}
		return nil
	})
}

// checkSize refuses what no disk can be.
func checkSize(size int64) error {
	if size < 0 {
		return fmt.Errorf("rbd: a disk of %d bytes: %w", size, fs.ErrInvalid)
	}
	return nil
}

// createBare makes an empty overlay, and says in it that it lies over
// something.
func createBare(c *conn, name string, size int64) error {
	if err := createImage(c, name, size, overlayOrder); err != nil {
		return err
	}
	im, err := c.openImage(name, "", false)
	if err == nil {
		err = errors.Join(im.setMark(bareMark, "1"), im.close())
	}
	if err != nil {
		return errors.Join(err, explain(rbd.RemoveImage(c.io, name)))
	}
	return nil
}

func cloneImage(c *conn, parent, name string) error {
	from, err := imageName(parent)
	if err != nil {
		return err
	}
	o := rbd.NewRbdImageOptions()
	defer o.Destroy()
	for _, opt := range []struct {
		name  rbd.ImageOption
		value uint64
	}{
		{rbd.ImageOptionOrder, overlayOrder},
		// Without these a clone inherits stripes larger than its objects.
		{rbd.ImageOptionStripeUnit, 1 << overlayOrder},
		{rbd.ImageOptionStripeCount, 1},
		{rbd.ImageOptionFeatures, features},
	} {
		if err == nil {
			err = o.SetUint64(opt.name, opt.value)
		}
	}
	if err == nil {
		err = rbd.CloneImage(c.io, from, snapName, c.io, name, o)
	}
	return explain(err)
}

// fitClone gives a new clone its size.
func fitClone(c *conn, name string, size int64) error {
	if size == 0 {
		return nil
	}
	im, err := c.openImage(name, "", false)
	if err != nil {
		return err
	}
	has, err := im.size()
	switch {
	case err != nil:
	case size < has:
		err = fmt.Errorf("%d bytes are less than the %d of the parent: %w", size, has, fs.ErrInvalid)
	case size > has:
		err = im.resize(size)
	}
	return errors.Join(err, im.close())
}

// Resize changes the size of an overlay that nobody has open; else it is
// ErrLocked. What a smaller one loses is lost.
func (s *Store) Resize(ctx context.Context, key string, size int64) error {
	if err := checkSize(size); err != nil {
		return err
	}
	return s.with(ctx, "resize", key, func(c *conn, name string) error {
		im, err := c.openImage(name, "", false)
		if err != nil {
			return err
		}
		if err = im.lock(); err == nil {
			err = im.resize(size)
		}
		return errors.Join(err, im.close())
	})
}

// Remove removes an overlay with its snapshots. A writer that still has it
// open is fenced. While others have made clones of its snapshots it is
// syscall.EBUSY. To remove nothing is not an error.
func (s *Store) Remove(ctx context.Context, key string) error {
	return s.with(ctx, "remove", key, func(c *conn, name string) error {
		err := s.removeOverlay(c, name)
		if errors.Is(explain(err), fs.ErrNotExist) {
			return nil
		}
		if isBusy(err) {
			return busy("it or its snapshots are in use")
		}
		return err
	})
}

func (s *Store) removeOverlay(c *conn, name string) error {
	err := s.fence(c, name)
	if errors.Is(explain(err), fs.ErrNotExist) {
		return removeRest(c, name)
	}
	if err != nil {
		return err
	}
	im, err := rbd.OpenImage(c.io, name, rbd.NoSnapshot)
	if err != nil {
		return err
	}
	err = dropSnapshots(im, true)
	if e := im.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return rbd.RemoveImage(c.io, name)
}

// takeTurn records an epoch in an image that we have locked, unless a later
// one was there.
func takeTurn(im *image, epoch int64) error {
	text, err := im.mark(epochMark)
	if err != nil {
		return err
	}
	var last int64
	if text != "" {
		if last, err = strconv.ParseInt(text, 10, 64); err != nil {
			return fmt.Errorf("its epoch is %q: %w", text, fs.ErrInvalid)
		}
	}
	switch {
	case epoch < last:
		return fmt.Errorf("epoch %d was there, and this is %d: %w", last, epoch, ErrFenced)
	case epoch > last || text == "":
		return im.setMark(epochMark, strconv.FormatInt(epoch, 10))
	}
	return nil
}
