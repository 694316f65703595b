//go:build rbd

package rbd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A Device is an open overlay: the whole disk, parent included. It is a
// block.Device, Mapper, Depther, Zeroer and Discarder. It has a connection of its own,
// so that fencing it fences nothing else.
type Device struct {
	store *Store
	key   string
	c     *conn
	im    *image
	size  int64

	fenced atomic.Bool
	doubt  atomic.Bool // a write was not answered

	own, all extents // what the overlay has of its own; and with the parent

	touched touched // what was written since, for Changes

	snaps struct {
		sync.Mutex
		open map[string]int // by ID, who reads it
	}
	closing sync.Once
	closed  error
}

// pieceSize is how much of a range is zeroed or discarded by one request:
// librbd makes one of it for each RADOS object, all at once.
const pieceSize = 1 << 30

// OpenDevice opens an overlay as its one writer. Somebody else who has it open
// is ErrLocked; a writer whose turn has passed is ErrFenced. One that was made
// without a parent is for OpenDelta.
func (s *Store) OpenDevice(ctx context.Context, key string, cfg DeviceConfig) (*Device, error) {
	return s.openDevice(ctx, key, cfg, false)
}

func (s *Store) openDevice(ctx context.Context, key string, cfg DeviceConfig, bare bool) (*Device, error) {
	d := &Device{store: s, key: key}
	d.snaps.open = make(map[string]int)
	name, err := imageName(key)
	if err != nil {
		return nil, fmt.Errorf("rbd: open overlay: %w", err)
	}
	if cfg.Takeover {
		if err := s.Takeover(ctx, key); err != nil {
			return nil, err
		}
	}
	if d.c, err = dial(ctx, s.cfg); err == nil {
		if err = d.open(name, cfg.Epoch, bare); err != nil {
			d.c.close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("rbd: open overlay %s: %w", key, err)
	}
	return d, nil
}

func (d *Device) open(name string, epoch int64, bare bool) (err error) {
	if d.im, err = d.c.openImage(name, "", false); err != nil {
		return err
	}
	if err = d.im.lock(); err == nil {
		err = takeTurn(d.im, epoch)
	}
	if err == nil {
		err = d.isBare(bare)
	}
	if err == nil {
		d.size, err = d.im.size()
	}
	if err == nil {
		d.own.init(d.im, d.size, false, bare)
		d.all.init(d.im, d.size, true, false)
	}
	if err != nil {
		_ = d.im.close() // the first error is the one to tell
	}
	return err
}

// isBare refuses to open a disk for what it is not: what is missing in a bare
// one would read as zeros.
func (d *Device) isBare(want bool) error {
	mark, err := d.im.mark(bareMark)
	switch {
	case err != nil:
		return err
	case want && mark == "":
		return fmt.Errorf("it lies over nothing, or has its parent in the cluster: %w", fs.ErrInvalid)
	case !want && mark != "":
		return fmt.Errorf("it lies over a base that is not in the cluster: %w", fs.ErrInvalid)
	}
	return nil
}

// Size returns the size of the disk.
func (d *Device) Size() int64 { return d.size }

// Fenced tells whether another writer has taken over, as far as is known.
func (d *Device) Fenced() bool { return d.fenced.Load() }

// ReadAt reads the overlay, and its parent where nothing was written.
func (d *Device) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), d.size); err != nil {
		return err
	}
	return d.told("read", off, false, d.im.readAt(ctx, p, off))
}

// WriteAt stores p in the cluster. A write that is not answered in time is
// ErrUnknown.
func (d *Device) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := d.may("write", off, int64(len(p))); err != nil {
		return err
	}
	d.mark(off, int64(len(p)))
	return d.write(ctx, p, off)
}

// write is WriteAt for those who know where there is data.
func (d *Device) write(ctx context.Context, p []byte, off int64) error {
	defer d.touched.add(off, int64(len(p)))
	return d.told("write", off, true, d.im.writeAt(ctx, p, off))
}

// Flush waits for the writes that are still with the cluster. Those that were
// answered are durable already.
func (d *Device) Flush(ctx context.Context) error {
	if err := d.may("flush", 0, 0); err != nil {
		return err
	}
	err := d.im.flush(ctx)
	if err == nil {
		err = d.stillOurs()
	}
	return d.told("flush", 0, true, err)
}

// Zero makes a range read as zeros. To keep the space it writes them.
func (d *Device) Zero(ctx context.Context, off, n int64, mode block.ZeroMode) error {
	if err := block.RefuseSlow(mode); err != nil {
		return err
	}
	thick := mode == block.ZeroAllocated
	return d.pieces(ctx, "zero", off, n, func(off, n int64) error {
		if thick {
			d.mark(off, n)
		}
		return d.im.zero(ctx, off, n, thick)
	})
}

// Discard frees the space behind a range. Its bytes read as zeros or, where
// the range has less than 64 KiB of a RADOS object, as before.
func (d *Device) Discard(ctx context.Context, off, n int64) error {
	return d.pieces(ctx, "discard", off, n, func(off, n int64) error { return d.im.discard(ctx, off, n) })
}

// pieces calls f for each part of a range.
func (d *Device) pieces(ctx context.Context, what string, off, n int64, f func(off, n int64) error) error {
	if err := d.may(what, off, n); err != nil {
		return err
	}
	for n > 0 {
		k := min(n, pieceSize-off%pieceSize)
		err := d.told(what, off, true, f(off, k))
		d.touched.add(off, k)
		if err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// Extent tells by the maps of RADOS objects, of the overlay and its parent,
// what is a hole. What was zeroed after it was first asked is still Data.
func (d *Device) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := ctx.Err(); err != nil {
		return block.Extent{}, err
	}
	e, err := d.all.at(d.im, off, n)
	return e, d.told("holes", off, false, err)
}

// Depth tells what the overlay has of its own, as layer 1, and what its parent
// has, as layer 2, in whole RADOS objects. What was zeroed may be of neither.
func (d *Device) Depth(ctx context.Context, off, n int64) (run int64, depth int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, 0, err
	}
	e, err := d.own.at(d.im, off, n)
	if err == nil && e.Kind == block.Data {
		return e.Len, 1, nil
	}
	if err == nil {
		e, err = d.all.at(d.im, off, e.Len)
	}
	if err == nil && e.Kind == block.Data {
		depth = 2
	}
	return e.Len, depth, d.told("depths", off, false, err)
}

func (d *Device) mark(off, n int64) {
	d.own.mark(off, n)
	d.all.mark(off, n)
}

// Usage returns how many bytes the overlay has of its own, without those of
// its snapshots: full RADOS objects of 4 MiB, of which the cluster may store
// less. The first call may ask the cluster; what that does not answer is not
// counted.
func (d *Device) Usage() int64 {
	if err := d.own.loadAll(d.im); err != nil {
		d.store.log.Debug("count what an overlay has of its own", "key", d.key, "error", err)
	}
	return min(d.own.count()<<d.own.order, d.size)
}

// Unknown tells whether there was a write that the cluster did not answer: it
// may still land, until Close has made sure that it does not.
func (d *Device) Unknown() bool { return d.doubt.Load() }

// may refuses a change out of bounds, and every one once we are fenced.
func (d *Device) may(what string, off, n int64) error {
	if err := block.CheckRange(off, n, d.size); err != nil {
		return err
	}
	if d.fenced.Load() {
		return fmt.Errorf("rbd: %s overlay %s: %w", what, d.key, ErrFenced)
	}
	return nil
}

// stillOurs is ErrFenced when librbd has heard that the lock is gone.
func (d *Device) stillOurs() error {
	ours, err := d.im.hasLock()
	if err == nil && !ours {
		err = fmt.Errorf("the lock is gone: %w", ErrFenced)
	}
	return err
}

// told notes what an error means for what comes after it, and wraps it.
func (d *Device) told(what string, off int64, change bool, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrFenced):
		if !d.fenced.Swap(true) {
			d.store.log.Error("another writer has taken over an overlay", "key", d.key)
		}
	case change && errors.Is(err, syscall.EROFS):
		d.fenced.Store(true)
		err = fmt.Errorf("the lock is gone (%v): %w", err, ErrFenced)
	case change && errors.Is(err, syscall.ETIMEDOUT):
		d.doubt.Store(true)
		err = fmt.Errorf("%w: %w", ErrUnknown, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fmt.Errorf("rbd: %s overlay %s at %d: %w", what, d.key, off, err)
}

// Flatten copies into the overlay what it has from its parent, and lets go of
// that. It goes on while the disk is used. Progress, which may be nil, hears
// how many RADOS objects of how many are done. ctx is looked at before only.
func (d *Device) Flatten(ctx context.Context, progress func(done, total int64)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	if err := d.may("flatten", 0, 0); err != nil {
		return err
	}
	return d.told("flatten", 0, false, d.im.flatten(progress))
}

// Close ends the use of the overlay and lets the next writer have it. If a
// write was never answered, it first shuts its own client out, so that it
// cannot land under the next one; if even that fails, the lock stays, and the
// next writer must take over.
func (d *Device) Close() error {
	d.closing.Do(func() { d.closed = d.close() })
	return d.closed
}

func (d *Device) close() error {
	var errs error
	if !d.fenced.Load() {
		errs = d.Flush(context.Background())
	}
	if d.doubt.Load() && !d.fenced.Load() {
		if err := d.shutOut(); err != nil {
			// go-ceph's finalizer would disconnect under the open image.
			runtime.SetFinalizer(d.c.rados, nil)
			return fmt.Errorf("rbd: close overlay %s: a write may still land, so its lock stays: %w", d.key, errors.Join(errs, err))
		}
	}
	if err := d.im.close(); err != nil && !errors.Is(err, ErrFenced) {
		errs = errors.Join(errs, fmt.Errorf("rbd: close overlay %s: %w", d.key, err))
	}
	d.c.close()
	return errs
}

// shutOut puts our own client on the blocklist.
func (d *Device) shutOut() error {
	addr, err := d.c.rados.GetAddrs()
	if err != nil {
		return explain(err)
	}
	c, err := d.store.borrow(context.Background())
	if err != nil {
		return err
	}
	err = blocklist(c, addr, fenceTime)
	d.store.giveBack(c, err)
	if err == nil {
		d.fenced.Store(true)
	}
	return err
}
