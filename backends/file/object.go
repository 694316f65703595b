package file

import (
	"context"
	"fmt"
	"io"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

// An object is an open object. A read is one pread into the caller's bytes.
type object struct {
	f    localfs.File
	size int64
	key  string
}

func (o *object) Size() int64 { return o.size }

func (o *object) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := block.CheckRange(off, int64(len(p)), o.size); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := o.f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		err = fmt.Errorf("the file has been cut since it was opened: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("file: read %s at %d: %w", o.key, off, err)
}

// Extent asks the file system for its holes. They are Zero, not Absent: an
// object is complete, nothing lies beneath it.
func (o *object) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := ctx.Err(); err != nil {
		return block.Extent{}, err
	}
	length, hole, err := localfs.Run(o.f, off, n)
	if err != nil {
		return block.Extent{}, fmt.Errorf("file: holes of %s at %d: %w", o.key, off, err)
	}
	e := block.Extent{Off: off, Len: length, Kind: block.Data}
	if hole {
		e.Kind = block.Zero
	}
	return e, nil
}

// Place names the file: it is the object, and nobody writes to it any more.
func (o *object) Place(_ context.Context, off, n int64) (block.Place, bool) {
	f, ok := localfs.DescriptorOf(o.f)
	return block.Place{File: f, Off: off, Len: n}, ok
}

// Prefetch has the kernel read ahead.
func (o *object) Prefetch(ctx context.Context, off, n int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return localfs.Fetch(o.f, off, n)
}

func (o *object) Close() error {
	if err := o.f.Close(); err != nil {
		return fmt.Errorf("file: close %s: %w", o.key, err)
	}
	return nil
}
