package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/file"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

func open(t testing.TB, cfg file.Config) *file.Store {
	t.Helper()
	s, err := file.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	storetest.Test(t, func(t *testing.T) backends.Store {
		return open(t, file.Config{Dir: filepath.Join(t.TempDir(), "deep", "images")})
	})
}

func TestStoreInMemory(t *testing.T) {
	storetest.Test(t, func(t *testing.T) backends.Store {
		return open(t, file.Config{Dir: "images", FS: crashfs.New()})
	})
}

func TestFullDisk(t *testing.T) {
	disk := crashfs.New()
	disk.SetCapacity(2 << 20)
	storetest.TestFull(t, open(t, file.Config{Dir: "/images", FS: disk}), 2<<20)
}

// quota is a Guard that counts what it gave.
type quota int64

func (q *quota) Take(n int64) error {
	if *q -= quota(n); *q < 0 {
		return syscall.ENOSPC
	}
	return nil
}

func TestGuard(t *testing.T) {
	left := quota(1 << 20)
	s := open(t, file.Config{Dir: t.TempDir(), Guard: &left})
	if err := storetest.Put(t.Context(), s, "zeros", -1, make([]byte, 8<<20)); err != nil {
		t.Errorf("zeros, which take no space: %v", err)
	}
	if left != 1<<20 {
		t.Errorf("the guard gave %d bytes for zeros", 1<<20-left)
	}
	if err := storetest.Put(t.Context(), s, "data", -1, storetest.Bytes(1, 2<<20)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("more than the guard gives = %v, want ENOSPC", err)
	}
}

func TestSparse(t *testing.T) {
	disk := crashfs.New()
	s := open(t, file.Config{Dir: "/images", FS: disk})
	data := make([]byte, 4<<20+5)
	copy(data[1<<20:], bytes.Repeat([]byte{1}, 128<<10))
	if err := storetest.Put(t.Context(), s, "k", -1, data); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := block.Stored(t.Context(), r); n != 128<<10 || err != nil {
		t.Errorf("%d bytes stored, %v, want %d", n, err, 128<<10)
	}
}

func TestPartial(t *testing.T) {
	dir := t.TempDir()
	crashed := open(t, file.Config{Dir: dir})
	w, err := crashed.Create(t.Context(), "id/upload", -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("a crash follows")); err != nil {
		t.Fatal(err)
	}
	// Another Store of the folder knows nothing of the writer, as after a crash.
	storetest.TestPartial(t, open(t, file.Config{Dir: dir}), "id/upload")
	w.Abort()
}

// TestLive: what is being written is not left over, and Delete of its name
// does not disturb it.
func TestLive(t *testing.T) {
	dir := t.TempDir()
	s := open(t, file.Config{Dir: dir})
	w, err := s.Create(t.Context(), "a/b", -1)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range s.List(t.Context()) {
		t.Errorf("List shows %+v, %v", e, err)
	}
	for e := range open(t, file.Config{Dir: dir}).List(t.Context()) {
		if err := s.Delete(t.Context(), e.Key); err != nil {
			t.Error(err)
		}
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Errorf("Commit: %v", err)
	}
	if err := storetest.Want(t.Context(), s, "a/b", nil); err != nil {
		t.Error(err)
	}
}

// TestForeign: what is not ours is neither listed nor deleted.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	s := open(t, file.Config{Dir: dir})
	foreign := []string{"lost+found/x", "name with spaces", "+partial/not-ours", "+partial/a/+NOT"}
	for _, name := range foreign {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for e, err := range s.List(t.Context()) {
		t.Errorf("List shows %+v, %v", e, err)
	}
	for _, key := range []string{"lost", "+partial", "a+NOT", "a+../x", "+x", "a+", "a+b+c"} {
		_ = s.Delete(t.Context(), key) // refused, or nothing to remove
	}
	for _, name := range foreign {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestTidy: nothing is left of objects that came and went.
func TestTidy(t *testing.T) {
	dir := t.TempDir()
	s := open(t, file.Config{Dir: dir})
	for i := range 3 {
		key := fmt.Sprintf("a/%d/c", i)
		if err := storetest.Put(t.Context(), s, key, -1, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		left = append(left, strings.TrimPrefix(name, dir))
		return err
	})
	if err != nil || len(left) != 2 {
		t.Errorf("left over: %q, %v, want the folder and +partial", left, err)
	}
}

// TestSyncFails: a sync that failed is not tried again, and nothing becomes
// visible, whichever sync it is.
func TestSyncFails(t *testing.T) {
	cases := []struct {
		op string
		n  int // which one of Commit
	}{{"sync", 0}, {"rename", 0}, {"syncdir", 0}, {"syncdir", 1}}
	for _, c := range cases {
		t.Run(fmt.Sprint(c.op, c.n), func(t *testing.T) { syncFails(t, c.op, c.n) })
	}
}

func syncFails(t *testing.T, failing string, n int) {
	disk := crashfs.New()
	s := open(t, file.Config{Dir: "/images", FS: disk})
	w, err := s.Create(t.Context(), "a/b", -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("data")); err != nil {
		t.Fatal(err)
	}
	disk.SetFault(func(op, _ string) error {
		if op != failing {
			return nil
		}
		n--
		if n != -1 {
			return nil
		}
		return syscall.EIO
	})
	for range 2 {
		if err := w.Commit(t.Context()); !errors.Is(err, syscall.EIO) {
			t.Errorf("Commit = %v, want EIO", err)
		}
	}
	w.Abort()
	if _, err := s.Open(t.Context(), "a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open = %v, want fs.ErrNotExist", err)
	}
	for e, err := range s.List(t.Context()) {
		t.Errorf("List shows %+v, %v", e, err)
	}
}

// TestSyncsFew: what one Commit costs is known.
func TestSyncsFew(t *testing.T) {
	disk := crashfs.New()
	s := open(t, file.Config{Dir: "/images", FS: disk})
	syncs := 0
	disk.SetFault(func(op, _ string) error {
		if op == "sync" || op == "syncdir" {
			syncs++
		}
		return nil
	})
	if err := storetest.Put(t.Context(), s, "id/upload", -1, []byte("data")); err != nil {
		t.Fatal(err)
	}
	if syncs != 3 {
		t.Errorf("%d syncs for one object, want 3: the file, id, and the folder of the store", syncs)
	}
}

func TestCutFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, file.Config{Dir: dir})
	if err := storetest.Put(t.Context(), s, "k", -1, storetest.Bytes(1, 10000)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Chmod(filepath.Join(dir, "k"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "k"), 5000); err != nil {
		t.Fatal(err)
	}
	if err := r.ReadAt(t.Context(), make([]byte, 100), 4950); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read of a file that was cut = %v, want io.ErrUnexpectedEOF", err)
	}
	if e, err := block.ExtentAt(t.Context(), r, 5000, 5000); err != nil || e.Kind != block.Data {
		t.Errorf("what is gone of a file is told as %v, %v; nobody would read it", e.Kind, err)
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	s := open(t, file.Config{Dir: t.TempDir()})
	if err := storetest.Put(t.Context(), s, "k", -1, storetest.Bytes(1, 1<<20)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, p := t.Context(), make([]byte, 4096)
	got := testing.AllocsPerRun(100, func() {
		if err := r.ReadAt(ctx, p, 8192); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("a read allocates %v times", got)
	}
}

func TestBadFolder(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", name, filepath.Join(name, "x")} {
		if _, err := file.Open(file.Config{Dir: dir}); err == nil {
			t.Errorf("Open in %q worked", dir)
		}
	}
}

var _ localfs.Guard = (*quota)(nil)

func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, func(b *testing.B) backends.Store {
		return open(b, file.Config{Dir: b.TempDir()})
	})
}
