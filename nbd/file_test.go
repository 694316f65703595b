package nbd_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"golang.org/x/sys/unix"
)

// A fileDisk is a sparse file as a disk.
type fileDisk struct {
	f    *os.File
	size int64
}

// newFileDisk makes one of size bytes, all of it a hole.
func newFileDisk(t testing.TB, size int64) *fileDisk {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return &fileDisk{f, size}
}

func (d *fileDisk) Size() int64 { return d.size }

func (d *fileDisk) ReadAt(_ context.Context, p []byte, off int64) error {
	_, err := d.f.ReadAt(p, off)
	return err
}

func (d *fileDisk) WriteAt(_ context.Context, p []byte, off int64) error {
	_, err := d.f.WriteAt(p, off)
	return err
}

func (d *fileDisk) Flush(context.Context) error { return unix.Fdatasync(int(d.f.Fd())) }

func (d *fileDisk) Zero(ctx context.Context, off, n int64, mode block.ZeroMode) error {
	if err := block.RefuseSlow(mode); err != nil {
		return err
	}
	if mode == block.ZeroAllocated || n == 0 {
		return d.WriteAt(ctx, make([]byte, n), off)
	}
	return unix.Fallocate(int(d.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (d *fileDisk) Discard(ctx context.Context, off, n int64) error {
	if n == 0 {
		return nil
	}
	return d.Zero(ctx, off, n, block.ZeroAny)
}

func (d *fileDisk) Extent(_ context.Context, off, n int64) (block.Extent, error) {
	fd := int(d.f.Fd())
	data, err := unix.Seek(fd, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		data, err = d.size, nil
	}
	if err != nil {
		return block.Extent{}, err
	}
	if data > off {
		return block.Extent{Off: off, Len: min(data-off, n), Kind: block.Zero}, nil
	}
	hole, err := unix.Seek(fd, off, unix.SEEK_HOLE)
	return block.Extent{Off: off, Len: min(hole-off, n), Kind: block.Data}, err
}
