package file_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/seed-478a8fee/platter/backends"
	"github.com/seed-478a8fee/platter/backends/file"
	"github.com/seed-478a8fee/platter/backends/localfs"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// never is a moment after every crash.
const never = int(^uint(0) >> 1)

// A life is what was done with one key, and when, in operations of the disk.
type life struct {
	key        string
	data       []byte
	committing int // when Commit was called
	committed  int // when it had returned
	deleting   int
	deleted    int
}

// allowed says what a crash at the moment may leave of it.
func (l life) allowed(moment int) (whole, absent bool) {
	whole = moment >= l.committing && moment < l.deleted
	absent = moment < l.committed || moment >= l.deleting
	return whole, absent
}

// busy creates, aborts and deletes on the disk and remembers it.
func busy(t *testing.T, disk *crashfs.FS, fsys localfs.FS, rng *rand.Rand) []life {
	ctx := t.Context()
	s := open(t, file.Config{Dir: "/data/images", FS: fsys})
	var lives []life
	for i := range 30 {
		l := life{
			key:        fmt.Sprintf("%d/upload-%d", rng.IntN(8), i),
			data:       storetest.Bytes(uint64(i), rng.IntN(1<<(4+rng.IntN(14)))),
			committing: never, committed: never, deleting: never, deleted: never,
		}
		w, err := s.Create(ctx, l.key, -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(l.data); err != nil {
			t.Fatal(err)
		}
		if rng.IntN(5) > 0 {
			l.committing = disk.Len()
			if err := w.Commit(ctx); err != nil {
				t.Fatal(err)
			}
			l.committed = disk.Len()
		}
		w.Abort()
		lives = append(lives, l)
		if victim := &lives[rng.IntN(len(lives))]; rng.IntN(3) == 0 && victim.deleting == never {
			victim.deleting = disk.Len()
			if err := s.Delete(ctx, victim.key); err != nil {
				t.Fatal(err)
			}
			victim.deleted = disk.Len()
		}
	}
	return lives
}

// survived tests a disk after a crash at the moment.
func survived(ctx context.Context, disk localfs.FS, moment int, lives []life) error {
	s, err := file.Open(file.Config{Dir: "/data/images", FS: disk})
	if err != nil {
		return err
	}
	there := make(map[string]bool)
	for _, l := range lives {
		whole, absent := l.allowed(moment)
		err := storetest.Want(ctx, s, l.key, l.data)
		switch {
		case err == nil && whole:
			there[l.key] = true
		case errors.Is(err, fs.ErrNotExist) && absent:
		default:
			return fmt.Errorf("%+v after a crash at %d: %v, may be whole = %v, may be absent = %v",
				l.key, moment, err, whole, absent)
		}
	}
	return sweep(ctx, s, there)
}

// sweep tests that the listing is what is there, and that what the crash left
// can be freed without harm.
func sweep(ctx context.Context, s *file.Store, there map[string]bool) error {
	for range 2 {
		listed := 0
		for e, err := range s.List(ctx) {
			if err != nil {
				return err
			}
			if e.Partial {
				if err := s.Delete(ctx, e.Key); err != nil {
					return err
				}
				continue
			}
			if listed++; !there[e.Key] {
				return fmt.Errorf("List shows %s, which should not be there", e.Key)
			}
		}
		if listed != len(there) {
			return fmt.Errorf("List shows %d objects of %d", listed, len(there))
		}
	}
	for e := range s.List(ctx) {
		if e.Partial {
			return fmt.Errorf("%s is still there after Delete", e.Key)
		}
	}
	if err := storetest.Put(ctx, s, "3/new", -1, []byte("goes on")); err != nil {
		return fmt.Errorf("after the crash: %w", err)
	}
	return storetest.Want(ctx, s, "3/new", []byte("goes on"))
}

func TestPowerLoss(t *testing.T) {
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 1))
		disk := crashfs.New()
		lives := busy(t, disk, disk, rng)
		for moment, state := range disk.Crashes(rng, 150) {
			if err := survived(t.Context(), state, moment, lives); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}

// TestPowerLossTwice crashes during the recovery from a crash.
func TestPowerLossTwice(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 1))
	disk := crashfs.New()
	lives := busy(t, disk, disk, rng)
	for moment, state := range disk.Crashes(rng, 20) {
		s := open(t, file.Config{Dir: "/data/images", FS: state})
		for e := range s.List(t.Context()) {
			if e.Partial {
				if err := s.Delete(t.Context(), e.Key); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, again := range state.Crashes(rng, 10) {
			if err := survived(t.Context(), again, moment, lives); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// lazyFS leaves out one of the syncs that the store needs.
type lazyFS struct {
	*crashfs.FS
	files bool
}

func (l lazyFS) Open(name string, flag int, mode fs.FileMode) (localfs.File, error) {
	f, err := l.FS.Open(name, flag, mode)
	if err == nil && l.files && flag&os.O_CREATE != 0 {
		return lazyFile{f}, nil
	}
	return f, err
}

func (l lazyFS) SyncDir(name string) error {
	if l.files {
		return l.FS.SyncDir(name)
	}
	return nil
}

type lazyFile struct{ localfs.File }

func (lazyFile) Sync() error { return nil }

// TestPowerLossIsFound tests the test: without either kind of sync it fails.
func TestPowerLossIsFound(t *testing.T) {
	for _, files := range []bool{true, false} {
		rng := rand.New(rand.NewPCG(5, 1))
		disk := crashfs.New()
		lives := busy(t, disk, lazyFS{disk, files}, rng)
		found := 0
		for moment, state := range disk.Crashes(rng, 100) {
			if survived(t.Context(), state, moment, lives) != nil {
				found++
			}
		}
		if found == 0 {
			t.Errorf("without syncing files = %v, all states look well", files)
		}
	}
}

var _ backends.Store = (*file.Store)(nil)
