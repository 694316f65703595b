package disk_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/disk"
	"github.com/seed-478a8fee/platter/backends/file"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// files is a store of files that counts what is open. What is read can be made
// to fail.
type files struct {
	*file.Store
	opened, open atomic.Int64
	broken       atomic.Bool
}

// aFile is an open file that keeps what a Placer can do.
type aFile struct {
	block.ReadCloser
	s *files
}

func (f *files) Open(ctx context.Context, key string) (block.ReadCloser, error) {
	r, err := f.Store.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	f.opened.Add(1)
	f.open.Add(1)
	return &aFile{r, f}, nil
}

func (a *aFile) ReadAt(ctx context.Context, p []byte, off int64) error {
	if a.s.broken.Load() {
		return errors.New("broken")
	}
	return a.ReadCloser.ReadAt(ctx, p, off)
}

func (a *aFile) Place(ctx context.Context, off, n int64) (block.Place, bool) {
	return block.PlaceAt(ctx, a.ReadCloser, off, n)
}

func (a *aFile) Close() error {
	a.s.open.Add(-1)
	return a.ReadCloser.Close()
}

func newFiles(t testing.TB, objects ...string) *files {
	t.Helper()
	s, err := file.Open(file.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range objects {
		if err := storetest.Put(t.Context(), s, key, -1, []byte("disk "+key)); err != nil {
			t.Fatal(err)
		}
	}
	return &files{Store: s}
}

// visit opens a disk, reads it and closes it.
func visit(t testing.TB, o *disk.Opener, s *files, key string) {
	t.Helper()
	v, err := o.Open(t.Context(), disk.Spec{Key: key, Store: s, Object: key})
	if err != nil {
		t.Error(err)
		return
	}
	p := make([]byte, v.Size())
	if err := v.ReadAt(t.Context(), p, 0); err != nil && !s.broken.Load() {
		t.Error(err)
	}
	if want := "disk " + key; string(p) != want && !s.broken.Load() {
		t.Errorf("read %q, want %q", p, want)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
}

// expect checks how often files were opened, and how many are open.
func expect(t testing.TB, s *files, opened, open int64) {
	t.Helper()
	if got := s.opened.Load(); got != opened {
		t.Errorf("opened %d times, want %d", got, opened)
	}
	if got := s.open.Load(); got != open {
		t.Errorf("%d are open, want %d", got, open)
	}
}

// TestKept: who comes soon after another gets what that one had open; later it
// is closed; and it is no user's.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFiles(t, "a")
		o := disk.New(disk.Config{Keep: time.Second})
		for range 5 {
			visit(t, o, s, "a")
			time.Sleep(900 * time.Millisecond)
		}
		expect(t, s, 1, 1)
		if l := o.List(); len(l) != 0 {
			t.Errorf("List() = %v", l)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		expect(t, s, 1, 0)
		// In use it stays open for long, and is closed then: it is old.
		v, err := o.Open(t.Context(), disk.Spec{Key: "a", Store: s, Object: "a"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		visit(t, o, s, "a")
		expect(t, s, 2, 1)
		if err := v.Close(); err != nil {
			t.Error(err)
		}
		expect(t, s, 2, 0)
		// However often it is opened, it is opened anew now and then.
		for range 100 {
			visit(t, o, s, "a")
			time.Sleep(500 * time.Millisecond)
		}
		if n := s.opened.Load(); n < 5 || n > 10 {
			t.Errorf("opened %d times in 50 s, want once in 10 s", n-2)
		}
		visit(t, o, s, "a")
		if err := o.Close(); err != nil {
			t.Error(err)
		}
		expect(t, s, s.opened.Load(), 0)
		time.Sleep(2 * time.Second) // the timer finds nothing to do
	})
}

// TestKeptBroken: a disk that could not be read is opened anew for the next.
func TestKeptBroken(t *testing.T) {
	s := newFiles(t, "a")
	o := disk.New(disk.Config{Keep: time.Hour})
	s.broken.Store(true)
	visit(t, o, s, "a")
	expect(t, s, 1, 0)
	s.broken.Store(false)
	visit(t, o, s, "a")
	expect(t, s, 2, 1)
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	expect(t, s, 2, 0)
}

// TestKeptOther: what is only kept is in nobody's way.
func TestKeptOther(t *testing.T) {
	s := newFiles(t, "a", "b")
	o := disk.New(disk.Config{Keep: time.Hour})
	visit(t, o, s, "a")
	v, err := o.Open(t.Context(), disk.Spec{Key: "a", Store: s, Object: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Open(t.Context(), disk.Spec{Key: "a", Store: s, Object: "a"}); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), `"b"`) {
		t.Errorf("Open of another disk with the key of one in use = %v", err)
	}
	if err := errors.Join(s.Delete(t.Context(), "a"), s.Delete(t.Context(), "b"), v.Close(), o.Close()); err != nil {
		t.Error(err)
	}
	expect(t, s, 2, 0)
	if _, err := o.Open(t.Context(), disk.Spec{Key: "a", Store: s, Object: "a"}); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Open after Close = %v", err)
	}
}

// TestDrop: what is deleted is not kept any more, and what is in use stays.
func TestDrop(t *testing.T) {
	s := newFiles(t, "a", "b", "c")
	o := disk.New(disk.Config{Keep: time.Hour})
	for _, name := range []string{"a", "b", "c"} {
		visit(t, o, s, name)
	}
	v, err := o.Open(t.Context(), disk.Spec{Key: "b", Store: s, Object: "b"})
	if err != nil {
		t.Fatal(err)
	}
	o.Drop(newFiles(t), "c") // another store
	o.Drop(s, "a")
	o.Drop(s, "b")
	o.Drop(s, "none")
	expect(t, s, 3, 2)
	if err := v.ReadAt(t.Context(), make([]byte, 6), 0); err != nil {
		t.Error(err)
	}
	if err := errors.Join(v.Close(), o.Close()); err != nil {
		t.Error(err)
	}
	expect(t, s, 3, 0)
}

// TestKeptMost: however many are opened, few stay open, and those are the last.
func TestKeptMost(t *testing.T) {
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprint("n", i))
	}
	s := newFiles(t, names...)
	o := disk.New(disk.Config{Keep: time.Hour})
	for _, name := range names {
		visit(t, o, s, name)
	}
	expect(t, s, 100, 32)
	for _, name := range names[68:] {
		visit(t, o, s, name)
	}
	expect(t, s, 100, 32)
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	expect(t, s, 100, 0)
}

// TestKeptFar: what is no file here is closed with its last user.
func TestKeptFar(t *testing.T) {
	s := newStore(t, map[string][]byte{"a": storetest.Bytes(1, 1000)})
	o := disk.New(disk.Config{Keep: time.Hour})
	open(t, o, disk.Spec{Key: "a", Store: s, Object: "a"}).Close()
	if n := s.open.Load(); n != 0 {
		t.Errorf("%d are open", n)
	}
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

// TestKeptRace: users come and go while kept disks are closed.
func TestKeptRace(t *testing.T) {
	s := newFiles(t, "a", "b", "c")
	o := disk.New(disk.Config{Keep: time.Microsecond})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 300 {
				visit(t, o, s, string(rune('a'+i%3)))
			}
		})
	}
	wg.Wait()
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	expect(t, s, s.opened.Load(), 0)
}
