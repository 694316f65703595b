package localfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

func create(t *testing.T, name string) localfs.File {
	t.Helper()
	f, err := localfs.OS().Open(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestHoles(t *testing.T) {
	f := create(t, filepath.Join(t.TempDir(), "f"))
	data := bytes.Repeat([]byte{1}, 1<<20)
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(3 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	localfs.Push(f, 0, 1<<20)
	if err := localfs.Punch(f, 256<<10, 256<<10); err != nil {
		t.Fatal(err)
	}
	if n, err := localfs.Size(f); n != 3<<20 || err != nil {
		t.Errorf("Size = %d, %v", n, err)
	}
	clear(data[256<<10 : 512<<10])
	got := make([]byte, 1<<20)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("other bytes after Punch, %v", err)
	}
	if _, hole, err := localfs.Run(f, 0, 1); hole || err != nil {
		t.Errorf("Run(0) = hole %v, %v", hole, err)
	}
	// A file system without holes says that all is data; one that has them
	// must not say so of data.
	for off := int64(0); off < 3<<20; {
		n, hole, err := localfs.Run(f, off, 3<<20-off)
		if err != nil || n < 1 || off+n > 3<<20 {
			t.Fatalf("Run(%d) = %d, %v, %v", off, n, hole, err)
		}
		inData := off < 256<<10 || off >= 512<<10 && off < 1<<20
		if hole && inData {
			t.Errorf("Run(%d) = a hole of %d over data", off, n)
		}
		off += n
	}
}

// plain hides every ability of a File.
type plain struct{ f localfs.File }

func (p plain) ReadAt(b []byte, off int64) (int, error)  { return p.f.ReadAt(b, off) }
func (p plain) WriteAt(b []byte, off int64) (int, error) { return p.f.WriteAt(b, off) }
func (p plain) Truncate(n int64) error                   { return p.f.Truncate(n) }
func (p plain) Sync() error                              { return p.f.Sync() }
func (p plain) Close() error                             { return p.f.Close() }

func TestWithoutAbilities(t *testing.T) {
	f := create(t, filepath.Join(t.TempDir(), "f"))
	for _, n := range []int64{0, 1, 2, 3, 4097, 100_000, 1 << 33} {
		if err := f.Truncate(n); err != nil {
			t.Fatal(err)
		}
		if got, err := localfs.Size(plain{f}); got != n || err != nil {
			t.Errorf("Size = %d, %v, want %d", got, err, n)
		}
	}
	if err := f.Truncate(100_000); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{9}, 100_000)
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := localfs.Punch(plain{f}, 10, 1<<40); err != nil {
		t.Fatal(err)
	}
	clear(want[10:])
	got := make([]byte, 100_001)
	if n, err := f.ReadAt(got, 0); n != 100_000 || err != io.EOF || !bytes.Equal(got[:n], want) {
		t.Errorf("Punch without the ability: %d bytes, %v", n, err)
	}
	if n, hole, err := localfs.Run(plain{f}, 0, 77); n != 77 || hole || err != nil {
		t.Errorf("Run without the ability = %d, %v, %v", n, hole, err)
	}
}

func TestNames(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b", "c")
	for range 2 {
		if err := localfs.MkdirAll(localfs.OS(), deep); err != nil {
			t.Fatal(err)
		}
	}
	one, two := filepath.Join(deep, "one"), filepath.Join(dir, "two")
	create(t, one)
	create(t, two)
	if err := localfs.RenameNew(localfs.OS(), one, two); !errors.Is(err, fs.ErrExist) {
		t.Errorf("RenameNew over a file = %v, want fs.ErrExist", err)
	}
	if err := localfs.RenameNew(localfs.OS(), one, two+"-new"); err != nil {
		t.Error(err)
	}
	if err := localfs.RenameNew(localfs.OS(), one, two+"-newer"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("RenameNew of nothing = %v, want fs.ErrNotExist", err)
	}
	if err := localfs.MkdirAll(localfs.OS(), filepath.Join(two, "x")); err == nil {
		t.Error("MkdirAll beneath a file worked")
	}
	if err := localfs.MkdirAll(localfs.OS(), two); err == nil {
		t.Error("MkdirAll over a file worked")
	}
	if err := localfs.OS().SyncDir(dir); err != nil {
		t.Error(err)
	}
}

// spaceFS has as much space as it says.
type spaceFS struct {
	localfs.FS
	free int64
}

func (s *spaceFS) Space(string) (int64, int64, error) { return 1000, s.free, nil }

func TestGuard(t *testing.T) {
	disk := &spaceFS{free: 100}
	g := localfs.NewGuardFS(disk, "dir", 40)
	steps := []struct {
		free, take int64
		full       bool
	}{
		{100, 60, false}, // down to the reserve
		{40, 1, true},
		{39, 1, true},
		{100, 61, true}, // refused at once, and asks again
		{140, 70, false},
		{60, 31, true}, // 30 left of the last answer: asks, and 20 are left
		{60, 20, false},
		{0, 0, false},
		{0, -5, false},
	}
	for i, s := range steps {
		disk.free = s.free
		err := g.Take(s.take)
		if errors.Is(err, syscall.ENOSPC) != s.full || (err != nil) != s.full {
			t.Errorf("step %d: Take(%d) with %d free = %v, want full = %v", i, s.take, s.free, err, s.full)
		}
	}
	if err := localfs.NewGuard(t.TempDir(), 0).Take(1); err != nil {
		t.Errorf("Take(1) of a real disk = %v", err)
	}
	if err := localfs.NewGuard(filepath.Join(t.TempDir(), "no"), 0).Take(1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Take in a folder that is not there = %v", err)
	}
}

func BenchmarkGuard(b *testing.B) {
	g := localfs.NewGuard(b.TempDir(), 0)
	for b.Loop() {
		if err := g.Take(1); err != nil {
			b.Fatal(err)
		}
	}
}

func TestAllocate(t *testing.T) {
	f := create(t, filepath.Join(t.TempDir(), "f"))
	want := bytes.Repeat([]byte{7}, 1<<20)
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	for _, g := range []localfs.File{f, plain{f}} {
		if err := localfs.Allocate(g, 100, 300_000); err != nil {
			t.Fatal(err)
		}
		if err := localfs.Allocate(g, 5, 0); err != nil {
			t.Fatal(err)
		}
		clear(want[100:300_100])
		got := make([]byte, 1<<20)
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("other bytes after Allocate, %v", err)
		}
		if n, err := localfs.Size(f); n != 1<<20 || err != nil {
			t.Errorf("Size = %d, %v", n, err)
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte{7}, 300_000), 100); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLockImage(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	f := create(t, name)
	if err := localfs.LockImage(plain{f}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("LockImage without the ability = %v", err)
	}
	if err := localfs.LockImage(f); err != nil {
		t.Fatal(err)
	}
	again := func() localfs.File {
		g, err := localfs.OS().Open(name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Close() })
		return g
	}
	second := again()
	if err := localfs.LockImage(second); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("LockImage of a locked file = %v", err)
	}
	// Opening and closing it elsewhere in the process does not end the lock,
	// and neither does the try that failed stay.
	if err := again().Close(); err != nil {
		t.Fatal(err)
	}
	if err := localfs.LockImage(f); err != nil {
		t.Errorf("LockImage of one's own = %v", err)
	}
	if err := localfs.LockImage(second); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("LockImage of a locked file = %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := localfs.LockImage(second); err != nil {
		t.Errorf("LockImage after the other was closed = %v", err)
	}
}
