//go:build rbd

package rbd

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// An image is an open image. Close waits for the requests that use it.
type image struct {
	name  string
	q     *queue
	mu    sync.RWMutex // requests share it, closing has it alone
	h     C.rbd_image_t
	order uint // an object has 1<<order bytes
}

// openImage opens an image, at a snapshot unless snap is "". Who opens it
// readOnly leaves no trace in the cluster; others are its watchers.
func (c *conn) openImage(name, snap string, readOnly bool) (*image, error) {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	var csnap *C.char
	if snap != "" {
		csnap = C.CString(snap)
		defer C.free(unsafe.Pointer(csnap))
	}
	im := &image{name: name, q: c.queue}
	io, r := C.rados_ioctx_t(c.io.Pointer()), C.int(0)
	if readOnly {
		r = C.rbd_open_read_only(io, cname, &im.h, csnap)
	} else {
		r = C.rbd_open(io, cname, &im.h, csnap)
	}
	if err := result(r); err != nil {
		return nil, err
	}
	if readOnly {
		c.settle()
	}
	var info C.rbd_image_info_t
	if err := result(C.rbd_stat(im.h, &info, C.size_t(unsafe.Sizeof(info)))); err != nil {
		_ = im.close() // the first error is the one to tell
		return nil, err
	}
	im.order = uint(info.order)
	return im, nil
}

// settle must be called after an image was opened to be read only, before it
// may be closed. librbd tells us that the image is open, and then takes a lock
// in it once more (ImageState::complete_action_unlock). Closing such an image
// asks the cluster nothing, so it can be faster than that thread; then freed
// memory is locked, and the process aborts.
func (c *conn) settle() {
	_ = C.io_settle(C.rados_ioctx_t(c.io.Pointer())) // it fails for want of memory only
}

// close closes the image when its requests have ended. A second call does
// nothing.
func (im *image) close() error {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.h == nil {
		return nil
	}
	err := result(C.rbd_close(im.h))
	im.h = nil
	return err
}

// use calls f with the handle, which stays open meanwhile.
func (im *image) use(f func(h C.rbd_image_t) error) error {
	im.mu.RLock()
	defer im.mu.RUnlock()
	if im.h == nil {
		return fs.ErrClosed
	}
	return f(im.h)
}

// do is one request for bytes.
func (im *image) do(ctx context.Context, kind C.int, off, n int64, p []byte) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	im.mu.RLock()
	defer im.mu.RUnlock()
	if im.h == nil {
		return 0, fs.ErrClosed
	}
	return im.q.do(ctx, im.h, kind, off, n, p)
}

func (im *image) readAt(ctx context.Context, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := im.do(ctx, C.OP_READ, off, int64(len(p)), p)
	if err == nil && n != int64(len(p)) {
		err = fmt.Errorf("%d bytes of %d: %w", n, len(p), io.ErrUnexpectedEOF)
	}
	return err
}

func (im *image) writeAt(ctx context.Context, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	_, err := im.do(ctx, C.OP_WRITE, off, int64(len(p)), p)
	return err
}

// zero makes a range read as zeros; thick writes them.
func (im *image) zero(ctx context.Context, off, n int64, thick bool) error {
	kind := C.int(C.OP_ZERO)
	if thick {
		kind = C.OP_ZERO_THICK
	}
	_, err := im.do(ctx, kind, off, n, nil)
	return err
}

func (im *image) discard(ctx context.Context, off, n int64) error {
	_, err := im.do(ctx, C.OP_DISCARD, off, n, nil)
	return err
}

func (im *image) flush(ctx context.Context) error {
	_, err := im.do(ctx, C.OP_FLUSH, 0, 0, nil)
	return err
}

func (im *image) size() (size int64, err error) {
	err = im.use(func(h C.rbd_image_t) error {
		var n C.uint64_t
		r := C.rbd_get_size(h, &n)
		size = int64(n)
		return result(r)
	})
	return size, err
}

func (im *image) resize(size int64) error {
	return im.use(func(h C.rbd_image_t) error {
		return result(C.image_resize(h, C.uint64_t(size)))
	})
}

// fastDiff tells whether the image has a map of its objects that is to be
// believed, so that one request tells all of them.
func (im *image) fastDiff() (fast bool) {
	err := im.use(func(h C.rbd_image_t) error {
		var features, flags C.uint64_t
		if err := result(C.rbd_get_features(h, &features)); err != nil {
			return err
		}
		err := result(C.rbd_get_flags(h, &flags))
		fast = features&C.RBD_FEATURE_FAST_DIFF != 0 && flags&C.RBD_FLAG_FAST_DIFF_INVALID == 0
		return err
	})
	return fast && err == nil
}

// objects sets in bits those of the 1<<order bytes long pieces of [off, off+n)
// in which the image, or with parent also what it is a clone of, has data.
// off is a multiple of every object's size: librbd before 17 told other
// offsets wrong (tracker.ceph.com/issues/53784).
func (im *image) objects(off, n int64, parent, fast bool, bits []byte) error {
	if n == 0 {
		return nil
	}
	return im.use(func(h C.rbd_image_t) error {
		return result(C.image_map(h, C.uint64_t(off), C.uint64_t(n), number(parent), number(fast), 1<<C.uint64_t(im.order), (*C.uint8_t)(&bits[0])))
	})
}

// changes sets in bits those of the unit bytes long pieces of [off, off+n) that
// changed since a snapshot; bit 0 is that of off, which is a multiple of every
// object's size.
func (im *image) changes(since string, off, n, unit int64, bits []byte) error {
	return im.named(since, func(h C.rbd_image_t, since *C.char) C.int {
		return C.image_changes(h, since, C.uint64_t(off), C.uint64_t(n), C.uint64_t(unit), (*C.uint8_t)(&bits[0]))
	})
}

func number(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// flatten copies what the image has from its parent. What is already done it
// tells from time to time, on this goroutine's behalf.
func (im *image) flatten(progress func(done, total int64)) error {
	told := (*[2]uint64)(C.calloc(2, 8))
	defer C.free(unsafe.Pointer(told))
	var wait sync.WaitGroup
	done := make(chan struct{})
	wait.Go(func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				progress(int64(atomic.LoadUint64(&told[0])), int64(atomic.LoadUint64(&told[1])))
			}
		}
	})
	err := im.use(func(h C.rbd_image_t) error {
		return result(C.image_flatten(h, (*C.uint64_t)(&told[0])))
	})
	close(done)
	wait.Wait()
	if err == syscall.EINVAL {
		return nil // it has no parent: it is flat
	}
	return err
}

// named calls a function of librbd that takes the name of a snapshot.
func (im *image) named(name string, f func(h C.rbd_image_t, name *C.char) C.int) error {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	return im.use(func(h C.rbd_image_t) error { return result(f(h, cname)) })
}

func (im *image) snapCreate(name string) error {
	return im.named(name, func(h C.rbd_image_t, name *C.char) C.int { return C.rbd_snap_create(h, name) })
}

func (im *image) snapRemove(name string) error {
	return im.named(name, func(h C.rbd_image_t, name *C.char) C.int { return C.rbd_snap_remove(h, name) })
}

func (im *image) snapProtect(name string) error {
	return im.named(name, func(h C.rbd_image_t, name *C.char) C.int { return C.rbd_snap_protect(h, name) })
}

func (im *image) snapUnprotect(name string) error {
	return im.named(name, func(h C.rbd_image_t, name *C.char) C.int { return C.rbd_snap_unprotect(h, name) })
}

// lock takes the exclusive lock and keeps it: librbd then hands it to nobody.
// Somebody else who has it, or died with it, is ErrLocked: librbd would take
// it from the dead by itself, but shut them out for an hour only.
func (im *image) lock() error {
	err := im.use(func(h C.rbd_image_t) error {
		n := C.image_lockers(h)
		if n > 0 {
			return ErrLocked
		}
		if err := result(n); err != nil {
			return err
		}
		return result(C.rbd_lock_acquire(h, C.RBD_LOCK_MODE_EXCLUSIVE))
	})
	if errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EAGAIN) {
		err = ErrLocked
	}
	return err
}

// hasLock tells whether the lock is ours, as far as librbd has heard.
func (im *image) hasLock() (ours bool, err error) {
	err = im.use(func(h C.rbd_image_t) error {
		var owner C.int
		r := C.rbd_is_exclusive_lock_owner(h, &owner)
		ours = owner != 0
		return result(r)
	})
	return ours, err
}

// mark returns what the image says under a name of its metadata, or "".
func (im *image) mark(name string) (value string, err error) {
	buf := make([]byte, 256)
	err = im.named(name, func(h C.rbd_image_t, name *C.char) C.int {
		n := C.size_t(len(buf))
		r := C.rbd_metadata_get(h, name, (*C.char)(unsafe.Pointer(&buf[0])), &n)
		if r >= 0 {
			value = C.GoString((*C.char)(unsafe.Pointer(&buf[0])))
		}
		return r
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return value, err
}

// setMark writes metadata of the image.
func (im *image) setMark(name, value string) error {
	cvalue := C.CString(value)
	defer C.free(unsafe.Pointer(cvalue))
	return im.named(name, func(h C.rbd_image_t, name *C.char) C.int { return C.rbd_metadata_set(h, name, cvalue) })
}

// dropMark removes metadata of the image.
func (im *image) dropMark(name string) error {
	return im.named(name, func(h C.rbd_image_t, name *C.char) C.int { return C.rbd_metadata_remove(h, name) })
}
