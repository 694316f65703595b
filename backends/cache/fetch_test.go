package cache_test

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/localfs/crashfs"
	"github.com/seed-478a8fee/platter/backends/probe"
)

// memory is a configuration that keeps everything in memory.
func memory() cache.Config { return cache.Config{Dir: "/cache", FS: crashfs.New()} }

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// slow lets every read of f take d.
func slow(f *far, d time.Duration) {
	f.hook = func(ctx context.Context, c *probe.Call, do func() error) error {
		if err := sleep(ctx, d); err != nil {
			return err
		}
		return do()
	}
}

// TestOneFetch: who wants what somebody fetches already waits for it, and who
// gives up harms nobody.
func TestOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(1 << 20)
		slow(f, time.Second)
		c := open(t, memory())
		r := reader(t, c, "o", f)
		impatient, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		var gaveUp atomic.Int64
		wg.Go(func() { // the one who began it
			if err := r.ReadAt(impatient, make([]byte, 65536), 0); errors.Is(err, context.DeadlineExceeded) {
				gaveUp.Add(1)
			}
		})
		synctest.Wait()
		began := time.Now()
		for i := range int64(16) {
			wg.Go(func() { read(t, r, f, i*1000, 65536-i*1000) })
		}
		wg.Wait()
		if took := time.Since(began); took != time.Second || gaveUp.Load() != 1 {
			t.Errorf("waited %v, %d gave up", took, gaveUp.Load())
		}
		if f.reads.Load() != 1 || f.bytes.Load() != 65536 {
			t.Errorf("%d fetches of %d bytes", f.reads.Load(), f.bytes.Load())
		}
		if s := c.Stats(); s.Waits != 16 {
			t.Errorf("%+v", s)
		}
	})
}

// TestHedge: a fetch that takes unusually long is sent out a second time,
// once, and only for a part of all.
func TestHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(64 << 20)
		var stuck atomic.Int64
		f.hook = func(ctx context.Context, c *probe.Call, do func() error) error {
			d := 20 * time.Millisecond
			if stuck.Add(-1) >= 0 {
				d = time.Hour
			}
			if err := sleep(ctx, d); err != nil {
				return err
			}
			return do()
		}
		cfg := memory()
		cfg.ReadAhead = -1
		c := open(t, cfg)
		r := reader(t, c, "o", f)
		for i := range int64(100) {
			read(t, r, f, i<<16, 65536)
		}
		stuck.Store(1)
		began := time.Now()
		read(t, r, f, 100<<16, 65536)
		if took := time.Since(began); took != 42500*time.Microsecond {
			t.Errorf("with one stuck fetch a read took %v, want 22.5 ms until it is stuck and 20 ms", took)
		}
		if s := c.Stats(); s.Hedges != 1 || s.HedgesWon != 1 {
			t.Errorf("%+v", s)
		}
		// A store that is slow throughout is not asked twice throughout.
		slow(f, time.Second)
		before := f.bytes.Load()
		for i := int64(101); i < 501; i++ {
			read(t, r, f, i<<16, 65536)
		}
		if extra := f.bytes.Load() - before - 400<<16; extra > 25<<16 {
			t.Errorf("%d bytes were fetched twice of %d", extra, 400<<16)
		}
		r.Close()
	})
}

// TestLimits: no more fetches run than may, and those that somebody waits for
// go first.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(16 << 20)
		var running, most atomic.Int64
		f.hook = func(ctx context.Context, c *probe.Call, do func() error) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			if err := sleep(ctx, time.Second); err != nil {
				return err
			}
			return do()
		}
		cfg := memory()
		cfg.Parallel, cfg.ReadAhead, cfg.NoHedge = 8, -1, true
		c := open(t, cfg)
		r := reader(t, c, "o", f)
		var wg sync.WaitGroup
		for i := range int64(30) {
			wg.Go(func() { r.Prefetch(t.Context(), i<<17, 4096) })
		}
		synctest.Wait()
		if s := c.Stats(); s.Running != 6 || s.Waiting != 24 {
			t.Errorf("prefetching: %d run and %d wait", s.Running, s.Waiting)
		}
		began := time.Now()
		read(t, r, f, 8<<20, 4096)  // there is always room for some demand
		read(t, r, f, 29<<17, 4096) // what waits behind is brought forward
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("two reads beside a prefetch took %v", took)
		}
		for i := range int64(20) {
			wg.Go(func() { read(t, r, f, 9<<20+i<<17, 4096) })
		}
		synctest.Wait()
		if s := c.Stats(); s.Running != 8 {
			t.Errorf("reading: %d run", s.Running)
		}
		wg.Wait()
		if most.Load() != 8 {
			t.Errorf("%d fetches ran at a time", most.Load())
		}
	})
}

// TestReadAhead: reading in order has ever more fetched ahead, so that it
// hardly waits; reading at random has nothing.
func TestReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(128 << 20)
		slow(f, 20*time.Millisecond)
		cfg := memory()
		cfg.NoHedge = true
		c := open(t, cfg)
		r := reader(t, c, "o", f)
		for i := range int64(1024) { // half of it, by 64 KiB
			read(t, r, f, i<<16, 1<<16)
		}
		began, before := time.Now(), f.reads.Load()
		for i := int64(1024); i < 1536; i++ {
			read(t, r, f, i<<16, 1<<16)
			sleep(t.Context(), 250*time.Microsecond) // about 260 MB/s, 128 ms in all
		}
		if took := time.Since(began); took > 190*time.Millisecond {
			t.Errorf("32 MiB in order took %v", took)
		}
		synctest.Wait()
		if n := f.reads.Load() - before; n > 64 || f.largest > 4<<20 {
			t.Errorf("%d fetches, the largest of %d bytes", n, f.largest)
		}
		ahead := f.bytes.Load() - 96<<20
		if ahead > 8<<20 || ahead < 4<<20 {
			t.Errorf("%d bytes are fetched ahead", ahead)
		}
	})
}

// TestTrouble: errors reach those who asked, and nobody else.
func TestTrouble(t *testing.T) {
	f := newFar(8 << 20)
	broken := errors.New("broken")
	var failing atomic.Bool
	f.hook = func(ctx context.Context, c *probe.Call, do func() error) error {
		if failing.Load() && c.Op == probe.Read && c.Off < 1<<20+100_000 && c.Off+c.N > 1<<20+30_000 {
			return broken
		}
		return do()
	}
	c := open(t, memory())
	r := reader(t, c, "o", f)
	failing.Store(true)
	read(t, r, f, 1<<20, 20_000) // the rest of the part is fetched with it, and fails
	if err := r.ReadAt(t.Context(), make([]byte, 4096), 1<<20+65536); !errors.Is(err, broken) {
		t.Errorf("ReadAt = %v", err)
	}
	failing.Store(false)
	read(t, r, f, 0, 8<<20) // errors are not kept
	if s := c.Stats(); s.FarErrors < 2 || s.Degraded != "" {
		t.Errorf("%+v", s)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := r.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("ReadAt after Close = %v", err)
	}
	if err := r.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Close after Close = %v", err)
	}
}

// TestOpening: an object that cannot be opened can be a moment later; one of
// another size is not the one.
func TestOpening(t *testing.T) {
	f := newFar(100_000)
	c := open(t, memory())
	fails := 1
	r, err := c.Reader("o", 100_000, func(ctx context.Context) (block.ReadCloser, error) {
		if fails--; fails >= 0 {
			return nil, syscall.EHOSTUNREACH
		}
		return f.Open(ctx)
	}, cache.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("ReadAt = %v", err)
	}
	read(t, r, f, 0, 100_000)
	if _, err := c.Reader("o", 99_999, f.Open, cache.ReaderConfig{}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("another size: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	other, err := c.Reader("other", 99_999, f.Open, cache.ReaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.ReadAt(t.Context(), make([]byte, 1), 0); err == nil {
		t.Error("an object of another size was read")
	}
	if err := other.Close(); err != nil || f.open.Load() != 0 {
		t.Errorf("Close = %v, %d open", err, f.open.Load())
	}
	for _, bad := range []func() (*cache.Reader, error){
		func() (*cache.Reader, error) { return c.Reader("", 1, f.Open, cache.ReaderConfig{}) },
		func() (*cache.Reader, error) { return c.Reader("x", -1, f.Open, cache.ReaderConfig{}) },
		func() (*cache.Reader, error) { return c.Reader("x", 1, nil, cache.ReaderConfig{}) },
	} {
		if _, err := bad(); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Reader = %v", err)
		}
	}
}

// TestCloseBetween: a Reader may close while another of the same object goes
// on, and while fetches that nobody waits for are under way.
func TestCloseBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(8 << 20)
		slow(f, time.Minute)
		c := open(t, memory())
		one, two := reader(t, c, "o", f), reader(t, c, "o", f)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := one.ReadAt(ctx, make([]byte, 4096), 0); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ReadAt = %v", err)
		}
		if err := one.Close(); err != nil {
			t.Error(err)
		}
		read(t, two, f, 0, 4096)
		if n := f.reads.Load(); n != 1 {
			t.Errorf("%d fetches", n)
		}
		if err := two.ReadAt(ctx, make([]byte, 4096), 1<<20); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ReadAt = %v", err)
		}
		began := time.Now()
		if err := two.Close(); err != nil || time.Since(began) > 0 {
			t.Errorf("Close = %v after %v", err, time.Since(began))
		}
	})
}

// TestExtents: what the far object says of its holes is asked once, and that
// it has none is remembered for ever.
func TestExtents(t *testing.T) {
	cfg := memory()
	flat, holes := newFar(4<<20), newFar(4<<20)
	for i := 0; i < len(flat.data); i += 4096 {
		flat.data[i], holes.data[i] = 1, 1
	}
	clear(holes.data[1<<20 : 2<<20])
	for life := range 2 {
		c := open(t, cfg)
		for _, f := range []*far{flat, holes} {
			id := "holes"
			if f == flat {
				id = "flat"
			}
			r := reader(t, c, id, f)
			read(t, r, f, 0, 4096)
			for range 3 {
				n, err := block.Stored(t.Context(), r)
				if err != nil || f == flat && n != 4<<20 || f == holes && n != 3<<20 {
					t.Errorf("life %d, %s: %d bytes of data, %v", life, id, n, err)
				}
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := flat.opened.Load(), holes.opened.Load(); a != 1 || b != 2 {
		t.Errorf("the far objects were opened %d and %d times", a, b)
	}
}
