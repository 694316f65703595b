package cache_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
	"github.com/seed-478a8fee/platter/backends/block/blocktest"
	"github.com/seed-478a8fee/platter/backends/cache"
)

// BenchmarkHit measures reads that the cache has, beside the same reads of a
// plain file.
func BenchmarkHit(b *testing.B) {
	f := newFar(64 << 20)
	b.Run("file", func(b *testing.B) {
		name := filepath.Join(b.TempDir(), "f")
		if err := os.WriteFile(name, f.data, 0o600); err != nil {
			b.Fatal(err)
		}
		file, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		defer file.Close()
		blocktest.Benchmark(b, block.FromReaderAt(file, int64(len(f.data))))
	})
	b.Run("cache", func(b *testing.B) {
		c := open(b, cache.Config{})
		r := reader(b, c, "o", f)
		if err := r.Prefetch(b.Context(), 0, r.Size()); err != nil {
			b.Fatal(err)
		}
		blocktest.Benchmark(b, r)
	})
}

// BenchmarkMiss measures reads of 4 KiB that go to a far object which answers
// at once: what the cache itself costs.
func BenchmarkMiss(b *testing.B) {
	f := newFar(256 << 20)
	c := open(b, cache.Config{ReadAhead: -1, Size: 4 << 30})
	p := make([]byte, 4096)
	b.ReportAllocs()
	var r *cache.Reader
	for i := 0; b.Loop(); i++ {
		if i%(64<<10) == 0 { // all of an object was read: take another
			if r != nil {
				r.Close()
			}
			r = reader(b, c, fmt.Sprint(i), f)
		}
		at := int64(i) * 40503 % (64 << 10) // every grain once, none beside the one before
		if err := r.ReadAt(context.Background(), p, at*4096); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReaders measures sixteen readers of a cold object, one after the
// other region.
func BenchmarkReaders(b *testing.B) {
	f := newFar(256 << 20)
	c := open(b, cache.Config{})
	r := reader(b, c, "o", f)
	var at atomic.Int64
	b.SetBytes(64 << 10)
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		p := make([]byte, 64<<10)
		for pb.Next() {
			if err := r.ReadAt(context.Background(), p, at.Add(1)%4096*(64<<10)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
