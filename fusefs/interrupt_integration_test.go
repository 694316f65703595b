//go:build integration

package fusefs

import (
	"context"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-478a8fee/platter/backends/block"
)

// A slowShelf is a library behind a store that takes its time.
type slowShelf struct{ *shelf }

func wait(ctx context.Context) error {
	select {
	case <-time.After(100 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s slowShelf) Open(ctx context.Context, id string, file File) (block.ReadCloser, error) {
	if err := wait(ctx); err != nil {
		return nil, err
	}
	r, err := s.shelf.Open(ctx, id, file)
	return slowReader{r}, err
}

type slowReader struct{ block.ReadCloser }

func (r slowReader) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := wait(ctx); err != nil {
		return err
	}
	return r.ReadCloser.ReadAt(ctx, p, off)
}

func (r slowReader) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	if err := wait(ctx); err != nil {
		return block.Extent{}, err
	}
	return block.ExtentAt(ctx, r.ReadCloser, off, n)
}

// TestSignals reads a file while signals come: none of the calls may tell.
func TestSignals(t *testing.T) {
	lib, images := shelfOf(t, "debian")
	_, dir := mounted(t, slowShelf{lib})
	path := filepath.Join(dir, "by-id", images[0].ID, "disk.raw")

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, tid, over := unix.Getpid(), unix.Gettid(), make(chan bool)
	defer func() { over <- true }()
	go func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(5 * time.Millisecond):
				unix.Tgkill(pid, tid, unix.SIGURG) // which Go takes no notice of
			}
		}
	}()
	// Not package os, which tries again after EINTR.
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		t.Errorf("stat: %v", err)
	}
	if _, err := syscall.Seek(fd, 0, seekData); err != nil {
		t.Errorf("seek: %v", err)
	}
	p := make([]byte, 64<<10)
	if n, err := syscall.Pread(fd, p, 0); n != len(p) || err != nil {
		t.Errorf("read: %d bytes, %v", n, err)
	}
}
