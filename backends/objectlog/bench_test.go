package objectlog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/mem"
)

func benchLog(b *testing.B, size int64) *Log {
	b.Helper()
	store := mem.New()
	heads := &catalog{store: store}
	l, err := Create(context.Background(), Config{
		ID: "bench", Store: store, Prefix: "b/", Heads: heads, Epoch: heads.take(), Size: size, Dir: b.TempDir() + "/j",
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

func BenchmarkDevice(b *testing.B) {
	l := benchLog(b, 256<<20)
	blocktest.BenchmarkDevice(b, l)
	blocktest.Benchmark(b, l)
}

// BenchmarkWrites writes 4 KiB at random, many at a time, each worker with a
// flush after every so many.
func BenchmarkWrites(b *testing.B) {
	for _, every := range []int{0, 32, 1} {
		b.Run(fmt.Sprintf("depth-32/flush-every-%d", every), func(b *testing.B) {
			const size, depth = 1 << 30, 32
			l := benchLog(b, size)
			b.SetBytes(4096)
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			b.ResetTimer()
			for w := range depth {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(uint64(w), 1))
					p := fill(4096, byte(w))
					for i := 1; left.Add(-1) >= 0; i++ {
						err := l.WriteAt(context.Background(), p, rng.Int64N(size/4096)*4096)
						if err == nil && every > 0 && i%every == 0 {
							err = l.Flush(context.Background())
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "iops")
		})
	}
}

// BenchmarkOpen opens a log whose map has many extents.
func BenchmarkOpen(b *testing.B) {
	store := mem.New()
	heads := &catalog{store: store}
	cfg := Config{ID: "bench", Store: store, Prefix: "b/", Heads: heads, Epoch: heads.take(), Size: 4 << 30, Dir: b.TempDir() + "/j"}
	l, err := Create(context.Background(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	p := fill(4096, 1)
	for range 100_000 {
		if err := l.WriteAt(b.Context(), p, rng.Int64N(cfg.Size/4096)*4096); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Drain(b.Context()); err != nil {
		b.Fatal(err)
	}
	if _, err := l.Snapshot(b.Context(), "x"); err != nil {
		b.Fatal(err)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	cfg.Size = 0
	for b.Loop() {
		cfg.Epoch = heads.take()
		began := time.Now()
		l, err := Open(b.Context(), cfg)
		if err == nil {
			err = l.ReadAt(b.Context(), p, 0)
		}
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms")
		b.StopTimer()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
