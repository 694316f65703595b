package journal

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-478a8fee/platter/backends/localfs"
)

const block = 4096

// each runs do b.N times in all, on n goroutines.
func each(b *testing.B, n int, do func(worker, i int)) {
	b.Helper()
	b.SetBytes(block)
	b.ReportAllocs()
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range n {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				do(w, int(i))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

func benchJournal(b *testing.B, workers, flushEach int) {
	j, err := Create(b.Context(), Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	recs := make([][]Record, workers)
	for w := range recs {
		recs[w] = []Record{{Kind: Write, Len: block, Data: make([]byte, block)}}
		for i := range recs[w][0].Data {
			recs[w][0].Data[i] = byte(rand.Uint32())
		}
	}
	ctx := context.Background()
	// What was uploaded is trimmed, as it is when the store keeps up.
	var trimmed atomic.Int64
	each(b, workers, func(w, i int) {
		r := recs[w]
		r[0].Off = int64(i) * block
		if err := j.Append(ctx, r); err != nil {
			b.Error(err)
		}
		if flushEach > 0 && i%flushEach == 0 {
			if err := j.Sync(ctx); err != nil {
				b.Error(err)
			}
		}
		if at := r[0].Next; at-trimmed.Load() > 256<<20 && trimmed.Swap(at) < at-128<<20 {
			if err := j.Trim(at - 128<<20); err != nil {
				b.Error(err)
			}
		}
	})
}

// benchRaw writes the same blocks, one behind the other, to one file that has
// its space, and calls fdatasync itself.
func benchRaw(b *testing.B, workers, flushEach int) {
	f, err := localfs.OS().Open(filepath.Join(b.TempDir(), "f"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const size = 256 << 20
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	if err := localfs.Allocate(f, 0, size); err != nil {
		b.Fatal(err)
	}
	p := make([]byte, block)
	for i := range p {
		p[i] = byte(rand.Uint32())
	}
	each(b, workers, func(w, i int) {
		if _, err := f.WriteAt(p, int64(i)*block%size); err != nil {
			b.Error(err)
		}
		if flushEach > 0 && i%flushEach == 0 {
			if err := f.Sync(); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	for _, c := range []struct {
		name           string
		workers, flush int
	}{
		{"writers=1/flush=1", 1, 1},
		{"writers=32/flush=1", 32, 1},
		{"writers=1/flush=32", 1, 32},
		{"writers=32/flush=32", 32, 32},
		{"writers=1/flush=none", 1, 0},
		{"writers=32/flush=none", 32, 0},
	} {
		b.Run(c.name+"/journal", func(b *testing.B) { benchJournal(b, c.workers, c.flush) })
		b.Run(c.name+"/raw", func(b *testing.B) { benchRaw(b, c.workers, c.flush) })
	}
}

func BenchmarkReadAt(b *testing.B) {
	j, err := Create(b.Context(), Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	var at []int64
	for range 10000 {
		recs := []Record{{Kind: Write, Len: block, Data: make([]byte, block)}}
		if err := j.Append(b.Context(), recs); err != nil {
			b.Fatal(err)
		}
		at = append(at, recs[0].Pos)
	}
	p := make([]byte, block)
	b.SetBytes(block)
	for b.Loop() {
		if err := j.ReadAt(p, at[rand.IntN(len(at))]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen opens a journal of 512 MiB: all of it is read, or what was not
// uploaded, a tenth.
func BenchmarkOpen(b *testing.B) {
	cfg := Config{Dir: b.TempDir()}
	j, err := Create(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	const n = 512 << 20
	data := make([]byte, block)
	var since int64
	for i := range n / block {
		recs := []Record{{Kind: Write, Len: block, Data: data}}
		if err := j.Append(b.Context(), recs); err != nil {
			b.Fatal(err)
		}
		if i == n/block*9/10 {
			since = recs[0].Next
		}
	}
	for _, c := range []struct {
		name  string
		since int64
	}{{"all", 0}, {"tenth", since}} {
		cfg.Since = c.since
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(n)
			for b.Loop() {
				j.Close()
				if j, err = Open(b.Context(), cfg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	j.Close()
}
