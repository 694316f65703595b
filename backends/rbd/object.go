//go:build rbd

package rbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/seed-478a8fee/platter/backends/block"
)

// An object is an open object.
type object struct {
	store *Store
	key   string
	size  int64

	mu     sync.RWMutex // reads share it, changing the connection has it alone
	c      *conn
	im     *image
	runs   extents
	closed bool
}

// open opens the image on a connection, which it keeps.
func (o *object) open(_ context.Context, c *conn, name string) error {
	im, err := c.openImage(name, snapName, true)
	if err != nil {
		return err
	}
	size, err := im.size()
	if err != nil {
		_ = im.close() // the first error is the one to tell
		return err
	}
	o.size, o.im, o.c = size, im, c
	o.store.mu.Lock()
	c.users++
	o.store.mu.Unlock()
	o.runs.init(im, size, true, false)
	return nil
}

func (o *object) Size() int64 { return o.size }

func (o *object) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), o.size); err != nil {
		return err
	}
	err := o.use(ctx, func(im *image) error { return im.readAt(ctx, p, off) })
	if err != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("rbd: read %s at %d: %w", o.key, off, err)
	}
	return err
}

// use calls f with the image, and once more with that of a new connection if
// the old one was blocklisted.
func (o *object) use(ctx context.Context, f func(im *image) error) error {
	o.mu.RLock()
	im, closed := o.im, o.closed
	err := fs.ErrClosed
	if !closed {
		err = f(im)
	}
	o.mu.RUnlock()
	if !errors.Is(err, ErrFenced) {
		return err
	}
	if err := o.reopen(ctx, im); err != nil {
		return err
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.closed {
		return fs.ErrClosed
	}
	return f(o.im)
}

// reopen opens the image on a new connection, unless somebody else has.
func (o *object) reopen(ctx context.Context, old *image) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed || o.im != old {
		return nil
	}
	before := o.c
	o.store.mu.Lock()
	before.users++
	o.store.mu.Unlock()
	o.store.giveBack(before, ErrFenced)
	c, err := o.store.borrow(ctx)
	if err != nil {
		return err
	}
	im, err := c.openImage(old.name, snapName, true)
	if err == nil {
		var size int64
		if size, err = im.size(); err == nil && size != o.size {
			err = fmt.Errorf("it has %d bytes and had %d: another image has its name: %w", size, o.size, fs.ErrNotExist)
		}
		if err != nil {
			_ = im.close() // the first error is the one to tell
		}
	}
	if err != nil {
		o.store.giveBack(c, err)
		return err
	}
	_ = old.close() // its client is blocklisted: it cannot say good-bye
	o.im, o.c = im, c
	o.store.giveBack(before, nil)
	return nil
}

// Extent tells by the map of RADOS objects what is a hole. Holes are Zero,
// not Absent: an object is complete.
func (o *object) Extent(ctx context.Context, off, n int64) (e block.Extent, err error) {
	if err := ctx.Err(); err != nil {
		return e, err
	}
	err = o.use(ctx, func(im *image) error {
		e, err = o.runs.at(im, off, n)
		return err
	})
	if err != nil {
		return block.Extent{}, fmt.Errorf("rbd: holes of %s at %d: %w", o.key, off, err)
	}
	return e, nil
}

// Close closes the object. If it was deleted meanwhile, and nobody else here
// reads it, it is now freed.
func (o *object) Close() error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil
	}
	o.closed = true
	err := o.im.close()
	name, c := o.im.name, o.c
	o.mu.Unlock()
	if o.store.reading(name, -1) == 0 {
		o.store.purgeName(c, name)
	}
	o.store.giveBack(c, err)
	if err != nil {
		return fmt.Errorf("rbd: close %s: %w", o.key, err)
	}
	return nil
}
