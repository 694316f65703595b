package objectlog

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/objectlog/journal"
)

// TestClean writes over the same disk again and again from several goroutines,
// with readers and snapshots beside them.
func TestClean(t *testing.T) {
	const size, workers = 1 << 20, 4
	r := newRig(t, size)
	r.cfg.SegmentSize = 32 << 10
	r.store.set(2, false)
	l := r.create(t)
	want := make([]byte, size)
	var wg sync.WaitGroup
	for w := range workers {
		part := want[w*size/workers : (w+1)*size/workers]
		rng := rand.New(rand.NewPCG(uint64(w), 3))
		wg.Go(func() {
			for i := range 800 {
				n := 512 * (1 + rng.IntN(16))
				off := rng.IntN((len(part)-n)/512) * 512
				p := fill(n, byte(i+1))
				at := int64(w*size/workers + off)
				if err := l.WriteAt(context.Background(), p, at); err != nil {
					t.Error(err)
					return
				}
				copy(part[off:], p)
				got := make([]byte, n)
				if err := l.ReadAt(context.Background(), got, at); err != nil || !slices.Equal(got, p) {
					t.Errorf("read after write: %v", err)
					return
				}
				if i%100 == 99 {
					time.Sleep(2 * time.Millisecond)
				}
			}
		})
	}
	wg.Go(func() {
		for range 6 {
			snapshotStays(t, l)
		}
	})
	wg.Wait()
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := same(t.Context(), l, want); err != nil {
		t.Fatal(err)
	}
	until(t, "cleaning", func() bool {
		s := l.Stats()
		return s.Stored <= 2*s.Live+8*r.cfg.SegmentSize
	})
	s := l.Stats()
	if s.Cleaned == 0 {
		t.Error("nothing was cleaned")
	}
	if err := same(t.Context(), l, want); err != nil {
		t.Fatal("after cleaning: ", err)
	}
	closeLog(t, l)
	l = r.open(t)
	if err := same(t.Context(), l, want); err != nil {
		t.Fatal("opened again: ", err)
	}
	if now := l.Stats(); now.Live != s.Live {
		t.Errorf("%d bytes live, before %d", now.Live, s.Live)
	}
	closeLog(t, l)
	if err := r.leaks(t.Context()); err != nil {
		t.Error(err)
	}
}

// snapshotStays makes a snapshot and looks at it twice.
func snapshotStays(t *testing.T, l *Log) {
	id, err := l.Snapshot(t.Context(), "x")
	if err != nil {
		t.Error(err)
		return
	}
	s, err := l.OpenSnapshot(t.Context(), id)
	if err != nil {
		t.Error(err)
		return
	}
	first := content(t, s)
	time.Sleep(10 * time.Millisecond)
	l.src.mu.Lock()
	for _, p := range l.src.parts { // so that the store is asked again
		if p.elem != nil {
			l.src.bytes -= int64(len(l.src.lru.Remove(p.elem).(*part).data))
			delete(l.src.parts, p.key)
		}
	}
	l.src.mu.Unlock()
	if err := same(t.Context(), s, first); err != nil {
		t.Errorf("snapshot %s changed: %v", id, err)
	}
	if err := errors.Join(s.Close(), l.DeleteSnapshot(t.Context(), id)); err != nil {
		t.Error(err)
	}
}

// After random writes over all of a disk the maps are no larger than it.
func TestMapsAreBounded(t *testing.T) {
	const size = 2 << 20
	r := newRig(t, size)
	l := r.create(t)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 6000 {
		write(t, l, byte(i), rng.Int64N(size/4096)*4096)
	}
	if err := l.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := l.Stats().Extents; n > 2*size/4096+1<<20/4096 {
		t.Errorf("%d extents for a disk of %d blocks", n, size/4096)
	}
	closeLog(t, l)
}

func TestFullJournal(t *testing.T) {
	for _, full := range []journal.Full{journal.Wait, journal.Fail} {
		r := newRig(t, 8<<20)
		r.cfg.Full = full
		l := r.create(t)
		r.store.set(0, true)
		want := make([]byte, 8<<20)
		var err error
		for i := 0; err == nil; i++ {
			off := i % 100 * 65536
			ctx, stop := t.Context(), context.CancelFunc(func() {})
			if full == journal.Wait {
				ctx, stop = context.WithTimeout(t.Context(), 100*time.Millisecond)
			}
			p := fill(65536, byte(i+1))
			if err = l.WriteAt(ctx, p, int64(off)); err == nil {
				copy(want[off:], p)
			}
			stop()
			if i > 100 {
				t.Fatal("the journal has no end")
			}
		}
		if full == journal.Wait && !errors.Is(err, context.DeadlineExceeded) || full == journal.Fail && !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("a full journal: %v", err)
		}
		flush(t, l)
		until(t, "trouble", func() bool { return l.Stats().Err != nil })
		if err := same(t.Context(), l, want); err != nil {
			t.Error(err)
		}
		r.store.set(0, false)
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		for { // there is room again, by and by
			if err = l.WriteAt(ctx, fill(65536, 7), 0); err == nil || ctx.Err() != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if err != nil {
			t.Fatal("after the store came back: ", err)
		}
		copy(want, fill(65536, 7))
		if err := l.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := same(t.Context(), l, want); err != nil {
			t.Error(err)
		}
		if l.Stats().Err != nil {
			t.Error("the store is there again: ", l.Stats().Err)
		}
		closeLog(t, l)
	}
}

// Who waits for room is told when there will never be any.
func TestFencedWhileFull(t *testing.T) {
	r := newRig(t, 8<<20)
	l := r.create(t)
	r.store.set(0, true)
	done := make(chan error)
	go func() {
		for i := int64(0); ; i++ {
			if err := l.WriteAt(context.Background(), fill(65536, 1), i%100*65536); err != nil {
				done <- err
				return
			}
		}
	}()
	until(t, "a full journal", func() bool { return l.j.Stats().Bytes >= r.cfg.JournalLimit*3/4 })
	time.Sleep(20 * time.Millisecond)
	r.heads.take()
	r.store.set(0, false)
	select {
	case err := <-done:
		if !errors.Is(err, ErrFenced) {
			t.Errorf("the write that waited: %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the write that waited still does")
	}
	closeLog(t, l)
}

func TestQuota(t *testing.T) {
	r := newRig(t, 1<<20)
	r.cfg.Quota = 64 << 10
	l := r.create(t)
	for i := range 16 {
		write(t, l, 1, int64(i)*4096)
	}
	if err := l.WriteAt(t.Context(), fill(4096, 1), 512<<10); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("beyond the quota: %v", err)
	}
	for i := range 64 {
		write(t, l, 2, int64(i%16)*4096) // over what is there
	}
	if err := l.Discard(t.Context(), 0, 8192); err != nil {
		t.Fatal(err)
	}
	write(t, l, 3, 512<<10)
	if err := l.Zero(t.Context(), 600<<10, 4096, block.ZeroAllocated); err != nil {
		t.Error(err)
	}
	if err := l.WriteAt(t.Context(), fill(4096, 1), 700<<10); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("beyond the quota again: %v", err)
	}
	write(t, l, 4, 600<<10) // its space was kept
	closeLog(t, l)
}

func TestResize(t *testing.T) {
	r := newRig(t, 256<<10)
	l := r.create(t)
	want := fill(256<<10, 5)
	if err := l.WriteAt(t.Context(), want, 0); err != nil {
		t.Fatal(err)
	}
	id, err := l.Snapshot(t.Context(), "before")
	if err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	for _, size := range []int64{100_000, 300_000, 1, 512 << 10} {
		r.cfg.Size = size
		l = r.open(t)
		if l.Size() != size {
			t.Fatalf("size %d, want %d", l.Size(), size)
		}
		want = append(want[:min(int64(len(want)), size)], make([]byte, max(0, size-int64(len(want))))...)
		if err := same(t.Context(), l, want); err != nil {
			t.Fatalf("resized to %d: %v", size, err)
		}
		// What is new is zero even over a base.
		p := make([]byte, size)
		if err := l.ReadOver(t.Context(), sevens(size), p, 0); err != nil || !slices.Equal(p, want) {
			t.Fatalf("resized to %d, over a base: %v", size, err)
		}
		if err := l.WriteAt(t.Context(), []byte{9}, size-1); err != nil {
			t.Fatal(err)
		}
		want[size-1] = 9
		closeLog(t, l)
		r.cfg.Size = 0
		l = r.open(t)
		if err := same(t.Context(), l, want); err != nil {
			t.Fatalf("resized to %d, opened again: %v", size, err)
		}
		closeLog(t, l)
	}
	v, err := View(t.Context(), r.cfg, id)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(same(t.Context(), v, fill(256<<10, 5)), v.Close()); err != nil {
		t.Error("the snapshot before: ", err)
	}
}

// sevens is a base.
type sevens int64

func (s sevens) Size() int64 { return int64(s) }

func (s sevens) ReadAt(_ context.Context, p []byte, _ int64) error {
	copy(p, fill(len(p), 7))
	return nil
}
