package blocktest

import (
	"math/rand/v2"
	"testing"

	"github.com/seed-478a8fee/platter/backends/block"
)

// Benchmark measures r: in order by 1 MiB, at random by 4 KiB, the same from
// many goroutines, and a walk over its extents. r should hold 8 MiB or more.
func Benchmark(b *testing.B, r block.Reader) {
	b.Run("sequential-1M", func(b *testing.B) { sequential(b, r, 1<<20) })
	b.Run("random-4k", func(b *testing.B) { random(b, r, 4<<10) })
	b.Run("parallel-4k", func(b *testing.B) { parallel(b, r, 4<<10) })
	b.Run("extents", func(b *testing.B) { walk(b, r) })
}

// BenchmarkDevice measures the writing of d, whose bytes it changes: at random
// by 4 KiB, the same from many goroutines, and each write with a flush.
func BenchmarkDevice(b *testing.B, d block.Device) {
	b.Run("write-4k", func(b *testing.B) { writes(b, d, 4<<10, false) })
	b.Run("write-64k", func(b *testing.B) { writes(b, d, 64<<10, false) })
	b.Run("write-4k-flush", func(b *testing.B) { writes(b, d, 4<<10, true) })
	b.Run("parallel-write-4k", func(b *testing.B) { parallelWrites(b, d, 4<<10) })
}

func sequential(b *testing.B, r block.Reader, n int64) {
	n = min(n, r.Size())
	p := make([]byte, n)
	b.SetBytes(n)
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if off > r.Size()-n {
			off = 0
		}
		if err := r.ReadAt(b.Context(), p, off); err != nil {
			b.Fatal(err)
		}
		off += n
	}
}

// slot chooses an aligned range of n bytes.
func slot(rng *rand.Rand, size, n int64) int64 {
	return rng.Int64N(max(size/n, 1)) * n
}

func random(b *testing.B, r block.Reader, n int64) {
	rng := rand.New(rand.NewPCG(9, 9))
	n = min(n, r.Size())
	p := make([]byte, n)
	b.SetBytes(n)
	b.ReportAllocs()
	for b.Loop() {
		if err := r.ReadAt(b.Context(), p, slot(rng, r.Size(), n)); err != nil {
			b.Fatal(err)
		}
	}
}

func parallel(b *testing.B, r block.Reader, n int64) {
	n = min(n, r.Size())
	b.SetBytes(n)
	b.ReportAllocs()
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		rng := rand.New(rand.NewPCG(rand.Uint64(), 9))
		p := make([]byte, n)
		for pb.Next() {
			if err := r.ReadAt(b.Context(), p, slot(rng, r.Size(), n)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func walk(b *testing.B, r block.Reader) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := block.Stored(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

func writes(b *testing.B, d block.Device, n int64, flush bool) {
	rng := rand.New(rand.NewPCG(10, 10))
	p := make([]byte, min(n, d.Size()))
	fill(rng, p)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		err := d.WriteAt(b.Context(), p, slot(rng, d.Size(), int64(len(p))))
		if err == nil && flush {
			err = d.Flush(b.Context())
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func parallelWrites(b *testing.B, d block.Device, n int64) {
	n = min(n, d.Size())
	b.SetBytes(n)
	b.ReportAllocs()
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		rng := rand.New(rand.NewPCG(rand.Uint64(), 11))
		p := make([]byte, n)
		fill(rng, p)
		for pb.Next() {
			if err := d.WriteAt(b.Context(), p, slot(rng, d.Size(), n)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
