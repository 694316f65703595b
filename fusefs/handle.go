package fusefs

import (
	"context"
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A handle is an open file. It reads what it opened, whatever becomes of the
// image.
type handle struct {
	t        *Tree
	r        block.ReadCloser
	id, file string
}

var (
	_ fs.FileReader   = (*handle)(nil)
	_ fs.FileLseeker  = (*handle)(nil)
	_ fs.FileReleaser = (*handle)(nil)
)

// open makes a handle that Close can find.
func (t *Tree) open(r block.ReadCloser, id, file string) *handle {
	h := &handle{t: t, r: r, id: id, file: file}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handles[h] = struct{}{}
	return h
}

// Release closes the file.
func (h *handle) Release(context.Context) syscall.Errno {
	h.t.mu.Lock()
	_, there := h.t.handles[h]
	delete(h.t.handles, h)
	h.t.mu.Unlock()
	if there {
		h.t.closed(h.r.Close())
	}
	return 0
}

// Read reads what there is of the range.
func (h *handle) Read(interrupted context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n := min(int64(len(dest)), h.r.Size()-off)
	if n <= 0 {
		return fuse.ReadResultData(nil), 0
	}
	ctx := calm(interrupted)
	defer ctx.end()
	if err := h.r.ReadAt(ctx, dest[:n], off); err != nil {
		return nil, h.t.fail("read the "+h.file+" of", h.id, err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

const (
	seekData = 3
	seekHole = 4
)

// Lseek finds the next data or the next hole. The end of the file is a hole.
func (h *handle) Lseek(interrupted context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	size := h.r.Size()
	if whence != seekData && whence != seekHole {
		return 0, syscall.EINVAL
	}
	if off >= uint64(size) {
		return 0, syscall.ENXIO
	}
	ctx := calm(interrupted)
	defer ctx.end()
	for at := int64(off); at < size; {
		e, err := block.ExtentAt(ctx, h.r, at, size-at)
		if err != nil {
			return 0, h.t.fail("map the "+h.file+" of", h.id, err)
		}
		if (e.Kind == block.Data) == (whence == seekData) {
			return uint64(at), 0
		}
		at = e.End()
	}
	if whence == seekHole {
		return uint64(size), 0
	}
	return 0, syscall.ENXIO
}

// fail turns an error into its number, and into a line in the log where the
// number alone would leave the operator in the dark.
func (t *Tree) fail(doing, id string, err error) syscall.Errno {
	errno := toErrno(err)
	if errno == syscall.EIO || errno == syscall.ETIMEDOUT {
		t.log.Error("fusefs: cannot "+doing+" an image", "image", id, "err", err)
	}
	return errno
}

// closed takes the error of a Reader's Close, which no caller waits for.
func (t *Tree) closed(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		t.log.Warn("fusefs: closing an image", "err", err)
	}
}
