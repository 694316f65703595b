package delta

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/localfs"
)

// onDisk is a Config on a real disk that knows locks.
func onDisk(t *testing.T) Config {
	t.Helper()
	cfg := Config{Path: filepath.Join(t.TempDir(), "a.qcow2"), Size: 10 << 20}
	f, err := localfs.OS().Open(cfg.Path+".probe", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := localfs.LockImage(f); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestOpenTwice: two Deltas of one file would destroy it.
func TestOpenTwice(t *testing.T) {
	cfg := onDisk(t)
	d := mustCreate(t, cfg)
	for range 2 {
		_, err := Open(t.Context(), cfg)
		if !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), cfg.Path) {
			t.Fatal("a second Delta of one file: ", err)
		}
		if err := d.WriteAt(t.Context(), []byte("still ours"), 0); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		d = mustOpen(t, cfg)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Open(short, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Error("waited longer than asked to: ", err)
	}
	// One that ends a moment later is waited for.
	time.AfterFunc(50*time.Millisecond, func() { d.Close() })
	d = mustOpen(t, cfg)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSweep: what a crashed Create left goes, what is being made stays.
func TestSweep(t *testing.T) {
	cfg := onDisk(t)
	dir := filepath.Dir(cfg.Path)
	left := filepath.Join(dir, "left.qcow2")
	for _, name := range []string{left + ".new", left, filepath.Join(dir, "busy.new")} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	busy, err := localfs.OS().Open(filepath.Join(dir, "busy.new"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := localfs.LockImage(busy); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(nil, dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{left: true, left + ".new": false, filepath.Join(dir, "busy.new"): true} {
		if _, err := os.Stat(name); (err == nil) != want {
			t.Errorf("%s: %v, want it to be there: %v", name, err, want)
		}
	}
	// Create itself is not stopped by what is left, but by who is at it.
	if err := os.WriteFile(cfg.Path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := mustCreate(t, cfg)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	cfg.Path = filepath.Join(dir, "busy")
	if _, err := Create(t.Context(), cfg); !errors.Is(err, syscall.EBUSY) {
		t.Error("made a file that somebody else is making: ", err)
	}
	if err := Sweep(nil, filepath.Join(dir, "no")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestReserve: ZeroAllocated takes its space at once, and the disk is told.
func TestReserve(t *testing.T) {
	cfg := onDisk(t)
	cfg.Size = 64 << 20
	d := mustCreate(t, cfg)
	defer d.Close()
	if err := d.WriteAt(t.Context(), []byte("not zero"), 5<<20); err != nil {
		t.Fatal(err)
	}
	begin := d.Usage()
	if err := d.Zero(t.Context(), 1<<20, 32<<20, block.ZeroAllocated); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := d.Usage() - begin; n < 32<<20-4096 {
		t.Errorf("%d bytes more in use, of %d that were asked for", n, 32<<20)
	}
	info, err := os.Stat(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	if n := info.Sys().(*syscall.Stat_t).Blocks * 512; n < 32<<20 {
		t.Errorf("the file takes %d bytes", n)
	}
	want := make([]byte, cfg.Size)
	if err := same(t.Context(), d, want); err != nil {
		t.Error(err)
	}
	if e, err := d.Extent(t.Context(), 1<<20, 32<<20); err != nil || e.Kind != block.Data || e.Len != 32<<20 {
		t.Error(e, err)
	}
}

// TestCannotLock: where there are no locks, overlays work all the same.
func TestCannotLock(t *testing.T) {
	cfg := Config{FS: newFS(t), Size: 1 << 20}
	if err := mustCreate(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, cfg).Close(); err != nil {
		t.Fatal(err)
	}
}
