package delta

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
)

// meanGuard refuses after a while.
type meanGuard struct{ left atomic.Int64 }

func (g *meanGuard) Take(n int64) error {
	if g.left.Add(-n) < 0 {
		g.left.Add(n)
		return fmt.Errorf("guard: %w", syscall.ENOSPC)
	}
	return nil
}

// TestFull fills the disk, the quota or the guard's part of it from several
// goroutines, looks whether all that was acknowledged is there, makes room
// and goes on.
func TestFull(t *testing.T) {
	guard := new(meanGuard)
	guard.left.Store(6 << 20)
	for name, cfg := range map[string]Config{
		"quota": {Quota: 6 << 20},
		"guard": {Guard: guard},
		"disk":  {},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := newFS(t)
			cfg.FS, cfg.Size = fsys, 64<<20
			d := mustCreate(t, cfg)
			if name == "disk" {
				fsys.SetCapacity(6 << 20)
			}
			want := make([]byte, cfg.Size)
			fillUp(t, d, want)
			good := func() {
				t.Helper()
				if err := same(t.Context(), d, want); err != nil {
					t.Fatal(err)
				}
				if err := d.Flush(t.Context()); err != nil {
					t.Fatal("flush of a full overlay: ", err)
				}
				if err := sound(fsys, path, 1<<60); err != nil {
					t.Fatal(err)
				}
			}
			good()
			if _, err := d.Snapshot(t.Context(), "no room"); name != "quota" && err == nil {
				t.Log("there was room for a snapshot")
			} else if err != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			good()
			// What is discarded makes room, without anybody flushing.
			guard.left.Store(4 << 20)
			for _, s := range d.Snapshots() {
				if err := d.DeleteSnapshot(t.Context(), s.ID); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Discard(t.Context(), 0, cfg.Size); err != nil {
				t.Fatal(err)
			}
			clear(want)
			if err := d.WriteAt(t.Context(), bytes.Repeat([]byte{1}, 2<<20), 5<<20); err != nil {
				t.Fatal(err)
			}
			copy(want[5<<20:], bytes.Repeat([]byte{1}, 2<<20))
			good()
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if err := sound(fsys, path, 0); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// fillUp writes until there is no space left, and some more.
func fillUp(t *testing.T, d *Delta, want []byte) {
	var wg sync.WaitGroup
	const workers = 4
	part := len(want) / workers
	for i := range workers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			failed := 0
			for n := 0; failed < 20; n++ {
				off := i*part + rng.IntN(part/4096)*4096
				p := bytes.Repeat([]byte{byte(n | 1)}, min(4096*(1+rng.IntN(40)), (i+1)*part-off))
				err := d.WriteAt(context.Background(), p, int64(off))
				if err != nil && !errors.Is(err, syscall.ENOSPC) {
					t.Error(err)
					return
				}
				if err != nil {
					failed++
					if err := d.ReadAt(context.Background(), p, int64(off)); err != nil {
						t.Error("read from a full overlay: ", err)
					}
				}
				copy(want[off:], p)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// TestFaults lets the disk fail at random and looks whether what was
// acknowledged, and the file, are good after opening it again.
func TestFaults(t *testing.T) {
	for seed := range soak(12) {
		rng := rand.New(rand.NewPCG(uint64(seed), 9))
		fsys := newFS(t)
		const size = 4 << 20
		d := mustCreate(t, Config{FS: fsys, Size: size, CacheSize: 1})
		bad := errors.New("the disk is broken")
		var on bool
		fsys.SetFault(func(op, _ string) error {
			if on && rng.IntN(12) == 0 && op != "read" {
				return bad
			}
			return nil
		})
		flushed, now := make([]byte, size), make([]byte, size)
		maybe := map[int][]byte{} // by sector, what it may be besides
		for i := range 60 {
			on = i > 5
			off, n := rng.IntN(size/sector)*sector, rng.IntN(100)*sector
			n = min(n, size-off)
			switch p := bytes.Repeat([]byte{byte(i + 1)}, n); rng.IntN(6) {
			case 0:
				if d.Flush(t.Context()) == nil {
					copy(flushed, now)
					clear(maybe)
				}
			case 1:
				if id, err := d.Snapshot(t.Context(), ""); err == nil {
					_ = d.DeleteSnapshot(t.Context(), id)
				}
			default:
				for s := off; s < off+n; s += sector {
					maybe[s] = append(maybe[s], byte(i+1))
				}
				_ = d.WriteAt(t.Context(), p, int64(off)) // what an error leaves is seen below
			}
			on = false
			if err := d.ReadAt(t.Context(), now, 0); err != nil {
				t.Fatal(err)
			}
			if err := sound(fsys, path, 1<<60); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		_ = d.f.Close()
		lookAfterFaults(t, fsys, flushed, maybe)
	}
}

func lookAfterFaults(t *testing.T, fsys *crashfs.FS, flushed []byte, maybe map[int][]byte) {
	t.Helper()
	d := mustOpen(t, Config{FS: fsys})
	defer d.Close()
	got := make([]byte, len(flushed))
	if err := d.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	for s := 0; s < len(got); s += sector {
		if got[s] != flushed[s] && bytes.IndexByte(maybe[s], got[s]) < 0 {
			t.Fatalf("sector %d is %d, flushed %d, later %v", s/sector, got[s], flushed[s], maybe[s])
		}
	}
	if err := sound(fsys, path, 0); err != nil {
		t.Fatal(err)
	}
}

// TestSyncFails: after a sync that failed nobody knows what the disk has, so
// nothing more is promised; reading goes on.
func TestSyncFails(t *testing.T) {
	fsys := newFS(t)
	d := mustCreate(t, Config{FS: fsys, Size: 1 << 20})
	if err := d.WriteAt(t.Context(), []byte("hello"), 5); err != nil {
		t.Fatal(err)
	}
	bad := errors.New("no")
	fsys.SetFault(func(op, _ string) error {
		if op == "sync" {
			return bad
		}
		return nil
	})
	if err := d.Flush(t.Context()); !errors.Is(err, bad) {
		t.Fatal(err)
	}
	fsys.SetFault(nil)
	if err := d.Flush(t.Context()); !errors.Is(err, bad) {
		t.Fatal("a later flush promised something: ", err)
	}
	if err := d.WriteAt(t.Context(), []byte("hello"), 5); !errors.Is(err, bad) {
		t.Fatal(err)
	}
	p := make([]byte, 5)
	if err := d.ReadAt(t.Context(), p, 5); err != nil || string(p) != "hello" {
		t.Fatal(err, p)
	}
	if err := d.Close(); !errors.Is(err, bad) {
		t.Fatal(err)
	}
	if err := d.ReadAt(t.Context(), p, 5); !errors.Is(err, fs.ErrClosed) {
		t.Fatal(err)
	}
}
