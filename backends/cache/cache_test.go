package cache_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/cache"
	"github.com/seed-478a8fee/platter/backends/mem"
	"github.com/seed-478a8fee/platter/backends/probe"
	"github.com/seed-478a8fee/platter/backends/storetest"
)

// A far is an object far away that counts what is asked of it.
type far struct {
	data                       []byte
	hook                       probe.Hook
	opened, open, reads, bytes atomic.Int64
	mu                         sync.Mutex
	largest                    int64
}

func newFar(size int) *far { return &far{data: storetest.Bytes(uint64(size), size)} }

func (f *far) Open(context.Context) (block.ReadCloser, error) {
	f.opened.Add(1)
	f.open.Add(1)
	r := probe.Around(mem.Reader(f.data), func(ctx context.Context, c *probe.Call, do func() error) error {
		if c.Op == probe.Read {
			f.reads.Add(1)
			f.bytes.Add(c.N)
			f.mu.Lock()
			f.largest = max(f.largest, c.N)
			f.mu.Unlock()
		}
		if f.hook != nil {
			return f.hook(ctx, c, do)
		}
		return do()
	})
	return &farReader{r, f}, nil
}

type farReader struct {
	r block.Reader
	f *far
}

func (r *farReader) Size() int64 { return r.r.Size() }
func (r *farReader) ReadAt(ctx context.Context, p []byte, off int64) error {
	return r.r.ReadAt(ctx, p, off)
}
func (r *farReader) Extent(ctx context.Context, off, n int64) (block.Extent, error) {
	return block.ExtentAt(ctx, r.r, off, n)
}
func (r *farReader) Close() error { r.f.open.Add(-1); return nil }

func open(t testing.TB, cfg cache.Config) *cache.Cache {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	c, err := cache.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func reader(t testing.TB, c *cache.Cache, id string, f *far) *cache.Reader {
	t.Helper()
	r, err := c.Reader(id, int64(len(f.data)), f.Open, cache.ReaderConfig{Store: "s"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
			t.Error(err)
		}
		if n := f.open.Load(); n != 0 {
			t.Errorf("%d far objects are open after the last Close", n)
		}
	})
	return r
}

func read(t testing.TB, r block.Reader, f *far, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	if err := r.ReadAt(t.Context(), p, off); err != nil {
		t.Fatalf("read %d+%d: %v", off, n, err)
	}
	if string(p) != string(f.data[off:off+n]) {
		t.Fatalf("read %d+%d: other bytes", off, n)
	}
}

func TestReader(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 65536, 524288, 524289, 3_000_001} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := newFar(size)
			if size > 200_000 {
				clear(f.data[70_000:150_000])
			}
			c := open(t, cache.Config{})
			r := reader(t, c, "o", f)
			blocktest.TestReader(t, r, f.data)
			blocktest.TestReader(t, r, f.data)
			if s := c.Stats(); s.FarBytes > int64(size) || s.Corrupt != 0 || s.Skipped != 0 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestSmallCache: nothing fits, all is right.
func TestSmallCache(t *testing.T) {
	f := newFar(3_000_001)
	c := open(t, cache.Config{Size: 1 << 20})
	r := reader(t, c, "o", f)
	blocktest.TestReader(t, r, f.data)
	settled(c)
	if s := c.Stats(); s.Used > s.Size || s.Evicted == 0 || s.Corrupt != 0 {
		t.Errorf("%+v", s)
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	f := newFar(5_000_001)
	for i := range 3 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			c := open(t, cache.Config{Dir: dir})
			r := reader(t, c, "o", f)
			blocktest.TestReader(t, probe.Around(r, noExtents), f.data)
			if size, ok := c.Size("o"); !ok || size != int64(len(f.data)) {
				t.Errorf("Size() = %d, %v", size, ok)
			}
			if got := f.opened.Load(); got != 1 {
				t.Errorf("the far object was opened %d times in %d lives", got, i+1)
			}
		})
	}
	if n := f.bytes.Load(); n != int64(len(f.data)) {
		t.Errorf("%d bytes were fetched of %d", n, len(f.data))
	}
}

func noExtents(_ context.Context, c *probe.Call, do func() error) error {
	if c.Op == probe.Extent {
		c.Extent = block.Extent{Off: c.Off, Len: c.N}
		return block.CheckRange(c.Off, c.N, 5_000_001)
	}
	return do()
}

// TestBound: whatever is read, the far side is asked for at most five quarters
// of it and a constant.
func TestBound(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	f := newFar(64 << 20)
	patterns := map[string]func(i int) (off, n int64){
		"random 4K":   func(int) (int64, int64) { return rng.Int64N(16<<10) * 4096, 4096 },
		"random 32K":  func(int) (int64, int64) { return rng.Int64N(2<<10) * 32768, 32768 },
		"forward":     func(i int) (int64, int64) { return int64(i) * 32768 % (64 << 20), 32768 },
		"stride":      func(i int) (int64, int64) { return int64(i) * 65536 % (64 << 20), 4096 },
		"backward":    func(i int) (int64, int64) { return 64<<20 - int64(i%1024+1)*65536, 16384 },
		"short runs":  func(i int) (int64, int64) { return (int64(i/40)*7919%64)<<20 + int64(i%40)*16384, 16384 },
		"interleaved": func(i int) (int64, int64) { return int64(i%7)<<23 + int64(i/7)*8192%(8<<20), 8192 },
	}
	for name, next := range patterns {
		t.Run(name, func(t *testing.T) {
			cfg := memory()
			cfg.NoHedge = true
			c := open(t, cfg)
			r := reader(t, c, "o", f)
			before := f.bytes.Load()
			asked := make(map[int64]bool)
			for i := range 1500 {
				off, n := next(i)
				read(t, r, f, off, n)
				for g := off / 4096; g < (off+n)/4096; g++ {
					asked[g] = true
				}
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			got, want := f.bytes.Load()-before, int64(len(asked))*4096
			t.Logf("asked for %d KiB, fetched %.3f times that in %d fetches", want>>10, float64(got)/float64(want), c.Stats().Fetches)
			if got > want+want/4+512<<10 {
				t.Errorf("fetched %d bytes for %d", got, want)
			}
		})
	}
}

// settled waits until what was fetched is kept.
func settled(c *cache.Cache) {
	for s := c.Stats(); s.Running+s.Waiting > 0 || s.Unkept > 0; s = c.Stats() {
		time.Sleep(time.Millisecond)
	}
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }
